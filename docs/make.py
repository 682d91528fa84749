"""Write docs/images and docs/output anew, from what the scripts do today.

    python docs/make.py --data-dir data

Runs every script as README says, in a folder of its own: about ten minutes on two cores, with MNIST
in --data-dir.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import cv2
from PIL import Image
from torchvision import datasets

DOCS = Path(__file__).resolve().parent
IMAGES = [  # below outputs/
    "linear_regression/linear-fit.png",
    "logistic_regression/logistic-mnist-curves.png",
    "cnn_mnist/convnet-mnist-curves.png",
    "cnn_mnist/convnet-mnist-mistakes.png",
    "cnn_mnist/convnet-mnist-predictions.png",
    "cnn_mnist/lenet-mnist-filters.png",
    "unet_doubleconv/unet-masks.png",
    "cv2_tensor/cv2-tensor-steps.png",
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir", type=Path, default=Path("data"), help="where MNIST is")
    data_dir = parser.parse_args().data_dir.resolve()
    mnist = datasets.MNIST(data_dir, train=False, download=True)
    data = ["--data-dir", str(data_dir)]
    runs = {  # transcript -> script, flags shown, flags not shown
        "pytorch_basic": ("pytorch_basic.py", [], []),
        "linear_regression": ("linear_regression.py", [], []),
        "logistic_regression": ("logistic_regression.py", [], data),
        "nn_demo": ("nn_demo.py", [], data),
        "cnn_mnist-convnet": ("cnn_mnist.py", [], data),
        "cnn_mnist-lenet": ("cnn_mnist.py", ["--model", "lenet"], data),
        "cnn_mnist-resnet": ("cnn_mnist.py", ["--model", "resnet"], data),
        "cnn_mnist-predict": ("cnn_mnist.py", ["--predict", "four.png", "nine.png"], []),
        "unet_doubleconv": ("unet_doubleconv.py", [], []),
        "cv2_tensor": ("cv2_tensor.py", [], []),
    }
    with tempfile.TemporaryDirectory() as folder:
        for name, index in (("four.png", 4), ("nine.png", 7)):  # dark ink on light paper
            ink = cv2.resize(mnist.data[index].numpy(), (280, 280), interpolation=cv2.INTER_CUBIC)
            cv2.imwrite(str(Path(folder, name)), (230 - 0.75 * ink).astype("uint8"))
        for transcript, (script, shown, hidden) in runs.items():
            print(script, *shown, flush=True)
            run = subprocess.run(
                [sys.executable, DOCS.parent / script, *shown, *hidden],
                cwd=folder,
                env=os.environ | {"PYTHONIOENCODING": "utf-8"},
                stdout=subprocess.PIPE,
                check=True,
            )
            command = " ".join(["$ python", script, *shown])
            file = DOCS / "output" / f"{transcript}.txt"
            file.write_bytes(f"{command}\n".encode() + run.stdout)
        for image in IMAGES:
            picture = Image.open(Path(folder, "outputs", image)).convert("RGB")
            picture.thumbnail((800, 900))  # README's width; 200 colors keep it below 200 KB
            picture.quantize(200, kmeans=1).save(DOCS / "images" / Path(image).name, optimize=True)


if __name__ == "__main__":
    main()

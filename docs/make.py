"""Write docs/images and docs/output anew, from what the scripts do today, and correct the links.

    python docs/make.py --data-dir data   # about ten minutes on two cores, with MNIST in --data-dir
    python docs/make.py --links-only      # only the line numbers in docs/notes.md, notes.zh.md

Each script runs as the pages say, in a folder of its own.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import cv2
from PIL import Image
from torchvision import datasets

DOCS = Path(__file__).resolve().parent
DIGITS = {"docs/images/four.png": 4, "docs/images/nine.png": 7}  # picture: which test image
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
    parser.add_argument("--links-only", action="store_true", help="run no script")
    args = parser.parse_args()
    if not args.links_only:
        run_scripts(args.data_dir.expanduser().resolve())
    for page in ("notes.md", "notes.zh.md"):
        correct_links(DOCS / page)


def run_scripts(data_dir: Path) -> None:
    mnist = datasets.MNIST(data_dir, train=False, download=True)
    data = ["--data-dir", str(data_dir)]
    digits = ["--dataset", "digits", "--epochs", "3"]
    runs = {  # transcript -> script, flags shown, flags not shown
        "pytorch_basic": ("pytorch_basic.py", [], []),
        "linear_regression": ("linear_regression.py", [], []),
        "logistic_regression": ("logistic_regression.py", [], data),
        "nn_demo": ("nn_demo.py", [], data),
        "cnn_mnist-digits": ("cnn_mnist.py", digits, []),  # before the weights for --predict
        "cnn_mnist-convnet": ("cnn_mnist.py", [], data),
        "cnn_mnist-lenet": ("cnn_mnist.py", ["--model", "lenet"], data),
        "cnn_mnist-resnet": ("cnn_mnist.py", ["--model", "resnet"], data),
        "cnn_mnist-predict": ("cnn_mnist.py", ["--predict", *DIGITS], []),
        "unet_doubleconv": ("unet_doubleconv.py", [], []),
        "cv2_tensor": ("cv2_tensor.py", [], []),
    }
    with tempfile.TemporaryDirectory() as folder:
        for name, index in DIGITS.items():  # dark ink on light paper
            ink = cv2.resize(mnist.data[index].numpy(), (448, 448), interpolation=cv2.INTER_CUBIC)
            for file in (Path(folder, name), DOCS.parent / name):
                file.parent.mkdir(parents=True, exist_ok=True)
                cv2.imencode(".png", (230 - 0.75 * ink).astype("uint8"))[1].tofile(file)
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
            picture.thumbnail((800, 900))  # a page's width; 200 colors keep it below 200 KB
            picture.quantize(200, kmeans=1).save(DOCS / "images" / Path(image).name, optimize=True)


def correct_links(page: Path) -> None:
    """`[heading](output/x.txt#LN)`: N becomes the first line of the transcript with the heading."""

    def correct(link: re.Match) -> str:
        heading, transcript = link["heading"].replace(r"\|", "|"), link["transcript"]
        lines = (DOCS / transcript).read_text(encoding="utf-8").splitlines()
        for number, line in enumerate(lines, start=1):
            if heading in line:
                return f"[{link['heading']}]({transcript}#L{number})"
        print(f"{page.name}: {heading!r} is not in {transcript}")
        return link[0]

    pattern = r"\[(?P<heading>[^\]]+)\]\((?P<transcript>output/[\w-]+\.txt)#L\d+\)"
    text = page.read_text(encoding="utf-8")
    page.write_text(re.sub(pattern, correct, text), encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()

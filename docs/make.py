"""Run the scripts, write what they print and draw to docs/output and docs/images, and correct the links.

    python docs/make.py --data-dir data   # This takes about ten minutes on two CPU cores.
    python docs/make.py --links-only      # This only corrects the line numbers in the links of the pages.

Each script runs in the same temporary folder, with the flags that its transcript shows. A link that leads to a
line of a script or of a transcript is found by its text, so it stays right when lines are added above it. If the
text of a link is not found, its page and its text are printed, and the exit code is 1.
"""

import argparse
import keyword
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

DOCS = Path(__file__).resolve().parent
PAGES = ["notes.md", "notes.zh.md", "notes-lines.md"]
DIGITS = {"docs/images/four.png": 4, "docs/images/nine.png": 7}  # The number says which test image is drawn.
IMAGES = [  # These files are below outputs/.
    "linear_regression/linear-fit.png",
    "logistic_regression/logistic-mnist-weights.png",
    "nn_demo/mlp-mnist-curves.png",
    "cnn_mnist/convnet-mnist-curves.png",
    "cnn_mnist/convnet-mnist-mistakes.png",
    "cnn_mnist/convnet-mnist-predictions.png",
    "unet_doubleconv/unet-masks.png",
    "cv2_tensor/cv2-tensor-steps.png",
]
# The label of a link is code or plain text. Its address is a line of a script or of a transcript.
LINK = re.compile(r"\[(`[^`]+`|[^\[\]`]+)\]\((\.\./[\w/]+\.py|output/[\w-]+\.txt)#L\d+\)")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data-dir", type=Path, default="data", help="folder of MNIST (default: %(default)s)")
    parser.add_argument("--links-only", action="store_true", help="correct the links, and run no script")
    args = parser.parse_args()
    if not args.links_only:
        run_scripts(args.data_dir.resolve())
    missing = []
    for name in PAGES:
        page = DOCS / name
        text, not_found = correct_links(page.read_text(encoding="utf-8"))
        page.write_text(text, encoding="utf-8", newline="\n")
        missing += [f"error: docs/{name}: {reason}" for reason in not_found]
    sys.exit("\n".join(missing) or None)


def run_scripts(data_dir: Path) -> None:
    """Run each script, and write its transcript. Then copy the pictures, made smaller, to docs/images."""
    import cv2
    from PIL import Image
    from torchvision import datasets

    mnist = datasets.MNIST(data_dir, train=False, download=True)
    data = ["--data-dir", str(data_dir)]
    runs = {  # The name of each transcript, the command that it shows, and flags that it does not show.
        "pytorch_basic": ("pytorch_basic.py", []),
        "linear_regression": ("linear_regression.py", []),
        "logistic_regression": ("logistic_regression.py", data),
        "nn_demo": ("nn_demo.py", data),
        "cnn_mnist-digits": ("cnn_mnist.py --dataset digits --epochs 3", []),
        "cnn_mnist-convnet": ("cnn_mnist.py", data),
        "cnn_mnist-lenet": ("cnn_mnist.py --model lenet", data),
        "cnn_mnist-resnet": ("cnn_mnist.py --model resnet", data),
        "own_data-digits": ("-m own_data.digits " + " ".join(DIGITS), []),
        "unet_doubleconv": ("unet_doubleconv.py", []),
        "cv2_tensor": ("cv2_tensor.py", []),
    }
    with tempfile.TemporaryDirectory() as folder:
        for name, index in DIGITS.items():  # Draw dark ink on light paper.
            ink = cv2.resize(mnist.data[index].numpy(), (448, 448), interpolation=cv2.INTER_CUBIC)
            for file in (Path(folder, name), DOCS.parent / name):
                file.parent.mkdir(parents=True, exist_ok=True)
                cv2.imencode(".png", (230 - 0.75 * ink).astype("uint8"))[1].tofile(file)
        for transcript, (command, hidden) in runs.items():
            print(command, flush=True)
            words = [str(DOCS.parent / word) if word.endswith(".py") else word for word in command.split()]
            run = subprocess.run(
                [sys.executable, *words, *hidden],
                cwd=folder,
                env=os.environ | {"PYTHONIOENCODING": "utf-8", "PYTHONPATH": str(DOCS.parent)},
                stdout=subprocess.PIPE,
                check=True,
            )
            file = DOCS / "output" / f"{transcript}.txt"
            file.write_bytes(f"$ python {command}\n".encode() + run.stdout)
        for image in IMAGES:
            picture = Image.open(Path(folder, "outputs", image)).convert("RGB")
            picture.thumbnail((800, 900))  # The page is not wider, and 200 colors keep the file below 200 KB.
            picture.quantize(200, kmeans=1).save(DOCS / "images" / Path(image).name, optimize=True)


def correct_links(page: str) -> tuple[str, list[str]]:
    """Return the text of a page with the right line numbers in its links, and the texts that are not found.

    A label that is a number leads to the line of a transcript where the code of the link before it is printed.
    """
    places = {}  # For each file, the line that the last link to it leads to.
    not_found = []

    def correct(link: re.Match) -> str:
        label, file = link[1], link[2]
        lines = (DOCS / file).read_text(encoding="utf-8").splitlines()
        if label.isdecimal():
            script = f"../{Path(file).stem}.py"
            number = printed_lines(DOCS / script, lines).get(places.get(script))
            label = str(number)
        elif file.endswith(".py"):
            number = find_code(label.strip("`"), lines, places.get(file, 0))
        else:
            text = label.replace(r"\|", "|")
            found = [number for number, line in enumerate(lines, start=1) if text in line]
            # Networks have several layers like "(1): ReLU()". The link leads to the next one.
            found.sort(key=lambda number: bool(re.match(r"\(\d\)", text)) and number <= places.get(file, 0))
            number = next(iter(found), None)
        if number is None:
            not_found.append(f"{link[1]} is not found in {file.removeprefix('../')}")
            return link[0]
        places[file] = number
        return f"[{label}]({file}#L{number})"

    return LINK.sub(correct, page), not_found


def find_code(text: str, lines: list[str], place: int) -> int | None:
    """Return the number of the line that defines the name `text`, or, if `text` is not a name, contains this code.

    If there are several, it is the next one after the line `place`, in the same function or class. If there is none,
    it is the first one outside all functions and classes.
    """
    code = squeeze(text.replace(r"\|", "|"))
    searches = [
        lambda line: squeeze(line.partition("#")[0]) == code,
        lambda line: code in squeeze(line),
    ]
    if re.fullmatch(r"[A-Za-z_]+", text) and not keyword.iskeyword(text):
        searches = [lambda line: re.match(rf"\s*(class|def) {text}\b|{text} \+?= ", line)]
    for search in searches:
        found = [number for number, line in enumerate(lines, start=1) if search(line)]
        if len(found) == 1:
            return found[0]
        if found:
            ends = (number for number, line in enumerate(lines, start=1) if number > place and line[:1].strip())
            end = next(ends, len(lines) + 1)
            inside = [number for number in found if place < number < end]
            outside = [number for number in found if lines[number - 1][:1].strip()]
            return next(iter(inside + outside), None)
    return None


def squeeze(code: str) -> str:
    """Remove the spaces, and use one kind of quotes, as neither matters to Python."""
    return re.sub(r"\s", "", code).replace("'", '"')


def printed_lines(script: Path, transcript: list[str]) -> dict[int, int]:
    """Return where a session shows each line of its script: a dict from line numbers to line numbers."""
    code = [line.strip() for line in script.read_text(encoding="utf-8").splitlines()]
    printed = {}
    place = next((number for number, line in enumerate(code) if line.startswith("def ")), 0)
    for number, line in enumerate(transcript, start=1):
        if line.startswith(">>> ") and line[4:].strip() in code[place:]:
            place = code.index(line[4:].strip(), place) + 1
            printed[place] = number
    return printed


if __name__ == "__main__":
    main()

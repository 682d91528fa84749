"""Logistic regression on MNIST: one linear layer, and the road from data to saved model.

Notes: Pytorch_logisticRegression.py：MINIST+逻辑回归实现训练测试

    python logistic_regression.py                    # MNIST, downloaded on the first run (11 MB)
    python logistic_regression.py --dataset digits   # no network: scikit-learn's small digits

Measured on 2 CPU cores with PyTorch 2.15: 82.5 % of MNIST's test images right with seed 0 (83.4 and
83.3 % with seeds 1 and 2), and far from its end: at this learning rate five epochs are few.

**Try** (MNIST, seed 0):

    --lr 0.1          # 91.9 %: about what a linear model can do
    --batch-size 10   # 89.3 %: ten times as many steps at the same rate
    --lr 10           # 86.8 %, and a loss that stays above 1: the steps overshoot
"""

import argparse
import math
import socket
import sys
import tempfile
import textwrap
import time
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, TensorDataset
from torchvision import datasets
from tqdm import tqdm

# The notes' hyperparameters. There are 1/42 as many digits to train on: more epochs.
EPOCHS = {"mnist": 5, "digits": 200}
BATCH_SIZE = 100
LEARNING_RATE = 0.001


class LogisticRegression(nn.Module):
    """Images (N, 1, 28, 28) to logits (N, 10): for each digit one weighted sum of 784 pixels.

    Logits are not probabilities: their rows do not sum to 1. `nn.CrossEntropyLoss` has the
    softmax inside, and the largest logit wins with or without it.
    """

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(28 * 28, 10)

    def forward(self, images: Tensor) -> Tensor:
        return self.linear(torch.flatten(images, 1))


def main(argv: Sequence[str] | None = None) -> dict:
    """Train, test, save and load again. Returns what was found; lists hold one value per epoch."""
    args = make_parser().parse_args(argv)
    device = choose_device(args.device)
    out_dir = make_out_dir(args.out_dir)
    torch.manual_seed(args.seed)

    dataset, train_images, train_labels, test_images, test_labels = load_data(
        args.dataset, args.data_dir, args.limit, device
    )
    train_loader = make_loader(train_images, train_labels, args.batch_size)

    model = LogisticRegression().to(device)
    criterion = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=args.lr)

    weights = out_dir / f"logistic-{dataset}.pt"
    results = {
        "dataset": dataset,
        "device": str(device),
        "epochs": args.epochs or EPOCHS[dataset],
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "train_loss": [],
        "test_accuracy": [],
        "train_seconds": [],
        "files": {"weights": weights, "curves": out_dir / f"logistic-{dataset}-curves.png"},
    }
    print(f"{model}\n{results['parameters']:,} parameters\n")

    try:
        for _ in range(results["epochs"]):
            start = time.perf_counter()
            loss = train_one_epoch(model, train_loader, criterion, optimizer)
            results["train_seconds"].append(time.perf_counter() - start)
            results["train_loss"].append(loss)
            results["test_accuracy"].append(evaluate(model, test_images, test_labels))
            print_epoch(results)
    except KeyboardInterrupt:
        torch.save(model.state_dict(), weights)
        print(f"\nStopped by Ctrl-C. What was learned so far is in {weights}")
        sys.exit(130)

    torch.save(model.state_dict(), weights)

    # Tomorrow, in another program, perhaps without a GPU, these lines bring the model back.
    model = LogisticRegression()
    model.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    model.eval()
    with torch.no_grad():
        digit = model(test_images[:1].cpu()).argmax(dim=1).item()
    print(f"\nLoaded again, it reads test image 0 as {digit}; its label is {test_labels[0]}.")

    plot_curves(results, f"Logistic regression on {dataset}")
    print_result(results, args.dataset)
    return results


# ---- From here on logistic_regression.py, nn_demo.py and cnn_mnist.py are word for word alike ----

STALL_SECONDS = 10  # a download that receives nothing for this long has failed


def whole_number(text, least=0):
    if not (text.isdecimal() and least <= int(text) < 2**63):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {least} on")
    return int(text)


def positive_integer(text):
    return whole_number(text, least=1)


def positive_number(text):
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:  # nan does not pass either
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return number


def make_parser() -> argparse.ArgumentParser:
    # Without its usage text, argparse answers a mistake with the one line that matters.
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], usage=argparse.SUPPRESS)
    flag = parser.add_argument
    flag("--dataset", choices=["auto", "mnist", "digits"], default="auto", help="default: auto")
    flag("--data-dir", default="data", help="the folder that MNIST is in or goes to; default: data")
    count = {"type": positive_integer, "metavar": "N"}
    flag("--limit", **count, help="only the first N training images")
    flag("--epochs", **count, help=f"default: {EPOCHS}".replace("'", ""))
    flag("--batch-size", **count, default=BATCH_SIZE, help="default: 100")
    flag("--lr", type=positive_number, default=LEARNING_RATE, help="default: 0.001")
    flag("--seed", type=whole_number, metavar="N", default=0, help="default: 0")
    flag("--device", default="auto", help="auto (default), cpu, cuda, cuda:1, mps, ...")
    out_dir = Path("outputs", Path(__file__).stem)
    flag("--out-dir", type=Path, default=out_dir, help=f"default: {out_dir}")
    return parser


def choose_device(name: str) -> torch.device:
    """`auto` is the accelerator when there is one (CUDA, or Apple's MPS, ...), else the CPU."""
    if name == "auto":
        accelerator = torch.accelerator.is_available()
        return torch.accelerator.current_accelerator() if accelerator else torch.device("cpu")
    try:
        torch.zeros(1, device=name).item()
    except (RuntimeError, AssertionError, ImportError) as error:
        reason = textwrap.shorten(str(error), 80, placeholder=" ...")
        sys.exit(f"error: --device {name} cannot be used here (auto and cpu can): {reason}")
    return torch.device(name)


def make_out_dir(folder: Path) -> Path:
    """Make the output folder and try it before training, not when the result wants saving."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        sys.exit(f"error: cannot write to --out-dir {folder}: {error.strerror}")
    return folder


def load_data(choice: str, data_dir: str, limit: int | None, device: torch.device) -> tuple:
    """The dataset's name, training images, training labels, test images, test labels.

    Images are float32 (N, 1, 28, 28) in [0, 1], labels int64 (N,) in 0...9. They are converted
    and moved to `device` once; the notes' ToTensor works image by image, in every epoch anew.
    """
    raw = Path(data_dir, "MNIST", "raw")
    files = [raw / name.removesuffix(".gz") for name, _ in datasets.MNIST.resources]
    missing = [file.name for file in files if not file.is_file()]
    if choice != "digits" and missing:
        print(f"MNIST is not in {raw}: downloading it (11 MB) ...", flush=True)
        socket.setdefaulttimeout(STALL_SECONDS)
        try:
            datasets.MNIST(data_dir, download=True)
        except Exception as error:  # no network, a stall, a full disk, ...
            reason = str(error).rstrip().rpartition("\n")[2]
            missing = [file.name for file in files if not file.is_file()]
            if missing and choice == "mnist":
                sys.exit(
                    f"error: MNIST cannot be downloaded ({reason}): use --dataset digits, or put "
                    f"these files (as they are or as .gz) into {raw} yourself: {', '.join(missing)}"
                )
            if missing:  # else one that was there already is damaged, which read_mnist finds
                print(f"!!! MNIST cannot be downloaded ({reason}).")
                print("!!! Learning scikit-learn's digits instead: fewer and coarser pictures.")
                choice = "digits"

    if choice == "digits":
        dataset, tensors = "digits", read_digits()
    else:
        dataset, tensors = "mnist", read_mnist(*files[:2]) + read_mnist(*files[2:])
    tensors[:2] = tensors[0][:limit], tensors[1][:limit]
    sizes = f"{len(tensors[0]):,} training and {len(tensors[2]):,} test images"
    print(f"Data: {dataset}, {sizes}, on {device}\n")
    return dataset, *(tensor.to(device) for tensor in tensors)


def read_mnist(image_file: Path, label_file: Path) -> list[Tensor]:
    tensors = []
    for file, read in (
        (image_file, datasets.mnist.read_image_file),
        (label_file, datasets.mnist.read_label_file),
    ):
        try:
            tensors.append(read(file))
        except Exception:  # a damaged file can fail in more ways than one would list
            sys.exit(f"error: {file} is cut short, damaged or not MNIST: delete it and run again")
    images, labels = tensors
    if images.shape[1:] != (28, 28) or len(images) != len(labels) or labels.max() > 9:
        sys.exit(f"error: {image_file} and {label_file.name} do not match: delete both, run again")
    return [images.unsqueeze(1).float().div_(255), labels]


def read_digits() -> list[Tensor]:
    """scikit-learn's 1,797 digits of 8x8 pixels in 0...16; always the same 360 are for testing.

    Scaled up to 20x20 in the middle of 28x28, as MNIST's digits are.
    """
    from sklearn.datasets import load_digits  # slow to import, so only where it is needed

    images, labels = map(torch.from_numpy, load_digits(return_X_y=True))
    images = F.interpolate(images.view(-1, 1, 8, 8).float() / 16, size=20, mode="bilinear")
    images = F.pad(images, (4, 4, 4, 4))
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    test, train = order[:360], order[360:]
    return [images[train], labels[train], images[test], labels[test]]


class Batches(TensorDataset):
    """A TensorDataset to be asked for a batch, not for an image: index_select is the faster way."""

    def __getitem__(self, indices: list[int]) -> tuple[Tensor, ...]:
        indices = torch.tensor(indices).to(self.tensors[0].device, non_blocking=True)
        return tuple(tensor.index_select(0, indices) for tensor in self.tensors)


def make_loader(images: Tensor, labels: Tensor, batch_size: int) -> DataLoader:
    """Shuffled batches; `batch_size=None` as the sampler hands out lists of indices already."""
    dataset = Batches(images, labels)
    sampler = BatchSampler(RandomSampler(dataset), batch_size, drop_last=False)
    return DataLoader(dataset, sampler=sampler, batch_size=None)


def train_one_epoch(model, loader, criterion, optimizer, scheduler=None) -> float:
    """Show the model every training image once. Returns the mean loss per image."""
    model.train()
    total_loss = 0.0
    for images, labels in tqdm(loader, unit="batch", delay=2, leave=False, disable=None):
        logits = model(images)
        loss = criterion(logits, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if scheduler is not None:
            scheduler.step()
        total_loss += loss.detach() * len(labels)  # .item() would stop here and wait for a GPU
    return total_loss.item() / len(loader.dataset)


@torch.no_grad()
def evaluate(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    """The fraction, 0...1, of the images whose largest logit stands at the right digit."""
    model.eval()
    predicted = torch.cat([model(batch).argmax(dim=1) for batch in images.split(200)])
    return (predicted == labels).sum().item() / len(labels)


def print_epoch(results: dict) -> None:
    """One line per epoch, or about ten in all when there are many."""
    epoch, epochs = len(results["train_loss"]), results["epochs"]
    if epoch in (1, epochs) or epoch % max(1, epochs // 10) == 0:
        print(
            f"epoch {epoch:>{len(str(epochs))}}/{epochs}   "
            f"training loss {results['train_loss'][-1]:.4f}   "
            f"test accuracy {results['test_accuracy'][-1]:.2%}   "
            f"{results['train_seconds'][-1]:.2f} s",
            flush=True,
        )


def plot_curves(results: dict, title: str) -> None:
    import matplotlib.pyplot as plt  # slow to import, so only where it is needed

    epochs = range(1, results["epochs"] + 1)
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.5), layout="constrained")
    figure.suptitle(title)
    left.plot(epochs, results["train_loss"], marker=".")
    left.set(xlabel="epoch", ylabel="training loss (cross entropy)")
    right.plot(epochs, [100 * accuracy for accuracy in results["test_accuracy"]], marker=".")
    right.set(xlabel="epoch", ylabel="test images right (%)")
    for axes in (left, right):
        axes.locator_params(axis="x", integer=True)
    figure.savefig(results["files"]["curves"])
    plt.close(figure)


def print_result(results: dict, wanted: str) -> None:
    dataset = results["dataset"]
    if wanted == "auto" and dataset == "digits":
        dataset = "digits (!!! MNIST could not be downloaded)"
    files = ", ".join(str(file) for file in results["files"].values())
    print(f"Test accuracy {results['test_accuracy'][-1]:.2%} on {dataset}. Written: {files}")


if __name__ == "__main__":
    if hasattr(sys.stdout, "reconfigure"):  # a notebook's has not
        sys.stdout.reconfigure(errors="replace")  # where a console lacks a character it prints "?"
    main()

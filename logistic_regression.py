"""Logistic regression on MNIST: one linear layer, and the road from data to a saved model.

Notes: https://github.com/yearing1017/PyTorch_Note
Pytorch_logisticRegression.py：MINIST+逻辑回归实现训练测试

    python logistic_regression.py                    # MNIST, downloaded on the first run (11 MB)
    python logistic_regression.py --dataset digits   # no network: scikit-learn's small digits

Test accuracy 82.5 % (seed 0; 83.3 and 83.2 % with seeds 1 and 2), on 2 CPU cores with PyTorch 2.15.
It is still rising after five epochs: the learning rate is small.

**Try**, on MNIST with seed 0:

    --lr 0.1          # 91.8 %: about what a linear model can do
    --batch-size 10   # 89.3 %: ten times as many steps at the same rate
    --lr 10           # 82.0 %, and a loss that stays above 1: the steps overshoot

To choose between such values, compare them on a validation set, a part of the training images that
is not trained on: a value chosen by its test accuracy was fitted to the test images.
"""

import argparse
import math
import os
import socket
import sys
import tempfile
import time
from pathlib import Path

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from torchvision import datasets
from tqdm import tqdm

# 超参数 · Hyperparameters of the notes. The digits are few images: there it takes more epochs.
EPOCHS = {"mnist": 5, "digits": 200}
BATCH_SIZE = 100
LEARNING_RATE = 0.001
OUT_DIR = Path("outputs", "logistic_regression")


# 逻辑回归模型 · The model
class LogisticRegression(nn.Module):
    """Images (N, 1, 28, 28) to logits (N, 10): for each digit one weighted sum of 784 pixels.

    Logits are scores, not probabilities: any real number, and a row need not sum to 1. Softmax
    turns them into probabilities; `nn.CrossEntropyLoss` does that itself, so forward must not.
    """

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(28 * 28, 10)

    def forward(self, images: Tensor) -> Tensor:
        images = images.reshape(-1, 28 * 28)  # each image becomes one row
        return self.linear(images)


# 训练模型 · One pass over the training images
def train_one_epoch(model, loader, criterion, optimizer, device) -> tuple[float, float]:
    """Take one step for each batch. Returns mean loss and accuracy of the images.

    Those of each batch are measured before its update.
    """
    model.train()
    total_loss, correct = 0.0, 0
    for images, labels in tqdm(loader, unit="batch", delay=2, leave=False, disable=None):
        images, labels = images.to(device), labels.to(device)

        # forward 计算 · Ten scores (logits) for each image, and how far from the labels they are
        logits = model(images)
        loss = criterion(logits, labels)

        # 反向传播和优化 · Without zero_grad(), backward() would add to the last step's gradients
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

        total_loss += loss.item() * len(labels)
        correct += (logits.argmax(dim=1) == labels).sum().item()
    return total_loss / len(loader.dataset), correct / len(loader.dataset)


# 测试模型 · 为了效率，不需进行梯度计算 · no_grad: autograd records nothing
@torch.no_grad()
def evaluate(model: nn.Module, loader: DataLoader, device: torch.device) -> float:
    """The fraction (0 to 1) of the images whose predicted digit equals the label."""
    model.eval()
    correct = total = 0
    for images, labels in loader:
        images, labels = images.to(device), labels.to(device)
        predicted = model(images).argmax(dim=1)  # 挑选出最大概率的一个 · it has the largest logit
        total += labels.size(0)
        correct += (predicted == labels).sum().item()
    return correct / total


def main(argv: list[str] | None = None) -> dict:
    """Train, test, save, load again. Returns the lists that it plots, and the files written."""
    make_stdout_tolerant()
    args = make_parser().parse_args(argv)
    torch.manual_seed(args.seed)
    device = choose_device(args.device)
    out_dir = make_out_dir(args.out_dir)
    print("逻辑回归 · Logistic regression\n一个线性层；softmax 已经在交叉熵损失函数里。\n")

    # 数据集 · What ToTensor does, at once: (N, 28, 28), 0...255, to (N, 1, 28, 28) in [0, 1]
    dataset, (images, labels), (test_images, test_labels) = load_data(args.dataset, args.data_dir)
    images = images.unsqueeze(1) / 255
    test_images = test_images.unsqueeze(1) / 255
    train_set = TensorDataset(images[: args.limit], labels[: args.limit])
    test_set = TensorDataset(test_images, test_labels)
    print(f"{dataset}: {len(train_set):,} training and {len(test_set):,} test images")

    # 数据加载器 · Batches; the training images in another order in each epoch
    train_loader = DataLoader(train_set, args.batch_size, shuffle=True)
    test_loader = DataLoader(test_set, args.batch_size, shuffle=False)

    # 损失函数和优化器 · Model, loss function, optimizer
    model = LogisticRegression().to(device)
    criterion = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=args.lr)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    print(f"{model}\n{parameters:,} parameters, on {device}\n")

    # 训练模型 · Training, and a test after each epoch
    epochs = args.epochs or EPOCHS[dataset]
    results = {"train_loss": [], "train_accuracy": [], "test_accuracy": [], "train_seconds": []}
    for epoch in range(1, epochs + 1):
        start = time.perf_counter()
        loss, accuracy = train_one_epoch(model, train_loader, criterion, optimizer, device)
        seconds = time.perf_counter() - start
        if not math.isfinite(loss):
            sys.exit(f"error: the training loss is {loss}: lower --lr")
        test_accuracy = evaluate(model, test_loader, device)
        print_epoch(epoch, epochs, loss, accuracy, test_accuracy, seconds)
        results["train_loss"].append(loss)
        results["train_accuracy"].append(accuracy)
        results["test_accuracy"].append(test_accuracy)
        results["train_seconds"].append(seconds)

    # 保存模型参数 · Save the parameters
    weights = out_dir / f"logistic-{dataset}.pt"
    torch.save(model.state_dict(), weights)

    # Tomorrow, in another program, perhaps without a GPU, these three lines load them again.
    loaded = LogisticRegression()
    loaded.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    loaded.eval()

    image, label = test_set[0]
    with torch.no_grad():
        logits = loaded(image.unsqueeze(0))  # a batch of one
    print(f"\nLoaded again: it predicts {logits.argmax()} for test image 0; its label is {label}.")

    files = {"weights": weights, "curves": out_dir / f"logistic-{dataset}-curves.png"}
    plot_curves(results, files["curves"])
    print_result(test_accuracy, dataset, args.dataset, list(files.values()))
    return results | {"dataset": dataset, "device": str(device), "files": files}


# ---- Below: command line, data files, pictures. The lesson ends here; read it last. ----
# Word for word the same in logistic_regression.py, nn_demo.py and cnn_mnist.py. From above it takes
# BATCH_SIZE, LEARNING_RATE, OUT_DIR and the first line of the docstring.


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    add = parser.add_argument
    add("--dataset", choices=["auto", "mnist", "digits"], default="auto", help="MNIST or digits")
    add("--data-dir", metavar="DIR", type=path, default="data", help="of MNIST (%(default)s)")
    add("--limit", metavar="N", type=positive_int, help="train on the first N images (all)")
    add("--epochs", metavar="N", type=positive_int, help="passes over the images")
    add("--batch-size", metavar="N", type=positive_int, default=BATCH_SIZE, help="(%(default)s)")
    add("--lr", metavar="X", type=positive_float, default=LEARNING_RATE, help="(%(default)s)")
    add("--seed", metavar="N", type=int, default=0, help="of PyTorch's random numbers (0)")
    add("--device", default="auto", help="cpu, cuda, cuda:1, mps, ... (%(default)s)")
    add("--out-dir", metavar="DIR", type=path, default=OUT_DIR, help="(%(default)s)")
    return parser


def positive_int(text: str) -> int:
    if int(text) < 1:
        raise ValueError  # argparse then says: invalid positive_int value
    return int(text)


def positive_float(text: str) -> float:
    if not 0 < float(text) <= 1e30:  # false for nan, too; near 1e38 float32 ends
        raise ValueError
    return float(text)


def path(text: str) -> Path:
    return Path(os.path.expanduser(text))  # not Path.expanduser, which refuses ~nobody


def make_stdout_tolerant() -> None:
    """A console that lacks a character (of Chinese, of a file's name) shows "?" for it."""
    if hasattr(sys.stdout, "reconfigure"):  # a notebook's has not
        sys.stdout.reconfigure(errors="replace")


def choose_device(name: str) -> torch.device:
    """The device of that name; for "auto" the accelerator (CUDA, MPS, ...) if it works, or CPU."""
    accelerator = torch.accelerator.is_available() and torch.accelerator.current_accelerator()
    device = str(accelerator or "cpu") if name == "auto" else name
    try:
        torch.ones(1, device=device).add(1).item()  # a GPU too old for this PyTorch fails here
    except (RuntimeError, AssertionError, ImportError) as error:
        reason = str(error).partition("\n")[0].partition(". ")[0][:200]
        if name != "auto":
            sys.exit(f"error: {device} cannot be used here ({reason}): try --device cpu")
        print(f"!!! {device} cannot be used here ({reason}): going on without it")
        device = "cpu"
    return torch.device(device)


def make_out_dir(folder: Path) -> Path:
    """Make the folder, and try to write to it: an error comes now, not at the end."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        sys.exit(f"error: cannot write to --out-dir {folder}: {error.strerror}")
    return folder


def load_data(choice: str, data_dir: Path) -> tuple[str, tuple, tuple]:
    """Returns the dataset's name, then images and labels for training and for testing.

    Images are (N, 28, 28), 0...255, uint8 or float32; labels int64 (N,), 0...9.
    """
    if choice != "digits":
        raw = data_dir / "MNIST" / "raw"
        files = [name.removesuffix(".gz") for name, _ in datasets.MNIST.resources]
        missing = [name for name in files if not (raw / name).is_file()]
        if missing:
            print(f"MNIST is not in {raw}: downloading it (11 MB) ...", flush=True)
        socket.setdefaulttimeout(10)  # a download that gets nothing for 10 seconds has failed
        try:
            parts = [datasets.MNIST(data_dir, train, download=True) for train in (True, False)]
            return "mnist", *((part.data, part.targets) for part in parts)
        except Exception as error:  # no network, a stall, a full disk, a damaged file, ...
            reason = str(error).strip().rpartition("\n")[2] or repr(error)  # some say nothing
        if not missing:
            sys.exit(f"error: MNIST in {raw} is damaged ({reason}): delete its four files")
        if choice == "mnist":
            hint = f"use --dataset digits, or put {', '.join(files)} into {raw} yourself"
            sys.exit(f"error: MNIST cannot be downloaded ({reason}): {hint}")
        print(f"!!! MNIST cannot be downloaded ({reason}).")
        print("!!! Learning scikit-learn's digits instead: fewer and coarser pictures.\n")
    return "digits", *read_digits()


def read_digits() -> list[tuple[Tensor, Tensor]]:
    """scikit-learn's 1,797 digits: 1,437 for training, always the same 360 for testing.

    They are 8x8; scaled up to 20x20 in the middle of 28x28, as MNIST's are.
    """
    from sklearn.datasets import load_digits  # slow to import, and seldom needed

    images, labels = map(torch.from_numpy, load_digits(return_X_y=True))
    images = F.interpolate(images.view(-1, 1, 8, 8).float() / 16, size=20, mode="bilinear")
    images = 255 * F.pad(images, (4, 4, 4, 4)).squeeze(1)
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    return [(images[part], labels[part]) for part in (order[360:], order[:360])]


def print_epoch(epoch: int, epochs: int, loss, train, test, seconds) -> None:
    """One line; of many epochs, about ten lines in all."""
    if epoch in (1, epochs) or epoch % max(1, epochs // 10) == 0:
        line = f"loss {loss:.4f}  accuracy: training {train:.2%}, test {test:.2%}  {seconds:.2f} s"
        print(f"epoch {epoch:>3}/{epochs}  {line}", flush=True)


def print_result(accuracy: float, dataset: str, wanted: str, files: list[Path]) -> None:
    if dataset == "digits" and wanted == "auto":
        dataset = "digits (!!! MNIST could not be downloaded)"
    print(f"Test accuracy on {dataset}: {accuracy:.2%}. Written: {', '.join(map(str, files))}")


def plot_curves(results: dict[str, list], file: Path) -> None:
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.5), layout="constrained")
    epochs = range(1, len(results["train_loss"]) + 1)
    left.plot(epochs, results["train_loss"], ".-", label="training loss")
    right.plot(epochs, results["train_accuracy"], ".-", label="training accuracy, during the epoch")
    right.plot(epochs, results["test_accuracy"], ".-", label="test accuracy, after it")
    for ax in (left, right):
        ax.set_xlabel("epoch")
        ax.locator_params(axis="x", integer=True)
        ax.legend()
    figure.savefig(file)
    plt.close(figure)


if __name__ == "__main__":
    main()

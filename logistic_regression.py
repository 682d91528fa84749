"""Logistic regression on MNIST: one linear layer, and the road from data to a saved model.

Notes: https://github.com/yearing1017/PyTorch_Note
Pytorch_logisticRegression.py：MINIST+逻辑回归实现训练测试

    python logistic_regression.py                    # MNIST, downloaded on the first run (11 MB)
    python logistic_regression.py --dataset digits   # no network: scikit-learn's small digits

Test accuracy 82.5 % (seed 0; 83.4 and 83.3 % with seeds 1 and 2), on 2 CPU cores with PyTorch 2.15.
It is still rising after five epochs: the learning rate is small.

**Try**, on MNIST with seed 0:

    --lr 0.1          # 91.9 %: about what a linear model can do
    --batch-size 10   # 89.3 %: ten times as many steps at the same rate
    --lr 10           # 86.8 %, and a loss that stays above 1: the steps overshoot
"""

import argparse
import socket
import sys
import tempfile
import time
from pathlib import Path

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, TensorDataset
from torchvision import datasets
from tqdm import tqdm

# 超参数 · Hyperparameters, as in the notes; 200 epochs of the digits are 3,000 steps, too.
EPOCHS = {"mnist": 5, "digits": 200}
BATCH_SIZE = 100
LEARNING_RATE = 0.001
OUT_DIR = Path("outputs", "logistic_regression")


# 逻辑回归模型 · The model
class LogisticRegression(nn.Module):
    """Images (N, 1, 28, 28) to logits (N, 10): for each digit one weighted sum of 784 pixels.

    Logits are scores, not probabilities (概率, as the notes say): any real number, and a row need
    not sum to 1. Softmax turns them into probabilities; `nn.CrossEntropyLoss` does that itself, so
    forward must not.
    """

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(28 * 28, 10)

    def forward(self, images: Tensor) -> Tensor:
        return self.linear(torch.flatten(images, 1))  # the notes: images.reshape(-1, 28*28)


# 训练模型 · One pass over the training images
def train_one_epoch(model, loader, criterion, optimizer, device) -> float:
    """Take one step per batch. Returns the mean loss per image, each before its own step."""
    model.train()
    total_loss = 0.0
    for images, labels in tqdm(loader, unit="batch", delay=2, leave=False, disable=None):
        images, labels = images.to(device), labels.to(device)

        # forward 计算 (what the notes call outputs are logits)
        logits = model(images)
        loss = criterion(logits, labels)

        # 反向传播和优化
        optimizer.zero_grad()  # else backward() would add to the gradients of the last step
        loss.backward()
        optimizer.step()

        total_loss += loss.item() * len(labels)
    return total_loss / len(loader.dataset)


# 测试模型 · The share of the test images that it gets right
@torch.no_grad()  # 为了效率，不需进行梯度计算: no gradients are needed here, so none are prepared
def evaluate(model: nn.Module, test_set: TensorDataset, device: torch.device) -> float:
    """The fraction (0 to 1) of the images whose largest logit is the one of their label."""
    model.eval()
    images, labels = test_set.tensors
    # The notes' torch.max(outputs.data, 1) returns the largest value and its index: argmax, today.
    predicted = [model(batch.to(device)).argmax(dim=1) for batch in images.split(200)]
    return (torch.cat(predicted).cpu() == labels).sum().item() / len(labels)


def main(argv: list[str] | None = None) -> dict:
    """Train, test, save, load again. Returns the numbers found and the files written."""
    args = make_parser().parse_args(argv)
    torch.manual_seed(args.seed)
    device = choose_device(args.device)
    out_dir = make_out_dir(args.out_dir)
    print_heading("逻辑回归 · Logistic regression", "一个线性层；softmax 已经在交叉熵损失函数里。")
    dataset, train_set, test_set = load_data(args.dataset, args.data_dir, args.limit)
    train_loader = make_loader(train_set, args.batch_size)

    # 损失函数和优化器 · Model, loss function, optimizer
    model = LogisticRegression().to(device)
    criterion = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=args.lr)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    print(f"{model}\n{parameters:,} parameters, on {device}\n")

    epochs = args.epochs or EPOCHS[dataset]
    train_loss, test_accuracy, train_seconds = [], [], []
    for epoch in range(1, epochs + 1):
        start = time.perf_counter()
        train_loss.append(train_one_epoch(model, train_loader, criterion, optimizer, device))
        train_seconds.append(time.perf_counter() - start)
        test_accuracy.append(evaluate(model, test_set, device))
        # 打印信息 · The notes print a line every 100 steps; here it is one line an epoch.
        print_epoch(epoch, epochs, train_loss[-1], test_accuracy[-1], train_seconds[-1])

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

    curves = out_dir / f"logistic-{dataset}-curves.png"
    plot_curves(train_loss, test_accuracy, f"Logistic regression on {dataset}", curves)
    print_result(test_accuracy[-1], dataset, args.dataset, [weights, curves])
    return {
        "dataset": dataset,
        "device": str(device),
        "epochs": epochs,
        "parameters": parameters,
        "train_loss": train_loss,
        "test_accuracy": test_accuracy,
        "train_seconds": train_seconds,
        "files": {"weights": weights, "curves": curves},
    }


# ---- Below: command line, data, pictures. Nothing of it is about learning; read it last. ----
# Word for word the same in logistic_regression.py, nn_demo.py and cnn_mnist.py. From above it takes
# EPOCHS, BATCH_SIZE, LEARNING_RATE, OUT_DIR and the first line of the docstring.


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--dataset", choices=["auto", "mnist", "digits"], default="auto", help="MNIST or digits")
    add("--data-dir", metavar="DIR", type=path, default="data", help="of MNIST (%(default)s)")
    add("--limit", metavar="N", type=positive_int, help="train on the first N images (all)")
    add("--epochs", metavar="N", type=positive_int, help="passes over the images (see EPOCHS)")
    add("--batch-size", metavar="N", type=positive_int, default=BATCH_SIZE, help="(%(default)s)")
    add("--lr", metavar="X", type=positive_float, default=LEARNING_RATE, help="(%(default)s)")
    add("--seed", metavar="N", type=seed, default=0, help="of all random numbers (%(default)s)")
    add("--device", default="auto", help="cpu, cuda, cuda:1, mps, ... (%(default)s)")
    add("--out-dir", metavar="DIR", type=path, default=OUT_DIR, help="(%(default)s)")
    return parser


def positive_int(text: str) -> int:
    if int(text) < 1:
        raise ValueError  # argparse then says: invalid positive_int value
    return int(text)


def positive_float(text: str) -> float:
    if not 0 < float(text) < float("inf"):  # false for nan, too
        raise ValueError
    return float(text)


def seed(text: str) -> int:
    if not 0 <= int(text) < 2**32:  # what NumPy takes
        raise ValueError
    return int(text)


def path(text: str) -> Path:
    return Path(text).expanduser()


def choose_device(name: str) -> torch.device:
    """The device of that name; for "auto" the accelerator (CUDA, MPS, ...) if it works, or CPU."""
    accelerator = torch.accelerator.is_available() and torch.accelerator.current_accelerator()
    wanted = str(accelerator or "cpu") if name == "auto" else name
    try:
        torch.ones(1, device=wanted).add(1).item()  # a GPU too old for this PyTorch fails here
        return torch.device(wanted)
    except (RuntimeError, AssertionError, ImportError) as error:
        reason = str(error).partition("\n")[0].partition(". ")[0][:200]
    if name != "auto":
        sys.exit(f"error: {wanted} cannot be used here ({reason}): try --device cpu")
    print(f"!!! {wanted} cannot be used here ({reason}): going on without it")
    return torch.device("cpu")


def make_out_dir(folder: Path) -> Path:
    """Make the folder, and try to write to it before the training, not after."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        sys.exit(f"error: cannot write to --out-dir {folder}: {error.strerror}")
    return folder


def load_data(choice: str, data_dir: Path, limit: int | None) -> tuple:
    """Returns the name of the dataset, the training set and the test set.

    Images are float32 (N, 1, 28, 28) in [0, 1], labels int64 (N,) in 0...9. They are converted
    once; the notes' ToTensor works image by image, in every epoch anew.
    """
    raw = data_dir / "MNIST" / "raw"
    files = [name.removesuffix(".gz") for name, _ in datasets.MNIST.resources]
    missing = [name for name in files if not (raw / name).is_file()]
    if choice == "digits":
        train, test = read_digits()
    else:
        if missing:
            print(f"MNIST is not in {raw}: downloading it (11 MB) ...", flush=True)
        try:
            train, test = read_mnist(data_dir)
        except Exception as error:  # no network, a stall, a full disk, a damaged file, ...
            reason = str(error).strip().rpartition("\n")[2] or repr(error)  # some say nothing
            if not missing:
                sys.exit(f"error: MNIST in {raw} is damaged ({reason}): delete its four files")
            if choice == "mnist":
                hint = f"use --dataset digits, or put {', '.join(files)} into {raw} yourself"
                sys.exit(f"error: MNIST cannot be downloaded ({reason}): {hint}")
            print(f"!!! MNIST cannot be downloaded ({reason}).")
            print("!!! Learning scikit-learn's digits instead: fewer and coarser pictures.\n")
            return load_data("digits", data_dir, limit)
    train = TensorDataset(*(tensor[:limit] for tensor in train.tensors))
    dataset = "digits" if choice == "digits" else "mnist"
    print(f"{dataset}: {len(train):,} training and {len(test):,} test images")
    return dataset, train, test


def read_mnist(data_dir: Path) -> list[TensorDataset]:
    """For training and for testing; downloaded (11 MB) if it is not in `data_dir`."""
    timeout = socket.getdefaulttimeout()
    socket.setdefaulttimeout(10)  # a download that gets nothing for 10 seconds has failed
    try:
        parts = [datasets.MNIST(data_dir, train=train, download=True) for train in (True, False)]
    finally:
        socket.setdefaulttimeout(timeout)
    return [TensorDataset(part.data.unsqueeze(1) / 255, part.targets) for part in parts]


def read_digits() -> list[TensorDataset]:
    """scikit-learn's 1,797 digits: 1,437 for training, always the same 360 for testing.

    They are 8x8; scaled up to 20x20 in the middle of 28x28, as MNIST's are.
    """
    from sklearn.datasets import load_digits  # slow to import, and seldom needed

    images, labels = map(torch.from_numpy, load_digits(return_X_y=True))
    images = F.interpolate(images.view(-1, 1, 8, 8).float() / 16, size=20, mode="bilinear")
    images = F.pad(images, (4, 4, 4, 4))
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    return [TensorDataset(images[part], labels[part]) for part in (order[360:], order[:360])]


# 数据加载器 · Shuffled batches
def make_loader(dataset: TensorDataset, batch_size: int) -> DataLoader:
    """The batches of DataLoader(dataset, batch_size, shuffle=True), in less time.

    The sampler hands out lists of `batch_size` indices, and the tensors are indexed once for each
    list, not once for each image; batch_size=None tells DataLoader not to make batches itself.
    """
    batches = BatchSampler(RandomSampler(dataset), batch_size, drop_last=False)
    return DataLoader(dataset, sampler=batches, batch_size=None)


def print_heading(*lines: str) -> None:
    """Print lines with Chinese in them; a console that lacks a character shows "?" for it."""
    if hasattr(sys.stdout, "reconfigure"):  # a notebook's has not
        sys.stdout.reconfigure(errors="replace")
    print(*lines, "", sep="\n")


def print_epoch(epoch: int, epochs: int, loss: float, accuracy: float, seconds: float) -> None:
    """One line; of many epochs, about ten lines in all."""
    if epoch in (1, epochs) or epoch % max(1, epochs // 10) == 0:
        line = f"training loss {loss:.4f}   test accuracy {accuracy:.2%}   {seconds:.2f} s"
        print(f"epoch {epoch:>3}/{epochs}   {line}", flush=True)


def print_result(accuracy: float, dataset: str, wanted: str, files: list[Path]) -> None:
    if dataset == "digits" and wanted == "auto":
        dataset = "digits (!!! MNIST could not be downloaded)"
    print(f"Test accuracy on {dataset}: {accuracy:.2%}. Written: {', '.join(map(str, files))}")


def plot_curves(train_loss: list, test_accuracy: list, title: str, file: Path) -> None:
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.5), layout="constrained")
    figure.suptitle(title)
    curves = {"training loss": train_loss, "test accuracy": test_accuracy}
    for ax, (name, values) in zip(axes, curves.items()):
        ax.plot(range(1, len(values) + 1), values, marker=".")
        ax.set(xlabel="epoch", ylabel=name)
        ax.locator_params(axis="x", integer=True)
    figure.savefig(file)
    plt.close(figure)


if __name__ == "__main__":
    main()

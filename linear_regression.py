"""Linear regression: a straight line through 15 points by gradient descent, and the exact one.

Notes: https://github.com/yearing1017/PyTorch_Note
Pytorch_linearRegression.py：线性回归例子实现完整训练

    python linear_regression.py          # the notes' 60 epochs
    python linear_regression.py --show   # and the picture in a window

On 2 CPU cores with PyTorch 2.15, seed 0:

                           slope   intercept         mse
    gradient descent     0.28266     0.58078     0.17263
    least squares        0.25999     0.74767     0.16892

The loss is a long, narrow valley, 336 times steeper across than along. In 60 steps gradient
descent reaches the valley floor but hardly moves along it, so each seed ends elsewhere: with seed
1 at intercept -0.43484, mse 0.35221.

**Try**, with seed 0:

    --epochs 30000            # 0.26001, 0.74754: within 1 % of the exact line, whatever the seed
    --lr 0.02 --epochs 1500   # as near (0.26000, 0.74759) with a twentieth of the steps
    --lr 0.03                 # every step overshoots the valley: the loss ends at 2.5e+24
"""

import argparse
import os
import sys
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from torch import Tensor, nn

# 超参数 · Hyperparameters, as in the notes
EPOCHS = 60
LEARNING_RATE = 0.001
OUT_DIR = Path("outputs", "linear_regression")

# 训练数据集 · The points of the notes' x_train and y_train
X = [3.3, 4.4, 5.5, 6.71, 6.93, 4.168, 9.779, 6.182, 7.59, 2.167, 7.042, 10.791, 5.313, 7.997, 3.1]
Y = [1.7, 2.76, 2.09, 3.19, 1.694, 1.573, 3.366, 2.596, 2.53, 1.221, 2.827, 3.465, 1.65, 2.904, 1.3]


def main(argv: list[str] | None = None) -> dict:
    """Train, save, load again, compare with the exact line.

    Returns `train_loss` (a value per epoch), the fitted line, `exact` (the best one) and `files`.
    """
    make_stdout_tolerant()
    args = make_parser().parse_args(argv)
    torch.manual_seed(args.seed)
    device = choose_device(args.device)
    out_dir = make_out_dir(args.out_dir)
    files = {"weights": out_dir / "linear.pt", "fit": out_dir / "linear-fit.png"}
    print("线性回归 · Linear regression\n梯度下降得到的直线与最小二乘的精确解比较。\n")

    # 形状 · (15, 1): 15 examples with one feature each. Targets of shape (15,) beside outputs of
    # (15, 1) would be broadcast to (15, 15), and the loss would be a wrong number.
    x_train, y_train = torch.tensor(X).unsqueeze(1), torch.tensor(Y).unsqueeze(1)
    inputs, targets = x_train.to(device), y_train.to(device)

    # 线性回归模型 · y = slope * x + intercept: one weight and one bias
    model = nn.Linear(1, 1).to(device)
    print(f"{model}, on {device}\n")

    # 损失函数和优化器 · Loss function, optimizer
    criterion = nn.MSELoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=args.lr)

    # 训练模型 · All 15 points at once in each step
    train_loss = []
    for epoch in range(1, args.epochs + 1):
        # forward 计算 · What the line says now, and how far from the points that is
        outputs = model(inputs)
        loss = criterion(outputs, targets)

        # 反向传播和优化 · Without zero_grad(), backward() would add to the last step's gradients
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

        # 打印信息 · The loss before this step, every 5 of 60 epochs
        train_loss.append(loss.item())
        if epoch % max(5, args.epochs // 12) == 0 or epoch == args.epochs:
            print(f"epoch {epoch:>2}/{args.epochs}   loss {train_loss[-1]:.4g}", flush=True)
    if not loss.isfinite():
        sys.exit(f"error: the training loss is {loss}: lower --lr")

    # 保存模型参数 · Save the parameters
    torch.save(model.state_dict(), files["weights"])

    # Tomorrow, in another program, perhaps without a GPU, these two lines load them again.
    loaded = nn.Linear(1, 1)
    loaded.load_state_dict(torch.load(files["weights"], map_location="cpu", weights_only=True))

    x, y = x_train.double(), y_train.double()  # float64: the gap may be very small
    predicted = loaded.double()(x).detach()
    mse = criterion(predicted, y).item()
    fitted = {"slope": loaded.weight.item(), "intercept": loaded.bias.item(), "mse": mse}
    exact = least_squares(x, y)
    for name, line in {"gradient descent": fitted, "least squares": exact}.items():
        print(f"{name:16}" + "".join(f"   {key} {value:.5g}" for key, value in line.items()))
    if mse > train_loss[0]:
        print("The loss rose: lower --lr")
    elif mse > 1.001 * exact["mse"]:
        print("More steps would close the gap")

    # 画图 · The points and both lines
    plt.figure(figsize=(8, 5), layout="constrained")
    plt.plot(x_train, y_train, "ro", label="Original data")
    plt.plot(x_train, predicted, label="Fitted line")
    plt.axline((0, exact["intercept"]), slope=exact["slope"], c="k", ls="--", label="Least squares")
    plt.legend()
    plt.savefig(files["fit"])
    if args.show:
        plt.show()
    plt.close()
    print(f"\nWritten: {', '.join(map(str, files.values()))}")
    results = {"device": str(device), "epochs": args.epochs, "train_loss": train_loss}
    return results | fitted | {"exact": exact, "files": files}


def least_squares(x: Tensor, y: Tensor) -> dict:
    """The line with the smallest mean squared error, at once: no steps, no learning rate.

    x and y are (N, 1). Where the error is smallest its gradient is zero; that gives the slope,
    covariance / variance, and a line that goes through the mean of the points.
    """
    slope = ((x - x.mean()) * (y - y.mean())).mean() / x.var(correction=0)
    intercept = y.mean() - slope * x.mean()
    mse = ((slope * x + intercept - y) ** 2).mean()
    return {"slope": slope.item(), "intercept": intercept.item(), "mse": mse.item()}


# ---- Below: command line. The lesson ends here; read it last. ----


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    add = parser.add_argument
    add("--epochs", metavar="N", type=positive_int, default=EPOCHS, help="steps (%(default)s)")
    add("--lr", metavar="X", type=positive_float, default=LEARNING_RATE, help="(%(default)s)")
    add("--seed", metavar="N", type=int, default=0, help="of the first line (%(default)s)")
    add("--device", default="auto", help="cpu, cuda, cuda:1, mps, ... (%(default)s)")
    add("--out-dir", metavar="DIR", type=path, default=OUT_DIR, help="(%(default)s)")
    add("--show", action="store_true", help="also open a window, if there is a screen")
    return parser


def positive_int(text: str) -> int:
    if int(text) < 1:
        raise ValueError  # argparse then says: invalid positive_int value
    return int(text)


def positive_float(text: str) -> float:
    if not 0 < float(text) <= 1e30:  # false for nan, too; near 1e38 float32 ends
        raise ValueError
    return float(text)


def make_stdout_tolerant() -> None:
    """A console that lacks a character (of Chinese, of a file's name) shows "?" for it."""
    if hasattr(sys.stdout, "reconfigure"):  # a notebook's has not
        sys.stdout.reconfigure(errors="replace")


def path(text: str) -> Path:
    return Path(os.path.expanduser(text))  # not Path.expanduser, which refuses ~nobody


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


if __name__ == "__main__":
    main()

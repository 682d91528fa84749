"""Linear regression: fit a straight line to 15 points by gradient descent, and compare it with the exact solution.

Notes: https://github.com/yearing1017/PyTorch_Note
Pytorch_linearRegression.py：线性回归例子实现完整训练

    python linear_regression.py          # This trains for 60 epochs, as the notes do.
    python linear_regression.py --show   # This opens the picture in a window as well.

This script needs Python 3.10 or newer, PyTorch 2.6 or newer, and matplotlib.

The loss is the mean squared error over all points: MSE = ((slope * x + intercept - y) ** 2).mean().
With seed 0, gradient descent and the exact solution give these lines, measured on a CPU with PyTorch 2.15.

                           slope   intercept         MSE
    gradient descent     0.28266     0.58078     0.17263
    least squares        0.25999     0.74767     0.16892

Think of slope and intercept as the coordinates of a place on a map, and of the loss as its height. The loss
then has the shape of a long, narrow valley. At the same distance from the lowest point, it is 336 times as
steep across the valley as along it. In 60 steps, gradient descent reaches the bottom of the valley, but it
hardly moves along the valley. Where it ends therefore depends on where it starts. For example, with seed 1 it ends
at an intercept of -0.43484 and an MSE of 0.35221.

把斜率和截距看作地图上的坐标，把损失看作高度，损失的形状就是一条狭长的山谷：
离最低点同样远时，横穿山谷方向的坡度是沿山谷方向的 336 倍。60 步只够走到狭长的谷底，
沿着山谷几乎没有前进，所以最后停在哪里，取决于从哪里出发。
例如随机种子为 1 时，截距停在 -0.43484，均方误差是 0.35221。

**Try**

    python linear_regression.py --epochs 30000            # 0.26001 and 0.74754: within 0.1% of the exact line
    python linear_regression.py --lr 0.02 --epochs 1500   # 0.26 and 0.74759, with a twentieth of the steps
    python linear_regression.py --lr 0.03                 # Each step goes too far: the loss grows to 2.5e+24.
"""

import argparse
import shutil
import sys
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

# 超参数：与笔记相同 · Hyperparameters, as in the notes
EPOCHS = 60
LEARNING_RATE = 0.001

# 训练数据集：笔记里的 15 个点 · Training data: the 15 points from the notes
X = [3.3, 4.4, 5.5, 6.71, 6.93, 4.168, 9.779, 6.182, 7.59, 2.167, 7.042, 10.791, 5.313, 7.997, 3.1]
Y = [1.7, 2.76, 2.09, 3.19, 1.694, 1.573, 3.366, 2.596, 2.53, 1.221, 2.827, 3.465, 1.65, 2.904, 1.3]


def main(argv: list[str] | None = None) -> dict:
    """Train a model, save it, load it, and compare it with the exact line. Return the losses, both lines and the files.

    完整流程：训练，保存参数，再载入，并与精确解比较。返回各步的损失、两条直线和文件的路径。
    """
    make_stdout_tolerant()
    args = make_parser().parse_args(argv)
    torch.manual_seed(args.seed)
    device = choose_device(args.device)
    args.out_dir.mkdir(parents=True, exist_ok=True)
    files = {"weights": args.out_dir / "linear.pt", "picture": args.out_dir / "linear-fit.png"}

    # 把列表转为 torch 的张量，形状是 (15, 1)：15 个样本，每个样本一个特征。
    # 目标的形状如果是 (15,)，与输出 (15, 1) 相减会广播成 (15, 15)，损失就错了。
    # Turn the lists into tensors of shape (15, 1): 15 examples with one feature each.
    # If the targets had the shape (15,), subtracting them from the outputs of shape (15, 1) would broadcast both
    # to (15, 15), and the loss would be wrong.
    x_train, y_train = torch.tensor(X).unsqueeze(1), torch.tensor(Y).unsqueeze(1)
    inputs, targets = x_train.to(device), y_train.to(device)

    # 线性回归模型：y = 斜率 * x + 截距，唯一的权重就是斜率，唯一的偏置就是截距
    # Linear regression model: y = slope * x + intercept. Its weight is the slope, and its bias is the intercept.
    model = nn.Linear(1, 1).to(device)
    print(f"线性回归 · Linear regression\n\n{model}, on {device}\n")

    # 损失函数和优化器 · Loss function and optimizer
    criterion = nn.MSELoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=args.lr)

    # 训练模型：每一步都用全部 15 个点，所以一轮就是一步
    # Train the model. Every step uses all 15 points, so an epoch is a single step.
    train_loss = []
    for epoch in range(1, args.epochs + 1):
        # forward 计算：得到当前直线的输出，损失衡量输出与目标相差多少
        # Forward pass: compute the outputs of the current line. The loss measures how far they are from the targets.
        outputs = model(inputs)
        loss = criterion(outputs, targets)

        # 反向传播和优化：先把梯度清零，否则新的梯度会加到上一步的梯度上
        # Backpropagation and update. Without zero_grad(), the new gradients would be added to the old ones.
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

        # 打印信息 · Print the loss
        train_loss.append(loss.item())
        if epoch % max(5, args.epochs // 12) == 0 or epoch == args.epochs:
            print(f"epoch {epoch:>2}/{args.epochs}   loss {train_loss[-1]:.4g}")

    # 最后一步之后，损失如果变成 nan 或 inf，就退出，什么也不保存
    # If the loss is not finite after the last step, stop before anything is saved.
    if not criterion(model(inputs), targets).isfinite():
        sys.exit("error: the training loss is no longer a finite number; try a smaller --lr")

    # 保存模型参数，再载入到新建的模型里：以后在别的程序里使用，也是这样载入
    # Save the parameters, and load them into a new model, as another program would.
    torch.save(model.state_dict(), files["weights"])
    loaded = nn.Linear(1, 1)
    loaded.load_state_dict(torch.load(files["weights"], map_location="cpu", weights_only=True))

    # 与精确解比较：两条直线可能非常接近，所以用 float64 计算
    # Compare the line with the exact solution. The two can be very close, so use float64.
    x, y = x_train.double(), y_train.double()
    predicted = loaded.double()(x).detach()
    fitted = {"slope": loaded.weight.item(), "intercept": loaded.bias.item(), "mse": criterion(predicted, y).item()}
    exact = least_squares(x, y)
    for name, line in {"梯度下降 · gradient descent": fitted, "最小二乘 · least squares": exact}.items():
        print(f"{name:23}" + "".join(f"   {key} {value:.5g}" for key, value in line.items()))

    # 画图：数据点和两条直线；pyplot 只用来显示图片，也就是加了 --show 或在 notebook 里运行时
    # Plot the points and both lines. pyplot is only needed to show the picture, with --show or in a notebook.
    ax = Figure(figsize=(8, 5), layout="constrained").subplots()
    show = args.show or "ipykernel" in sys.modules
    if show:
        import matplotlib.pyplot as plt

        ax = plt.figure(figsize=(8, 5), layout="constrained").subplots()
    ax.plot(x_train, y_train, "ro", label="Original data")
    ax.plot(x_train, predicted, label="Fitted line")
    ax.axline((0, exact["intercept"]), slope=exact["slope"], color="k", ls="--", label="Least squares")
    ax.legend()
    ax.figure.savefig(files["picture"])
    print("\nWritten:", *files.values(), sep="\n  ")
    if show:
        plt.show()
    return {"epochs": args.epochs, "train_loss": train_loss, **fitted, "exact": exact, "files": files}


def least_squares(x: Tensor, y: Tensor) -> dict:
    """Return the line with the smallest mean squared error, computed without steps or a learning rate.

    x and y have the shape (N, 1). Where the error is smallest, its gradient is zero. So the slope is the
    covariance of x and y divided by the variance of x, and the line goes through the point of both means.

    最小二乘：均方误差最小的地方梯度为零。所以斜率是 x 和 y 的协方差除以 x 的方差，直线经过由两个平均值确定的点。
    """
    slope = ((x - x.mean()) * (y - y.mean())).mean() / x.var(correction=0)
    intercept = y.mean() - slope * x.mean()
    mse = ((slope * x + intercept - y) ** 2).mean()
    return {"slope": slope.item(), "intercept": intercept.item(), "mse": mse.item()}


# ---- Below: command line and device. The lesson ends here. ----


def make_parser() -> argparse.ArgumentParser:
    # fmt: off
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0], allow_abbrev=False,
        epilog="example: python %(prog)s --lr 0.02 --epochs 1500 --out-dir try")
    train = parser.add_argument_group("training")
    train.add_argument("--epochs", type=whole_number, metavar="N", default=EPOCHS,
        help="how many steps to train for; each step uses all the points (default: %(default)s)")
    train.add_argument("--lr", type=float, metavar="X", default=LEARNING_RATE,
        help="learning rate: each step is this number times the gradient (default: %(default)s)")
    train.add_argument("--seed", type=lambda text: whole_number(text, 0), metavar="N", default=0,
        help="seed for the random line that the training starts from (default: %(default)s)")
    train.add_argument("--device", default="auto",
        help="device to use, such as cpu, cuda, cuda:1 or mps; auto uses a working GPU or else the CPU (default: auto)")
    files = parser.add_argument_group("output")
    files.add_argument("--out-dir", type=Path, metavar="DIR", default=Path("outputs", "linear_regression"),
        help="folder for the weights and the picture; it is created if it is missing (default: %(default)s)")
    files.add_argument("--show", action="store_true", help="open the picture in a window as well")
    # fmt: on
    return parser


def whole_number(text: str, least: int = 1) -> int:
    if not text.isdecimal() or not least <= int(text) < 2**63:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least {least}, and below 2**63")
    return int(text)


def make_stdout_tolerant() -> None:
    """Make print() write "?" for a character that the console cannot show, instead of raising an error."""
    if hasattr(sys.stdout, "reconfigure"):  # A notebook's sys.stdout has no such method and needs none.
        sys.stdout.reconfigure(errors="replace")


def choose_device(name: str) -> torch.device:
    """Return the device with this name. For "auto", return the GPU if there is one that works, otherwise the CPU."""
    gpu = torch.accelerator.is_available() and str(torch.accelerator.current_accelerator())
    if name == "auto" and not gpu and torch.version.cuda and shutil.which("nvidia-smi"):
        print(f"!!! 只能用 CPU：NVIDIA 驱动可能太旧，不支持这个 PyTorch 所用的 CUDA {torch.version.cuda}")
        print(f"!!! This runs on the CPU. The NVIDIA driver may be too old for PyTorch's CUDA {torch.version.cuda}.\n")
    try:
        device = torch.device(gpu or "cpu" if name == "auto" else name)
        torch.ones(1, device=device).add(1).item()  # A GPU that is too old for this PyTorch fails here.
        return device
    except (RuntimeError, AssertionError, ImportError) as error:
        reason = str(error).partition("\n")[0]
        if name != "auto":
            sys.exit(f"error: --device {name} cannot be used here: {reason}")
        print(f"!!! {gpu} 用不了，改用 CPU · {gpu} cannot be used, so this runs on the CPU: {reason}\n")
        return torch.device("cpu")


if __name__ == "__main__":
    main()

"""A small neural network (multilayer perceptron) on MNIST, with one hidden layer and ReLU.

Notes: https://github.com/yearing1017/PyTorch_Note
Pytorch_NNdemo.py：MINIST+简易神经网络实现训练测试

    python nn_demo.py                    # The first run downloads MNIST (11 MB).
    python nn_demo.py --dataset digits   # This needs no network.

This script needs Python 3.10 or newer, PyTorch 2.6 or newer, torchvision, matplotlib, tqdm and scikit-learn.

The test accuracy is 97.9% with seed 0, measured on 2 CPU cores with PyTorch 2.15.

**Try**

    python nn_demo.py --epochs 1      # 95.8%: the model learns most in the first epoch
    python nn_demo.py --limit 1000    # 86.1%, but 91.3% in training, with too few images and too few steps
    python nn_demo.py --lr 0.1        # 86.7%: a learning rate that suits SGD makes the steps of Adam far too large

These commands show what an option does. To choose a value, do not compare results on the test images. Use
validation images instead, which are used neither for training nor for the test.
"""

import argparse
import copy
import shutil
import socket
import sys
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from torchvision import datasets
from tqdm import tqdm

# 超参数的设定：与笔记相同；digits 的图片少，所以要多学几轮
# Hyperparameters, as in the notes. The data set of scikit-learn's digits is small, so it needs more epochs.
HIDDEN_SIZE = 500
EPOCHS = {"mnist": 5, "digits": 20}
BATCH_SIZE = 100
LEARNING_RATE = 0.001
OUT_DIR = Path("outputs", "nn_demo")


class NeuralNet(nn.Module):
    """Turn images (N, 1, 28, 28) into logits (N, 10), through a hidden layer of 500 units.

    Without the ReLU, the two linear layers could compute no more than a single one, because a linear function
    of a linear function is itself linear. The model has 397,510 parameters.

    模型搭建：两个全连接层之间要有 ReLU 这样的非线性函数，否则两层合起来只相当于一个线性层。
    """

    def __init__(self):
        super().__init__()
        self.fc1 = nn.Linear(28 * 28, HIDDEN_SIZE)
        self.relu = nn.ReLU()
        self.fc2 = nn.Linear(HIDDEN_SIZE, 10)

    def forward(self, images: Tensor) -> Tensor:
        images = images.reshape(-1, 28 * 28)  # (N, 1, 28, 28) -> (N, 784)
        out = self.fc1(images)  # (N, 784) -> (N, 500)
        out = self.relu(out)
        out = self.fc2(out)  # (N, 500) -> (N, 10)
        return out


def train_one_epoch(model, loader, criterion, optimizer, device) -> tuple[float, float]:
    """Train on each batch once. Return the mean loss and the accuracy (0 to 1) over the images.

    Both are measured while the weights change, so they describe the whole epoch, not the resulting model.

    训练一轮，返回平均损失和准确率。两者逐批累计，而权重每一步都在变，所以反映的是整轮训练，而不是这一轮结束时的模型。
    """
    # train() 和 eval() 只影响 BatchNorm、Dropout 这类层的行为，但无论什么模型都写上，是个好习惯
    # train() and eval() change only layers such as BatchNorm and Dropout. Calling them is a good habit in any model.
    model.train()
    total_loss, correct, count = 0.0, 0, 0
    for images, labels in tqdm(loader, leave=False, disable=None):
        images, labels = images.to(device), labels.to(device)

        # forward 计算：每张图片得到十个得分，损失衡量这些得分与标签相差多少
        # Forward pass: each image gets ten scores. The loss measures how far they are from the labels.
        logits = model(images)
        loss = criterion(logits, labels)

        # 反向传播和优化：先把梯度清零，否则新的梯度会加到上一步的梯度上
        # Backpropagate and update the weights. Without zero_grad(), gradients would add up over the steps.
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

        # loss 是这一批图片的平均损失，乘以图片数再累加，这样即使各批大小不同，算出的平均损失也正确
        # The loss is the mean over a batch. It is multiplied by the number of images, so that each image counts
        # equally, even if the batches differ in size.
        total_loss += loss.item() * len(labels)
        correct += (logits.argmax(dim=1) == labels).sum().item()
        count += len(labels)
    return total_loss / count, correct / count


@torch.no_grad()
def evaluate(model: nn.Module, loader: DataLoader, device: torch.device) -> float:
    """Return the accuracy (0 to 1): the fraction of images whose predicted digit equals the label.

    The digit with the largest logit also has the largest probability, so argmax needs no softmax. A test
    needs no gradients. With no_grad, nothing is recorded for backward(), which saves time and memory.

    测试模型：为了效率，不需进行梯度计算（no_grad），省时间也省内存；返回准确率。
    每张图片挑选得分最大的数字，它的概率也最大，所以不必先做 softmax。
    """
    model.eval()
    correct = 0
    for images, labels in loader:
        predicted = model(images.to(device)).argmax(dim=1)
        correct += (predicted == labels.to(device)).sum().item()
    return correct / len(loader.dataset)


def check(model, train_set, criterion, lr, device) -> dict[str, float]:
    """Before training, look for mistakes: overfit one batch. Return the first and the last loss of 50 steps.

    A new model should find all ten digits about equally likely, so the first loss should be near ln 10. At
    the 50th step on the same 100 images, the loss should be near 0. If not, look for a mistake first.

    训练之前先检查两件事：第一步的损失应接近 ln 10（这时各数字概率相近）；用同样的 100 张图片训练到第 50 步，
    损失应接近 0。如果不是这样，就先找出错误，再开始训练。
    """
    # 在副本上检查，模型本身仍然没有训练过 · Check a copy, so that the model itself stays untrained
    model = copy.deepcopy(model)
    optimizer = torch.optim.Adam(model.parameters(), lr=lr)
    # 凡是能逐批给出数据的可迭代对象，都可以当数据加载器用，这里用的是只有一个批次的列表
    # Anything that yields batches can serve as a loader. Here it is a list that contains one batch.
    losses = [train_one_epoch(model, [train_set[:100]], criterion, optimizer, device)[0] for _ in range(50)]
    print(f"Check 1: the loss before training is {losses[0]:.3f}. It should be near ln 10 = 2.303.")
    print(f"Check 2: the loss at the 50th step on one batch is {losses[-1]:.3f}. It should be near 0.")
    print("检查：训练前的损失应接近 2.303，在一个批次上第 50 步的损失应接近 0。\n")
    return {"first_loss": losses[0], "overfit_loss": losses[-1]}


def main(argv: list[str] | None = None) -> dict:
    """Train the model, test it, save it, and load it. Return the name of the data set, the results, and the files.

    完整流程：准备数据，训练并测试，保存参数，再载入使用。
    """
    make_stdout_tolerant()
    args = make_parser(epochs="5 on MNIST, 20 on the digits").parse_args(argv)
    torch.manual_seed(args.seed)
    device = choose_device(args.device)  # gpu的配置：有能用的 GPU 就用 · Use the GPU if there is one that works.
    args.out_dir.mkdir(parents=True, exist_ok=True)
    print("简易神经网络 · A small neural network\n")

    # 数据集：把 0 到 255 的像素缩放到 [0, 1]，默认的初始权重和学习率适合这样大小的输入；再加上通道这一维
    # Scale the pixels from 0...255 to [0, 1], because the initial weights and the usual learning rates are
    # meant for small inputs. Then add the channel dimension: (N, 1, 28, 28).
    dataset, (images, labels), (test_images, test_labels) = load_data(args.dataset, args.data_dir)
    train_set = TensorDataset(images[: args.limit].unsqueeze(1) / 255, labels[: args.limit])
    test_set = TensorDataset(test_images.unsqueeze(1) / 255, test_labels)
    print(f"{dataset}: {len(train_set):,} training images, {len(test_set):,} test images")

    # 数据加载器：分批读取；训练图片每轮重新打乱，免得每一轮的批次都相同
    # Load the images in batches. Shuffle the training images again in every epoch, so that the batches differ.
    train_loader = DataLoader(train_set, args.batch_size, shuffle=True)
    test_loader = DataLoader(test_set, args.batch_size)

    # 创建模型并转移至gpu（没有 gpu 时就用 cpu），损失函数和优化器 · Model on its device, loss function and optimizer
    model = NeuralNet().to(device)
    criterion = nn.CrossEntropyLoss()
    optimizer = torch.optim.Adam(model.parameters(), lr=args.lr)
    print(f"{model}, on {device}\n")
    checks = check(model, train_set, criterion, args.lr, device)

    # 训练模型：每轮之后测试一次 · Train, and test after each epoch
    epochs = args.epochs or EPOCHS[dataset]
    results = {"train_loss": [], "train_accuracy": [], "test_accuracy": []}
    for epoch in range(1, epochs + 1):
        loss, accuracy = train_one_epoch(model, train_loader, criterion, optimizer, device)
        if not torch.tensor(loss).isfinite():
            sys.exit(f"error: the training loss is {loss}; try a smaller --lr")
        test_accuracy = evaluate(model, test_loader, device)
        results["train_loss"].append(loss)
        results["train_accuracy"].append(accuracy)
        results["test_accuracy"].append(test_accuracy)
        if epoch == epochs or epoch % max(1, epochs // 10) == 0:  # 最多 19 行 · at most 19 lines
            print(f"epoch {epoch}: loss {loss:.4f}, accuracy {accuracy:.2%} (training), {test_accuracy:.2%} (test)")

    # 保存模型参数，再载入到新建的模型里：以后在别的程序里使用，也是这样载入
    # map_location：没有 GPU 的电脑也能载入在 GPU 上训练的权重；weights_only：不执行文件里可能藏着的代码
    # Save the parameters, and load them into a new model, as another program would. With map_location, a computer
    # without a GPU can load weights saved on a GPU. With weights_only, no code hidden in the file is run.
    weights = args.out_dir / f"mlp-{dataset}.pt"
    torch.save(model.state_dict(), weights)
    loaded = NeuralNet()
    loaded.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    loaded.eval()

    # 模型的输入要有批这一维，单张图片用 unsqueeze(0) 加上
    # A single image needs the batch dimension as well, which unsqueeze(0) adds.
    image, label = test_set[0]
    predicted = loaded(image.unsqueeze(0)).argmax(dim=1).item()
    print(f"\nTest image 0 shows a {label}. The loaded model predicts {predicted}.")

    files = {"weights": weights, "curves": args.out_dir / f"mlp-{dataset}-curves.png"}
    plot_curves(results, files["curves"])
    print_result(dataset, test_accuracy, files)
    return results | checks | {"dataset": dataset, "files": files}


def plot_curves(results: dict[str, list], file: Path) -> None:
    """Draw the loss and the accuracies of each epoch.

    If the test accuracy stops rising while the training accuracy still rises, the model overfits.

    画出每轮的损失和准确率：训练准确率还在上升，测试准确率却不再上升，就是过拟合。
    """
    figure = Figure(figsize=(9, 3.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    epochs = range(1, len(results["train_loss"]) + 1)
    left.plot(epochs, results["train_loss"], ".-", label="training loss")
    right.plot(epochs, results["train_accuracy"], ".-", label="training accuracy, during the epoch")
    right.plot(epochs, results["test_accuracy"], ".-", label="test accuracy, after the epoch")
    for ax in (left, right):
        ax.set_xlabel("epoch")
        ax.locator_params(axis="x", integer=True)
        ax.legend()
    figure.savefig(file)


# ---- Below: command line, device, data files. The lesson ends here. ----
# 以下代码与教学无关，三个 MNIST 脚本里逐字相同；用到上面的 BATCH_SIZE、LEARNING_RATE、OUT_DIR 和文档字符串的第一行。
# These functions are the same, word for word, in logistic_regression.py, nn_demo.py and cnn_mnist.py.
# They use BATCH_SIZE, LEARNING_RATE, OUT_DIR and the first line of the docstring, which are above.


def make_parser(epochs: str) -> argparse.ArgumentParser:
    """Return the parser of the command line. `epochs` describes the default of --epochs in words."""
    # fmt: off
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0], allow_abbrev=False,
        epilog="example: python %(prog)s --dataset digits --epochs 3 --out-dir try")
    train = parser.add_argument_group("training")
    train.add_argument("--epochs", type=whole_number, metavar="N",
        help=f"how many times to go through the training images (default: {epochs})")
    train.add_argument("--batch-size", type=whole_number, metavar="N", default=BATCH_SIZE,
        help="how many images to take in each training step (default: %(default)s)")
    train.add_argument("--lr", type=float, metavar="X", default=LEARNING_RATE,
        help="learning rate: how far each step goes (default: %(default)s)")
    train.add_argument("--seed", type=lambda text: whole_number(text, 0), metavar="N", default=0,
        help="seed for the random numbers; the same seed and CPU give the same result (default: %(default)s)")
    train.add_argument("--device", default="auto",
        help="device to use, such as cpu, cuda, cuda:1 or mps; auto uses a working GPU or else the CPU (default: auto)")
    files = parser.add_argument_group("data and output")
    files.add_argument("--dataset", choices=["auto", "mnist", "digits"], default="auto",
        help="data set to use; mnist is downloaded if it is missing, digits comes with scikit-learn and needs no"
             " network, and auto means mnist, or digits if mnist cannot be downloaded (default: %(default)s)")
    files.add_argument("--data-dir", type=Path, metavar="DIR", default="data",
        help="folder that contains MNIST, or will contain it after the download (default: %(default)s)")
    files.add_argument("--limit", type=whole_number, metavar="N",
        help="train on the first N training images only; the test set stays complete (default: use all)")
    files.add_argument("--out-dir", type=Path, metavar="DIR", default=OUT_DIR,
        help="folder for the weights and the pictures; it is created if it is missing (default: %(default)s)")
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


def load_data(choice: str, data_dir: Path) -> tuple[str, tuple, tuple]:
    """Return the name of the data set, then the images and labels for training, then those for the test.

    Images are uint8 or float32 (N, 28, 28), with values from 0 to 255. Labels are int64 (N,), with values from 0 to 9.
    """
    if choice != "digits":
        while data_dir.name in ("MNIST", "raw"):  # torchvision itself adds MNIST/raw.
            data_dir = data_dir.parent
        timeout = socket.getdefaulttimeout()
        socket.setdefaulttimeout(10)  # A download that receives nothing for ten seconds has failed.
        try:
            parts = [datasets.MNIST(data_dir, train, download=True) for train in (True, False)]
            return "mnist", *((part.data, part.targets) for part in parts)
        except Exception as error:  # For example, there is no network, the disk is full, or a file is damaged.
            reason = str(error).strip().rpartition("\n")[2] or type(error).__name__
        finally:
            socket.setdefaulttimeout(timeout)
        names = ", ".join(name.removesuffix(".gz") for name, _ in datasets.MNIST.resources)
        found = [str(file) for file in data_dir.rglob("*ubyte")]
        if choice == "mnist" or len(found) > 3:  # If four are there, some are damaged or misnamed.
            sys.exit(f"error: MNIST cannot be loaded ({reason}). It needs four undamaged files in"
                     f" {data_dir / 'MNIST' / 'raw'}: {names}. Found: {', '.join(found) or 'none'}")  # fmt: skip
        print("!!! 无法下载 MNIST，改用 scikit-learn 的手写数字：图片少而粗糙。手动下载的方法见 docs/installing.zh.md")
        print(f"!!! MNIST cannot be downloaded ({reason}). This uses scikit-learn's digits. See docs/installing.md.\n")
    from sklearn.datasets import load_digits  # scikit-learn is slow to import and is only needed here.

    # Enlarge the 1,797 images from 8x8 to 20x20 pixels, and center them in 28x28, as in MNIST.
    images, labels = map(torch.from_numpy, load_digits(return_X_y=True))
    images = nn.functional.interpolate(images.view(-1, 1, 8, 8).float() / 16, size=20, mode="bilinear")
    images = 255 * nn.functional.pad(images, (4, 4, 4, 4)).squeeze(1)
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    return "digits", *((images[part], labels[part].long()) for part in (order[360:], order[:360]))


def print_result(dataset: str, accuracy: float, files: dict[str, Path]) -> None:
    """Print the last lines of a run. In a notebook, show the pictures as well."""
    name = "MNIST" if dataset == "mnist" else "scikit-learn's digits, not MNIST"
    print(f"\nTest accuracy on {name}: {accuracy:.2%}")
    print("Written:", *files.values(), sep="\n  ")
    if "ipykernel" in sys.modules:
        from IPython.display import Image, display

        display(*(Image(filename=str(file)) for file in files.values() if file.suffix == ".png"))


if __name__ == "__main__":
    main()

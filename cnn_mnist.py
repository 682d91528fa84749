"""Three convolutional networks on MNIST: a small ConvNet with BatchNorm, LeNet and ResNet-18.

Notes: Pytorch_CNN：MINST+卷积神经网络训练测试, LeNet.ipynb：pytorch搭建LeNet网络,
ResNet.ipynb：pytorch搭建ResNet

    python cnn_mnist.py                          # ConvNet on MNIST, downloaded on the first run
    python cnn_mnist.py --model lenet            # or resnet
    python cnn_mnist.py --dataset digits         # no network: scikit-learn's small digits
    python cnn_mnist.py --predict photo.png      # then: what digit is in my own photo?

Measured on 2 CPU cores with PyTorch 2.15, seed 0: of MNIST's test images ConvNet gets 99.2 % right,
LeNet 97.7 %, ResNet-18 99.0 % after its one epoch.

**Try** (MNIST, seed 0):

    --limit 1000      # 90.4 %: the same network, with too little to learn from
    --model lenet     # 97.7 %: half as many parameters again as ConvNet, but sigmoids learn slowly

and forget `model.eval()`: the trained ConvNet falls from 99.2 to 96.4 % if it sees one image at a
time. (200 at a time hide the mistake, 99.2 % still: a large batch is much like all the others.)
"""

import argparse
import copy
import math
import socket
import sys
import tempfile
import textwrap
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, TensorDataset
from torchvision import datasets
from tqdm import tqdm

# ConvNet's are the notes' hyperparameters. There are 1/42 as many digits to train on: more epochs.
EPOCHS = {
    "convnet": {"mnist": 5, "digits": 20},
    "lenet": {"mnist": 5, "digits": 100},
    "resnet": {"mnist": 1, "digits": 10},
}
BATCH_SIZE = 100
LEARNING_RATE = 0.001


class ConvNet(nn.Module):
    """Images (N, 1, 28, 28) to logits (N, 10): two blocks of convolution, then one linear layer.

    Pytorch_CNN of the notes. (The convolutions would do without their biases: the BatchNorm
    that follows subtracts any constant again.)
    """

    def __init__(self):
        super().__init__()
        self.layer1 = nn.Sequential(
            nn.Conv2d(1, 16, kernel_size=5, padding=2),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.MaxPool2d(kernel_size=2),
        )
        self.layer2 = nn.Sequential(
            nn.Conv2d(16, 32, kernel_size=5, padding=2),
            nn.BatchNorm2d(32),
            nn.ReLU(),
            nn.MaxPool2d(kernel_size=2),
        )
        self.fc = nn.Linear(7 * 7 * 32, 10)

    def forward(self, images: Tensor) -> Tensor:
        features = self.layer2(self.layer1(images))
        return self.fc(torch.flatten(features, 1))


class LeNet(nn.Module):
    """Images (N, 1, 28, 28) to logits (N, 10): LeCun's network of 1998, as LeNet.ipynb has it."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Sequential(
            nn.Conv2d(1, 6, kernel_size=5),
            nn.Sigmoid(),
            nn.MaxPool2d(2, 2),
            nn.Conv2d(6, 16, kernel_size=5),
            nn.Sigmoid(),
            nn.MaxPool2d(2, 2),
        )
        self.fc = nn.Sequential(
            nn.Linear(16 * 4 * 4, 120),
            nn.Sigmoid(),
            nn.Linear(120, 84),
            nn.Sigmoid(),
            nn.Linear(84, 10),
        )

    def forward(self, images: Tensor) -> Tensor:
        # Not the notebook's `view`: in channels_last memory it raises, and flatten copies instead.
        return self.fc(torch.flatten(self.conv(images), 1))


class Residual(nn.Module):
    """(N, in, H, W) to (N, out, H / stride, W / stride), rounded up: two convolutions and a bypass.

    Where the shape changes, the way around needs a 1x1 convolution, or the sum does not fit.
    He et al., "Deep Residual Learning for Image Recognition", 2015.
    """

    def __init__(self, in_channels, out_channels, use_1x1conv=False, stride=1):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1, stride=stride)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, kernel_size=3, padding=1)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.conv3 = None
        if use_1x1conv:
            self.conv3 = nn.Conv2d(in_channels, out_channels, kernel_size=1, stride=stride)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        if self.conv3 is not None:
            x = self.conv3(x)
        return F.relu(y + x)


class ResNet(nn.Module):
    """Images (N, 1, H, W) to logits (N, 10). ResNet-18, unless `blocks` says otherwise.

    The notebook writes GlobalAvgPool2d and FlattenLayer by hand; PyTorch has both. It also says
    that other numbers of blocks make ResNet-152, but [3, 8, 36, 3] of these blocks have 102
    layers: the 152 need the bottleneck block of the paper.
    """

    def __init__(self, blocks: Sequence[int] = (2, 2, 2, 2)):
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(1, 64, kernel_size=7, stride=2, padding=3),
            nn.BatchNorm2d(64),
            nn.ReLU(),
            nn.MaxPool2d(kernel_size=3, stride=2, padding=1),
        )
        self.stage1 = self.make_stage(64, 64, blocks[0], halve=False)
        self.stage2 = self.make_stage(64, 128, blocks[1])
        self.stage3 = self.make_stage(128, 256, blocks[2])
        self.stage4 = self.make_stage(256, 512, blocks[3])
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Sequential(nn.Flatten(), nn.Linear(512, 10))

    @staticmethod
    def make_stage(in_channels, out_channels, blocks, halve=True) -> nn.Sequential:
        first = Residual(in_channels, out_channels, use_1x1conv=halve, stride=2 if halve else 1)
        rest = [Residual(out_channels, out_channels) for _ in range(blocks - 1)]
        return nn.Sequential(first, *rest)

    def forward(self, images: Tensor) -> Tensor:
        x = self.stem(images)
        x = self.stage4(self.stage3(self.stage2(self.stage1(x))))
        return self.fc(self.pool(x))


MODELS = {"convnet": ConvNet, "lenet": LeNet, "resnet": ResNet}


def main(argv: Sequence[str] | None = None) -> dict:
    """Train, test, save and load again; or, with --predict, read digits in photos.

    Returns what was found: lists hold one value per epoch; `predictions` one dict a photo.
    """
    parser = make_parser()
    parser.add_argument("--model", choices=MODELS, default="convnet", help="default: convnet")
    parser.add_argument(
        "--predict", nargs="+", metavar="IMAGE", help="read your photos, one digit in each"
    )
    parser.add_argument(
        "--weights", type=Path, help="for --predict; default: those trained last of --model"
    )
    args = parser.parse_args(argv)
    if args.weights and not args.predict:
        parser.error("--weights is for --predict")
    device = choose_device(args.device)
    out_dir = make_out_dir(args.out_dir)
    if args.predict:
        weights = args.weights or newest_weights(out_dir, args.model, args.dataset)
        return predict(args.predict, args.model, weights, device, out_dir)
    torch.manual_seed(args.seed)

    dataset, train_images, train_labels, test_images, test_labels = load_data(
        args.dataset, args.data_dir, args.limit, device
    )
    train_loader = make_loader(train_images, train_labels, args.batch_size)
    if args.model == "resnet" and 1 in (args.batch_size, len(train_images) % args.batch_size):
        parser.error(
            f"{len(train_images)} images in batches of {args.batch_size} leave one alone, and that "
            "ResNet's BatchNorm cannot learn from: choose another --batch-size or --limit"
        )

    model = MODELS[args.model]()
    print(model)
    size = 224 if args.model == "resnet" else 28  # ResNet takes any size; the notebook shows 224
    shapes = show_shapes(model, torch.zeros(1, 1, size, size))
    # channels_last: a pixel's channels side by side in memory, and convolutions run faster. On
    # Apple's MPS BatchNorm's gradients are wrong with it (pytorch/pytorch issue 175189).
    layout = torch.contiguous_format if device.type == "mps" else torch.channels_last
    model = model.to(device, memory_format=layout)
    criterion = nn.CrossEntropyLoss()
    optimizer = torch.optim.Adam(model.parameters(), lr=args.lr)

    name = f"{args.model}-{dataset}"
    weights = out_dir / f"{name}.pt"
    results = {
        "dataset": dataset,
        "device": str(device),
        "epochs": args.epochs or EPOCHS[args.model][dataset],
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "shapes": shapes,
        "train_loss": [],
        "test_accuracy": [],
        "train_seconds": [],
        "files": {
            "weights": weights,
            "curves": out_dir / f"{name}-curves.png",
            "mistakes": out_dir / f"{name}-mistakes.png",
            "filters": out_dir / f"{name}-filters.png",
        },
    }
    print(f"\n{results['parameters']:,} parameters\n")
    if args.model == "resnet":
        results |= show_resnet(model)
    scheduler = None
    if args.model != "lenet":
        # The rate falls evenly to 0. Constant, as the notes have it, it leaves to chance where the
        # last epoch ends: ConvNet at 98.6 % in one run, at 97.6 % in another.
        steps = results["epochs"] * len(train_loader)
        scheduler = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=steps)

    try:
        for _ in range(results["epochs"]):
            start = time.perf_counter()
            loss = train_one_epoch(model, train_loader, criterion, optimizer, scheduler)
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
    model = MODELS[args.model]()
    model.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    model.eval()
    with torch.no_grad():
        digit = model(test_images[:1].cpu()).argmax(dim=1).item()
    print(f"\nLoaded again, it reads test image 0 as {digit}; its label is {test_labels[0]}.\n")

    results["modes"] = show_train_and_eval(model, test_images[:100].cpu())
    plot_curves(results, f"{type(model).__name__} on {dataset}")
    plot_mistakes(model.to(device), test_images, test_labels, results["files"]["mistakes"])
    plot_filters(model, results["files"]["filters"])
    print_result(results, args.dataset)
    return results


def show_shapes(model: nn.Module, images: Tensor) -> dict[str, tuple[int, ...]]:
    """Print the shape that leaves each layer (of ResNet: each block). Returns name -> shape."""
    model = copy.deepcopy(model).eval()  # the hooks below stay on the copy
    shapes = {}
    for name, layer in model.named_modules():
        if name.count(".") < 2 and not isinstance(layer, (nn.Sequential, type(model))):

            def hook(layer, inputs, output, name=name):
                shapes[name] = tuple(output.shape)
                print(f"  {name:9} {type(layer).__name__:18} {tuple(output.shape)}")

            layer.register_forward_hook(hook)  # PyTorch calls it after the layer's forward
    print(f"\nA batch of shape {tuple(images.shape)} becomes, layer by layer:")
    with torch.no_grad():
        model(images)
    return shapes


def show_resnet(model: nn.Module) -> dict:
    """Print what ResNet.ipynb shows of the block and of its two hand-written layers."""
    x = torch.rand(4, 3, 6, 6)
    kept = tuple(Residual(3, 3)(x).shape)
    halved = tuple(Residual(3, 6, use_1x1conv=True, stride=2)(x).shape)
    print(f"A residual block turns {tuple(x.shape)} into {kept}, with stride 2 into {halved}")
    pooled = F.avg_pool2d(x, kernel_size=x.shape[2:])  # the notebook's GlobalAvgPool2d
    same = torch.allclose(pooled, nn.AdaptiveAvgPool2d(1)(x))
    same = same and torch.equal(pooled.view(4, -1), nn.Flatten()(pooled))  # its FlattenLayer
    print(f"The notebook's GlobalAvgPool2d and FlattenLayer equal PyTorch's own: {same}")
    layers = count_layers(model)
    print(f"{layers} layers: every convolution but the 1x1 on the way around, and the linear one\n")
    return {"kept": kept, "halved": halved, "same_layers": same, "layers": layers}


def count_layers(model: nn.Module) -> int:
    """The number in "ResNet-18": convolutions and linear layers in a row, not those beside it."""
    convolutions = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
    linear = [m for m in model.modules() if isinstance(m, nn.Linear)]
    return sum(m.kernel_size != (1, 1) for m in convolutions) + len(linear)


@torch.no_grad()
def show_train_and_eval(model: nn.Module, images: Tensor) -> dict:
    """Show on one batch what train() and eval() change. Returns the largest differences.

    In train mode BatchNorm normalizes with the mean and variance of the batch at hand, so an
    image's result depends on its neighbours. In eval mode it uses the running averages that it
    kept while training (exponential ones, not the mean of all batches), and does not.
    """
    model = copy.deepcopy(model)  # a pass in train mode moves the running averages
    in_eval = model.eval()(images)
    alone_in_eval = model(images[:1])
    in_train = model.train()(images)
    modes = {
        "train_against_eval": (in_train - in_eval).abs().max().item(),
        "alone_in_eval": (alone_in_eval - in_eval[:1]).abs().max().item(),
    }
    print(f"The same {len(images)} test images and weights, but the logits differ by up to")
    print(f"  {modes['train_against_eval']:.4f}  between train() and eval()")
    print(f"  {modes['alone_in_eval']:.4f}  in eval(), for image 0 alone and in the batch")
    try:
        modes["alone_in_train"] = (model(images[:1]) - in_train[:1]).abs().max().item()
        print(f"  {modes['alone_in_train']:.4f}  in train(), for image 0 alone and in the batch")
    except ValueError as error:  # ResNet's last stage is 1x1 here: one value has no variance
        print(f"  in train(), image 0 alone is refused: {error}")
    if not any(isinstance(layer, nn.BatchNorm2d) for layer in model.modules()):
        print("  (nothing but rounding: this model has no BatchNorm and no Dropout)")
    dropout, ones = nn.Dropout(0.5), torch.ones(10)
    modes["dropout_train"] = dropout.train()(ones).tolist()
    modes["dropout_eval"] = dropout.eval()(ones).tolist()
    print(f"Dropout(0.5) of ones in train(): {modes['dropout_train']}")
    print(f"                     in eval():  {modes['dropout_eval']}\n")
    return modes


@torch.no_grad()
def plot_mistakes(model: nn.Module, images: Tensor, labels: Tensor, file: Path) -> None:
    """The first 24 test images that the model reads wrongly."""
    import matplotlib.pyplot as plt

    model.eval()
    predicted = torch.cat([model(batch).argmax(dim=1) for batch in images.split(200)])
    wrong = (predicted != labels).nonzero().flatten()
    rows = max(1, math.ceil(min(len(wrong), 24) / 8))
    figure, axes = plt.subplots(rows, 8, figsize=(9, 0.7 + 1.3 * rows), layout="constrained")
    title = f"{len(wrong)} of {len(labels):,} test images read wrongly (label → read as)"
    figure.suptitle(title + ("; the first 24:" if len(wrong) > 24 else ""))
    for axis in axes.flat:
        axis.axis("off")
    for index, axis in zip(wrong, axes.flat):
        axis.imshow(images[index, 0].cpu().numpy(), cmap="gray")
        axis.set_title(f"{labels[index]} → {predicted[index]}")
    figure.savefig(file)
    plt.close(figure)


def plot_filters(model: nn.Module, file: Path) -> None:
    """The weights of the first convolution, one small picture per filter."""
    import matplotlib.pyplot as plt

    first = next(layer for layer in model.modules() if isinstance(layer, nn.Conv2d))
    filters = first.weight.detach().cpu().numpy()[:, 0]
    limit = abs(filters).max()
    columns = min(8, len(filters))
    rows = math.ceil(len(filters) / columns)
    figure, axes = plt.subplots(rows, columns, figsize=(columns, rows + 0.6), layout="constrained")
    for filter, axis in zip(filters, axes.flat):
        shown = axis.imshow(filter, cmap="RdBu", vmin=-limit, vmax=limit)
        axis.axis("off")
    height, width = filter.shape
    figure.suptitle(f"First convolution: {len(filters)} filters, {height}x{width}")
    figure.colorbar(shown, ax=axes, label="weight")
    figure.savefig(file)
    plt.close(figure)


def newest_weights(out_dir: Path, model: str, dataset: str) -> Path:
    pattern = f"{model}-{'*' if dataset == 'auto' else dataset}.pt"
    found = sorted(out_dir.glob(pattern), key=lambda file: file.stat().st_mtime)
    if not found:
        sys.exit(f"error: no {pattern} in {out_dir}: train --model {model} first or give --weights")
    return found[-1]


@torch.no_grad()
def predict(photos, model_name: str, weights: Path, device: torch.device, out_dir: Path) -> dict:
    """Read the digit in each photo, print it, and draw what the network saw."""
    import matplotlib.pyplot as plt

    model = MODELS[model_name]()
    try:
        # weights_only: a file from somebody else may hold code, and this refuses to run any.
        model.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    except OSError as error:
        sys.exit(f"error: {weights} cannot be read: {error.strerror}")
    except Exception:  # what is no state_dict of this model can fail in more ways than one lists
        sys.exit(f"error: {weights} does not hold the weights of a {model_name}")
    model.to(device).eval()
    print(f"{model_name} with the weights {weights}, on {device}")
    if "digits" in weights.name:
        print("These weights learned the coarse digits, not MNIST: expect mistakes on photos.")

    images = torch.stack([prepare_photo(photo) for photo in photos])
    probabilities, digits = model(images.to(device)).softmax(dim=1).cpu().max(dim=1)
    file = out_dir / f"{weights.stem}-predictions.png"
    size = (7, 3.2 * len(photos))
    figure, axes = plt.subplots(len(photos), 2, figsize=size, squeeze=False, layout="constrained")
    predictions = []
    for row, photo, image, digit, probability in zip(axes, photos, images, digits, probabilities):
        found = {"image": photo, "digit": digit.item(), "probability": probability.item()}
        predictions.append(found)
        print(f"{photo}: {digit} ({probability:.1%})")
        row[0].imshow(read_gray(photo), cmap="gray", vmin=0, vmax=255)
        row[0].set_title("the photo")
        row[1].imshow(image[0].numpy(), cmap="gray")
        row[1].set_title(f"what the network saw: {digit} ({probability:.0%})")
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
    figure.savefig(file)
    plt.close(figure)
    print(f"Written: {file}")
    return {"device": str(device), "predictions": predictions, "files": {"predictions": file}}


def read_gray(photo: str) -> np.ndarray:
    """uint8 (H, W)."""
    import cv2  # slow to import, so only where it is needed

    try:
        pixels = np.fromfile(photo, dtype=np.uint8)  # cv2.imread fails on some paths on Windows
        gray = cv2.imdecode(pixels, cv2.IMREAD_GRAYSCALE)
    except OSError as error:
        sys.exit(f"error: {photo} cannot be read: {error.strerror}")
    except cv2.error:  # it is empty, or too large
        gray = None
    if gray is None:
        sys.exit(f"error: {photo} is not a picture that OpenCV can read")
    return gray


def prepare_photo(photo: str) -> Tensor:
    """One digit on paper, of any size and in any light, as MNIST would show it.

    Returns float32 (1, 28, 28): bright ink on black, fitted into 20x20, its centre of mass in
    the middle. LeCun's page on MNIST describes how the dataset was made so.
    """
    import cv2

    gray = read_gray(photo)
    size = [max(1, round(200 * side / max(gray.shape))) for side in gray.shape]
    gray = cv2.medianBlur(cv2.resize(gray, size[::-1], interpolation=cv2.INTER_AREA), 5)  # no noise
    # Most of a photo is paper, so the median all around a pixel is the paper there, shadow and
    # all. How much a pixel differs from it is the ink, dark on light or light on dark.
    ink = cv2.absdiff(gray, cv2.medianBlur(gray, 255))
    _, mask = cv2.threshold(ink, 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    if not mask.any() or ink[mask > 0].mean() < 20:  # of 255: that much is noise
        sys.exit(f"error: no ink found in {photo}")
    _, pieces, stats, _ = cv2.connectedComponentsWithStats(mask)  # piece 0 is the paper
    areas = stats[:, cv2.CC_STAT_AREA]
    mask = np.isin(pieces, 1 + np.flatnonzero(areas[1:] > 0.1 * areas[1:].max()))  # no specks
    rows, columns = np.nonzero(mask)
    box = slice(rows.min(), rows.max() + 1), slice(columns.min(), columns.max() + 1)
    full = np.percentile(ink[mask], 25)  # this much ink and more is white
    ink = np.minimum(ink / full, 1) * cv2.dilate(mask.astype(float), np.ones((5, 5)))
    ink = ink[box]
    height, width = (max(1, round(20 * side / max(ink.shape))) for side in ink.shape)
    ink = cv2.resize(ink, (width, height), interpolation=cv2.INTER_AREA)
    moments = cv2.moments(ink)
    shift_x = 14 - moments["m10"] / moments["m00"]
    shift_y = 14 - moments["m01"] / moments["m00"]
    ink = cv2.warpAffine(ink, np.float32([[1, 0, shift_x], [0, 1, shift_y]]), (28, 28))
    return torch.from_numpy(ink).float().unsqueeze(0)


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

"""Three convolutional networks on MNIST: a ConvNet with BatchNorm, LeNet and ResNet-18.

Notes: https://github.com/yearing1017/PyTorch_Note
Pytorch_CNN：MINST+卷积神经网络训练测试
LeNet.ipynb：pytorch搭建LeNet网络
ResNet.ipynb：pytorch搭建ResNet

    python cnn_mnist.py                          # ConvNet on MNIST, downloaded on the first run
    python cnn_mnist.py --model lenet            # or resnet
    python cnn_mnist.py --dataset digits         # no network: scikit-learn's small digits
    python cnn_mnist.py --predict photo.png      # then: which digit is in my own photo?

Test accuracy of ConvNet 99.1 %, LeNet 97.8 %, ResNet-18 after its one epoch 99.0 % (seed 0), on
2 CPU cores with PyTorch 2.15.

**Try**, on MNIST with seed 0:

    --limit 1000      # 92.8 %: the same ConvNet, with too few images and too few steps
    --model lenet     # 97.8 %: 1.5 times the parameters of ConvNet, but sigmoids learn slowly
"""

import argparse
import copy
import math
import os
import socket
import sys
import tempfile
import time
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from torchvision import datasets
from torchvision.utils import make_grid
from tqdm import tqdm

# 超参数 · Hyperparameters, ConvNet's as in the notes. The epochs stand in MODELS.
BATCH_SIZE = 100
LEARNING_RATE = 0.001
OUT_DIR = Path("outputs", "cnn_mnist")


# 网络搭建 · MINST+卷积神经网络训练测试
class ConvNet(nn.Module):
    """Images (N, 1, 28, 28) to logits (N, 10): two blocks of convolution, then one linear layer."""

    def __init__(self):
        super().__init__()
        self.layer1 = nn.Sequential(
            # input_channel: 1, output_channel: 16
            nn.Conv2d(1, 16, kernel_size=5, stride=1, padding=2),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.MaxPool2d(kernel_size=2, stride=2),
        )
        self.layer2 = nn.Sequential(
            nn.Conv2d(16, 32, kernel_size=5, stride=1, padding=2),
            nn.BatchNorm2d(32),
            nn.ReLU(),
            nn.MaxPool2d(kernel_size=2, stride=2),
        )
        self.fc = nn.Linear(7 * 7 * 32, 10)

    def forward(self, images: Tensor) -> Tensor:
        out = self.layer1(images)
        out = self.layer2(out)
        out = out.reshape(out.size(0), -1)  # size(0): the batch size; each image becomes one row
        out = self.fc(out)
        return out


# 训练 · One pass over the training images
def train_one_epoch(
    model, loader, criterion, optimizer, device, scheduler=None
) -> tuple[float, float]:
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
        if scheduler is not None:
            scheduler.step()

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
    """Train, test, save, load again; or, with --predict, classify the digits in photos.

    Returns the lists that it plots, and the files written; or the predictions.
    """
    make_stdout_tolerant()
    parser = make_parser()
    add = parser.add_argument
    add("--model", choices=MODELS, default="convnet", help="(%(default)s)")
    add("--predict", nargs="+", metavar="IMAGE", type=path, help="your photos, one digit in each")
    add("--weights", metavar="FILE", type=path, help="for --predict (those saved of --model)")
    args = parser.parse_args(argv)
    if args.weights and not args.predict:
        parser.error("--weights is for --predict")
    torch.manual_seed(args.seed)
    device = choose_device(args.device)
    out_dir = make_out_dir(args.out_dir)
    make_model, default_epochs, heading = MODELS[args.model]  # below ResNet
    if args.predict:
        weights = args.weights or out_dir / f"{args.model}-mnist.pt"
        if not (args.weights or weights.exists()):
            print(f"!!! No {weights}: trying {args.model}-digits.pt, learned from coarser pictures")
            weights = out_dir / f"{args.model}-digits.pt"
        return predict(make_model(), weights, args.predict, device, out_dir)
    print(f"{heading}\n逐层的输出形状、参数量，每轮的训练损失、训练准确率和测试准确率。\n")

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
    model = make_model().to(device)
    if device.type == "cpu":
        # A pixel's channels side by side in memory: it makes convolutions on a CPU faster.
        model = model.to(memory_format=torch.channels_last)
    criterion = nn.CrossEntropyLoss()
    optimizer = torch.optim.Adam(model.parameters(), lr=args.lr)
    epochs = args.epochs or default_epochs[dataset]
    scheduler, size = None, 28
    if args.model == "resnet":
        # Its rate falls evenly to about 0: at a constant rate it is left to chance how good the
        # weights are where its one epoch ends.
        steps = epochs * len(train_loader)
        scheduler = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=steps)
        size = 224  # its notebook shows the shapes for 224x224; it is trained on 28x28 all the same
        # Of 28x28, 1x1 is left in its last stage: there BatchNorm has one value of each image, and
        # no variance of a single one.
        if 1 in (args.batch_size, len(train_set) % args.batch_size):
            parser.error("--model resnet: the last batch would have one image, which is too few")

    print(model, "", sep="\n")
    show_shapes(model, torch.zeros(1, 1, size, size, device=device))
    parameters = sum(parameter.numel() for parameter in model.parameters())
    print(f"{parameters:,} parameters, on {device}\n")

    # 训练 · Training, and a test after each epoch
    results = {"train_loss": [], "train_accuracy": [], "test_accuracy": [], "train_seconds": []}
    for epoch in range(1, epochs + 1):
        start = time.perf_counter()
        loss, accuracy = train_one_epoch(
            model, train_loader, criterion, optimizer, device, scheduler
        )
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
    name = f"{args.model}-{dataset}"
    weights = out_dir / f"{name}.pt"
    torch.save(model.state_dict(), weights)

    # Tomorrow, in another program, perhaps without a GPU, these three lines load them again.
    loaded = make_model()
    loaded.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    loaded.eval()

    image, label = test_set[0]
    with torch.no_grad():
        logits = loaded(image.unsqueeze(0))  # a batch of one
    print(f"\nLoaded again: it predicts {logits.argmax()} for test image 0; its label is {label}.")

    show_train_and_eval(loaded, test_set[:100][0])
    files = {"weights": weights}
    for picture in ("curves", "mistakes", "filters"):
        files[picture] = out_dir / f"{name}-{picture}.png"
    plot_curves(results, files["curves"])
    plot_mistakes(loaded.to(device), test_loader, device, files["mistakes"])
    plot_filters(loaded, files["filters"])
    print_result(test_accuracy, dataset, args.dataset, list(files.values()))
    return results | {"dataset": dataset, "device": str(device), "files": files}


# pytorch搭建LeNet网络 · LeNet
class LeNet(nn.Module):
    """Images (N, 1, 28, 28) to logits (N, 10): after LeCun's network of 1998.

    With the notebook's sigmoids and max pooling; that of 1998 had images of 32x32, tanh, averages
    with weights to learn, and another last layer.
    """

    def __init__(self):
        super().__init__()
        self.conv = nn.Sequential(
            nn.Conv2d(1, 6, 5),  # in_channels, out_channels, kernel_size
            nn.Sigmoid(),
            nn.MaxPool2d(2, 2),  # kernel_size, stride
            nn.Conv2d(6, 16, 5),
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

    def forward(self, img: Tensor) -> Tensor:
        feature = self.conv(img)
        # The notebook's feature.view(img.shape[0], -1) raises in channels_last memory; see `main`.
        output = self.fc(feature.reshape(img.shape[0], -1))
        return output


# pytorch搭建ResNet: 残差块的实现 · The residual block
class Residual(nn.Module):
    """(N, in, H, W) to (N, out, H / stride, W / stride), rounded up: two convolutions, a shortcut.

    Where the shape changes, the shortcut needs the 1x1 convolution. He et al., "Deep Residual
    Learning for Image Recognition", 2015.
    """

    def __init__(self, in_channels, out_channels, use_1x1conv=False, stride=1):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1, stride=stride)
        self.conv2 = nn.Conv2d(out_channels, out_channels, kernel_size=3, padding=1)
        if use_1x1conv:
            self.conv3 = nn.Conv2d(in_channels, out_channels, kernel_size=1, stride=stride)
        else:
            self.conv3 = None
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.bn2 = nn.BatchNorm2d(out_channels)

    def forward(self, X: Tensor) -> Tensor:
        Y = F.relu(self.bn1(self.conv1(X)))
        Y = self.bn2(self.conv2(Y))
        if self.conv3 is not None:
            X = self.conv3(X)
        return F.relu(Y + X)


class ResNet(nn.Module):
    """Images (N, 1, H, W) to logits (N, 10): ResNet-18, unless `blocks` says otherwise.

    18 layers: 1 convolution in the stem, 16 in the blocks (2 in each), 1 linear layer; those of 1x1
    on the shortcuts are not counted. Its convolutions have biases and its shortcuts no BatchNorm,
    as in the notebook, so torchvision's weights do not fit.
    """

    def __init__(self, blocks=(2, 2, 2, 2)):
        super().__init__()
        self.stem = nn.Sequential(  # 步幅 (stride) 2, 批量归一化 (batch normalization), max pooling
            nn.Conv2d(1, 64, kernel_size=7, stride=2, padding=3),
            nn.BatchNorm2d(64),
            nn.ReLU(),
            nn.MaxPool2d(kernel_size=3, stride=2, padding=1),
        )
        self.resnet_block1 = resnet_block(64, 64, blocks[0], first_block=True)
        self.resnet_block2 = resnet_block(64, 128, blocks[1])
        self.resnet_block3 = resnet_block(128, 256, blocks[2])
        self.resnet_block4 = resnet_block(256, 512, blocks[3])
        self.global_avg_pool = nn.AdaptiveAvgPool2d(1)  # 全局平均池化层
        self.fc = nn.Sequential(nn.Flatten(), nn.Linear(512, 10))

    def forward(self, images: Tensor) -> Tensor:
        x = self.stem(images)
        x = self.resnet_block1(x)
        x = self.resnet_block2(x)
        x = self.resnet_block3(x)
        x = self.resnet_block4(x)
        return self.fc(self.global_avg_pool(x))


def resnet_block(in_channels, out_channels, num_residuals, first_block=False) -> nn.Sequential:
    """A stage: every one but the first doubles the channels and halves height and width."""
    blk = []
    for i in range(num_residuals):
        if i == 0 and not first_block:
            blk.append(Residual(in_channels, out_channels, use_1x1conv=True, stride=2))
        else:
            blk.append(Residual(out_channels, out_channels))
    return nn.Sequential(*blk)


# The class, the epochs on each dataset (the digits are 1/42 as many images), the notes' heading
MODELS = {
    "convnet": (ConvNet, {"mnist": 5, "digits": 20}, "MINST+卷积神经网络训练测试 · ConvNet"),
    "lenet": (LeNet, {"mnist": 5, "digits": 100}, "pytorch搭建LeNet网络 · LeNet"),
    "resnet": (ResNet, {"mnist": 1, "digits": 10}, "pytorch搭建ResNet · ResNet-18"),
}


@torch.no_grad()
def show_shapes(model: nn.Module, images: Tensor) -> None:
    """Print the shapes before and after each layer; of ResNet, each residual block."""

    def show(layer, inputs, output):  # a forward hook: PyTorch calls it after the layer's forward
        print(f"  {type(layer).__name__:18} {tuple(inputs[0].shape)!s:18} -> {tuple(output.shape)}")

    print("Shapes before and after each layer: (batch, channels, height, width)")
    hooks = []
    for part in model.children():
        for layer in list(part.children()) or [part]:
            hooks.append(layer.register_forward_hook(show))
    model.eval()(images)
    for hook in hooks:
        hook.remove()


# eval模式和train模式的区别 · What train() and eval() change
@torch.no_grad()
def show_train_and_eval(model: nn.Module, images: Tensor) -> None:
    """Print how far apart the logits of a batch are in the two modes, and what Dropout does.

    In train mode BatchNorm normalizes with the mean and variance of the batch. In eval mode it uses
    running averages, which every batch in training has moved a tenth of the way to its own values.
    """
    print("\neval模式和train模式的区别 · What train() and eval() change")
    print("train() 用本批的均值和方差，eval() 用滑动平均；LeNet 没有 BatchNorm，没有差别。\n")
    model = copy.deepcopy(model)  # a pass in train mode moves the running averages
    in_eval, alone_in_eval = model.eval()(images), model(images[:1])
    in_train = model.train()(images)
    changed = (in_train.argmax(dim=1) != in_eval.argmax(dim=1)).sum()
    print(f"Largest difference of the logits of {len(images)} test images, with the same weights:")
    print(f"  {(in_train - in_eval).abs().max():.4f}  between train() and eval()")
    difference = (alone_in_eval - in_eval[:1]).abs().max()
    print(f"  {difference:.4f}  in eval(), between image 0 alone and in the batch")
    try:
        difference = (model(images[:1]) - in_train[:1]).abs().max()
        print(f"  {difference:.4f}  in train(), between image 0 alone and in the batch")
    except ValueError as error:  # ResNet's last stage is 1x1 here: one value has no variance
        print(f"  in train(), image 0 alone raises: {error}")
    print(f"{changed} of the {len(images)} predicted digits change with the mode.\n")

    dropout, ones = nn.Dropout(0.5), torch.ones(10)
    print(f"Dropout(0.5) of ten ones in train(): {dropout.train()(ones).tolist()}")
    print(f"                          in eval(): {dropout.eval()(ones).tolist()}")
    print("In train() it sets each value to 0 with probability 0.5 and doubles the others, so that")
    print("the mean stays about the same; in eval() it does nothing. (These networks use none.)\n")


# ---- The second lesson: digits in photos ----


@torch.no_grad()
def predict(model: nn.Module, weights: Path, photos: list[Path], device, out_dir: Path) -> dict:
    """Predict the digit in each photo, print it, and draw what the network was given.

    Returns for each its file, digit, probability, and a reason not to trust them, or "". A photo
    that cannot be used costs one line; the others are still read, and the exit code is 1.
    """
    load_weights(model, weights)
    model.to(device).eval()
    print(f"{type(model).__name__} with the weights {weights}, on {device}")

    predictions, shown = [], []
    for number, photo in enumerate(photos, start=1):
        try:
            gray = read_photo(photo)
            image, reason = prepare_photo(gray)
        except ValueError as error:
            print(f"error: {number} {photo}: {error}", file=sys.stderr)
            continue
        probability, digit = model(image.unsqueeze(0).to(device)).softmax(dim=1)[0].max(dim=0)
        print(f"{number} {photo}: {digit} ({probability:.1%})")
        if reason:
            print(f"!!! {number}: do not trust this answer: {reason}")
        predictions.append((photo, digit.item(), probability.item(), reason))
        shown.append((gray, 255, f"photo {number}"))
        shown.append((image[0].numpy(), 1, f"input: {digit} ({probability:.0%})"))
    if not predictions:
        sys.exit(1)

    # Three photos in a row, each with its input; of more than 60, the first 60
    columns, rows = min(len(shown), 6), min(math.ceil(len(shown) / 6), 20)
    figure = plt.figure(figsize=(2.2 * columns, 2.7 * rows), layout="constrained")
    for place, (picture, white, title) in enumerate(shown[: columns * rows], start=1):
        ax = figure.add_subplot(rows, columns, place, title=title, xticks=[], yticks=[])
        ax.imshow(picture, cmap="gray", vmin=0, vmax=white)
    file = out_dir / f"{weights.stem}-predictions.png"
    figure.savefig(file)
    plt.close(figure)
    print(f"Written: {file}")
    if len(predictions) < len(photos):
        sys.exit(1)
    return {"device": str(device), "predictions": predictions, "files": {"predictions": file}}


def load_weights(model: nn.Module, file: Path) -> None:
    try:
        # weights_only: a file from somebody else may hold code, and this refuses to run any.
        model.load_state_dict(torch.load(file, map_location="cpu", weights_only=True))
    except Exception as error:  # what holds other things fails in more ways than one would list
        other = f"it does not hold the weights of a {type(model).__name__}"
        sys.exit(f"error: {file} cannot be loaded: {getattr(error, 'strerror', None) or other}")


def read_photo(photo: Path) -> np.ndarray:
    """uint8 (H, W), turned upright as the camera asks for (EXIF), on white where transparent.

    Raises ValueError with the reason if it cannot be read.
    """
    try:
        with Image.open(photo) as file:  # once: it may be a pipe
            picture = ImageOps.exif_transpose(file)
    except Exception as error:  # a damaged file fails in more ways than one would list
        reason = getattr(error, "strerror", None) or error
        raise ValueError(f"it cannot be read: {reason}") from error
    if picture.mode[0] in "IF":  # gray with 16 bits or more
        print(f"{photo}: more than 8 bits; its darkest pixel becomes 0, its lightest 255")
        gray = np.asarray(picture).astype(float)
        gray -= gray.min()
        return (gray / max(gray.max(), 1e-9) * 255).round().astype(np.uint8)
    picture = picture.convert("RGBA")
    paper = Image.new("RGBA", picture.size, "white")
    return np.asarray(Image.alpha_composite(paper, picture).convert("L"))


def prepare_photo(gray: np.ndarray) -> tuple[Tensor, str]:
    """One digit on paper, of any size and in any light, as MNIST would show it.

    Takes what `read_photo` returned. Returns float32 (1, 28, 28): bright ink on black, fitted into
    20x20, its center of mass in the middle; and the reason why this is hardly one digit, or "".
    Raises ValueError if there is no ink. LeCun's page on MNIST describes how it was made.
    """
    import cv2  # slow to import, and seldom needed

    frame_high, frame_wide = (max(1, round(200 * side / max(gray.shape))) for side in gray.shape)
    gray = cv2.resize(gray, (frame_wide, frame_high), interpolation=cv2.INTER_AREA)
    gray = cv2.GaussianBlur(gray, (5, 5), 0)  # less noise; unlike a median, it keeps thin strokes
    # Most of a photo is paper, so the median all around a pixel is the paper there, shadow and
    # all. How much a pixel differs from it is the ink, dark on light or light on dark. Near the
    # border it may be the median of a table or a frame; so ink differs from that of all, too.
    ink = cv2.absdiff(gray, cv2.medianBlur(gray, 255))
    paper = np.median(gray)
    ink = cv2.min(ink, cv2.absdiff(gray, np.full_like(gray, paper)))
    _, mask = cv2.threshold(ink, 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    if not mask.any() or ink[mask > 0].mean() < 15:  # of 255: that much is noise
        raise ValueError("no ink in it")

    # The digit: the large pieces of ink, without specks. What reaches the border is the edge of
    # the table, of a shadow or of a printed box, if there is a large piece that does not.
    _, pieces, stats, _ = cv2.connectedComponentsWithStats(mask)  # piece 0 is the paper
    large = stats[:, cv2.CC_STAT_AREA] > 0.1 * stats[1:, cv2.CC_STAT_AREA].max()
    large[0] = False
    left, top, wide, high, _ = stats.T
    right, bottom, lengths = left + wide, top + high, np.maximum(wide, high)
    inside = (left > 0) & (top > 0) & (right < frame_wide) & (bottom < frame_high)
    digit = np.flatnonzero(large & inside if (large & inside).any() else large)
    mask = np.isin(pieces, digit).astype(np.uint8)
    shortest, longest = sorted(cv2.boundingRect(mask)[2:])
    stroke = 2 * cv2.distanceTransform(mask, cv2.DIST_L2, 5).max()  # where it is widest
    blot = stroke > 0.35 * longest and shortest > 0.5 * longest  # a 1 may be as thick

    # What can hardly be one digit, but is read all the same
    border = np.median(np.concatenate([gray[0], gray[-1], gray[:, 0], gray[:, -1]]))
    one = digit[lengths[digit].argmax()]  # the longest piece
    beside = (right <= left[one]) | (left >= right[one])
    above = (bottom <= top[one]) | (top >= bottom[one])
    like = lengths > 0.7 * lengths[one]
    spans = (wide == frame_wide) | (high == frame_high)
    reasons = {
        "another color all round the border: a sheet on a table?": abs(border - paper) > 30,
        "too thick for strokes: a sheet on a table, or too small?": blot,
        "smaller than a tenth of the photo: go nearer": longest < 20,
        "as long as the photo: an edge or a line?": spans[digit].any(),
        "two pieces of like size: more than one digit?": ((beside | above) & like)[digit].any(),
    }

    full = np.percentile(ink[mask > 0], 25)  # this much ink and more is white
    ink = np.minimum(ink / full, 1) * cv2.dilate(mask, np.ones((5, 5)))  # with its soft edge
    # MNIST's strokes are about a tenth of the digit; a thinner one would be gray at 20x20.
    grow = round(longest / 10 - stroke)
    if grow > 0:
        brush = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (grow + 1, grow + 1))
        ink, mask = cv2.dilate(ink, brush), cv2.dilate(mask, brush)
    left, top, wide, high = cv2.boundingRect(mask)
    ink = ink[top : top + high, left : left + wide]
    size = [max(1, round(20 * side / max(wide, high))) for side in (wide, high)]
    ink = cv2.resize(ink, size, interpolation=cv2.INTER_AREA)
    moments = cv2.moments(ink)
    shift_x = 14 - moments["m10"] / moments["m00"]
    shift_y = 14 - moments["m01"] / moments["m00"]
    ink = cv2.warpAffine(ink, np.float32([[1, 0, shift_x], [0, 1, shift_y]]), (28, 28))
    reason = "; ".join(text for text, holds in reasons.items() if holds)
    return torch.from_numpy(ink).float().unsqueeze(0), reason


@torch.no_grad()
def plot_mistakes(model: nn.Module, loader: DataLoader, device, file: Path) -> None:
    """How many of the images in `loader` the model gets wrong, and the first 24 of them."""
    wrong = []
    for images, labels in loader:
        predicted = model(images.to(device)).argmax(dim=1).cpu()
        wrong += [row for row in zip(images, labels, predicted) if row[1] != row[2]]
    figure = plt.figure(figsize=(9, 4.6), layout="constrained")
    count = f"{len(wrong)} of {len(loader.dataset):,} test images are wrong"
    figure.suptitle(f"{count} (label → predicted)")
    for place, (image, label, digit) in enumerate(wrong[:24], start=1):
        ax = figure.add_subplot(3, 8, place, title=f"{label} → {digit}", xticks=[], yticks=[])
        ax.imshow(image[0].numpy(), cmap="gray")
    figure.savefig(file)
    plt.close(figure)


def plot_filters(model: nn.Module, file: Path) -> None:
    """The weights of the first convolution, each filter enlarged: blue adds, red subtracts."""
    first = next(layer for layer in model.modules() if isinstance(layer, nn.Conv2d))
    filters = F.interpolate(first.weight.detach().cpu(), scale_factor=24)
    grid, limit = make_grid(filters[:, :1], nrow=8, padding=8)[0], filters.abs().max().item()
    plt.imsave(file, grid.numpy(), cmap="RdBu", vmin=-limit, vmax=limit)


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

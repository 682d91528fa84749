"""Three convolutional networks on MNIST: a ConvNet with BatchNorm, LeNet and ResNet-18.

Notes: https://github.com/yearing1017/PyTorch_Note
Pytorch_CNN：MINST+卷积神经网络训练测试
LeNet.ipynb：pytorch搭建LeNet网络
ResNet.ipynb：pytorch搭建ResNet

    python cnn_mnist.py                          # ConvNet on MNIST, downloaded on the first run
    python cnn_mnist.py --model lenet            # or resnet
    python cnn_mnist.py --dataset digits         # no network: scikit-learn's small digits
    python cnn_mnist.py --predict photo.png      # then: which digit is in my own photo?

Test accuracy of ConvNet 98.9 %, LeNet 97.7 %, ResNet-18 after its one epoch 99.0 % (seed 0), on
2 CPU cores with PyTorch 2.15.

**Try**, on MNIST with seed 0:

    --limit 1000      # 92.5 %: the same ConvNet, with too few images to learn from
    --model lenet     # 97.7 %: 1.5 times the parameters of ConvNet, but sigmoids learn slowly

and forget `model.eval()` in `evaluate`: ConvNet then gets 97.5 % if it is given one image at a time
(`images.split(1)`). 200 at a time would hide the mistake: in a large batch, mean and variance are
close to the running averages.
"""

import argparse
import copy
import math
import socket
import sys
import tempfile
import time
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, TensorDataset
from torchvision import datasets
from tqdm import tqdm

# 超参数 · Hyperparameters: ConvNet's are the notes' (LeNet.ipynb and ResNet.ipynb train nothing).
# The digits are 1/42 as many images: more epochs.
EPOCHS = {
    "convnet": {"mnist": 5, "digits": 20},
    "lenet": {"mnist": 5, "digits": 100},
    "resnet": {"mnist": 1, "digits": 10},
}
BATCH_SIZE = 100
LEARNING_RATE = 0.001
OUT_DIR = Path("outputs", "cnn_mnist")


# 网络搭建 · MINST+卷积神经网络训练测试
class ConvNet(nn.Module):
    """Images (N, 1, 28, 28) to logits (N, 10): two blocks of convolution, then one linear layer.

    The convolutions would do without their biases: the BatchNorm that follows subtracts any
    constant again.
    """

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
        out = torch.flatten(out, 1)  # the notes: out.reshape(out.size(0), -1)
        return self.fc(out)


# pytorch搭建LeNet网络
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
        return self.fc(torch.flatten(feature, 1))


# pytorch搭建ResNet: 残差块的实现 · The residual block
class Residual(nn.Module):
    """(N, in, H, W) to (N, out, H / stride, W / stride), rounded up: two convolutions, a shortcut.

    Where the shape changes, the shortcut needs a 1x1 convolution, or the two cannot be added.
    He et al., "Deep Residual Learning for Image Recognition", 2015.
    """

    def __init__(self, in_channels, out_channels, use_1x1conv=False, stride=1):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1, stride=stride)
        self.conv2 = nn.Conv2d(out_channels, out_channels, kernel_size=3, padding=1)
        self.conv3 = None
        if use_1x1conv:
            self.conv3 = nn.Conv2d(in_channels, out_channels, kernel_size=1, stride=stride)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.bn2 = nn.BatchNorm2d(out_channels)

    def forward(self, X: Tensor) -> Tensor:
        Y = F.relu(self.bn1(self.conv1(X)))
        Y = self.bn2(self.conv2(Y))
        if self.conv3:
            X = self.conv3(X)
        return F.relu(Y + X)


class ResNet(nn.Module):
    """Images (N, 1, H, W) to logits (N, 10). ResNet-18, unless `blocks` says otherwise.

    The notebook writes GlobalAvgPool2d and FlattenLayer by hand; PyTorch has both. It also says
    that other numbers of blocks make ResNet-152, but [3, 8, 36, 3] of these blocks have 102
    layers: the 152 need the bottleneck block of the paper.
    """

    def __init__(self, blocks=(2, 2, 2, 2)):
        super().__init__()
        self.stem = nn.Sequential(  # 步幅 (stride) 2, 批量归一化 (batch normalization), max pooling
            nn.Conv2d(1, 64, kernel_size=7, stride=2, padding=3),
            nn.BatchNorm2d(64),
            nn.ReLU(),
            nn.MaxPool2d(kernel_size=3, stride=2, padding=1),
        )
        self.stage1 = self.resnet_block(64, 64, blocks[0], first_block=True)
        self.stage2 = self.resnet_block(64, 128, blocks[1])
        self.stage3 = self.resnet_block(128, 256, blocks[2])
        self.stage4 = self.resnet_block(256, 512, blocks[3])
        self.pool = nn.AdaptiveAvgPool2d(1)  # 全局平均池化层
        self.fc = nn.Sequential(nn.Flatten(), nn.Linear(512, 10))

    @staticmethod
    def resnet_block(in_channels, out_channels, num_residuals, first_block=False) -> nn.Sequential:
        """Every stage but the first doubles the channels and halves height and width."""
        if first_block:
            blk = [Residual(in_channels, out_channels)]
        else:
            blk = [Residual(in_channels, out_channels, use_1x1conv=True, stride=2)]
        blk += [Residual(out_channels, out_channels) for _ in range(num_residuals - 1)]
        return nn.Sequential(*blk)

    def forward(self, images: Tensor) -> Tensor:
        x = self.stem(images)
        x = self.stage4(self.stage3(self.stage2(self.stage1(x))))
        return self.fc(self.pool(x))


MODELS = {"convnet": ConvNet, "lenet": LeNet, "resnet": ResNet}
HEADINGS = {
    "convnet": "MINST+卷积神经网络训练测试 · A convolutional neural network",
    "lenet": "pytorch搭建LeNet网络 · LeNet",
    "resnet": "pytorch搭建ResNet · ResNet-18",
}


# 训练 · One pass over the training images
def train_one_epoch(model, loader, criterion, optimizer, device, scheduler=None) -> float:
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
        if scheduler is not None:
            scheduler.step()

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


@torch.no_grad()
def show_shapes(model: nn.Module, images: Tensor) -> dict[str, tuple[int, ...]]:
    """Print the shapes before and after each layer (of ResNet: each block). Returns those after."""
    model = copy.deepcopy(model).eval()  # the hooks below stay on the copy
    shapes = {}
    for name, layer in model.named_modules():
        if name.count(".") < 2 and not isinstance(layer, (nn.Sequential, type(model))):

            def hook(layer, inputs, output, name=name):
                shapes[name] = tuple(output.shape)
                before = tuple(inputs[0].shape)
                print(f"  {name:9} {type(layer).__name__:18} {before!s:18} -> {shapes[name]}")

            layer.register_forward_hook(hook)  # PyTorch calls it after the layer's forward
    print("Output shapes, layer by layer, of one image (batch, channels, height, width):")
    model(images)
    return shapes


def show_resnet(model: nn.Module) -> dict:
    """Print what ResNet.ipynb shows of the block and of its two hand-written layers."""
    print_heading("\n残差块 · The residual block", "两个卷积加捷径；形状变化时捷径用 1x1 卷积。")
    X = torch.rand((4, 3, 6, 6))
    blk = Residual(3, 3)
    kept = tuple(blk(X).shape)
    blk = Residual(3, 6, use_1x1conv=True, stride=2)
    halved = tuple(blk(X).shape)
    print(f"A residual block turns {tuple(X.shape)} into {kept}; with stride 2 into {halved}.")
    pooled = F.avg_pool2d(X, kernel_size=X.size()[2:])  # the notebook's GlobalAvgPool2d
    same = torch.allclose(pooled, nn.AdaptiveAvgPool2d(1)(X))
    same = same and torch.equal(pooled.view(4, -1), nn.Flatten()(pooled))  # its FlattenLayer
    print(f"The notebook's GlobalAvgPool2d and FlattenLayer equal PyTorch's own: {same}.")
    layers = count_layers(model)
    print(f"{layers} layers: all convolutions but the 1x1 on the shortcuts, and the linear layer.")
    return {"kept": kept, "halved": halved, "same_layers": same, "layers": layers}


def count_layers(model: nn.Module) -> int:
    """The number in "ResNet-18": the convolutions and linear layers that follow one another."""
    convolutions = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
    linear = [m for m in model.modules() if isinstance(m, nn.Linear)]
    return sum(m.kernel_size != (1, 1) for m in convolutions) + len(linear)


@torch.no_grad()
def show_train_and_eval(model: nn.Module, images: Tensor) -> dict:
    """Show on one batch what train() and eval() change. Returns the largest differences.

    BatchNorm's running averages are exponential: each batch counts for 0.1 and all before it for
    0.9. They are not the mean of all batches, as the notes have it.
    """
    chinese = "train() 用当前这一批的均值和方差，eval() 用训练时的滑动平均。"
    print_heading("\neval模式和train模式的区别 · What train() and eval() change", chinese)
    model = copy.deepcopy(model)  # a pass in train mode moves the running averages
    in_eval = model.eval()(images)
    alone_in_eval = model(images[:1])
    in_train = model.train()(images)
    modes = {
        "train_against_eval": (in_train - in_eval).abs().max().item(),
        "alone_in_eval": (alone_in_eval - in_eval[:1]).abs().max().item(),
        "answers_changed": (in_train.argmax(dim=1) != in_eval.argmax(dim=1)).sum().item(),
    }
    print("In train(), BatchNorm normalizes with the mean and variance of this batch, so the")
    print("result for an image depends on the images beside it. In eval(), it uses the running")
    print("averages of all batches in training (its momentum=0.1 is the weight of a new batch; the")
    print("optimizer has nothing to do with it). LeNet has no BatchNorm: the modes do not differ.")
    print(f"Largest difference of the logits of {len(images)} test images, with the same weights:")
    print(f"  {modes['train_against_eval']:.4f}  between train() and eval()")
    print(f"  {modes['alone_in_eval']:.4f}  in eval(), between image 0 alone and in the batch")
    try:
        modes["alone_in_train"] = (model(images[:1]) - in_train[:1]).abs().max().item()
        print(f"  {modes['alone_in_train']:.4f}  in train(), the same")
    except ValueError as error:  # ResNet's last stage is 1x1 here: one value has no variance
        print(f"  in train(), image 0 alone raises: {error}")
    print(f"{modes['answers_changed']} of the {len(images)} predicted digits change with the mode.")

    dropout, ones = nn.Dropout(0.5), torch.ones(10)
    modes["dropout_train"] = dropout.train()(ones).tolist()
    modes["dropout_eval"] = dropout.eval()(ones).tolist()
    print(f"\nDropout(0.5) of ten ones in train(): {modes['dropout_train']}")
    print(f"                          in eval(): {modes['dropout_eval']}")
    print("In train(), it sets each value to 0 with probability 0.5 and doubles the others, so the")
    print("mean stays about the same; in eval(), it does nothing. (These networks use none.)\n")
    return modes


def main(argv: list[str] | None = None) -> dict:
    """Train, test, save, load again; or, with --predict, classify the digits in photos.

    Returns the numbers found and the files written.
    """
    parser = make_parser()
    add = parser.add_argument
    add("--model", choices=MODELS, default="convnet", help="(%(default)s)")
    add("--predict", nargs="+", metavar="IMAGE", type=path, help="your photos, one digit in each")
    add("--weights", metavar="FILE", type=path, help="for --predict (those saved last of --model)")
    args = parser.parse_args(argv)
    if args.weights and not args.predict:
        parser.error("--weights is for --predict")
    torch.manual_seed(args.seed)
    device = choose_device(args.device)
    out_dir = make_out_dir(args.out_dir)
    if args.predict:
        weights = args.weights or newest_weights(out_dir, f"{args.model}-*.pt")
        return predict(MODELS[args.model](), weights, args.predict, device, out_dir)

    print_heading(HEADINGS[args.model], "逐层的输出形状、参数量、每轮的训练损失和测试准确率。")
    dataset, train_set, test_set = load_data(args.dataset, args.data_dir, args.limit)
    train_loader = make_loader(train_set, args.batch_size)
    if args.model == "resnet" and 1 in (args.batch_size, len(train_set) % args.batch_size):
        batches = f"{len(train_set)} images in batches of {args.batch_size}"
        parser.error(f"{batches}: BatchNorm needs more than one image, also in the last batch")

    model = MODELS[args.model]()
    print(f"{model}\n")
    size = 224 if args.model == "resnet" else 28  # the notebook shows ResNet on 224x224
    shapes = show_shapes(model, torch.zeros(1, 1, size, size))
    more = show_resnet(model) if args.model == "resnet" else {}
    parameters = sum(parameter.numel() for parameter in model.parameters())
    print(f"\n{parameters:,} parameters, on {device}\n")

    model = model.to(device)
    if device.type == "cpu":
        # A pixel's channels side by side in memory: convolutions are faster so, measured on a CPU.
        model = model.to(memory_format=torch.channels_last)
    # 损失函数和优化器 · Loss function, optimizer
    criterion = nn.CrossEntropyLoss()
    optimizer = torch.optim.Adam(model.parameters(), lr=args.lr)
    epochs = args.epochs or EPOCHS[args.model][dataset]
    scheduler = None
    if args.model == "resnet":
        # Ours: the rate falls evenly to about 0. At a constant rate it is left to chance where the
        # one epoch ends.
        steps = epochs * len(train_loader)
        scheduler = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=steps)

    train_loss, test_accuracy, train_seconds = [], [], []
    for epoch in range(1, epochs + 1):
        start = time.perf_counter()
        loss = train_one_epoch(model, train_loader, criterion, optimizer, device, scheduler)
        train_loss.append(loss)
        train_seconds.append(time.perf_counter() - start)
        test_accuracy.append(evaluate(model, test_set, device))
        print_epoch(epoch, epochs, train_loss[-1], test_accuracy[-1], train_seconds[-1])

    # 保存模型参数 · Save the parameters
    name = f"{args.model}-{dataset}"
    weights = out_dir / f"{name}.pt"
    torch.save(model.state_dict(), weights)

    # Tomorrow, in another program, perhaps without a GPU, these three lines load them again.
    loaded = MODELS[args.model]()
    loaded.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    loaded.eval()

    image, label = test_set[0]
    with torch.no_grad():
        logits = loaded(image.unsqueeze(0))  # a batch of one
    print(f"\nLoaded again: it predicts {logits.argmax()} for test image 0; its label is {label}.")

    more["modes"] = show_train_and_eval(loaded, test_set.tensors[0][:100])
    pictures = ("curves", "mistakes", "filters")
    files = {"weights": weights} | {kind: out_dir / f"{name}-{kind}.png" for kind in pictures}
    plot_curves(train_loss, test_accuracy, f"{type(model).__name__} on {dataset}", files["curves"])
    plot_mistakes(loaded.to(device), test_set, device, files["mistakes"])
    plot_filters(loaded, files["filters"])
    print_result(test_accuracy[-1], dataset, args.dataset, list(files.values()))
    return {
        "dataset": dataset,
        "device": str(device),
        "epochs": epochs,
        "parameters": parameters,
        "shapes": shapes,
        "train_loss": train_loss,
        "test_accuracy": test_accuracy,
        "train_seconds": train_seconds,
        "files": files,
        **more,
    }


@torch.no_grad()
def plot_mistakes(model: nn.Module, test_set: TensorDataset, device, file: Path) -> None:
    """How many test images the model gets wrong, and the first 24 of them."""
    images, labels = test_set.tensors
    predicted = torch.cat([model(batch.to(device)).argmax(dim=1) for batch in images.split(200)])
    wrong = (predicted.cpu() != labels).nonzero().flatten()
    rows = max(1, math.ceil(min(len(wrong), 24) / 8))
    figure, axes = plt.subplots(rows, 8, figsize=(9, 0.7 + 1.3 * rows), layout="constrained")
    figure.suptitle(f"{len(wrong)} of {len(labels):,} test images are wrong (label → predicted)")
    for ax in axes.flat:
        ax.axis("off")
    for index, ax in zip(wrong, axes.flat):
        ax.imshow(images[index, 0].numpy(), cmap="gray")
        ax.set_title(f"{labels[index]} → {predicted[index]}")
    figure.savefig(file)
    plt.close(figure)


def plot_filters(model: nn.Module, file: Path) -> None:
    """The weights of the first convolution, one small picture for each filter."""
    first = next(layer for layer in model.modules() if isinstance(layer, nn.Conv2d))
    filters = first.weight.detach().cpu().numpy()[:, 0]
    limit = abs(filters).max()
    columns = min(8, len(filters))
    rows = len(filters) // columns  # of 6, 16 or 64 filters
    figure, axes = plt.subplots(rows, columns, figsize=(7, rows + 1.2), layout="constrained")
    for weights, ax in zip(filters, axes.flat):
        shown = ax.imshow(weights, cmap="RdBu", vmin=-limit, vmax=limit)
        ax.axis("off")
    figure.suptitle("First convolution: blue weights add where the image is bright, red subtract")
    figure.colorbar(shown, ax=axes, label="weight")
    figure.savefig(file)
    plt.close(figure)


def newest_weights(out_dir: Path, pattern: str) -> Path:
    """The file written last, of those whose names match."""
    found = sorted(out_dir.glob(pattern), key=lambda file: file.stat().st_mtime)
    if not found:
        sys.exit(f"error: no {pattern} in {out_dir}: train first, or give --weights")
    return found[-1]


def load_weights(model: nn.Module, file: Path) -> None:
    try:
        # weights_only: a file from somebody else may hold code, and this refuses to run any.
        model.load_state_dict(torch.load(file, map_location="cpu", weights_only=True))
    except Exception as error:  # what holds other things fails in more ways than one would list
        other = f"it does not hold the weights of a {type(model).__name__}"
        sys.exit(f"error: {file} cannot be loaded: {getattr(error, 'strerror', None) or other}")


@torch.no_grad()
def predict(model: nn.Module, weights: Path, photos: list[Path], device, out_dir: Path) -> dict:
    """Predict the digit in each photo, print it, and draw what the network was given."""
    load_weights(model, weights)
    model.to(device).eval()
    print(f"{type(model).__name__} with the weights {weights}, on {device}")
    if "digits" in weights.name:
        print("These weights were learned from the coarse digits, not MNIST: expect mistakes.")

    grays = [read_photo(photo) for photo in photos]
    images = torch.stack([prepare_photo(gray, photo) for gray, photo in zip(grays, photos)])
    probabilities, digits = model(images.to(device)).softmax(dim=1).cpu().max(dim=1)
    file = out_dir / f"{weights.stem}-predictions.png"
    size = (7, 3.2 * len(photos))
    figure, axes = plt.subplots(len(photos), 2, figsize=size, squeeze=False, layout="constrained")
    predictions = []
    results = zip(axes, photos, grays, images, digits, probabilities)
    for row, photo, gray, image, digit, probability in results:
        found = {"image": photo, "digit": digit.item(), "probability": probability.item()}
        predictions.append(found)
        print(f"{photo}: {digit} ({probability:.1%})")
        row[0].imshow(gray, cmap="gray", vmin=0, vmax=255)
        row[0].set_title(photo.name)
        row[1].imshow(image[0].numpy(), cmap="gray")
        row[1].set_title(f"input of the network: {digit} ({probability:.0%})")
    for ax in axes.flat:
        ax.set(xticks=[], yticks=[])
    figure.savefig(file)
    plt.close(figure)
    print(f"Written: {file}")
    return {"device": str(device), "predictions": predictions, "files": {"predictions": file}}


def read_photo(photo: Path) -> np.ndarray:
    """uint8 (H, W), turned upright as the camera asks for (EXIF)."""
    import cv2  # slow to import, and seldom needed

    try:
        # On Windows cv2.imread does not open every path.
        data = np.frombuffer(photo.read_bytes(), np.uint8)
        gray, unchanged = (cv2.imdecode(data, flag) for flag in (0, cv2.IMREAD_UNCHANGED))
    except OSError as error:
        sys.exit(f"error: {photo} cannot be read: {error.strerror or error}")
    except cv2.error:  # an empty file, or a picture too large for OpenCV
        gray = None
    if gray is None:
        sys.exit(f"error: {photo} is not a picture that OpenCV can read")
    if unchanged.ndim == 3 and unchanged.shape[2] == 4:  # what is transparent shows white paper
        opaque = unchanged[..., 3] / np.iinfo(unchanged.dtype).max
        gray = (255 - (255 - gray) * opaque).astype(np.uint8)
    return gray


def prepare_photo(gray: np.ndarray, photo: Path) -> Tensor:
    """One digit on paper, of any size and in any light, as MNIST would show it.

    Takes what `read_photo` returned, and the file, to name it in an error. Returns float32
    (1, 28, 28): bright ink on black, fitted into 20x20, its center of mass in the middle. LeCun's
    page on MNIST describes how the dataset was made so.
    """
    import cv2

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

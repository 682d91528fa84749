"""The channel error in a U-Net's DoubleConv: traced and fixed; then the U-Net segments pictures.

Notes: https://github.com/yearing1017/PyTorch_Note
Pytorch_已解决问题_1

    python unet_doubleconv.py                                # pictures of bags that it draws
    python unet_doubleconv.py --images DIR --masks DIR       # your own pictures and masks
    python unet_doubleconv.py --predict photo.jpg            # then: the masks of new pictures

Measured on 2 CPU cores with PyTorch 2.15, seed 0, on 64 drawings that it was not trained on:
intersection over union (IoU) of white, the bags, 0.954. Otsu's threshold on brightness gives 0.271.
On 60 of 600 photos, where the bag is black in the mask: IoU of black 0.827; Otsu 0.530.

**Try**

    --epochs 2                      # IoU 0.918, in half the time
    --lr 0.0005                     # IoU 0.930: at a tenth of the rate it learns more slowly
    --train-images 30 --epochs 60   # IoU 0.950: fewer drawings, more often; they are much alike
"""

import argparse
import itertools
import math
import os
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import cv2
import matplotlib.pyplot as plt
import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.utils import save_image
from tqdm import tqdm

# 超参数 · Hyperparameters: height and width in pixels, images in a batch, ...
SIZE = 160
BATCH_SIZE = 4
EPOCHS = {"unet": 5, "unet-own": 16}  # drawings; your own pictures
LEAST_STEPS = {"unet": 1, "unet-own": 500}  # 20 pictures are 5 steps: then it takes more epochs
LEARNING_RATE = 0.005
TRAIN_IMAGES = 200
HELD_OUT_IMAGES = 64
OUT_DIR = Path("outputs", "unet_doubleconv")


class WrongDoubleConv(nn.Module):
    """The notes' first block. Its second convolution (卷积) takes `in_channels`, so it raises, in
    the words of the notes:

    RuntimeError: Given groups=1, weight of size 64 3 3 3, expected input[4, 64, 158, 158] to have 3 channels, but got 64 channels instead

    Today PyTorch writes the size with brackets, [64, 3, 3, 3]: out_channels, in_channels, and the
    height and width of the kernel.
    """  # noqa: E501

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()  # the notes' super.__init__() is a TypeError, in both of their blocks
        # 构建一个“容器网络” · A container: it calls its layers one after another
        self.double_conv = nn.Sequential(
            nn.Conv2d(in_channels, out_channels, kernel_size=3),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(inplace=True),
            nn.Conv2d(in_channels, out_channels, kernel_size=3),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(inplace=True),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.double_conv(x)


# 解决思路 · Look at what each layer gets, not only at the input of the first
def trace_shapes(model: nn.Module, *inputs) -> tuple[list[tuple], object]:
    """Call any model, and record the layers that it calls. Yours to copy.

    Returns the records, each a layer's name, the layer, and the shapes that it gets; then what the
    model returns, or the error that it raises. A forward pre-hook runs before its layer: the last
    record is the layer that raised. (A forward hook runs after it, so it does not run if the layer
    raises. An error between two layers, as in torch.cat, comes after the last record.)
    """
    names = {layer: name for name, layer in model.named_modules() if not any(layer.children())}
    records = []

    def record(layer, args, kwargs):
        shapes = [tuple(x.shape) for x in (*args, *kwargs.values()) if torch.is_tensor(x)]
        records.append((names[layer], layer, shapes))

    hooks = [layer.register_forward_pre_hook(record, with_kwargs=True) for layer in names]
    try:
        result = model(*inputs)
    except Exception as error:
        result = error
    for hook in hooks:
        hook.remove()
    return records, result


# 改为out_channels · The fix: the second convolution takes what the first one gives
class DoubleConv(nn.Module):
    """The fixed block: (N, in_channels, H, W) to (N, out_channels, H - 4, W - 4).

    That is with padding=0: a 3x3 convolution shrinks H and W by 2. padding=1 puts a border of zeros
    around its input first, so H and W stay.
    """

    def __init__(self, in_channels: int, out_channels: int, padding: int = 0):
        super().__init__()
        # Without `padding`, the two convolutions are the notes' lines, letter for letter:
        # nn.Conv2d(in_channels,out_channels,kernel_size=3),
        # nn.Conv2d(out_channels,out_channels,kernel_size=3),
        self.double_conv = nn.Sequential(
            nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=padding),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(inplace=True),
            nn.Conv2d(out_channels, out_channels, kernel_size=3, padding=padding),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(inplace=True),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.double_conv(x)


def find_the_layer() -> None:
    print("Pytorch_已解决问题_1 · The channel error in a U-Net: which layer raises it?")
    print("输入是 3 个通道，没错；逐层打印形状，就看到报错的是第二个卷积。\n")
    images = torch.rand(4, 3, SIZE, SIZE)
    records, error = trace_shapes(WrongDoubleConv(3, 64), images)
    for name, layer, shapes in records:
        print(f"  {name}  {type(layer).__name__:11}  gets {shapes[0]}")
    print(f"  {layer}\n  raises {type(error).__name__}: {error}\n")
    for padding in (0, 1):
        shape = tuple(DoubleConv(3, 64, padding)(images).shape)
        print(f"Fixed, with padding={padding}: {tuple(images.shape)} -> {shape}")
    print("The U-Net below has padding=1, so that H and W stay.\n")


class Down(nn.Sequential):
    """Half the height and width: (N, in_channels, H, W) to (N, out_channels, H/2, W/2)."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__(nn.MaxPool2d(2), DoubleConv(in_channels, out_channels, padding=1))


class Up(nn.Module):
    """Twice the height and width, joined with the features of that size from the way down (skip).

    x (N, in_channels, H, W) and skip (N, out_channels, 2H, 2W) to (N, out_channels, 2H, 2W).
    """

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.up = nn.ConvTranspose2d(in_channels, out_channels, kernel_size=2, stride=2)
        self.conv = DoubleConv(2 * out_channels, out_channels, padding=1)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        return self.conv(torch.cat([skip, self.up(x)], dim=1))


class UNet(nn.Module):
    """Images (N, 3, H, W) to logits (N, 2, H, W): at each pixel one score per class, black, white.

    H and W are multiples of 16. Ronneberger, Fischer and Brox, "U-Net" (2015): four times down
    as theirs, but from 16 channels, where they have 64, so that a CPU can train it.
    """

    def __init__(self):
        super().__init__()
        self.inc = DoubleConv(3, 16, padding=1)
        self.down1 = Down(16, 32)
        self.down2 = Down(32, 64)
        self.down3 = Down(64, 128)
        self.down4 = Down(128, 256)
        self.up1 = Up(256, 128)
        self.up2 = Up(128, 64)
        self.up3 = Up(64, 32)
        self.up4 = Up(32, 16)
        self.outc = nn.Conv2d(16, 2, kernel_size=1)  # at each pixel by itself

    def forward(self, images: Tensor) -> Tensor:
        x1 = self.inc(images)
        x2 = self.down1(x1)
        x3 = self.down2(x2)
        x4 = self.down3(x3)
        x = self.down4(x4)
        x = self.up1(x, x4)
        x = self.up2(x, x3)
        x = self.up3(x, x2)
        x = self.up4(x, x1)
        return self.outc(x)


# 训练用的图片 · An image and its mask, randomly augmented, both alike
class Augmented(Dataset):
    """Pictures to train on, in every epoch different: flipped or not, and brighter or darker.

    Takes images, uint8 (N, 3, H, W), masks, uint8 (N, H, W), of 0 and 1, and the flips. Gives pairs
    of an image, float32 (3, H, W) in [0, 1], and a mask, int64 (H, W).
    """

    def __init__(self, images: Tensor, masks: Tensor, flips: list[nn.Module]):
        self.images, self.masks = images, masks
        # The transforms get an Image and a Mask, and so they know what to do with which: flip both
        # or neither, but change the brightness, and scale to [0, 1], of the image only.
        brightness, scale = v2.ColorJitter(0.3), v2.ToDtype(torch.float32, scale=True)
        self.transform = v2.Compose([*flips, brightness, scale])

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        image, mask = tv_tensors.Image(self.images[index]), tv_tensors.Mask(self.masks[index])
        image, mask = self.transform(image, mask)
        return image, mask.long()


# 训练 · One pass over the training images
def train_one_epoch(model, loader, criterion, optimizer, device, scheduler) -> float:
    """Take one step for each batch. Returns the mean loss of the images.

    Each batch's loss is taken before its update.
    """
    model.train()
    total_loss = 0.0
    for images, masks in tqdm(loader, unit="batch", delay=2, leave=False, disable=None):
        images, masks = images.to(device), masks.to(device)

        # forward 计算 · Two scores (logits) at each pixel, and how far from the masks they are
        logits = model(images)
        loss = criterion(logits, masks)

        # 反向传播和优化 · Without zero_grad(), backward() would add to the last step's gradients
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step()

        total_loss += loss.item() * len(masks)
    return total_loss / len(loader.dataset)


# 测试 · Which class has the larger logit, at each pixel
@torch.no_grad()
def segment(model: nn.Module, images: Tensor, device: torch.device) -> Tensor:
    """Images, uint8 (N, 3, H, W), to masks, uint8 (N, H, W): 0 is black, 1 white."""
    model.eval()
    masks = []
    for batch in images.split(BATCH_SIZE):
        logits = model(batch.to(device) / 255)
        masks.append(logits.argmax(dim=1).byte().cpu())
    return torch.cat(masks)


def class_iou(predicted: Tensor, masks: Tensor, value: int) -> float:
    """Intersection over union: the pixels of that value in both masks, over those in either."""
    p, m = predicted == value, masks == value
    return ((p & m).sum() / (p | m).sum()).nan_to_num(1).item()  # 0 / 0: there was nothing to find


def main(argv: list[str] | None = None) -> dict:
    """Find the wrong layer, train a U-Net of the fixed block, save it; or, with --predict, use it.

    Returns the lists that it plots and the files written; or the files of the masks.
    """
    make_stdout_tolerant()
    parser = make_parser()
    args = parser.parse_args(argv)
    if bool(args.images) != bool(args.masks) or (args.weights and not args.predict):
        parser.error("--images and --masks go together, and --weights with --predict")
    torch.manual_seed(args.seed)
    device = choose_device(args.device)
    out_dir = make_out_dir(args.out_dir)
    if args.predict:
        own = out_dir / "unet-own.pt"
        weights = args.weights or (own if own.exists() else out_dir / "unet.pt")
        return predict_masks(args.predict, weights, device, out_dir)

    find_the_layer()
    print("U-Net · Image segmentation: black or white in the mask, pixel by pixel")
    print("用改好的 DoubleConv 搭 U-Net 做图像分割；IoU（交并比）越接近 1 越好。\n")
    name, flips = "unet", [v2.RandomHorizontalFlip()]
    if args.images:  # few photos: the more ways to see each, the less the model overfits
        name, flips = "unet-own", [*flips, v2.RandomVerticalFlip()]
        train_set, (test_images, test_masks) = read_pictures(args.images, args.masks)
    else:
        train_set = draw_bags(args.train_images or TRAIN_IMAGES, seed=0)
        test_images, test_masks = draw_bags(HELD_OUT_IMAGES, seed=1)
    train_loader = DataLoader(Augmented(*train_set, flips), args.batch_size, shuffle=True)

    # 损失函数和优化器 · Model, loss function, optimizer
    model = UNet().to(device)
    if device.type == "cpu":
        # A pixel's channels side by side in memory: it makes convolutions on a CPU faster.
        model = model.to(memory_format=torch.channels_last)
    # A pixel is black or white, never both: cross entropy over the two logits. (One logit with
    # BCEWithLogitsLoss is the usual equivalent. One-hot masks give this loss the same value.)
    criterion = nn.CrossEntropyLoss()
    optimizer = torch.optim.Adam(model.parameters(), lr=args.lr)
    epochs = args.epochs or max(EPOCHS[name], math.ceil(LEAST_STEPS[name] / len(train_loader)))
    # The rate rises to --lr in the first 3/10 of the steps, then falls to almost 0.
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, args.lr, epochs * len(train_loader))

    print("Shapes after each stage. down: half H and W. up: double H and W, joined with the output")
    print("of that size from inc or down (skip connection). outc: 2 logits for each pixel.")
    with torch.no_grad():
        records, logits = trace_shapes(model.eval(), test_images[:1].to(device) / 255)
    stages = {name.partition(".")[0]: shapes[0] for name, _, shapes in records}  # in its last layer
    for stage, shape in (stages | {"outc": tuple(logits.shape)}).items():
        print(f"  {stage:6} {shape}")
    parameters = sum(parameter.numel() for parameter in model.parameters())
    print(f"{parameters:,} parameters, on {device}\n")

    share, otsu = test_masks.float().mean().item(), otsu_masks(test_images, test_masks)
    otsu_white, otsu_black = class_iou(otsu, test_masks, 1), class_iou(otsu, test_masks, 0)
    print(f"{len(train_set[0])} training pictures, {len(test_images)} held out. Without learning:")
    print(f"  all white, or all black            white {share:.4f}   black {1 - share:.4f}")
    print(f"  Otsu's threshold, the better side  white {otsu_white:.4f}   black {otsu_black:.4f}")
    print("IoU (intersection over union): pixels white in both masks, true and predicted, over")
    print("those white in either. 1 is perfect. It may fall at first: the learning rate rises.\n")
    results = {"train_loss": [], "train_seconds": [], "iou_white": [], "iou_black": []}
    for epoch in range(1, epochs + 1):
        start = time.perf_counter()
        loss = train_one_epoch(model, train_loader, criterion, optimizer, device, scheduler)
        seconds = time.perf_counter() - start
        if not math.isfinite(loss):
            sys.exit(f"error: the training loss is {loss}: lower --lr")
        predicted = segment(model, test_images, device)
        white, black = class_iou(predicted, test_masks, 1), class_iou(predicted, test_masks, 0)
        results["train_loss"].append(loss)
        results["train_seconds"].append(seconds)
        results["iou_white"].append(white)
        results["iou_black"].append(black)
        if epoch in (1, epochs) or epoch % max(1, epochs // 10) == 0:  # about ten lines
            line = f"held-out IoU white {white:.4f}   black {black:.4f}   {seconds:.1f} s"
            print(f"epoch {epoch:>2}/{epochs}   training loss {loss:.4f}   {line}", flush=True)

    # 保存模型参数 · Save the parameters; --predict loads them again
    weights = out_dir / f"{name}.pt"
    torch.save(model.state_dict(), weights)

    print()
    for value, color in enumerate(("black", "white")):
        if value in test_masks and value not in predicted:
            print(f"!!! No held-out pixel is predicted {color}: try more --epochs, or another --lr")
    picture, curves = out_dir / f"{name}-masks.png", out_dir / f"{name}-curves.png"
    plot_worst(test_images, test_masks, predicted, picture)
    plot_history(results, curves)
    results["files"] = {"weights": weights, "masks": picture, "curves": curves}
    written = ", ".join(map(str, results["files"].values()))
    print(f"Held-out IoU: white {white:.4f}, black {black:.4f}. Written: {written}")
    return results


def otsu_masks(images: Tensor, masks: Tensor) -> Tensor:
    """What no learning gives: of each picture, split at Otsu's threshold, the better side."""
    better = []
    for image, mask in zip(images, masks):
        gray = cv2.cvtColor(image.permute(1, 2, 0).numpy(), cv2.COLOR_RGB2GRAY)
        side = torch.from_numpy(cv2.threshold(gray, 0, 1, cv2.THRESH_OTSU)[1])
        better.append(max(side, 1 - side, key=lambda side: (side == mask).sum()))
    return torch.stack(better)


# 使用自己的数据 · Your own pictures
def read_pictures(image_dir: Path, mask_dir: Path) -> list[tuple[Tensor, Tensor]]:
    """Two sets of images and masks, as draw_bags returns them: to train on, and held out."""
    files, pairs, size = find_pairs(image_dir, mask_dir), [], (SIZE, SIZE)
    threshold = check_pairs(files)
    for image_file, mask_file in files:
        image = cv2.cvtColor(to_bgr(read_picture(image_file, COLOR)), cv2.COLOR_BGR2RGB)
        mask = (read_mask(mask_file) > threshold).astype(np.uint8)  # 0 is black, 1 white
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        pairs.append((image, cv2.resize(mask, size, interpolation=cv2.INTER_NEAREST_EXACT)))
    if len(pairs) < 2:
        sys.exit(f"error: one pair in {image_dir} and {mask_dir}: at least two are needed")
    images, masks = to_tensors(pairs)
    # One split, whatever --seed is: the results of all seeds are on the same held-out pictures.
    order = torch.randperm(len(pairs), generator=torch.Generator().manual_seed(0))
    held_out, train = order.tensor_split([max(1, len(pairs) // 10)])
    return [(images[part], masks[part]) for part in (train, held_out)]


# 预测 · The masks of new pictures
def predict_masks(files: list[Path], weights: Path, device: torch.device, out_dir: Path) -> dict:
    """Write the mask of each picture, of the picture's own size, and one sheet of them all.

    A picture that cannot be read costs one line; the others are still used, and the exit is 1.
    """
    print("U-Net · Masks of new pictures")
    print(f"用保存的权重分割新图片，每张图片写出一个掩码。\n\nThe weights: {weights}")
    model = UNet().to(device)
    load_weights(model, weights)
    if len({file.stem for file in files}) < len(files):
        sys.exit("error: two of the pictures have one name, and so would have their masks")
    images, masks, mask_files = [], [], []
    for file in files:
        try:
            picture = read_picture(
                file, cv2.IMREAD_ANYCOLOR | cv2.IMREAD_ANYDEPTH
            )  # turned upright
        except SystemExit as error:
            print(error, file=sys.stderr)
            continue
        if picture.dtype != np.uint8:
            print(f"{file} has more than 8 bits: scaled by its own minimum and maximum")
        image = cv2.cvtColor(to_bgr(picture), cv2.COLOR_BGR2RGB)
        image = cv2.resize(image, (SIZE, SIZE), interpolation=cv2.INTER_AREA)
        images.append(torch.from_numpy(image).permute(2, 0, 1))
        masks.append(segment(model, images[-1].unsqueeze(0), device)[0])
        # Enlarging 0 and 255 gives gray edges; >= 128 makes a smooth outline of them.
        mask = cv2.resize(255 * masks[-1].numpy(), picture.shape[1::-1]) // 128 * 255
        mask_files.append(out_dir / f"{file.stem}-mask.png")
        mask_files[-1].write_bytes(cv2.imencode(".png", mask)[1])
        print(f"{file}: white in {(mask > 0).mean():.1%} of the picture")
    if masks:
        sheet = out_dir / f"{weights.stem}-predictions.png"
        save_columns(sheet, torch.stack(images), torch.stack(masks))
        print(f"Written: {', '.join(map(str, [*mask_files, sheet]))}")
    if len(masks) < len(files):
        sys.exit(1)
    return {"predictions": mask_files, "files": {"predictions": sheet}}


# ---- Below: command line, files, pictures. The lesson ends here; read it last. ----

LOSSY = {".jp2", ".jpeg", ".jpg", ".webp"}
SUFFIXES = {".bmp", ".gif", ".pgm", ".png", ".ppm", ".tif", ".tiff", *LOSSY}
# No alpha, 8 bits or more; a photo is not turned by its EXIF, as its mask is not.
GRAY = cv2.IMREAD_ANYDEPTH | cv2.IMREAD_IGNORE_ORIENTATION
COLOR = cv2.IMREAD_ANYCOLOR | GRAY  # BGR, but of a gray file gray


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    one_of = parser.add_mutually_exclusive_group().add_argument
    one_of("--train-images", metavar="N", type=positive_int, help=f"to draw ({TRAIN_IMAGES})")
    one_of("--images", metavar="DIR", type=path, help="train on your own pictures instead")
    one_of("--predict", metavar="IMAGE", type=path, nargs="+", help="no training: their masks")
    add = parser.add_argument
    add("--masks", metavar="DIR", type=path, help="of --images: black and white, named alike")
    add("--weights", metavar="FILE", type=path, help="of --predict (unet-own.pt, or unet.pt)")
    add("--epochs", metavar="N", type=positive_int, help="passes over the pictures (see EPOCHS)")
    add("--batch-size", metavar="N", type=positive_int, default=BATCH_SIZE, help="(%(default)s)")
    add("--lr", metavar="X", type=positive_float, default=LEARNING_RATE, help="(%(default)s)")
    add("--seed", metavar="N", type=int, default=0, help="of all but the drawings (%(default)s)")
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


def read_picture(file: Path, flag: int) -> np.ndarray:
    """As cv2.imread, but for any path, and with an error in place of None. (It is stricter: of half
    a JPEG, imread makes a picture.)"""
    try:
        # On Windows cv2.imread does not open every path.
        picture = cv2.imdecode(np.frombuffer(file.read_bytes(), np.uint8), flag)
    except OSError as error:
        sys.exit(f"error: {file} cannot be read: {error.strerror or error}")
    except cv2.error:  # an empty file, or a picture too large for OpenCV
        picture = None
    if picture is None:
        sys.exit(f"error: {file} is not a picture that OpenCV can read")
    return picture


def read_mask(file: Path) -> np.ndarray:
    """The values of a mask, float32 (H, W); of a color, as in a palette, how bright it is."""
    return np.nan_to_num(read_picture(file, GRAY)).astype(np.float32)


def to_bgr(image: np.ndarray) -> np.ndarray:
    """BGR, uint8 (H, W, 3). More than 8 bits are scaled by the picture's minimum and maximum."""
    if image.dtype != np.uint8:
        image = np.nan_to_num(image, posinf=0, neginf=0)
        image = cv2.normalize(image, None, 0, 255, cv2.NORM_MINMAX, cv2.CV_8U)
    return image if image.ndim == 3 else cv2.cvtColor(image, cv2.COLOR_GRAY2BGR)


def list_pictures(folder: Path) -> dict[str, Path]:
    """The pictures of a folder, sorted, by their names before the suffix."""
    pictures, others = {}, []
    for file in sorted(file for file in folder.glob("[!.]*") if file.is_file()):
        if file.suffix.lower() not in SUFFIXES:
            others.append(file.name)
        elif pictures.setdefault(file.stem, file) != file:
            sys.exit(f"error: {pictures[file.stem]} and {file} have the same name: which is meant?")
    if not pictures:
        sys.exit(f"error: no {'pictures in' if folder.is_dir() else 'folder'} {folder}")
    if others:
        print(f"!!! {folder}: files that are not read, {len(others)}: {', '.join(others[:5])}")
    return pictures


def find_pairs(image_dir: Path, mask_dir: Path) -> list[tuple[Path, Path]]:
    """The pictures of a folder, each with its mask, which has the same name before the suffix.

    Or, by one rule for all, another end of it: "1_manual" for "1_training". In one folder for both,
    a longer one: "1_mask" for "1".
    """
    images = list_pictures(image_dir)
    one_folder = image_dir.resolve() == mask_dir.resolve()
    masks = images if one_folder else list_pictures(mask_dir)
    # Which change of the end of an image's name makes the name of a mask, and how often?
    rules = Counter({("", ""): 0})
    for name, mask in itertools.product(list(images)[:10], masks):
        same = len(os.path.commonprefix([name, mask]))  # noqa: RUF071
        end, other = name[same:], mask[same:]
        if not one_folder or (other and not end and not other.isdigit()):  # 10 is no mask of 1
            rules[end, other] += 1
    (end, other), _ = rules.most_common(1)[0]
    pairs = []
    for name, image in images.items():
        mask = masks.get(name.removesuffix(end) + other)
        if one_folder and other and name.endswith(other):  # a mask
            continue
        if mask in (None, image):
            there = ", ".join(file.name for file in list(masks.values())[:3])
            sys.exit(f"error: no mask for {image.name} in {mask_dir}, where there are {there}, ...")
        pairs.append((image, mask))
    if end or other:
        print(f"{pairs[0][1].name} is the mask of {pairs[0][0].name}, and so on, by their names.")
    return pairs


def check_pairs(pairs: list[tuple[Path, Path]]) -> float:
    """Read all of them, before any training. Returns the threshold: above it, a mask is white.

    What a value means is decided for all masks together. The lowest is black, the highest white.
    What stands between must not fill squares of 5x5 pixels, as soft edges do not, unless it is
    almost black or white, as in a JPEG: a third value is an error.
    """
    seen, found, depths, square = {}, {}, set(), np.ones((5, 5), np.uint8)
    for image_file, mask_file in tqdm(pairs, unit="pair", delay=2, leave=False, disable=None):
        image, mask = read_picture(image_file, COLOR), read_mask(mask_file)
        if image.shape[:2] != mask.shape:
            sizes = f"{image.shape[:2]} and {mask.shape}"
            sys.exit(f"error: {image_file} and {mask_file} differ in height and width: {sizes}")
        depths.add(image.dtype.name)
        seen |= dict.fromkeys(np.unique(mask).tolist(), mask_file)
        filled = cv2.erode(mask, square) == cv2.dilate(mask, square)
        gray = abs(mask - (mask.min() + mask.max()) / 2) < np.ptp(mask) * 3 / 8
        counted = mask if gray.mean() > 0.5 else mask[filled]  # mostly gray: no mask, but a photo
        found |= dict.fromkeys(np.unique(counted).tolist(), mask_file)
    low, high = min(seen), max(seen)
    near = (high - low) / 8 if high - low > 100 else 0
    jpeg = low not in found or any(high - near <= value < high for value in found)
    near = near if jpeg or mask_file.suffix.lower() in LOSSY else 0
    found = seen if len(seen) < 5 else found  # soft edges have more values
    others = [value for value in sorted(found) if low + near < value < high - near]
    if others or low == high:
        values = [f"{value:g} in {seen[value].name}" for value in sorted({low, *others[:5], high})]
        sys.exit(f"error: masks need two values; here are, as gray, {', '.join(values)}")
    print(f"In the masks {low:g} is black and {high:g} is white.")
    if depths != {"uint8"}:
        print("Images of more than 8 bits are scaled, each by its own minimum and maximum.")
    return (low + high) / 2


def load_weights(model: nn.Module, file: Path) -> None:
    try:
        # weights_only: a file from somebody else may hold code, and this refuses to run any.
        model.load_state_dict(torch.load(file, map_location="cpu", weights_only=True))
    except Exception as error:  # what holds other things fails in more ways than one would list
        other = f"it does not hold the weights of a {type(model).__name__}"
        sys.exit(f"error: {file} cannot be loaded: {getattr(error, 'strerror', None) or other}")


def to_tensors(pairs: list[tuple[np.ndarray, np.ndarray]]) -> tuple[Tensor, Tensor]:
    """Pictures (H, W, 3) and masks (H, W), all uint8: to (N, 3, H, W) and (N, H, W)."""
    images, masks = (torch.from_numpy(np.stack(arrays)) for arrays in zip(*pairs))
    return images.permute(0, 3, 1, 2).contiguous(), masks


def draw_bags(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Pictures of bags, uint8 (N, 3, SIZE, SIZE), RGB; masks, uint8 (N, SIZE, SIZE), 1 the bag."""
    rng = np.random.default_rng(seed)
    return to_tensors([draw_bag(rng) for _ in range(count)])


def draw_bag(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A picture, uint8 (SIZE, SIZE, 3), RGB, and its mask, uint8 (SIZE, SIZE), 0 or 1."""
    # The body is anything from a box to a cushion, wider above or below; the handle is half an
    # ellipse on top of it. In units of the picture's size, around the middle of the bag.
    width, height = rng.uniform(0.16, 0.28, 2)
    angle = np.linspace(0, 2 * np.pi, 100)
    circle = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    body = np.sign(circle) * abs(circle) ** rng.uniform(0.2, 0.8)
    body[:, 0] *= 1 + rng.uniform(-0.3, 0.3) * body[:, 1]
    reach = width * rng.uniform(0.4, 0.7), rng.uniform(0.1, 0.25)
    handle = circle[50:] * reach - (0, 0.9 * height)

    tilt, middle = rng.uniform(-0.4, 0.4), rng.uniform((0.38, 0.44), (0.62, 0.68))
    turn = np.array([[np.cos(tilt), np.sin(tilt)], [-np.sin(tilt), np.cos(tilt)]])
    parts = (body * (width, height), handle)
    body, handle = (((part @ turn + middle) * SIZE).astype(np.int32) for part in parts)
    mask = np.zeros((SIZE, SIZE), np.uint8)
    cv2.fillPoly(mask, [body], 1)
    cv2.polylines(mask, [handle], False, 1, thickness=round(rng.uniform(0.03, 0.05) * SIZE))

    hue = rng.uniform(0, 360)
    ground = draw_texture(rng, hue, saturation=rng.uniform(0.1, 0.35))
    bag = draw_texture(rng, hue + rng.uniform(60, 300), saturation=rng.uniform(0.55, 0.95))
    picture = np.where(mask[:, :, None] == 1, bag, ground) + rng.normal(0, 0.06, bag.shape)
    return (picture.clip(0, 1) * 255).astype(np.uint8), mask


def draw_texture(rng: np.random.Generator, hue: float, saturation: float) -> np.ndarray:
    """Blobs, small or large, unevenly lit: float32 (SIZE, SIZE, 3), RGB in [0, 1].

    Bright and dark alternate in it, so brightness does not tell a bag from what is behind it. What
    does is the outline, and that a bag is of livelier colors (the saturation).
    """
    size, coarse = (SIZE, SIZE), rng.uniform(-2, 2, [rng.integers(9, 34)] * 2)
    blobs = cv2.resize(coarse, size, interpolation=cv2.INTER_CUBIC).clip(-1, 1)
    light = cv2.resize(rng.uniform(0.7, 1.3, (2, 2)), size)
    hues = (hue + rng.uniform(-40, 40) * blobs) % 360
    value = ((rng.uniform(0.45, 0.65) + 0.3 * blobs) * light).clip(0, 1)
    hsv = np.stack([hues, np.full_like(value, saturation), value], axis=2)
    return cv2.cvtColor(hsv.astype(np.float32), cv2.COLOR_HSV2RGB)


def save_columns(file: Path, images: Tensor, *masks: Tensor) -> None:
    """A picture: in each column an image and its masks below it; six columns, then another row."""
    layers = [images / 255, *(mask.unsqueeze(1).expand(-1, 3, -1, -1).float() for mask in masks)]
    layers = [nn.functional.pad(layer, (2, 2, 2, 2), value=0.5) for layer in layers]
    save_image(torch.cat(layers, dim=2), file, nrow=6)


def plot_worst(images: Tensor, masks: Tensor, predicted: Tensor, file: Path) -> None:
    """The three pictures with the most wrong pixels and, of the others, the three with the fewest.

    From above: image, true mask, predicted mask.
    """
    order = (predicted != masks).sum(dim=(1, 2)).argsort(descending=True).tolist()
    chosen = order[:3] + order[3:][-3:]
    save_columns(file, images[chosen], masks[chosen], predicted[chosen])
    iou = " ".join(f"{class_iou(predicted[index], masks[index], 1):.3f}" for index in chosen)
    print(f"{file.name}: the most and the fewest wrong pixels. IoU of white: {iou}")


def plot_history(results: dict[str, list], file: Path) -> None:
    figure, ax = plt.subplots(figsize=(6, 3.5), layout="constrained")
    epochs = range(1, len(results["train_loss"]) + 1)
    ax.plot(epochs, results["train_loss"], ".-", label="training loss")
    ax.plot(epochs, results["iou_white"], ".-", label="held-out IoU, white")
    ax.plot(epochs, results["iou_black"], ".-", label="held-out IoU, black")
    ax.set_xlabel("epoch")
    ax.locator_params(axis="x", integer=True)
    ax.legend()
    figure.savefig(file)
    plt.close(figure)


if __name__ == "__main__":
    main()

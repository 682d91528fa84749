"""The channel error in a U-Net's DoubleConv: caught, traced to its layer, mended; then trained.

Notes: https://github.com/yearing1017/PyTorch_Note
Pytorch_已解决问题_1

    python unet_doubleconv.py                                # pictures of bags that it draws
    python unet_doubleconv.py --images DIR --masks DIR       # your own pictures and masks
    python unet_doubleconv.py --predict photo.jpg            # then: the masks of new pictures

Measured on 2 CPU cores with PyTorch 2.15, on 64 drawings that it was not trained on: intersection
over union (IoU) of the bags 0.942 (seed 0; 0.959 and 0.947 with seeds 1 and 2). Otsu's threshold
on brightness gives 0.264. On 60 of 600 photos of bags: 0.827, 0.813 and 0.810; Otsu 0.538.

**Try**

    --epochs 2          # IoU 0.939: most of it is learned early
    --train-images 50   # IoU 0.894, in a quarter of the steps: the drawn bags are much alike
"""

import argparse
import sys
import tempfile
import time
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

# 超参数 · Hyperparameters: the size, in pixels, and the batch are those of the notes.
SIZE = 160
BATCH_SIZE = 4
EPOCHS = {"unet": 5, "unet-own": 16}  # drawings; your own pictures
LEARNING_RATE = 0.005
TRAIN_IMAGES = 200
HELD_OUT_IMAGES = 64
HELD_OUT_SEED = 2**32  # one more than --seed can be: no seed draws a held-out picture
SUFFIXES = {".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"}
OUT_DIR = Path("outputs", "unet_doubleconv")


class WrongDoubleConv(nn.Module):
    """The notes' first block. Its second convolution (卷积) takes `in_channels`, so it raises, in
    the words of the notes:

    RuntimeError: Given groups=1, weight of size 64 3 3 3, expected input[4, 64, 158, 158] to have 3 channels, but got 64 channels instead

    Today PyTorch writes the size with brackets: [64, 3, 3, 3].
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


class DoubleConv(nn.Module):
    """The mended block: (N, in_channels, H, W) to (N, out_channels, H - 4, W - 4).

    That is with padding=0, as in the notes. padding=1 puts a border of zeros around what each
    convolution gets, and H and W stay. (The convolutions do not need their biases: the BatchNorm
    that follows subtracts any constant again.)
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
    """Images (N, 3, H, W) to logits (N, 2, H, W): at each pixel a score for dark, one for bright.

    H and W are multiples of 16. Ronneberger, Fischer and Brox, "U-Net" (2015): four times down
    as theirs, but from 16 channels, where they have 64: that much a CPU can train.
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


# 解决思路 · Not only the size of the input, as in the notes, but the sizes inside the block
def find_the_layer(device: torch.device) -> dict:
    """The notes' error, the layer that it comes from, and the sizes in the mended block."""
    print_heading(
        "Pytorch_已解决问题_1 · The channel error in a U-Net",
        "报错说要 3 个通道却来了 64 个：输入没错，是第二个卷积的 in_channels 写错了。",
    )
    batch = torch.rand(4, 3, SIZE, SIZE, device=device)
    block = WrongDoubleConv(3, 64).to(device)
    found = {"shapes": {}}
    try:
        block(batch)
    except RuntimeError as error:
        found["error"] = str(error)
    print(f"The notes' first block, given {tuple(batch.shape)}, raises:\n  {found['error']}\n")

    print_heading("解决思路 · The shapes, layer by layer", "逐层打印形状，停在报错的那一层。")
    found["trace"], found["diagnosis"] = trace_shapes(block, batch)
    for record in found["trace"]:
        output = "raises" if record["output"] is None else f"-> {record['output']}"
        print(f"  {record['name']:13}  {record['layer']:11}  {record['input']!s:17} {output}")
    layer, _, _ = found["diagnosis"].partition(": ")  # the rest is the error above
    print(f"\nThe input of the block was right, 3 channels; that of this layer not:\n  {layer}\n")

    # 实际问题 · The second convolution must take what the first one gives
    print("With in_channels=64 there, as many as the first convolution gives, the shapes are:")
    for padding in (0, 1):
        records, _ = trace_shapes(DoubleConv(3, 64, padding).to(device), batch)
        shapes = [record["output"] for record in records if record["layer"] == "Conv2d"]
        found["shapes"][padding] = [tuple(batch.shape), *shapes]
        print(f"  padding={padding}: {' -> '.join(map(str, found['shapes'][padding]))}")
    print("Without padding each 3x3 convolution shrinks H and W by 2. padding=1 puts a border of")
    print("zeros around its input first, so H and W stay: the U-Net below needs that.\n")
    return found


def trace_shapes(model: nn.Module, *inputs, **keywords) -> tuple[list[dict], str | None]:
    """Call any model and record the shapes in its layers. With `shape_of`, yours to copy.

    Returns a list of records and the error. A record, for each call of a layer (a module without
    modules inside), has its `name` in the model, its type `layer`, its `input` and `output` shape.

    The error is None, or says which module raised (one with layers inside, if it happened between
    them), what it was given, and why. That layer's output is None: a forward hook runs after its
    layer, so never for the one that raises; a forward pre-hook runs before it.

    The model runs in the mode it is in, so that it fails as it did. (In train() that moves the
    running averages of BatchNorm, as any call does.) No hook stays.
    """
    names = {module: name or "the model" for name, module in model.named_modules()}
    records, running, hooks = [], [], []

    def before(module, args, kwargs):
        given = [*args, *kwargs.values()]
        record = {"name": names[module], "layer": type(module).__name__}
        record["input"] = shape_of(given[0] if len(given) == 1 else given)
        record["output"] = None
        running.append((module, record))
        if not any(module.children()):
            records.append(record)

    def after(module, args, output):
        _, record = running.pop()
        record["output"] = shape_of(output)

    try:
        for module in names:
            hooks.append(module.register_forward_pre_hook(before, with_kwargs=True))
            hooks.append(module.register_forward_hook(after))
        model(*inputs, **keywords)
    except Exception as error:  # whatever it is, it is what the caller wants to know
        module, record = running[-1]  # the innermost module entered and not left
        what = record["layer"] if any(module.children()) else module
        problem = f"{record['name']}, {what}, was given {record['input']}"
        return records, f"{problem}: {type(error).__name__}: {error}"
    finally:
        for hook in hooks:
            hook.remove()
    return records, None


def shape_of(value):
    """A tensor's shape as a tuple; of a list, tuple or dict of values, a list of theirs."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        return [shape_of(item) for item in value]
    return tuple(value.shape) if torch.is_tensor(value) else type(value).__name__


# 训练用的图片 · An image and its mask, changed together by chance
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


# 测试 · Which class has the larger logit, at each pixel
@torch.no_grad()
def segment(model: nn.Module, images: Tensor, device: torch.device) -> Tensor:
    """Images, uint8 (N, 3, H, W), to masks, uint8 (N, H, W): 0 is dark, 1 bright."""
    model.eval()
    logits = (model(batch.to(device) / 255) for batch in images.split(BATCH_SIZE))
    return torch.cat([batch.argmax(dim=1).byte().cpu() for batch in logits])


def class_iou(predicted: Tensor, masks: Tensor) -> Tensor:
    """Intersection over union of each mask (N, H, W), for the dark and the bright class: (N, 2).

    nan, where a class is in neither the predicted nor the true mask.
    """
    classes = torch.tensor([0, 1]).view(2, 1, 1)
    predicted, masks = predicted.unsqueeze(1) == classes, masks.unsqueeze(1) == classes
    return (predicted & masks).sum(dim=(2, 3)) / (predicted | masks).sum(dim=(2, 3))


def pooled_iou(predicted: Tensor, masks: Tensor) -> tuple[float, float]:
    """Of the bright class and of the dark one, the pixels of all masks (N, H, W) together.

    1, where a class is in no mask at all: none was missed.
    """
    ((dark, bright),) = class_iou(predicted.flatten(0, 1)[None], masks.flatten(0, 1)[None])
    return bright.nan_to_num(1).item(), dark.nan_to_num(1).item()


def main(argv: list[str] | None = None) -> dict:
    """Break the block, find the layer, mend it, train a U-Net of it, save it; or use it.

    Returns what was found: `error`, `trace` and `diagnosis` of the wrong block, `shapes` in the
    mended one by padding, `stages` of the U-Net; `iou` (of the bright class) and `iou_dark`,
    `train_loss` and `train_seconds` have one value per epoch. With --predict it returns
    `predictions`, the file of each picture's mask.
    """
    parser = make_parser()
    args = parser.parse_args(argv)
    if bool(args.images) != bool(args.masks) or (args.weights and not args.predict):
        parser.error("--images and --masks go together, and --weights with --predict")
    torch.manual_seed(args.seed)
    device = choose_device(args.device)
    out_dir = make_out_dir(args.out_dir)
    if args.predict:
        weights = args.weights or newest_weights(out_dir, "unet*.pt")
        return predict_masks(args.predict, weights, device, out_dir)

    results = {"device": str(device)} | find_the_layer(device)
    print_heading(
        "U-Net · Image segmentation: bright or dark in the mask, pixel by pixel",
        "用改好的 DoubleConv 搭 U-Net 做图像分割；IoU（交并比）越接近 1 越好。",
    )
    name, flips = "unet", [v2.RandomHorizontalFlip()]
    if args.images:  # few photographs: the more ways to see each, the less it learns them by heart
        name, flips = "unet-own", [*flips, v2.RandomVerticalFlip()]
        train_set, (images, masks) = read_pictures(args.images, args.masks)
    else:
        train_set = draw_bags(args.train_images or TRAIN_IMAGES, args.seed)
        images, masks = draw_bags(HELD_OUT_IMAGES, HELD_OUT_SEED)
    train_loader = DataLoader(Augmented(*train_set, flips), args.batch_size, shuffle=True)

    # 损失函数和优化器 · Model, loss function, optimizer
    model = UNet().to(device)
    if device.type == "cpu":  # a pixel's channels side by side in memory: measured to help here
        model = model.to(memory_format=torch.channels_last)
    # A pixel is dark or bright, never both: cross entropy over the two logits. (One logit with
    # BCEWithLogitsLoss is the usual equivalent. One-hot masks give this loss the same value.)
    criterion = nn.CrossEntropyLoss()
    optimizer = torch.optim.Adam(model.parameters(), lr=args.lr)
    epochs = args.epochs or EPOCHS[name]
    # The rate rises to --lr in the first 3/10 of the steps, then falls to almost 0.
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, args.lr, epochs * len(train_loader))

    results["stages"] = show_stages(model, images[:1].to(device) / 255)
    results["parameters"] = sum(parameter.numel() for parameter in model.parameters())
    print(f"{results['parameters']:,} parameters, on {device}\n")
    share = masks.float().mean().item()
    otsu, otsu_dark = pooled_iou(otsu_masks(images, masks), masks)
    print(f"{len(train_set[0])} pictures to train on, {len(images)} held out. Without learning:")
    print(f"  all bright, or all dark            bright {share:.4f}   dark {1 - share:.4f}")
    print(f"  Otsu's threshold, the better side  bright {otsu:.4f}   dark {otsu_dark:.4f}")
    print("IoU (intersection over union): pixels bright in both masks, true and predicted, over")
    print("those bright in either. 1 is perfect. It may fall at first: the learning rate rises.\n")
    results |= {"epochs": epochs, "otsu_iou": otsu, "otsu_iou_dark": otsu_dark}
    history = {"train_loss": [], "train_seconds": [], "iou": [], "iou_dark": []}
    for epoch in range(1, epochs + 1):
        start = time.perf_counter()
        loss = train_one_epoch(model, train_loader, criterion, optimizer, device, scheduler)
        seconds = time.perf_counter() - start
        predicted = segment(model, images, device)
        bright, dark = pooled_iou(predicted, masks)
        for values, value in zip(history.values(), (loss, seconds, bright, dark)):
            values.append(value)
        line = f"held-out IoU bright {bright:.4f}   dark {dark:.4f}   {seconds:.1f} s"
        print(f"epoch {epoch:>2}/{epochs}   training loss {loss:.4f}   {line}", flush=True)

    # 保存模型参数 · Save the parameters
    weights, picture = out_dir / f"{name}.pt", out_dir / f"{name}-masks.png"
    torch.save(model.state_dict(), weights)
    # (--predict loads them again, perhaps tomorrow and on a machine without a GPU: load_weights.)

    plot_worst(images, masks, predicted, "bright" if args.images else "the bag", picture)
    print(f"\nHeld-out IoU: bright {bright:.4f}, dark {dark:.4f}. Written: {weights}, {picture}")
    return results | history | {"files": {"weights": weights, "masks": picture}}


def show_stages(model: nn.Module, image: Tensor) -> dict:
    """Print and return the shape after each stage of the U-Net."""
    records, _ = trace_shapes(model, image)
    stages = {record["name"].partition(".")[0]: record["output"] for record in records}
    print("The U-Net. inc: a DoubleConv. down: half H and W. up: double H and W, and join with the")
    print("output of that size from inc or down (skip connection). outc: 2 logits for each pixel.")
    for name, shape in stages.items():
        print(f"  {name:6} {shape}")
    return stages


def otsu_masks(images: Tensor, masks: Tensor) -> Tensor:
    """What no learning gives: of each picture, split at Otsu's threshold, the better side."""
    pictures, method = images.permute(0, 2, 3, 1).numpy(), cv2.THRESH_BINARY + cv2.THRESH_OTSU
    grays = [cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY) for picture in pictures]
    side = torch.from_numpy(np.stack([cv2.threshold(gray, 0, 1, method)[1] for gray in grays]))
    iou, other_iou = class_iou(side, masks).nanmean(1), class_iou(1 - side, masks).nanmean(1)
    return torch.where((iou < other_iou).view(-1, 1, 1), 1 - side, side)


# ---- Below: command line, data, pictures. Nothing of it is about shapes; read it last. ----


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    one_of = parser.add_mutually_exclusive_group().add_argument
    one_of("--train-images", metavar="N", type=positive_int, help=f"to draw ({TRAIN_IMAGES})")
    one_of("--images", metavar="DIR", type=path, help="train on your own pictures instead")
    one_of("--predict", metavar="IMAGE", type=path, nargs="+", help="no training: their masks")
    add = parser.add_argument
    add("--masks", metavar="DIR", type=path, help="of --images: the same names, before the suffix")
    add("--weights", metavar="FILE", type=path, help="of --predict (newest unet*.pt in --out-dir)")
    add("--epochs", metavar="N", type=positive_int, help="passes over the pictures (see EPOCHS)")
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


def print_heading(*lines: str) -> None:
    """Print lines with Chinese in them; a console that lacks a character shows "?" for it."""
    if hasattr(sys.stdout, "reconfigure"):  # a notebook's has not
        sys.stdout.reconfigure(errors="replace")
    print(*lines, "", sep="\n")


def read_pictures(image_dir: Path, mask_dir: Path) -> list[tuple[Tensor, Tensor]]:
    """Two sets of images and masks, as draw_bags returns them: to train on, and held out."""
    pairs, size = [], (SIZE, SIZE)
    for files in tqdm(find_pairs(image_dir, mask_dir), delay=2, leave=False, disable=None):
        image, mask = read_pair(*files)
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        pairs.append((image, cv2.resize(mask, size, interpolation=cv2.INTER_NEAREST)))
    images, masks = to_tensors(pairs)
    if len(pairs) < 2:
        sys.exit(f"error: one pair in {image_dir} and {mask_dir}: at least two are needed")
    if masks.min() == masks.max():
        sys.exit(f"error: no object in the masks of {mask_dir}: all their pixels are alike")
    # One split, whatever --seed is: the results of all seeds are on the same held-out pictures.
    order = torch.randperm(len(pairs), generator=torch.Generator().manual_seed(0))
    held_out, train = order.tensor_split([max(1, len(pairs) // 10)])
    return [(images[part], masks[part]) for part in (train, held_out)]


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
    """Stripes, checks or blobs, unevenly lit: float32 (SIZE, SIZE, 3), RGB in [0, 1].

    Bright and dark alternate in it, so brightness does not tell a bag from what is behind it. What
    does is the outline, and that a bag is of livelier colors (the saturation).
    """
    y, x = np.mgrid[:SIZE, :SIZE] / SIZE
    angle, period = rng.uniform(0, np.pi), rng.uniform(0.06, 0.22)
    along, across = np.cos(angle) * x + np.sin(angle) * y, np.cos(angle) * y - np.sin(angle) * x
    stripes = np.sin(2 * np.pi * along / period)
    checks = stripes * np.sin(2 * np.pi * across / period)
    coarse = rng.uniform(-1, 1, [int(2 / period)] * 2)
    blobs = cv2.resize(coarse, (SIZE, SIZE), interpolation=cv2.INTER_CUBIC)
    wave = (2 * rng.choice([stripes, checks, blobs])).clip(-1, 1)

    light = 1 + rng.uniform(-0.4, 0.4) * (x - 0.5) + rng.uniform(-0.4, 0.4) * (y - 0.5)
    hues = (hue + rng.uniform(-40, 40) * wave) % 360
    value = ((rng.uniform(0.45, 0.65) + 0.3 * wave) * light).clip(0, 1)
    hsv = np.stack([hues, np.full_like(x, saturation), value], axis=2)
    return cv2.cvtColor(hsv.astype(np.float32), cv2.COLOR_HSV2RGB)


def read_picture(file: Path, flag: int) -> np.ndarray:
    """What `cv2.imread(file, flag)` returns, but for any path, and an error instead of None."""
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


def find_pairs(images: Path, masks: Path) -> list[tuple[Path, Path]]:
    """The pictures of a folder, sorted, each with its mask: the picture in the other folder that
    has the same name before the suffix."""
    files = [file for file in sorted(images.glob("[!.]*")) if file.suffix.lower() in SUFFIXES]
    mask_of = {file.stem: file for file in masks.glob("[!.]*") if file.suffix.lower() in SUFFIXES}
    if not files:
        sys.exit(f"error: no {'pictures in' if images.is_dir() else 'folder'} {images}")
    for file in files:
        if file.stem not in mask_of:
            sys.exit(f"error: no mask in {masks} for {file.name}")
    return [(file, mask_of[file.stem]) for file in files]


def read_pair(image_file: Path, mask_file: Path) -> tuple[np.ndarray, np.ndarray]:
    """An image, uint8 (H, W, 3), in RGB order, and its mask, uint8 (H, W), of 0 and 1."""
    image = read_picture(image_file, cv2.IMREAD_COLOR)
    mask = read_picture(mask_file, cv2.IMREAD_GRAYSCALE)
    if image.shape[:2] != mask.shape:
        sizes = f"{image.shape[:2]} and {mask.shape}"
        sys.exit(f"error: {image_file} and {mask_file} differ in height and width: {sizes}")
    # Masks hold 0 and 255, or 0 and 1; edges may be gray, and a JPEG's black is not quite 0.
    mask = mask > (127 if mask.max() > 1 else 0)
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB), mask.astype(np.uint8)


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


def predict_masks(files: list[Path], weights: Path, device: torch.device, out_dir: Path) -> dict:
    """Write the mask of each picture, of the picture's own size, and one sheet of them all."""
    print_heading("U-Net · Masks of new pictures", "用保存的权重分割新图片，每张图片写出一个掩码。")
    model = UNet().to(device)
    load_weights(model, weights)
    mask_files = [out_dir / f"{file.stem}-mask.png" for file in files]
    if len(set(mask_files)) < len(files):
        sys.exit("error: two of the pictures have one name, and so would have their masks")
    images, masks = [], []
    for file, mask_file in zip(files, mask_files):
        picture = cv2.cvtColor(read_picture(file, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
        image = cv2.resize(picture, (SIZE, SIZE), interpolation=cv2.INTER_AREA)
        images.append(torch.from_numpy(image).permute(2, 0, 1).unsqueeze(0))
        masks.append(segment(model, images[-1], device))
        # Enlarging 0 and 255 gives gray edges; >= 128 makes a smooth outline of them.
        mask = cv2.resize(255 * masks[-1][0].numpy(), picture.shape[1::-1]) // 128 * 255
        mask_file.write_bytes(cv2.imencode(".png", mask)[1])
        print(f"{file}: white in {(mask > 0).mean():.1%} of the picture")
    sheet = out_dir / f"{weights.stem}-predictions.png"
    save_image(stack_pictures(torch.cat(images), torch.cat(masks)) / 255, sheet, nrow=6)
    print(f"By the weights in {weights}. Written: {', '.join(map(str, [*mask_files, sheet]))}")
    return {"device": str(device), "predictions": mask_files, "files": {"predictions": sheet}}


def stack_pictures(images: Tensor, *masks: Tensor) -> Tensor:
    """Each image with its masks below it, white where they are bright: uint8 (N, 3, ..., ...)."""
    layers = [images, *(255 * mask.unsqueeze(1).expand(-1, 3, -1, -1) for mask in masks)]
    return torch.cat([nn.functional.pad(layer, (2, 2, 2, 2), value=128) for layer in layers], dim=2)


def plot_worst(images: Tensor, masks: Tensor, predicted: Tensor, white: str, file: Path) -> None:
    """The three pictures with the lowest IoU and, of the others, the three with the highest."""
    iou = class_iou(predicted, masks)
    order = iou.nanmean(1).argsort().tolist()  # the mean of the classes that are there
    chosen = order[:3] + order[3:][-3:]
    figure, axes = plt.subplots(1, 6, figsize=(10, 5.6), layout="constrained")
    figure.suptitle(f"IoU, three worst and best: image, true mask, predicted mask (white: {white})")
    columns = stack_pictures(images, masks, predicted).permute(0, 2, 3, 1).numpy()
    for ax, index in zip(axes, chosen):
        ax.imshow(columns[index])
        ax.set_title("dark {:.3f}\nbright {:.3f}".format(*iou[index]), fontsize=10)
        ax.axis("off")
    figure.savefig(file)
    plt.close(figure)


if __name__ == "__main__":
    main()

"""The channel error in a U-Net's DoubleConv: caught, traced to its layer, mended; then trained.

Notes: Pytorch_已解决问题_1

    python unet_doubleconv.py

Measured on 2 CPU cores with PyTorch 2.15: the U-Net finds held-out bags with IoU 0.947 after its 6
epochs (seed 0; 0.948 and 0.947 with seeds 1 and 2). A threshold on brightness comes to 0.26. (One
on the saturation, blurred first, comes to 0.93; but nobody told the network about saturation.)

**Try**

    --epochs 2           # IoU 0.916: most of it is learned early
    --train-images 50    # IoU 0.918 in a sixth of the time: bags are much alike
"""

import argparse
import math
import sys
import tempfile
import textwrap
import time
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, TensorDataset
from tqdm import tqdm

SIZE = 160  # pixels, and the batches of 4, are the notes'
BATCH_SIZE = 4
EPOCHS = 6
LEARNING_RATE = 0.01
TRAIN_IMAGES = 300
HELD_OUT_IMAGES = 64
HELD_OUT_SEED = 2**63  # one more than --seed can be: no training picture is held out as well


class WrongDoubleConv(nn.Module):
    """The notes' first block, which raises: its second convolution takes `in_channels`."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()  # the notes' `super.__init__()` stops here with a TypeError
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

    With padding=0, the notes', each convolution loses one pixel on every side; with padding=1 a
    rim of zeros replaces them, and H and W stay. (The convolutions would do without their biases:
    the BatchNorm that follows subtracts any constant again.)
    """

    def __init__(self, in_channels: int, out_channels: int, padding: int = 0):
        super().__init__()
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
    """Twice the height and width, beside what the way down saw there (the skip connection).

    x (N, in_channels, H, W) and skip (N, out_channels, 2H, 2W) to (N, out_channels, 2H, 2W).
    """

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.up = nn.ConvTranspose2d(in_channels, out_channels, kernel_size=2, stride=2)
        self.conv = DoubleConv(2 * out_channels, out_channels, padding=1)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        return self.conv(torch.cat([skip, self.up(x)], dim=1))


class OutConv(nn.Conv2d):
    """At each pixel on its own: in_channels features to out_channels logits."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__(in_channels, out_channels, kernel_size=1)


class UNet(nn.Module):
    """Images (N, 3, H, W) to logits (N, 2, H, W): background, bag. H and W are multiples of 8.

    Ronneberger, Fischer and Brox, "U-Net" (2015): theirs goes down four times, from 64 channels;
    this one three times, from 8, which is enough here and fast on a CPU.
    """

    def __init__(self):
        super().__init__()
        self.inc = DoubleConv(3, 8, padding=1)
        self.down1 = Down(8, 16)
        self.down2 = Down(16, 32)
        self.down3 = Down(32, 64)
        self.up1 = Up(64, 32)
        self.up2 = Up(32, 16)
        self.up3 = Up(16, 8)
        self.outc = OutConv(8, 2)

    def forward(self, images: Tensor) -> Tensor:
        x1 = self.inc(images)
        x2 = self.down1(x1)
        x3 = self.down2(x2)
        x = self.down3(x3)
        x = self.up1(x, x3)
        x = self.up2(x, x2)
        x = self.up3(x, x1)
        return self.outc(x)


def main(argv: Sequence[str] | None = None) -> dict:
    """Break the block, find the layer, mend it, train a U-Net of it, save and load again.

    Returns what was found: `error`, `trace` and `diagnosis` of the wrong block, `shapes` in the
    mended one by padding, and of the U-Net; its lists hold one value per epoch.
    """
    # Without its usage text, argparse answers a mistake with the one line that matters.
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], usage=argparse.SUPPRESS)
    flag = parser.add_argument
    count = {"type": positive_integer, "metavar": "N", "default": TRAIN_IMAGES}
    flag("--train-images", **count, help="how many pictures to draw and train on; default: 300")
    flag("--epochs", type=positive_integer, metavar="N", default=EPOCHS, help="default: 6")
    flag("--batch-size", type=positive_integer, metavar="N", default=BATCH_SIZE, help="default: 4")
    flag("--lr", type=positive_number, default=LEARNING_RATE, help="default: 0.01")
    flag("--seed", type=whole_number, metavar="N", default=0, help="default: 0")
    flag("--device", default="auto", help="auto (default), cpu, cuda, cuda:1, mps, ...")
    out_dir = Path("outputs", Path(__file__).stem)
    flag("--out-dir", type=Path, default=out_dir, help=f"default: {out_dir}")
    args = parser.parse_args(argv)

    device = choose_device(args.device)
    out_dir = make_out_dir(args.out_dir)
    torch.manual_seed(args.seed)

    results = {"device": str(device), "epochs": args.epochs} | find_the_layer(device)

    train_images, train_masks = draw_bags(args.train_images, args.seed, device)
    images, masks = draw_bags(HELD_OUT_IMAGES, HELD_OUT_SEED, device)
    train_set = TensorDataset(train_images, train_masks)
    batches = BatchSampler(RandomSampler(train_set), args.batch_size, drop_last=False)
    # batch_size=None: the sampler hands out a batch's indices already, all of them at once.
    train_loader = DataLoader(train_set, sampler=batches, batch_size=None)

    # channels_last: a pixel's channels side by side in memory, and convolutions run faster. On
    # Apple's MPS BatchNorm's gradients are wrong with it (pytorch/pytorch issue 175189).
    layout = torch.contiguous_format if device.type == "mps" else torch.channels_last
    model = UNet().to(device, memory_format=layout)
    # A pixel is background or bag, never both: cross entropy over the two classes. (One-hot masks,
    # float (N, 2, H, W), give it the same number. BCEWithLogitsLoss would ask about each class by
    # itself, and could be told both, or neither.)
    criterion = nn.CrossEntropyLoss()
    optimizer = torch.optim.Adam(model.parameters(), lr=args.lr)
    # The rate rises to --lr over 3/10 of the steps, then falls to 0 (and the first of Adam's betas
    # goes from 0.95 to 0.85 and back).
    steps = args.epochs * len(train_loader)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, args.lr, total_steps=steps)

    weights = out_dir / "unet.pt"
    results |= {
        "stages": show_stages(model, images[:1]),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "otsu_iou": otsu_iou(images, masks),
        "iou": [],
        "train_loss": [],
        "train_seconds": [],
        "files": {"weights": weights, "masks": out_dir / "unet-masks.png"},
    }
    print(f"{results['parameters']:,} parameters, on {device}\n")
    print(f"{len(train_images)} pictures of bags to train on, {len(images)} held out")
    print("IoU: the pixels in both masks, drawn and predicted, over the pixels in either")
    print(f"A threshold on brightness (Otsu's) comes to held-out IoU {results['otsu_iou']:.4f}")

    try:
        for epoch in range(1, args.epochs + 1):
            start = time.perf_counter()
            loss = train_one_epoch(model, train_loader, criterion, optimizer, scheduler)
            results["train_seconds"].append(time.perf_counter() - start)
            results["train_loss"].append(loss)
            results["iou"].append(iou(segment(model, images), masks).mean().item())
            print(
                f"epoch {epoch:>{len(str(args.epochs))}}/{args.epochs}   "
                f"training loss {loss:.4f}   held-out IoU {results['iou'][-1]:.4f}   "
                f"{results['train_seconds'][-1]:.1f} s",
                flush=True,
            )
    except KeyboardInterrupt:
        torch.save(model.state_dict(), weights)
        print(f"\nStopped by Ctrl-C. What was learned so far is in {weights}")
        sys.exit(130)

    torch.save(model.state_dict(), weights)

    # Tomorrow, in another program, perhaps without a GPU, these lines bring the model back.
    model = UNet()
    model.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    predicted = segment(model, images.cpu())
    again = iou(predicted, masks.cpu()).mean()

    draw_masks(images.cpu(), masks.cpu(), predicted, results["files"]["masks"])
    files = ", ".join(str(file) for file in results["files"].values())
    print(f"\nLoaded again, on the CPU: held-out IoU {again:.4f}. Written: {files}")
    return results


def find_the_layer(device: torch.device) -> dict:
    """The notes' error, the layer that it comes from, and the sizes in the mended block."""
    print("Pytorch_已解决问题_1 · The channel error in a U-Net\n")
    found = {"shapes": {}}
    batch = torch.rand(4, 3, SIZE, SIZE, device=device)
    block = WrongDoubleConv(3, 64).to(device)
    try:
        block(batch)
    except RuntimeError as error:
        found["error"] = str(error)
    print(f"The wrong block raises, on {tuple(batch.shape)}:\n  {found['error']}\n")

    print("The batch has its 3 channels: the input was right. Inside the block, layer by layer:")
    found["trace"], found["diagnosis"] = trace_shapes(block, batch)
    for record in found["trace"]:
        output = "raises" if record["output"] is None else f"-> {record['output']}"
        print(f"  {record['name']:13}  {record['layer']:11}  {record['input']!s:17} {output}")
    print(f"  {found['diagnosis']}\n")

    print("Its second convolution takes 3 channels; the first has made them 64. Mended:")
    for padding in (0, 1):
        records, _ = trace_shapes(DoubleConv(3, 64, padding).to(device), batch)
        shapes = [record["output"] for record in records if record["layer"] == "Conv2d"]
        found["shapes"][padding] = [tuple(batch.shape), *shapes]
        print(f"  padding={padding}: {' -> '.join(map(str, found['shapes'][padding]))}")
    print("A 3x3 window cannot be centered on the outermost pixels, so each convolution takes one")
    print("off every side, unless padding puts a rim around them.\n")
    return found


def trace_shapes(model: nn.Module, *inputs, **keywords) -> tuple[list[dict], str | None]:
    """Call any model and record the shapes in its layers. With `shape_of`, yours to copy.

    Returns a list of records and the error. A record, for each call of a layer (a module without
    modules inside), has its `name` in the model, its type `layer`, its `input` and `output` shape.

    The error is None, or says which module raised (one with layers inside, if it happened between
    them), what it was given, and why. The output is None then: a forward hook runs after its layer
    and never for the one that raises, which only a forward pre-hook sees.

    The model runs in the mode it is in, so that it fails as it did, and is left as it was: no hook
    stays, and buffers changed in place (BatchNorm's running averages) are put back.
    """
    names = {module: name or "the model" for name, module in model.named_modules()}
    records, running, hooks = [], [], []

    def before(module, args, kwargs):
        given = [*args, *kwargs.values()]
        record = {
            "name": names[module],
            "layer": type(module).__name__,
            "input": shape_of(given[0] if len(given) == 1 else given),
            "output": None,
        }
        running.append((module, record))
        if not any(module.children()):
            records.append(record)

    def after(module, args, output):
        entered, record = running.pop()
        while entered is not module:  # it raised, and the model caught that and went on
            entered, record = running.pop()
        record["output"] = shape_of(output)

    is_lazy = nn.parameter.is_lazy  # a LazyBatchNorm2d has no averages before its first batch
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers() if not is_lazy(buffer)]
    error = None
    try:
        for module in names:
            hooks.append(module.register_forward_pre_hook(before, prepend=True, with_kwargs=True))
            hooks.append(module.register_forward_hook(after))
        model(*inputs, **keywords)
    except Exception as raised:  # whatever it is, it is what the caller wants to know
        module, record = running[-1]  # the innermost module entered and not left
        what = record["layer"] if any(module.children()) else module
        error = (
            f"{record['name']}, {what}, was given {record['input']}: "
            f"{type(raised).__name__}: {raised}"
        )
    finally:
        for hook in hooks:
            hook.remove()
        with torch.no_grad():
            for buffer, value in buffers:
                buffer.copy_(value)
    return records, error


def shape_of(value):
    """A tensor's shape as a tuple; of a list, tuple or dict of values, a list of theirs."""
    if torch.is_tensor(value):
        return tuple(value.shape)
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        return [shape_of(item) for item in value]
    return type(value).__name__


def show_stages(model: nn.Module, image: Tensor) -> dict:
    """Print and return the shape after each stage of the U-Net."""
    records, _ = trace_shapes(model, image)
    stages = {record["name"].partition(".")[0]: record["output"] for record in records}
    print("The U-Net, made of the mended block:")
    for name, shape in stages.items():
        print(f"  {name:6} {shape}")
    return stages


def draw_bags(count: int, seed: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Pictures, float32 (N, 3, SIZE, SIZE) in 0...1, RGB; masks, int64, 0 or 1 (the bag)."""
    rng = np.random.default_rng(seed)
    pictures, masks = zip(*(draw_bag(rng) for _ in range(count)))
    # permute alone leaves the numbers where they are, in channels_last order (see `layout`).
    images = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).contiguous().to(device)
    return images.float() / 255, torch.from_numpy(np.stack(masks)).to(device).long()


def draw_bag(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A picture, uint8 (SIZE, SIZE, 3), RGB, and its mask, uint8 (SIZE, SIZE), 0 or 1."""
    # The body is anything from a box to a cushion, wider above or below; the handle is half an
    # ellipse on top of it. In units of the picture's size, around the middle of the bag.
    width, height = rng.uniform(0.16, 0.28, 2)
    angle, power = np.linspace(0, 2 * np.pi, 100), rng.uniform(0.2, 0.8)
    cos, sin = np.cos(angle), np.sin(angle)
    body = np.stack([np.sign(cos) * abs(cos) ** power, np.sign(sin) * abs(sin) ** power], axis=1)
    body[:, 0] *= 1 + rng.uniform(-0.3, 0.3) * body[:, 1]
    body *= width, height
    reach = width * rng.uniform(0.4, 0.7), rng.uniform(0.1, 0.25)
    handle = np.stack([cos, sin], axis=1)[50:] * reach - (0, 0.9 * height)

    tilt, middle = rng.uniform(-0.4, 0.4), rng.uniform((0.38, 0.44), (0.62, 0.68))
    turn = np.array([[np.cos(tilt), np.sin(tilt)], [-np.sin(tilt), np.cos(tilt)]])
    body, handle = (((part @ turn + middle) * SIZE).astype(np.int32) for part in (body, handle))
    mask = np.zeros((SIZE, SIZE), np.uint8)
    cv2.fillPoly(mask, [body], 1)
    cv2.polylines(mask, [handle], False, 1, thickness=round(rng.uniform(0.03, 0.05) * SIZE))

    hue = rng.uniform(0, 360)
    ground = draw_texture(rng, hue, saturation=rng.uniform(0.1, 0.35))
    bag = draw_texture(rng, hue + rng.uniform(60, 300), saturation=rng.uniform(0.55, 0.95))
    picture = np.where(mask[:, :, None] == 1, bag, ground) + rng.normal(0, 0.06, bag.shape)
    return (picture.clip(0, 1) * 255).astype(np.uint8), mask


def draw_texture(rng: np.random.Generator, hue: float, saturation: float) -> np.ndarray:
    """Stripes, checks or blobs, unevenly lit: float32 (SIZE, SIZE, 3), RGB in 0...1.

    Bright and dark alternate in it, so brightness does not tell a bag from what is behind it. What
    does is the outline, and that a bag is of livelier colors (the saturation).
    """
    y, x = np.mgrid[:SIZE, :SIZE] / SIZE
    angle, period = rng.uniform(0, np.pi), rng.uniform(0.06, 0.22)
    along, across = np.cos(angle) * x + np.sin(angle) * y, np.cos(angle) * y - np.sin(angle) * x
    wave = np.sin(2 * np.pi * along / period)
    kind = rng.choice(["stripes", "checks", "blobs"])
    if kind == "checks":
        wave *= np.sin(2 * np.pi * across / period)
    if kind == "blobs":
        coarse = rng.uniform(-1, 1, [int(2 / period)] * 2)
        wave = cv2.resize(coarse, (SIZE, SIZE), interpolation=cv2.INTER_CUBIC)
    wave = (2 * wave).clip(-1, 1)

    light = 1 + rng.uniform(-0.4, 0.4) * (x - 0.5) + rng.uniform(-0.4, 0.4) * (y - 0.5)
    hues = (hue + rng.uniform(-40, 40) * wave) % 360
    value = ((rng.uniform(0.45, 0.65) + 0.3 * wave) * light).clip(0, 1)
    hsv = np.stack([hues, np.full_like(x, saturation), value], axis=2)
    return cv2.cvtColor(hsv.astype(np.float32), cv2.COLOR_HSV2RGB)


def iou(predicted: Tensor, masks: Tensor) -> Tensor:
    """Of each mask (N, H, W) of 0 and 1: pixels in both over pixels in either. float32 (N,)."""
    return (predicted & masks).sum(dim=(1, 2)) / (predicted | masks).sum(dim=(1, 2))


def otsu_iou(images: Tensor, masks: Tensor) -> float:
    """What no learning gives: each picture split at Otsu's threshold, the better side its bag."""
    split = []
    for image in images.permute(0, 2, 3, 1).cpu():
        gray = cv2.cvtColor((image * 255).round().byte().numpy(), cv2.COLOR_RGB2GRAY)
        split.append(cv2.threshold(gray, 0, 1, cv2.THRESH_BINARY + cv2.THRESH_OTSU)[1])
    bright, masks = torch.from_numpy(np.stack(split)).long(), masks.cpu()
    return torch.maximum(iou(bright, masks), iou(1 - bright, masks)).mean().item()


@torch.no_grad()
def segment(model: nn.Module, images: Tensor) -> Tensor:
    """The class with the larger logit at each pixel: int64 (N, H, W), 0 or 1."""
    model.eval()
    return torch.cat([model(batch).argmax(dim=1) for batch in images.split(16)])


def draw_masks(images: Tensor, masks: Tensor, predicted: Tensor, file: Path) -> None:
    """The first pictures and the one that went worst: image, true mask, predicted mask."""
    import matplotlib.pyplot as plt  # slow to import, so only where it is needed

    each = iou(predicted, masks)
    images, masks, predicted = images.permute(0, 2, 3, 1).numpy(), masks.numpy(), predicted.numpy()
    chosen = [*range(min(5, len(images))), each.argmin().item()]
    figure, axes = plt.subplots(3, len(chosen), figsize=(10, 5.4), layout="constrained")
    figure.suptitle(f"Bags held out from training: mean IoU {each.mean():.4f}")
    for column, index in zip(axes.T, chosen):
        column[0].imshow(images[index])
        column[1].imshow(masks[index], cmap="gray", vmin=0, vmax=1)
        column[2].imshow(predicted[index], cmap="gray", vmin=0, vmax=1)
        column[2].set_xlabel(f"IoU {each[index]:.3f}")
    for place in axes.flat:
        place.set(xticks=[], yticks=[])
    for place, label in zip(axes[:, 0], ("image", "true mask", "predicted mask")):
        place.set_ylabel(label)
    axes[0, -1].set_title("the worst")
    figure.savefig(file)
    plt.close(figure)


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


if __name__ == "__main__":
    if hasattr(sys.stdout, "reconfigure"):  # a notebook's has not
        sys.stdout.reconfigure(errors="replace")  # where a console lacks a character it prints "?"
    main()

"""Train the U-Net on your own images and masks, then let it draw the masks of new images.

    python -m own_data.pictures --images photos --masks masks         # Train on the images in a folder.
    python -m own_data.pictures --predict new.jpg more "scans/*.png"  # Draw the masks of other images.

Run both commands in the folder that contains unet_doubleconv.py. A mask is as large as its image and has the
same name, or a name that ends differently, by the same rule for all pairs (X.tif and X_mask.tif). Each value or
color in the masks is one class. There can be two to 21 classes, and the background counts as one of them.
"""

import argparse
import glob
import math
import os
import sys
from collections import Counter
from contextlib import suppress
from pathlib import Path

import cv2
import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image, ImageOps, ImageSequence, UnidentifiedImageError
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchvision.transforms import v2
from tqdm import tqdm

import unet_doubleconv as lesson

# 超参数：图片少时一轮只有几步，所以多学几轮，总共至少 500 步
# Hyperparameters. With few images, an epoch has few steps, so there are more epochs: at least 500 steps in all.
EPOCHS = 16
LEAST_STEPS = 500
MOST_CLASSES = 21
# 掩码里值为 255 的像素可能是物体的边界：它们不属于任何一类，不计入损失和交并比
# Pixels with the value 255 can be a border between objects. They have no class and are ignored.
BORDER = 255
OUT_DIR = Path("outputs", "pictures")


def main(argv: list[str] | None = None) -> dict:
    """Train on images and masks, or predict the masks of images. Return the results and the files.

    训练，或者用训练好的权重预测掩码；出错时打印一行原因。
    """
    lesson.make_stdout_tolerant()
    parser = make_parser()
    args = parser.parse_args(argv)
    if bool(args.images) != bool(args.masks):
        parser.error("--images and --masks belong together")
    torch.manual_seed(args.seed)
    device = lesson.choose_device(args.device)
    args.out_dir.mkdir(parents=True, exist_ok=True)
    try:
        return predict(args, device) if args.predict else train(args, device)
    except ValueError as error:
        sys.exit(f"error: {error}")


def train(args: argparse.Namespace, device: torch.device) -> dict:
    """Train, test after each epoch, and keep the best weights. Return the lists of results and the files.

    It raises ValueError if the pictures cannot be used, or if the loss is not finite.

    完整流程：读取图片，划分训练集和留出集，每轮训练后测试，保留最好的一轮。
    """
    print("用自己的图片训练 U-Net · U-Net, trained on your own pictures\n")
    images, masks, classes = read_pictures(args.images, args.masks, args.size)
    names = name_values(classes["values"])
    training, held_out = split(masks, names)
    test_images, test_masks = images[held_out], masks[held_out]

    # 数据增强：自己的图片往往很少，所以左右、上下都翻转
    # Your own pictures are usually few, so they are randomly flipped left to right and upside down.
    flips = [v2.RandomHorizontalFlip(), v2.RandomVerticalFlip()]
    train_set = lesson.Augmented(images[training], masks[training], flips)
    train_loader = DataLoader(train_set, args.batch_size, shuffle=True)
    epochs = args.epochs or max(EPOCHS, math.ceil(LEAST_STEPS / len(train_loader)))
    print(f"{len(training)} training images, {len(held_out)} held out; {epochs} epochs on {device}\n")

    # 模型、损失函数、优化器和学习率：学习率先升到 --lr，再降到接近 0
    # Model, loss function, optimizer, and learning rate, which first rises to --lr and then falls to almost 0.
    layout = torch.channels_last if device.type == "cpu" else torch.contiguous_format
    model = lesson.UNet(len(names)).to(device, memory_format=layout)
    criterion = nn.CrossEntropyLoss(ignore_index=BORDER)
    optimizer = torch.optim.Adam(model.parameters(), lr=args.lr)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, args.lr, epochs * len(train_loader))

    # 从检查点接着训练：随机数的状态也要恢复，图片的顺序才与没有中断时一样
    # Resume from a checkpoint. The state of the random numbers is restored too, so the order stays the same.
    out = args.out_dir
    files = {"weights": out / "pictures.pt", "checkpoint": out / "checkpoint.pt", "picture": out / "held-out.png"}
    parts = {"model": model, "optimizer": optimizer, "scheduler": scheduler}
    settings = {"--epochs": epochs, "--batch-size": args.batch_size, "--lr": args.lr, "--seed": args.seed}
    settings |= {"--size": args.size, "number of images": len(images), "classes": classes}
    losses, ious = [], []
    if args.resume:
        state = load(files["checkpoint"])
        changed = ", ".join(name for name in settings if settings[name] != state["settings"][name])
        if changed:
            raise ValueError(f"--resume needs the options and pictures of the stopped run, but these differ: {changed}")
        for name, part in parts.items():
            part.load_state_dict(state[name])
        torch.set_rng_state(state["random"])
        losses, ious = state["train_loss"], state["iou"]
        print(f"从第 {len(losses)} 轮之后接着训练 · Resumed after epoch {len(losses)}")

    # 训练模型：每轮之后测试一次，写入检查点；平均交并比最高的一轮也写入权重文件
    # Train, test after each epoch, and write a checkpoint. The epoch with the highest mean IoU gives the weights.
    for epoch in range(len(losses) + 1, epochs + 1):
        loss = lesson.train_one_epoch(model, train_loader, criterion, optimizer, device, scheduler)
        if not math.isfinite(loss):
            raise ValueError(f"the training loss is {loss} in epoch {epoch}; try a smaller --lr")
        losses.append(loss)
        predicted = lesson.segment(model, test_images, device, args.batch_size)
        ious.append(measure(predicted, test_masks, len(names)))
        means = np.nanmean(ious, axis=1)
        if means.argmax() == epoch - 1:
            save({"model": model.state_dict(), "settings": settings}, files["weights"])
        state = {name: part.state_dict() for name, part in parts.items()} | {"random": torch.get_rng_state()}
        save(state | {"settings": settings, "train_loss": losses, "iou": ious}, files["checkpoint"])
        if epoch == epochs or epoch % max(1, epochs // 10) == 0:  # fewer than 20 lines
            print(f"epoch {epoch}: loss {loss:.4f}, held-out IoU {means[-1]:.4f} (mean of the classes)")

    # 用最好的一轮预测留出的图片 · Predict the held-out images with the best epoch
    model.load_state_dict(load(files["weights"])["model"])
    predicted = lesson.segment(model, test_images, device, args.batch_size)
    best = int(np.nanmean(ious, axis=1).argmax())
    print(f"\n保留第 {best + 1} 轮的权重：它在这些留出的图片上最好，对新图片可能差一些")
    print(f"Epoch {best + 1} is kept, because it did best on these held-out images. New images may do a little worse.")
    for number, name in enumerate(names):
        print(f"  IoU {ious[best][number]:.4f}  class {name}".replace("nan", "-"))
        if number in test_masks and number not in predicted:
            warn(f"没有一个像素被预测为 {name}：可以增加 --epochs，或换一个 --lr",
                 f"No pixel is predicted as {name}. Try more --epochs, or another --lr.")  # fmt: skip
    plot_held_out(test_images, test_masks, predicted, len(names), files["picture"])
    lesson.print_files(files)
    iou = {name: [one[number] for one in ious] for number, name in enumerate(names)}
    return {"train_loss": losses, "iou": iou, "best_epoch": best + 1, "files": files}


def measure(predicted: Tensor, masks: Tensor, classes: int) -> list[float]:
    """Return the IoU of each class over all the masks. It is nan for a class that is in none of the true masks.

    各类的交并比：真实掩码里没有的类别无法衡量，记为 nan。
    """
    predicted, masks = predicted[masks != BORDER], masks[masks != BORDER]
    return [lesson.class_iou(predicted, masks, n) if n in masks else math.nan for n in range(classes)]


def split(masks: Tensor, names: list[str]) -> tuple[list[int], list[int]]:
    """Return the numbers of the training masks and of the held-out ones: a tenth of them, whatever the seed is.

    As far as possible, each class is in both parts.

    划分：固定留出十分之一，并尽量让每一类在两部分里都有。
    """
    has = np.array([[number in mask for number in range(len(names))] for mask in masks])
    order = torch.randperm(len(masks), generator=torch.Generator().manual_seed(0)).tolist()
    held_out = []
    for index in order:
        # 有还没留出的类别，或还不到十分之一，就留出；但训练集里每一类都不能少
        # Hold out a mask if it has a class that is new there, or to fill a tenth. Training must not lose any class.
        new = has[index] & ~has[held_out].any(axis=0)
        remaining = has.sum(axis=0) - has[held_out].sum(axis=0)
        if (new.any() or len(held_out) < len(masks) // 10) and (remaining[has[index]] > 1).all():
            held_out.append(index)
    held_out = held_out or order[:1]  # 至少留出一张 · at least one
    training = [index for index in order if index not in held_out]
    for part, chinese, english in ((training, "训练", "training"), (held_out, "留出", "held-out")):
        missing = ", ".join(name for name, there in zip(names, has[part].any(axis=0)) if not there)
        if missing:
            warn(f"{chinese}的图片里没有这些类别：{missing}", f"These classes are in no {english} image: {missing}")
    return training, held_out


def predict(args: argparse.Namespace, device: torch.device) -> dict:
    """Write the mask of each image, as large as the image. Return the files.

    An image that cannot be used gets one line on stderr. The others are still used, and the exit code is 1.

    预测：为每张图片写出一个同样大小的掩码，值和调色板与训练用的掩码相同。
    """
    print("用训练好的 U-Net 预测掩码 · Masks of new images\n")
    state = load(args.weights or args.out_dir / "pictures.pt")
    classes, size = state["settings"]["classes"], state["settings"]["--size"]
    names = name_values(classes["values"])
    model = lesson.UNet(len(names)).to(device)
    model.load_state_dict(state["model"])
    predictions, failed = [], False
    for file in dict.fromkeys(file for text in args.predict for file in find_files(text)):
        try:
            for page_number, page in enumerate(read_pages(file)):
                target = args.out_dir / f"{file.stem}{f'-{page_number + 1}' if page_number else ''}-mask.png"
                if target in predictions:
                    raise ValueError(f"{file} is skipped, because {target} is already the mask of another image")
                # 照片按 EXIF 转正，再缩放到训练时的大小
                # Turn the photo upright, as its EXIF data say, and resize it to the size used in training.
                page = ImageOps.exif_transpose(page)
                mask = lesson.segment(model, to_tensor(page, size).unsqueeze(0), device)
                # 放大掩码：每一类单独平滑地放大，再取最大的一类，轮廓就没有锯齿
                # Enlarge each class smoothly by itself, then take the largest. This leaves no jagged outlines.
                shares = nn.functional.one_hot(mask.long(), len(names)).permute(0, 3, 1, 2).float()
                shares = nn.functional.interpolate(shares, page.size[::-1], mode="bilinear")
                mask = shares.argmax(dim=1)[0].numpy()
                save_mask(mask, classes, target)
                predictions.append(target)
                found = [f"{name} in {(mask == number).mean():.1%}" for number, name in enumerate(names)]
                print(f"{file}: {', '.join(found)} of the pixels")
        except ValueError as error:
            print(f"error: {error}", file=sys.stderr)
            failed = True
    files = {str(file): file for file in predictions}
    if predictions:
        lesson.print_files(files)
    if failed:
        sys.exit(1)
    return {"predictions": predictions, "files": files}


# ---- Below: command line, files, masks, pictures. ----

LOSSY = {".jfif", ".jp2", ".jpeg", ".jpg", ".webp"}
SUFFIXES = {".bmp", ".gif", ".pgm", ".png", ".ppm", ".tif", ".tiff", *LOSSY}


def make_parser() -> argparse.ArgumentParser:
    # fmt: off
    parser = argparse.ArgumentParser(prog="python -m own_data.pictures", allow_abbrev=False,
        description=(__doc__ or "").partition("\n")[0], formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="examples:\n  %(prog)s --images photos --masks masks --size 256\n  %(prog)s --predict new.jpg")
    use = parser.add_argument_group("what to do").add_mutually_exclusive_group(required=True)
    use.add_argument("--images", type=Path, metavar="DIR", help="train on the images in this folder")
    use.add_argument("--predict", nargs="+", metavar="IMAGE",
        help="write the masks of these images; folders and patterns like '*.png' are allowed")
    train = parser.add_argument_group("training")
    train.add_argument("--masks", type=Path, metavar="DIR", help="folder with the masks; it can be the same folder")
    train.add_argument("--size", type=multiple_of_16, metavar="N", default=lesson.SIZE,
        help="height and width of the resized images; small objects need more pixels (default: %(default)s)")
    train.add_argument("--epochs", type=lesson.whole_number, metavar="N",
        help=f"how many times to go through the images (default: {EPOCHS}, or as many as give {LEAST_STEPS} steps)")
    train.add_argument("--batch-size", type=lesson.whole_number, metavar="N", default=lesson.BATCH_SIZE,
        help="how many images to take in each training step (default: %(default)s)")
    train.add_argument("--lr", type=float, metavar="X", default=lesson.LEARNING_RATE,
        help="the largest learning rate: how far the longest steps go (default: %(default)s)")
    train.add_argument("--seed", type=lambda text: lesson.whole_number(text, 0), metavar="N", default=0,
        help="seed for the random numbers; the held-out images are always the same (default: %(default)s)")
    train.add_argument("--resume", action="store_true",
        help="continue a stopped training after its last complete epoch; give the other options as before")
    files = parser.add_argument_group("device and files")
    files.add_argument("--device", default="auto",
        help="device, such as cpu, cuda, cuda:1 or mps; auto means a GPU that works, otherwise the CPU (default: auto)")
    files.add_argument("--weights", type=Path, metavar="FILE",
        help="weights for --predict (default: pictures.pt in --out-dir, where the training writes it)")
    files.add_argument("--out-dir", type=Path, metavar="DIR", default=OUT_DIR,
        help="folder for the weights and the pictures; it is created if it is missing (default: %(default)s)")
    # fmt: on
    return parser


def multiple_of_16(text: str) -> int:
    if lesson.whole_number(text) % 16 or int(text) < 32:
        raise argparse.ArgumentTypeError("must be a multiple of 16, and at least 32")
    return int(text)


def warn(chinese: str, english: str) -> None:
    print(f"!!! {chinese}\n!!! {english}")


def save(state: dict, file: Path) -> None:
    """Write a file, and replace the old one only when the new one is complete."""
    torch.save(state, file.with_suffix(".tmp"))
    file.with_suffix(".tmp").replace(file)


def load(file: Path) -> dict:
    """Return what `save` wrote. Raise ValueError if the file is missing, damaged, of another kind, or full of nan."""
    if not file.is_file():
        raise ValueError(f"there is no file {file}; train first, with --images and --masks")
    try:
        # weights_only: a file from somebody else may contain code, and this option refuses to run it.
        state = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # Damaged files and files of other kinds fail in many ways.
        raise ValueError(f"{file} cannot be loaded: it is incomplete, or not a file of weights") from error
    if not isinstance(state, dict) or "settings" not in state:
        raise ValueError(f"{file} contains the weights of another model, or something else")
    if not all(values.isfinite().all() for values in state["model"].values()):
        raise ValueError(f"{file} contains weights that are not finite numbers (nan or inf); train again")
    return state


def list_pictures(folder: Path) -> list[Path]:
    """Return the pictures in a folder, sorted. Say which files are not read."""
    files = [file for file in sorted(folder.glob("[!.]*")) if file.is_file()]
    others = [file.name for file in files if file.suffix.lower() not in SUFFIXES]
    if others:
        warn(f"{folder}：跳过 {len(others)} 个不是图片的文件：{', '.join(others[:5])}",
             f"{folder}: files that are not pictures are skipped ({len(others)}): {', '.join(others[:5])}")  # fmt: skip
    return [file for file in files if file.name not in others]


def find_files(text: str) -> list[Path]:
    """Return the file that is named, the pictures in the folder, or the files that match the pattern."""
    path = Path(text)
    found = list_pictures(path) if path.is_dir() else [] if path.exists() else map(Path, sorted(glob.glob(text)))
    return list(found) or [path]


def find_pairs(image_dir: Path, mask_dir: Path) -> list[tuple[Path, Path]]:
    """Return the images in a folder, each with its mask, which has the same name before the suffix.

    The names may also end differently, by the same rule for all: "1_manual" is the mask of "1_training". If both are
    in one folder, the name of the mask is longer: "1_mask" is the mask of "1".
    """
    folders = []
    for folder in (image_dir, mask_dir):
        folders.append({})
        for file in list_pictures(folder):
            if folders[-1].setdefault(file.stem, file) != file:
                raise ValueError(f"{folders[-1][file.stem]} and {file} have the same name; remove one of them")
        if not folders[-1]:
            raise ValueError(f"there are no pictures in {folder}, or there is no such folder")
    images, masks = folders
    one_folder = image_dir.resolve() == mask_dir.resolve()
    # Which change at the end of the first name makes the name of a mask, and does so for the most images?
    first, rules = min(images), [("", "")]
    for mask in masks:
        same = len(os.path.commonprefix([first, mask]))  # noqa: RUF071
        rules.append((first[same:], mask[same:]))
    if one_folder:  # 10 is not the mask of 1.
        rules = [(end, other) for end, other in rules if other and not end and not other.isdigit()] or rules[:1]
    end, other = max(rules, key=lambda rule: sum(name.removesuffix(rule[0]) + rule[1] in masks for name in images))
    if end or other:
        print(f'掩码的名字 · The name of a mask: "{other}" at the end, where its image has "{end}".')
    pairs = []
    for name, image in images.items():
        mask = masks.get(name.removesuffix(end) + other)
        if one_folder and other and name.endswith(other):  # This is a mask.
            continue
        if mask in (None, image):
            raise ValueError(
                f"there is no mask for {image.name} in {mask_dir}; its name would be {name.removesuffix(end) + other}"
            )
        pairs.append((image, mask))
    return pairs


def read_pages(file: Path, mask: bool = False) -> list[Image.Image]:
    """Return the pages of a picture. More than 8 bits are reduced to 8.

    Images are scaled from their own minimum and maximum. Masks keep their values if these are at most 255.
    """
    try:
        with suppress(UnidentifiedImageError), Image.open(file) as picture:
            if picture.mode[0] not in "IF" and ";16" not in str(picture.tile):
                # An MPO file is a photo with a preview.
                return ImageSequence.all_frames(picture)[: 1 if picture.format == "MPO" else None]
        # Pillow would keep only 8 of 16 bits, and it does not know all TIFF files.
        pages = []
        for page in cv2.imdecodemulti(np.fromfile(file, np.uint8), cv2.IMREAD_UNCHANGED)[1]:
            page = np.nan_to_num(page.astype(float), posinf=0, neginf=0)
            low, high = (0, 255 if page.max() <= 255 else 65535) if mask else (page.min(), page.max())
            page = np.interp(page, (low, high), (0, 255)).astype(np.uint8)
            pages.append(Image.fromarray(page[:, :, 2::-1] if page.ndim == 3 else page))  # BGR to RGB
            pages[-1].info["scaled"] = True
        if not pages:
            raise ValueError("it is not a picture, or it is damaged")
        return pages
    except Exception as error:  # Damaged pictures fail in many ways.
        reason = "it is empty or damaged" if isinstance(error, cv2.error) else getattr(error, "strerror", None) or error
        raise ValueError(f"{file} cannot be read: {'no picture is in it' if file.is_dir() else reason}") from error


def to_tensor(image: Image.Image, size: int) -> Tensor:
    """Turn an image into a square, uint8 (3, size, size)."""
    image = cv2.resize(np.array(image.convert("RGB")), (size, size), interpolation=cv2.INTER_AREA)
    return torch.from_numpy(image).permute(2, 0, 1).contiguous()


def read_pictures(image_dir: Path, mask_dir: Path, size: int) -> tuple[Tensor, Tensor, dict]:
    """Return images, uint8 (N, 3, size, size), masks, uint8 (N, size, size), and the classes.

    A mask contains class numbers: n is the n-th value in classes["values"].
    """
    pairs = find_pairs(image_dir, mask_dir)
    classes = read_classes([mask for _, mask in pairs])
    images, masks, areas, lost, unsure, scaled = [], [], 0, 0, 0, 0
    for image_file, mask_file in tqdm(pairs, leave=False, disable=None):
        pages = read_pages(image_file), read_pages(mask_file, mask=True)
        if len(pages[0]) != len(pages[1]):
            raise ValueError(
                f"{image_file} has a different number of pages ({len(pages[0])}) than {mask_file} ({len(pages[1])})"
            )
        for image, mask in zip(*pages):
            # A photo may be stored on its side, with a note in its EXIF data. The mask shows which way is meant.
            upright = ImageOps.exif_transpose(image)
            unsure += image.getexif().get(0x0112, 1) != 1 and image.size == upright.size == mask.size
            image = upright if upright.size == mask.size else image
            if image.size != mask.size:
                raise ValueError(f"{image_file} has {image.size} pixels, but {mask_file} has {mask.size}")
            scaled += "scaled" in image.info
            numbers = to_numbers(mask, classes)
            if (numbers == BORDER).all():
                raise ValueError(f"{mask_file} contains nothing but border")
            # Count the connected areas of each class, and those that vanish when the mask is resized.
            for number in np.unique(numbers[numbers != BORDER]):
                count, labels = cv2.connectedComponents((numbers == number).astype(np.uint8))
                kept = cv2.resize(labels.astype(np.float32), (size, size), interpolation=cv2.INTER_NEAREST_EXACT)
                areas += count - 1
                lost += count - len(np.union1d(kept, 0))
            images.append(to_tensor(image, size))
            masks.append(cv2.resize(numbers, (size, size), interpolation=cv2.INTER_NEAREST_EXACT))
    if len(images) < 2:
        raise ValueError(f"there is only one image in {image_dir}; at least two are needed")
    print(f"图片都缩放成正方形 · The images are resized to squares of {size}x{size} pixels.")
    if scaled:
        print(
            f"超过 8 位的图片各自缩放 · {scaled} images with more than 8 bits are scaled by their minimum and maximum"
        )
    if unsure:
        warn(f"{unsure} 张照片按 EXIF 转正：这里假定掩码是按转正后的照片画的",
             f"{unsure} photos are turned as their EXIF data say. Their masks are assumed to be upright.")  # fmt: skip
    if lost:
        warn(f"缩小后，掩码里的 {areas} 个区域有 {lost} 个消失：可以增大 --size",
             f"{lost} of the {areas} areas in the masks vanish at this size. Try a larger --size.")  # fmt: skip
    return torch.stack(images), torch.from_numpy(np.stack(masks)), classes


def read_classes(files: list[Path]) -> dict:
    """Decide from all masks which values are classes. Return the values, their palette, and whether edges are soft.

    It raises ValueError if the masks do not show two to MOST_CLASSES classes.
    """
    palettes = [page.mode == "P" and page.getpalette() for file in files for page in read_pages(file, mask=True)]
    palette = palettes[0] if palettes[0] and all(other == palettes[0] for other in palettes) else None
    counts, first, solid, bordered = Counter(), {}, set(), False
    for file in tqdm(files, leave=False, disable=None):
        for page in read_pages(file, mask=True):
            values = read_values(page, palette)
            found, numbers = (array.tolist() for array in np.unique(values, return_counts=True))
            counts.update(dict(zip(found, numbers)))
            first = dict.fromkeys(found, file.name) | first
            bordered = bordered or (len(found) > 2 and name_values(found[-1:]) == ["255"])
            # Which values fill a square of 5x5 pixels? Those of soft edges do not.
            values, square = values.astype(float), np.ones((5, 5), np.uint8)
            solid.update(values[cv2.erode(values, square) == cv2.dilate(values, square)].tolist())

    # Each value is a class if there is a palette, if no value is above 20 except a border of 255, or if the values
    # are few and have sharp edges. Otherwise the masks are smooth or JPEG, and two colors make up most of them.
    values, grays = sorted(counts), [int(name) for name in name_values(sorted(counts)) if name.isdecimal()]
    numbered = len(grays) == len(values) and all(gray <= 20 for gray in grays if gray != BORDER)
    if BORDER in grays and len(grays) > 2 and (palette or numbered):
        if not (palette or bordered):
            raise ValueError("some masks have 255 where others have 1 or more; save all of them in the same way")
        print("255 是边界，不计入损失和交并比 · 255 is a border, which is ignored.")
        values.remove(max(values))
    few = len(values) <= MOST_CLASSES and not any(file.suffix.lower() in LOSSY for file in files)
    soft = not (palette or numbered or (few and (len(values) < 5 or solid >= set(values))))
    if soft:  # The main colors are frequent, solid and clearly different.
        main = []
        for value, _ in counts.most_common():
            if value in solid and all(abs(to_rgba(value) - to_rgba(other)).max() > 32 for other in main):
                main.append(value)
        if len(main) == 2 and 2 * sum(counts[value] for value in main) > sum(counts.values()):
            values = sorted(main)
    if not 2 <= len(values) <= MOST_CLASSES or (soft and len(values) > 2):
        shown = [value for value, _ in counts.most_common(5)]
        examples = ", ".join(f"{name} in {first[value]}" for name, value in zip(name_values(shown), shown))
        raise ValueError(f"the masks have {len(counts)} values ({examples}), but they need 2 to {MOST_CLASSES} classes"
                         " with sharp edges, not saved as JPEG. Only 2 classes may have soft edges")  # fmt: skip
    print(f"掩码里的类别 · The classes in the masks: {', '.join(name_values(values))}")
    if soft:
        print("其他的值算作颜色较近的一类 · Any other value means the class whose color is nearer.")
    return {"values": values, "palette": palette, "soft": soft}


def read_values(page: Image.Image, palette: list | None) -> np.ndarray:
    """Return a number for each pixel of a mask, uint32 (H, W): the bytes of its R, G, B and A.

    If all masks have the same palette, an index counts as a gray value.
    """
    page = Image.fromarray(np.array(page)) if palette else page
    rgba = np.array(page.convert("RGBA"))
    rgba[rgba[:, :, 3] == 0] = 0  # A transparent pixel has no color.
    return rgba.view(np.uint32)[:, :, 0]


def to_rgba(values) -> np.ndarray:
    return np.array(values, np.uint32)[..., None].view(np.uint8).astype(np.int32)


def name_values(values: list[int]) -> list[str]:
    """Return names for the values: 255 for a gray value or an index, (255, 0, 0, 255) for R, G, B and A."""
    colors = to_rgba(values).tolist()
    return [str(r) if r == g == b and a == 255 else f"({r}, {g}, {b}, {a})" for r, g, b, a in colors]


def to_numbers(page: Image.Image, classes: dict) -> np.ndarray:
    """Turn a mask into class numbers, uint8 (H, W)."""
    values = read_values(page, classes["palette"])
    if classes["soft"]:
        first, second = (((to_rgba(values) - to_rgba(value)) ** 2).sum(axis=2) for value in classes["values"])
        return (second < first).astype(np.uint8)
    numbers = np.full(values.shape, BORDER, np.uint8)
    for number, value in enumerate(classes["values"]):
        numbers[values == value] = number
    return numbers


def save_mask(numbers: np.ndarray, classes: dict, file: Path) -> None:
    """Write class numbers as the values of the masks that the model was trained on."""
    rgba = to_rgba(classes["values"]).astype(np.uint8)
    gray = all(name.isdecimal() for name in name_values(classes["values"]))
    picture = Image.fromarray(rgba[numbers]).convert("L" if gray else "RGB" if rgba[:, 3].min() == 255 else "RGBA")
    if classes["palette"]:
        picture.putpalette(classes["palette"])
    picture.save(file)


def plot_held_out(images: Tensor, masks: Tensor, predicted: Tensor, classes: int, file: Path) -> None:
    """Draw the three images with the lowest mean IoU and the three with the highest, with their masks."""
    iou = [np.nanmean(measure(one, mask, classes)) for one, mask in zip(predicted, masks)]
    order = np.argsort(iou).tolist()
    chosen = order[:3] + order[3:][-3:]
    figure = Figure(figsize=(2.2 * len(chosen) + 0.5, 7), layout="constrained")
    axes = figure.subplots(3, len(chosen), squeeze=False)
    rows = {"image": images.permute(0, 2, 3, 1), "true mask": masks, "predicted mask": predicted}
    for line, (label, pictures) in zip(axes, rows.items()):
        line[0].set_ylabel(label)
        for ax, index in zip(line, chosen):
            picture = (
                pictures[index].numpy() if label == "image" else np.ma.masked_equal(pictures[index].numpy(), BORDER)
            )
            ax.imshow(picture, cmap="gray" if classes == 2 else "nipy_spectral", vmin=0, vmax=classes - 1)
            ax.set(title=f"IoU {iou[index]:.3f}", xticks=[], yticks=[])
    figure.savefig(file)


if __name__ == "__main__":
    main()

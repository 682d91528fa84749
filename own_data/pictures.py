"""Train the U-Net on your own images and masks, then let it draw the masks of new images.

    python -m own_data.pictures --images photos --masks masks         # Train on the images in a folder.
    python -m own_data.pictures --predict new.jpg more "scans/*.png"  # Draw the masks of other images.

Run both commands in the folder that contains the lessons. A mask is as large as its image and has the
same name, or a name that ends differently, by the same rule for all pairs (X.tif and X_mask.tif). Each value or
color in the masks is one class. There can be two to 21 classes, and the background counts as one of them.
The images are turned upright, as their EXIF data say, and the masks must be drawn on the upright images.
"""

import argparse
import math
import os
import sys
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchvision.transforms import v2
from tqdm import tqdm

import unet_doubleconv as lesson
from own_data.digits import add_output, find_files, list_pictures, load, plot_pictures, read_picture, use_weights

# 超参数：图片少时一轮只有几步，所以多学几轮，总共至少 500 步
# Hyperparameters. With few images, an epoch has few steps, so there are more epochs: at least 500 steps in all.
EPOCHS = 16
LEAST_STEPS = 500
MOST_CLASSES = 21
# 掩码里的 255 如果表示物体的边界，这些像素就不属于任何一类，不计入损失和交并比
# Pixels with the value 255 can be a border between objects. They have no class and are ignored.
BORDER = 255
WHITE = 2**32 - 1
OUT_DIR = Path("outputs", "pictures")


def main(argv: list[str] | None = None) -> dict:
    """Train on images and masks, or predict the masks of images. Return the results and the files.

    训练，或者用训练好的权重预测掩码；出错时打印一行原因。
    """
    lesson.make_stdout_tolerant()
    parser = make_parser()
    args = parser.parse_args(argv)
    if bool(args.images) != bool(args.masks):
        parser.error("--images and --masks must be given together")
    if args.size % 16:
        parser.error("--size must be a multiple of 16")
    torch.manual_seed(args.seed)
    device = lesson.choose_device(args.device)
    args.out_dir.mkdir(parents=True, exist_ok=True)
    try:
        return predict(args, device) if args.predict else train(args, device)
    except ValueError as error:
        sys.exit(f"error: {error}")


def train(args: argparse.Namespace, device: torch.device) -> dict:
    """Train, test after each epoch, and keep the best weights. Return the lists of results and the files.

    Raise ValueError if the pictures cannot be used, or if the loss is not finite.

    完整流程：读取图片，划分训练集和留出集，每轮训练后测试，保留最好一轮的权重。
    """
    images, masks, classes = read_pictures(args.images, args.masks, args.size)
    names = name_values(classes["values"])
    training, held_out = split(masks, names)
    test_images, test_masks = images[held_out], masks[held_out]

    # 数据增强：自己的图片往往很少，所以左右、上下都随机翻转
    # You will usually have only a few pictures, so they are randomly flipped left to right and upside down.
    flips = [v2.RandomHorizontalFlip(), v2.RandomVerticalFlip()]
    train_set = lesson.Augmented(images[training], masks[training], flips)
    train_loader = DataLoader(train_set, args.batch_size, shuffle=True)
    epochs = args.epochs or max(EPOCHS, math.ceil(LEAST_STEPS / len(train_loader)))
    print(f"{len(training)} training images, {len(held_out)} held out; {epochs} epochs on {device}\n")

    # 模型、优化器和学习率：学习率先升到 --lr，再降到接近 0
    # Create the model and the optimizer. The learning rate first rises to --lr and then falls to almost 0.
    layout = torch.channels_last if device.type == "cpu" else torch.contiguous_format
    model = lesson.UNet(len(names)).to(device, memory_format=layout)
    optimizer = torch.optim.Adam(model.parameters(), lr=args.lr)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, args.lr, epochs * len(train_loader))

    # 从检查点接着训练：随机数生成器的状态也要恢复，图片的顺序才与没有中断时一样
    # Resume from a checkpoint. The random state is restored too, so the images come in the same order.
    out = args.out_dir
    files = {"weights": out / "pictures.pt", "checkpoint": out / "checkpoint.pt", "picture": out / "held-out.png"}
    parts = {"model": model, "optimizer": optimizer, "scheduler": scheduler}
    settings = {"epochs": epochs, "batch_size": args.batch_size, "lr": args.lr, "seed": args.seed, "size": args.size}
    settings |= {"images": len(images), "classes": classes}
    losses, ious = [], []
    if args.resume:
        state = load(files["checkpoint"])
        if state["settings"] != settings:
            raise ValueError("--resume needs the options and pictures of the stopped run, but something is different")
        for name, part in parts.items():
            part.load_state_dict(state[name])
        torch.set_rng_state(state["random"])
        losses, ious = state["train_loss"], state["iou"]
        print(f"从第 {len(losses)} 轮之后接着训练 · Resumed after epoch {len(losses)}")

    # 训练模型：每轮之后测试一次，保存检查点；这一轮的平均交并比是到目前为止最高的，就把权重也存下来
    # Train, test after each epoch, and write a checkpoint. Keep the weights with the highest mean IoU.
    for epoch in range(len(losses) + 1, epochs + 1):
        loss = lesson.train_one_epoch(model, train_loader, find_loss, optimizer, device, scheduler)
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

    # 用最好一轮的权重预测留出的图片 · Predict the masks of the held-out images with the weights of the best epoch
    model.load_state_dict(load(files["weights"])["model"])
    predicted = lesson.segment(model, test_images, device, args.batch_size)
    best = int(np.nanmean(ious, axis=1).argmax())
    print(f"\n保留第 {best + 1} 轮的权重：这一轮在这些留出的图片上结果最好，在新图片上可能差一些")
    print(f"Epoch {best + 1} is kept: it did best on these held-out images. New images may have a lower IoU.")
    for number, name in enumerate(names):
        print(f"  IoU {ious[best][number]:.4f}  class {name}".replace("nan", "-"))
        if number in test_masks and number not in predicted:
            print(f"!!! 没有一个像素被预测为 {name}：可以增加 --epochs，或换一个 --lr")
            print(f"!!! No pixel is predicted as {name}. Try more --epochs, or another --lr.")
    shown, white = [], len(names) - 1  # The last class is drawn in white, as is the border.
    for image, mask, found in zip(test_images.permute(0, 2, 3, 1).numpy(), test_masks.numpy(), predicted.numpy()):
        shown += [(image, "image", 255), (mask, "true mask", white), (found, "predicted mask", white)]
    plot_pictures(shown[:60], files["picture"])  # The picture has room for the first 20 images.
    lesson.print_files(files)
    iou = {name: [one[number] for one in ious] for number, name in enumerate(names)}
    return {"train_loss": losses, "iou": iou, "best_epoch": best + 1, "files": files}


def find_loss(logits: Tensor, masks: Tensor) -> Tensor:
    """Return the loss for logits (N, classes, H, W) and masks (N, H, W): the cross entropy plus the Dice loss.

    The Dice loss is 1 minus the mean over the classes of 2 * overlap / (predicted pixels + true pixels), where each
    pixel counts with the probability that the network gives to the class. See "V-Net" by Milletari et al. (2016).

    损失函数：交叉熵里每个像素一样重要，像素很少的类别几乎不起作用；Dice 损失让每一类一样重要，所以把两者相加。
    """
    known = (masks != BORDER).unsqueeze(1)
    shares = logits.softmax(dim=1) * known
    truth = nn.functional.one_hot(masks.clamp(max=logits.shape[1] - 1), logits.shape[1]).movedim(-1, 1) * known
    # 加 1：这一批里没有的类别，没有误报时 Dice 接近 1 · The 1 lets an absent class get a Dice near 1, not 0.
    dice = (2 * (shares * truth).sum(dim=(0, 2, 3)) + 1) / ((shares + truth).sum(dim=(0, 2, 3)) + 1)
    return nn.functional.cross_entropy(logits, masks, ignore_index=BORDER) + 1 - dice.mean()


def measure(predicted: Tensor, masks: Tensor, classes: int) -> list[float]:
    """Return the IoU of each class over all the masks. It is nan for a class that is in none of the true masks.

    各类的交并比：真实掩码里没有的类别无法衡量，记为 nan。
    """
    predicted, masks = predicted[masks != BORDER], masks[masks != BORDER]
    return [lesson.class_iou(predicted, masks, n) if n in masks else math.nan for n in range(classes)]


def split(masks: Tensor, names: list[str]) -> tuple[list[int], list[int]]:
    """Return the indices of the training masks and of the held-out ones. They do not depend on the seed.

    About a tenth is held out. As far as possible, each class is in both parts.

    划分：留出约十分之一（与 --seed 无关），并尽量让两部分里都有每一类。
    """
    has = np.array([[number in mask for number in range(len(names))] for mask in masks])
    order = torch.randperm(len(masks), generator=torch.Generator().manual_seed(0)).tolist()
    held_out = []
    for index in order:
        # 这张掩码有还没留出的类别，或者留出的还不到十分之一，就留出它；但训练集里不能缺少任何一类
        # Hold out a mask if it adds a class, or until a tenth is held out. Training must keep all classes.
        new = has[index] & ~has[held_out].any(axis=0)
        remaining = has.sum(axis=0) - has[held_out].sum(axis=0)
        if (new.any() or len(held_out) < len(masks) // 10) and (remaining[has[index]] > 1).all():
            held_out.append(index)
    held_out = held_out or order[:1]  # 至少留出一张 · at least one
    training = [index for index in order if index not in held_out]
    missing = ", ".join(name for name, there in zip(names, has[held_out].any(axis=0)) if not there)
    if missing:
        print(f"!!! 留出的图片里没有这些类别 · These classes are in no held-out image: {missing}")
    return training, held_out


def predict(args: argparse.Namespace, device: torch.device) -> dict:
    """Write the mask of each image, as large as the image. Return the files.

    An image that cannot be used gets one line on stderr. The others are still used, and the exit code is 1.

    预测：为每张图片写出一个同样大小的掩码，值和调色板与训练用的掩码相同。
    """
    weights = args.weights or args.out_dir / "pictures.pt"
    state = load(weights)
    if "settings" not in state:
        raise ValueError(f"{weights}: these are the weights of another model")
    classes, size = state["settings"]["classes"], state["settings"]["size"]
    model = lesson.UNet(len(classes["values"])).to(device)
    use_weights(model, state["model"], weights)
    names = name_values(classes["values"])
    images = find_files(args.predict)
    predictions = []
    for file in images:
        try:
            target = args.out_dir / f"{file.stem}-mask.png"
            if target in predictions:
                raise ValueError(f"{file}: {target} is already the mask of another image")
            image = read_picture(file)
        except ValueError as error:
            print(f"error: {error}", file=sys.stderr)
            continue
        mask = lesson.segment(model, to_tensor(image, size).unsqueeze(0), device)[0].numpy()
        # 放大掩码：每一类单独平滑地放大，每个像素再取值最大的一类，轮廓就没有锯齿
        # To avoid jagged outlines, enlarge each class smoothly, and let each pixel take the strongest class.
        mask = cv2.resize(np.eye(len(names), dtype=np.float32)[mask], image.size).argmax(axis=2)
        save_mask(mask, classes, target)
        predictions.append(target)
        found = [f"{name} in {(mask == number).mean():.1%}" for number, name in enumerate(names)]
        print(f"{file}: {', '.join(found)} of the pixels")
    files = {str(file): file for file in predictions}
    lesson.print_files(files)
    if len(predictions) < len(images):
        sys.exit(1)
    return {"predictions": predictions, "files": files}


# ---- Below: command line, files, masks, pictures. ----

LOSSY = {".jfif", ".jp2", ".jpeg", ".jpg", ".webp"}


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
    train.add_argument("--size", type=lambda text: lesson.whole_number(text, 32), metavar="N", default=lesson.SIZE,
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
        help="continue a stopped run after its last complete epoch; give the other options as before")
    add_output(parser, "pictures.pt in --out-dir, where the training writes it", OUT_DIR)
    # fmt: on
    return parser


def save(state: dict, file: Path) -> None:
    """Write a file, and replace the old one only when the new one is complete."""
    torch.save(state, file.with_suffix(".tmp"))
    file.with_suffix(".tmp").replace(file)


def find_pairs(image_dir: Path, mask_dir: Path) -> list[tuple[Path, Path]]:
    """Return the images in a folder, each with its mask, which has the same name before the suffix.

    The names may also end differently, by the same rule for all: "1_manual" is the mask of "1_training". If both are
    in one folder, the name of the mask is longer: "1_mask" is the mask of "1".
    """
    stems = []
    for folder in (image_dir, mask_dir):
        files = list_pictures(folder)
        stems.append({file.stem: file for file in files})
        if not files or len(stems[-1]) < len(files):
            raise ValueError(f"{folder} has no pictures, or two of them have the same name before the suffix")
    images, masks = stems
    one_folder = image_dir.resolve() == mask_dir.resolve()
    # Which change at the end of the first name makes the name of a mask, and does so for the most images?
    first, rules = min(images), [("", "_mask" if one_folder else "")]
    for mask in masks:
        same = len(os.path.commonprefix([first, mask]))  # noqa: RUF071
        end, other = first[same:], mask[same:]
        if not one_folder or (other and not end and not other.isdigit()):  # 10 is not the mask of 1.
            rules.append((end, other))
    end, other = max(rules, key=lambda rule: sum(name.removesuffix(rule[0]) + rule[1] in masks for name in images))
    wanted = {name: name.removesuffix(end) + other for name in images if not (one_folder and name.endswith(other))}
    missing = [images[name].name for name, mask in wanted.items() if mask not in masks]
    if missing:
        raise ValueError(f"{mask_dir} has no mask for {missing[0]}; a mask must have the same name as its image, or a"
                         " name that ends differently, by the same rule for all masks")  # fmt: skip
    print(f"第一对图片和掩码 · The first pair: {images[first].name}, {masks[wanted[first]].name}")
    return [(images[name], masks[mask]) for name, mask in wanted.items()]


def to_tensor(image: Image.Image, size: int) -> Tensor:
    """Turn an image into a square, uint8 (3, size, size)."""
    image = cv2.resize(np.array(image.convert("RGB")), (size, size), interpolation=cv2.INTER_AREA)
    return torch.from_numpy(image).permute(2, 0, 1).contiguous()


def read_pictures(image_dir: Path, mask_dir: Path, size: int) -> tuple[Tensor, Tensor, dict]:
    """Return images, uint8 (N, 3, size, size), masks, uint8 (N, size, size), and the classes.

    A mask contains class numbers: n stands for classes["values"][n].
    """
    pairs = find_pairs(image_dir, mask_dir)
    if len(pairs) < 2:
        raise ValueError(f"there is only one image in {image_dir}; at least two are needed")
    classes = read_classes([mask for _, mask in pairs])
    images, masks, areas, lost = [], [], 0, 0
    for image_file, mask_file in tqdm(pairs, leave=False, disable=None):
        image, mask = read_picture(image_file), read_picture(mask_file, mask=True)
        if image.size != mask.size:
            raise ValueError(f"{image_file}, seen upright, has {image.size} pixels, but {mask_file} has {mask.size}")
        numbers = to_numbers(mask, classes)
        # Count the connected areas of each class, and those that vanish when the mask is resized.
        for number in np.unique(numbers[numbers != BORDER]):
            count, labels = cv2.connectedComponents((numbers == number).astype(np.uint8))
            kept = cv2.resize(labels.astype(np.float32), (size, size), interpolation=cv2.INTER_NEAREST_EXACT)
            areas += count - 1
            lost += count - len(np.union1d(kept, 0))
        images.append(to_tensor(image, size))
        masks.append(cv2.resize(numbers, (size, size), interpolation=cv2.INTER_NEAREST_EXACT))
    print(f"图片已转正，并缩放成正方形 · The images are turned upright (EXIF) and resized to {size}x{size} squares.")
    if lost:
        print(f"!!! 掩码里的 {areas} 个区域有 {lost} 个缩小后消失，可以增大 --size")
        print(f"!!! {lost} of the {areas} areas in the masks vanish at this size. Try a larger --size.")
    return torch.stack(images), torch.from_numpy(np.stack(masks)), classes


def read_classes(files: list[Path]) -> dict:
    """Decide from all masks which values are classes. Return the values, their palette, and whether edges are soft.

    Raise ValueError if the masks do not show two to MOST_CLASSES classes.
    """
    palettes = [read_picture(file, mask=True).getpalette() for file in files]
    palette = palettes[0] if palettes.count(palettes[0]) == len(files) else None
    counts, solid, bordered = Counter(), set(), palette is not None
    for file in tqdm(files, leave=False, disable=None):
        values = read_values(read_picture(file, mask=True), palette)
        found, numbers = (array.tolist() for array in np.unique(values, return_counts=True))
        counts.update(dict(zip(found, numbers)))
        bordered |= len(found) > 2 and found[-1] == WHITE
        # Which values fill a square of 5x5 pixels? Those of soft edges do not.
        values, square = values.astype(float), np.ones((5, 5), np.uint8)
        solid.update(values[cv2.erode(values, square) == cv2.dilate(values, square)].tolist())

    # Each value is a class if there is a palette, if no value is above 20 except a border of 255, or if the values
    # are few and have sharp edges. Otherwise the masks are smooth or JPEG, and two colors make up most of them.
    values, most = sorted(counts), MOST_CLASSES
    numbered = palette or set(name_values(values)) <= set(map(str, [*range(MOST_CLASSES), BORDER]))
    if numbered and WHITE in values and len(values) > 2:
        if not bordered:
            raise ValueError("some masks have 255 where others have 1 or more; save all of them in the same way")
        print("255 是边界，不计入损失和交并比 · 255 is a border, which is ignored.")
        values.remove(WHITE)
    sharp = len(values) < 5 or (len(values) <= MOST_CLASSES and solid >= set(values))
    soft = not numbered and (not sharp or any(file.suffix.lower() in LOSSY for file in files))
    if soft:  # The two colors are frequent, solid and clearly different.
        print("其他的值归入颜色更接近的那一类 · Any other value means the class whose color is nearer.")
        values, most = [], 2
        for value, _ in counts.most_common():
            if value in solid and all(abs(to_rgba(value) - to_rgba(other)).max() > 32 for other in values):
                values.append(value)
        values.sort()
    if not 2 <= len(values) <= most or 2 * sum(counts[value] for value in values) < counts.total():
        shown = ", ".join(name_values([value for value, _ in counts.most_common(5)]))
        raise ValueError(f"the masks in {files[0].parent} have {len(counts)} values ({shown}), but they need 2 to "
                         f"{MOST_CLASSES} classes with sharp edges, or 2 with soft edges or in JPEG")  # fmt: skip
    print(f"掩码里的类别 · The classes in the masks: {', '.join(name_values(values))}")
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
        numbers = np.argmin([abs(to_rgba(values) - to_rgba(one)).sum(axis=2) for one in classes["values"]], axis=0)
    else:
        numbers = np.searchsorted(classes["values"], values)
        numbers[numbers == len(classes["values"])] = BORDER  # 255 (WHITE) is above all other values.
    return numbers.astype(np.uint8)


def save_mask(numbers: np.ndarray, classes: dict, file: Path) -> None:
    """Write class numbers as the values of the masks that the model was trained on."""
    rgba = to_rgba(classes["values"]).astype(np.uint8)
    gray = all(name.isdecimal() for name in name_values(classes["values"]))
    picture = Image.fromarray(rgba[numbers]).convert("L" if gray else "RGB" if rgba[:, 3].min() == 255 else "RGBA")
    if classes["palette"]:
        picture.putpalette(classes["palette"])
    picture.save(file)


if __name__ == "__main__":
    main()

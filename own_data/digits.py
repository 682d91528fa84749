"""Read the handwritten digit in each of your own photos, with a network that cnn_mnist.py has trained.

    python cnn_mnist.py                                         # Train the network first.
    python -m own_data.digits photo.jpg                         # Then read a photo,
    python -m own_data.digits photos "scans/*.png"              # a folder, or all files that match a pattern.
    python -m own_data.digits photo.jpg --model lenet           # Use another network, trained with --model lenet.

Run the commands in the folder that contains cnn_mnist.py and the other lessons. Each photo should show one digit
on plain paper. The script prints the digit and the probability that the network gives it. A line that begins with
!!! says why an answer should not be trusted. A picture shows each photo beside the 28x28 pixels that the network
received.
"""

import argparse
import glob
import sys
from itertools import permutations
from pathlib import Path

import cv2
import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image, ImageOps
from torch import Tensor, nn

from cnn_mnist import MODELS, OUT_DIR, choose_device, make_stdout_tolerant
from unet_doubleconv import print_files

SUFFIXES = {".png", ".jpg", ".jpeg", ".jfif", ".jp2", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".heic", ".pgm", ".ppm"}


def main(argv: list[str] | None = None) -> dict:
    """Read each photo. Return the list of (photo, digit, probability, warnings), and the files.

    A photo that cannot be read gets one line on stderr. The others are read, and the exit code is 1 at the end.

    逐张识别照片里的数字；有照片读不了，就打印一行原因，其余的照常识别，最后的退出码是 1。
    """
    make_stdout_tolerant()
    args = make_parser().parse_args(argv)
    device = choose_device(args.device)
    args.out_dir.mkdir(parents=True, exist_ok=True)
    weights = args.weights or OUT_DIR / f"{args.model}-mnist.pt"
    digits = OUT_DIR / f"{args.model}-digits.pt"
    if not args.weights and digits.exists() and not weights.exists():
        print(f"!!! 没有 {weights}，改用在 digits 上训练的权重：digits 的图片少而粗糙，更容易认错")
        print(f"!!! {weights} is missing. This run uses weights from the smaller, coarser digits data set.\n")
        weights = digits
    model = MODELS[args.model][0]().to(device).eval()
    try:
        use_weights(model, load(weights), weights)
    except ValueError as error:
        sys.exit(f"error: {error}")
    print(f"识别照片里的数字 · Digits in photos, read by {args.model} with {weights}, on {device}\n")

    photos = find_files(args.photos)
    predictions, shown = [], []
    for photo in photos:
        try:
            gray = flatten(read_picture(photo))
            image, warnings = prepare(gray)
        except ValueError as error:
            print(f"error: {photo}: {str(error).removeprefix(f'{photo}: ')}", file=sys.stderr)
            continue
        digit, probability = predict(model, image.to(device))
        if probability < 0.5:
            warnings.append("网络没有把握：最可能的数字，概率也不到 50% · The network is unsure: no digit reaches 50%.")
        print(f"{photo}: {digit} ({probability:.1%})")
        for warning in warnings:
            print(f"!!! {warning}")
        predictions.append((photo, digit, probability, warnings))
        step = 1 + max(gray.shape) // 500  # At most 500 pixels per side are drawn.
        shown.append((gray[::step, ::step], f"photo {len(predictions)}", 255))
        shown.append((image[0].numpy(), f"input: {digit} ({probability:.1%})", 1))

    file = args.out_dir / f"{weights.stem}-predictions.png"
    if shown:
        plot_pictures(shown[:120], file)  # The picture has room for the first 60 photos.
        print_files({"predictions": file})
    if len(predictions) < len(photos):
        sys.exit(1)
    return {"predictions": predictions, "files": {"predictions": file}}


def find_files(names: list[str]) -> list[Path]:
    """Return the files that the names stand for: files, pictures in folders, and matches of patterns like *.png.

    把文件、文件夹和通配符（Windows 不会展开 *.png）变成文件的列表。
    """
    files = []
    for name in names:
        for match in [name] if Path(name).exists() else sorted(glob.glob(name)) or [name]:
            # 是文件夹，就取其中的图片；是文件，就取它本身
            # If the match is a folder, take the pictures in it. If it is a file, take the file itself.
            files += list_pictures(Path(match)) or [Path(match)]
    return list(dict.fromkeys(files))


def list_pictures(folder: Path) -> list[Path]:
    """Return the pictures in a folder, and say which of its files are not read.

    列出文件夹里的图片，并说明跳过了哪些文件。
    """
    files = [file for file in sorted(folder.glob("[!.]*")) if file.is_file()]
    others = [file.name for file in files if file.suffix.lower() not in SUFFIXES]
    if others:
        print(f"!!! {folder}：跳过不是图片的文件 · Files that are not pictures are skipped: {', '.join(others[:5])}")
    return [file for file in files if file.name not in others]


def load(file: Path) -> dict:
    """Load a dict of weights. Raise ValueError if the file is missing or damaged, or contains something else.

    读取权重文件：文件不存在、不完整，或者内容不是权重，都会报错并说明原因。
    """
    try:
        # weights_only：别人的文件里可能藏有代码，这样载入就不会执行它
        # weights_only: a file from somebody else may contain code, and this option refuses to run it.
        return dict(torch.load(file, map_location="cpu", weights_only=True))
    except FileNotFoundError:
        raise ValueError(f"{file}: there is no such file; train the network first") from None
    except Exception as error:  # Loading a damaged file, or one without weights, can fail in many ways.
        raise ValueError(f"{file}: it is incomplete, or contains something other than weights; train again") from error


def use_weights(model: nn.Module, weights: dict, file: Path) -> None:
    """Put the weights that come from the file into the model. Raise ValueError if they do not fit or are not finite.

    把权重载入模型：权重属于别的网络，或者含有 nan、inf，都会报错并说明原因。
    """
    try:
        model.load_state_dict(weights)
    except (RuntimeError, TypeError, AttributeError) as error:
        raise ValueError(f"{file}: these are the weights of another network; choose another file") from error
    if not all(value.isfinite().all() for value in weights.values()):
        raise ValueError(f"{file}: the weights contain nan or inf, so the training failed; train the network again")


def read_picture(file: Path, mask: bool = False) -> Image.Image:
    """Return a picture the right way up, with at most 8 bits per channel, or raise ValueError.

    If there are more than 8 bits, the minimum of an image becomes 0, and its maximum 255. Masks keep their values if
    these are at most 255.

    读取图片：按相机记录的方向（EXIF）转正，像素值超过 8 位的换算成 8 位。
    """
    try:
        with Image.open(file) as opened:
            pages = getattr(opened, "n_frames", 1)
            if pages > 1 and opened.format != "MPO":  # An MPO file is a photo with a preview.
                raise ValueError(f"it has {pages} pages: save each as a file of its own")
            picture = ImageOps.exif_transpose(opened)
    except Exception as error:  # Opening a damaged picture can fail in many ways.
        reason = getattr(error, "strerror", None) or error
        raise ValueError(f"{file}: this cannot be read as a picture ({reason}); use a PNG or JPEG file") from error
    if picture.mode[0] in "IF":
        values = np.nan_to_num(np.array(picture, float), posinf=0, neginf=0)
        low, high = (0, 255 if values.max() <= 255 else 65535) if mask else (values.min(), values.max())
        picture = Image.fromarray(np.interp(values, (low, high), (0, 255)).astype(np.uint8))
    return picture


def flatten(picture: Image.Image) -> np.ndarray:
    """Return a photo in gray, uint8 (H, W), with paper behind its transparent parts.

    把照片变成灰度图，透明的地方当作纸。
    """
    # 透明的地方当作白纸或黑纸，哪种对比更大就用哪种：深色的笔迹用白纸，浅色的笔迹用黑纸
    # Transparent parts become white or black paper, whichever gives the ink more contrast.
    picture = picture.convert("RGBA")
    sheets = [Image.alpha_composite(Image.new("RGBA", picture.size, paper), picture) for paper in ("white", "black")]
    return max((np.asarray(sheet.convert("L")) for sheet in sheets), key=np.ptp)


def prepare(gray: np.ndarray) -> tuple[Tensor, list[str]]:
    """Turn a photo, uint8 (H, W), into an image like those of MNIST, and say what is doubtful about it.

    The image is float32 (1, 28, 28): white ink on black, the digit 20 pixels long, its center of mass in the
    middle. ValueError is raised if there is no ink. The warnings are in Chinese and English.

    把照片变成 MNIST 那样的图片：黑底白字，数字的长边缩放到 20 像素，重心放在正中。
    """
    # 缩放：长边变成 200 像素，再稍微模糊，去掉噪点
    # Scale the photo so that its longer side has 200 pixels. A slight blur removes noise.
    high, wide = (max(1, round(side * 200 / max(gray.shape))) for side in gray.shape)
    gray = cv2.GaussianBlur(cv2.resize(gray, (wide, high), interpolation=cv2.INTER_AREA), (5, 5), 0)

    # 笔迹：一个像素的四周大多是纸，所以四周亮度的中位数就是这里纸的亮度，阴影也算在内；
    # 像素与纸的亮度相差越大，墨就越浓，墨比纸深或者比纸浅都行
    # Most pixels around a pixel are paper, so their median is the paper's brightness there, shadows included.
    # The ink is the difference from the paper. It may be darker or lighter.
    padded = cv2.copyMakeBorder(gray, 75, 75, 75, 75, cv2.BORDER_REFLECT)
    ink = cv2.absdiff(gray, cv2.medianBlur(padded, 151)[75:-75, 75:-75])

    # 大津法找出分开墨和纸的阈值 · Otsu's method finds the threshold between ink and paper.
    _, mask = cv2.threshold(ink, 0, 1, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    contrast, texture = cv2.mean(ink, mask)[0], cv2.mean(ink, 1 - mask)[0]
    if contrast < 15:  # The scale is 0...255. Noise alone can differ as much.
        raise ValueError("no ink can be seen; write with a darker pen, or take the photo in better light")

    pieces = find_digit(mask)
    mask = np.maximum.reduce(pieces)
    stroke = 2 * cv2.distanceTransform(mask, cv2.DIST_L2, 5).max()
    warnings = find_doubts(mask, pieces, stroke, texture / contrast)

    # 无论墨色深浅，大部分笔迹都变成白色；边缘保留一点过渡，其余涂黑
    # Most of the ink becomes white, however faint it is. Its soft edge stays, and everything else becomes black.
    ink = np.minimum(ink / np.percentile(ink[mask > 0], 25), 1) * cv2.dilate(mask, np.ones((5, 5)))

    # MNIST 的笔画粗，细笔画缩小后会变灰，所以先加粗到数字长度的七分之一左右
    # MNIST has thick strokes. Thin ones would turn gray, so widen them to a seventh of the digit's length.
    grow = max(0, round(max(cv2.boundingRect(mask)[2:]) / 7 - stroke))
    brush = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (grow + 1, grow + 1))
    ink, mask = cv2.dilate(ink, brush), cv2.dilate(mask, brush)

    # 剪下数字，缩放到 20x20 以内，再把重心移到 28x28 的正中
    # Cut the digit out, fit it into 20x20 pixels, and move its center of mass to the middle of 28x28.
    left, top, w, h = cv2.boundingRect(mask)
    size = [max(1, round(20 * side / max(w, h))) for side in (w, h)]
    ink = cv2.resize(ink[top : top + h, left : left + w], size, interpolation=cv2.INTER_AREA)
    moments = cv2.moments(ink)
    center_x, center_y = moments["m10"] / moments["m00"], moments["m01"] / moments["m00"]
    ink = cv2.warpAffine(ink, np.float32([[1, 0, 14 - center_x], [0, 1, 14 - center_y]]), (28, 28))
    return torch.from_numpy(ink).float().unsqueeze(0), warnings


def find_digit(mask: np.ndarray) -> list[np.ndarray]:
    """Return the pieces of ink that are the digit. The mask and each piece are uint8 (H, W), with the values 0 and 1.

    从墨迹里挑出数字：去掉碰到照片边缘的墨迹、包围数字的方框或圆圈，以及小斑点。
    """
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask)
    left, top, wide, high, areas = stats.T
    inside = (left > 0) & (top > 0) & (left + wide < mask.shape[1]) & (top + high < mask.shape[0])
    lengths = np.maximum(wide, high)

    # 碰到照片边缘的墨迹多半是桌边、阴影或印刷的格子，要去掉，除非没有别的够大的墨迹
    # Leave out pieces at the border (a table's edge, a shadow, a printed box), unless no other is large.
    chosen = np.arange(1, count)
    large = chosen[areas[chosen] > 0.02 * areas[chosen].max()]
    chosen = [n for n in large if inside[n] and lengths[n] >= 20] or list(large)

    # 如果一块墨迹的凸包里有另一块不太小的墨迹，它就是包围数字的方框或圆圈
    # Leave out a piece that encloses the digit: another, over 0.3 times as long, lies within its convex hull.
    pieces = {n: (labels == n).astype(np.uint8) for n in chosen}
    for n in chosen:
        hull = cv2.fillConvexPoly(np.zeros_like(mask), cv2.convexHull(cv2.findNonZero(pieces[n])), 1)
        if any(lengths[m] > 0.3 * lengths[n] and hull[pieces[m] > 0].all() for m in pieces if m != n):
            del pieces[n]
    return [piece for n, piece in pieces.items() if areas[n] > 0.1 * areas[list(pieces)].max()]


def find_doubts(mask: np.ndarray, pieces: list[np.ndarray], stroke: float, texture: float) -> list[str]:
    """Return the reasons why the ink in the mask is probably not one digit. The mask consists of the pieces.

    The stroke is the largest width of the ink in pixels. The texture compares the paper with the ink: 0 is plain paper.

    检查留下的墨迹像不像一个数字，不像就说明原因。
    """
    _, _, w, h = cv2.boundingRect(mask)
    longest = max(w, h)

    # 每一行穿过几笔：一个数字平均不到两笔（0、4、8 也是），再多就不止一个数字
    # Count the strokes that a row crosses. For one digit, even a 0, a 4 or an 8, the average is below two.
    strokes = (mask[:, 1:] > mask[:, :-1]).sum() / h

    # 两块墨迹一左一右、一上一下，或者下面一块是长线
    # Are two pieces side by side, is one above the other, or is the lower one a long line?
    apart = underlined = False
    for (left, top, w1, h1), (left2, top2, w2, h2) in permutations(map(cv2.boundingRect, pieces), 2):
        beside = left + w1 <= left2 and min(max(w1, h1), max(w2, h2)) > longest / 4
        above = top + h1 < top2 - longest / 10 and min(h1, h2) > longest / 4
        apart |= beside or above
        underlined |= top + h1 <= top2 and w2 > 3 * h2 and w2 > 0.8 * max(w1, h1)
    doubts = {
        "背景不是干净的纸，可能不是数字的照片 · The background is not plain paper. Is this a digit?": texture > 0.15,
        "墨迹太粗，不像笔画 · The ink is too thick for strokes.": stroke > 0.4 * longest and min(w, h) > 0.5 * longest,
        "数字太小，请靠近一些再拍 · The digit is smaller than a tenth of the photo. Move closer.": longest < 20,
        "墨迹太宽或者笔画太多 · It is too wide for one digit, or has too many strokes.": strokes > 1.95 or w > 1.5 * h,
        "墨迹分成几块：是两个数字，还是带负号？ · The ink is in pieces. Are there two digits, or a minus sign?": apart,
        "数字下面有一条线 · There is a line under the digit.": underlined,
    }
    return [text for text, doubtful in doubts.items() if doubtful]


@torch.no_grad()
def predict(model: nn.Module, image: Tensor) -> tuple[int, float]:
    """Return the most probable digit in an image (1, 28, 28), and its probability (0 to 1).

    The probability is the mean over five copies of the image: as it is, and moved by one pixel in each direction.

    预测：照片里的数字很难放得正好居中，所以再向四个方向各移一个像素，连同不移动的共预测五次，概率取平均。
    """
    moves = [(0, 0), (1, 0), (-1, 0), (0, 1), (0, -1)]
    views = torch.stack([image.roll(move, dims=(1, 2)) for move in moves])  # (5, 1, 28, 28)
    probability, digit = model(views).softmax(dim=1).mean(dim=0).max(dim=0)
    return digit.item(), probability.item()


def plot_pictures(shown: list[tuple], file: Path) -> None:
    """Draw pictures in rows of six. Each comes with its title, and with the value that is drawn in white.

    每行画六张图，每张有自己的标题。
    """
    columns, rows = min(len(shown), 6), (len(shown) + 5) // 6
    figure = Figure(figsize=(2.2 * columns, 2.7 * rows), layout="constrained")
    for place, (picture, title, white) in enumerate(shown, start=1):
        ax = figure.add_subplot(rows, columns, place, title=title, xticks=[], yticks=[])
        ax.imshow(picture, cmap="gray", vmin=0, vmax=white)
    figure.savefig(file)


def make_parser() -> argparse.ArgumentParser:
    # fmt: off
    parser = argparse.ArgumentParser(prog="python -m own_data.digits", allow_abbrev=False,
        description=(__doc__ or "").partition("\n")[0],
        epilog='example: %(prog)s photo.jpg photos "scans/*.png" --model lenet')
    parser.add_argument("photos", nargs="+", metavar="PHOTO",
        help='a photo of one digit, a folder with photos, or a pattern such as "*.png"')
    parser.add_argument("--model", choices=MODELS, default="convnet",
        help="the network that reads the photos, as in cnn_mnist.py (default: %(default)s)")
    add_output(parser, "those that cnn_mnist.py saved, if possible those trained on MNIST", OUT_DIR)
    # fmt: on
    return parser


def add_output(parser: argparse.ArgumentParser, weights: str, out_dir: Path) -> None:
    # fmt: off
    group = parser.add_argument_group("weights, device and output")
    group.add_argument("--weights", type=Path, metavar="FILE", help=f"weights of the network (default: {weights})")
    group.add_argument("--device", default="auto",
        help="device to use, such as cpu, cuda, cuda:1 or mps; auto uses a working GPU or else the CPU (default: auto)")
    group.add_argument("--out-dir", type=Path, metavar="DIR", default=out_dir,
        help="folder for the output files; it is created if it is missing (default: %(default)s)")
    # fmt: on


if __name__ == "__main__":
    main()

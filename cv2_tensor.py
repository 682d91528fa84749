"""From a picture file, through OpenCV, to a PyTorch tensor, and back.

Notes: https://github.com/yearing1017/PyTorch_Note
Pytorch_cv2_Tensor相关

    python cv2_tensor.py                  # on pictures that it draws itself
    python cv2_tensor.py photo.jpg        # on one of yours
    python cv2_tensor.py --size 320 160   # resized to another width and height

It ends with a picture that went to a tensor and back, each pixel the same, and with one PNG that
shows every step. 5 seconds on 2 CPU cores with PyTorch 2.15, torchvision 0.29 and OpenCV 5.0.

**Try**

    --size 320 160                 # the shape is then (160, 320): height first
    outputs/cv2_tensor/color.png   # the picture of the first run: read as gray, its 29..250 become
                                   # 0.11373..0.98039, not 0..1: ToTensor divides by 255, whatever
                                   # the largest value is

and take `.round()` out of `back_to_a_file`: it then ends with False, since 1.2 % of the values come
back 1 too small.
"""

import argparse
import sys
import tempfile
from pathlib import Path

import cv2
import matplotlib.pyplot as plt
import numpy as np
import torch
import torchvision.transforms
from PIL import Image
from torchvision.transforms import Normalize, ToTensor, v2

# 均值 · The mean and the standard deviation of ImageNet's pixels: red, green, blue.
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
OUT_DIR = Path("outputs", "cv2_tensor")

# Each function below is a part of the notes' section. Its docstring begins with the heading that is
# printed, and `steps` takes its pictures to the contact sheet.


def grayscale(file: Path, steps: dict) -> None:
    """一个灰度的图片，只有一个通道 · A grayscale picture has one channel
    灰度方式读入得到 [H, W]；ToTensor 变成 [C, H, W]，并归一化到 [0, 1]。

    A file to an array (H, W), uint8, and to a tensor (1, H, W), float32 in 0...1. In the notes:

        image_name = 'Dataset/2d_images/ID_0000_Z_0142.tif'
        image = cv2.imread(image_name, 0)
    """
    image_name = str(file)
    # imread is safe for ASCII paths only: on Windows it may not open others.
    image = cv2.imread(image_name, 0) if image_name.isascii() else read_picture(file, 0)
    print(f"  {'step':33} {'shape':26} {'dtype':13} min .. max")
    show("imread(image_name, 0)", image, steps)
    # 取值范围 · 0..255 becomes [0, 1.0] (归一化). The text of the notes has torchvision.ToTensor(),
    # a name that does not exist; their code has this one.
    image_tensor = torchvision.transforms.ToTensor()(image)
    show("ToTensor", image_tensor, steps)
    # Without the 0 it is this: three channels, even of a gray file.
    show("imread with 1, the default", read_picture(file, cv2.IMREAD_COLOR), steps)


def brute_force(image: np.ndarray, width: int, height: int, steps: dict) -> dict:
    """暴力方法：先resize，再reshape，最后再转为tensor · Brute force
    先 resize，再 reshape，最后转为张量：形状对了，但没有归一化，仍是 0 到 255。

    (H, W), uint8, to (1, height, width), float32, not divided by 255. In the notes, for 160x160:

        image = cv2.resize(image, (160, 160))
        image_new = image.reshape((1, 160, 160))
        image_tensor = torch.FloatTensor(image_new)
    """
    image = cv2.resize(image, (width, height))
    show("resize", image, steps)
    image_new = image.reshape((1, height, width))
    show("reshape", image_new, steps)
    image_tensor = torch.FloatTensor(image_new)
    show("FloatTensor", image_tensor, steps)
    # torch.FloatTensor is a legacy constructor: torch.FloatTensor(3) is not a 3 but 3 numbers.
    same = torch.equal(torch.from_numpy(image_new).float(), image_tensor)
    print("  Not divided by 255; but resize interpolates, so the largest value may be smaller.")
    print(f"  Today's spelling is torch.from_numpy(image_new).float(); equal: {same}")
    return {"from_numpy_equals_float_tensor": same}


def width_first(image: np.ndarray, steps: dict) -> None:
    """cv2.resize(img, (width, height))参数是:先宽后高 · resize takes the width first
    resize 的参数先宽后高，shape 先高后宽；写反了不报错，但不是正方形的图片会变形。

    (H, W, 3) to half of each side, and what comes out if the two sides are swapped.
    """
    height, width = (max(1, side // 2) for side in image.shape[:2])
    show(f"resize(image, {width, height})", cv2.resize(image, (width, height)), steps)
    if width != height:  # on a square picture, like the notes', nobody sees the mistake
        show(f"wrong: resize(image, {height, width})", cv2.resize(image, (height, width)), steps)
        print(f"  No error, but distorted: the second swaps the sides of {image.shape}.")


def to_tensor(gray: np.ndarray, folder: Path, steps: dict) -> dict:
    """class torchvision.transforms.ToTensor · It scales uint8, and nothing else
    只有 uint8 会除以 255；16 位和浮点的输入不缩放。

    What ToTensor and its v2 spelling make of arrays (H, W) and of a PIL.Image of several modes.
    """
    file = folder / "sixteen-bit.png"
    write_picture(file, gray.astype(np.uint16) * 257)  # 255 * 257 = 65535
    sixteen = read_picture(file, cv2.IMREAD_UNCHANGED)
    print("  A file with 16 bits for each pixel; flag 0 reduces it to 8 bits:")
    show("imread(file, 0)", read_picture(file, 0), steps)
    show("imread(file, IMREAD_UNCHANGED)", sixteen, steps)

    # What ToTensor is today: its two steps by name. It scales integers of any size.
    today = v2.Compose([v2.ToImage(), v2.ToDtype(torch.float32, scale=True)])
    inputs = [gray, sixteen, np.float32(gray), np.float64(gray)]
    inputs += map(Image.fromarray, (gray, sixteen, np.int32(sixteen), np.float32(gray)))
    print(f"\n  {'input':16} {'ToTensor':34} v2.ToImage, v2.ToDtype(float32, scale=True)")
    scaling = {}
    for picture in inputs:
        name = f"{picture.dtype} array" if hasattr(picture, "dtype") else f"PIL {picture.mode}"
        old, new = scaling[name] = describe(ToTensor()(picture)), describe(today(picture))
        print(f"  {name:16} {text(old):34} {text(new)}")
    difference = (ToTensor()(gray) - today(gray)).abs().max().item()
    print(f"  uint8, L: either ({difference:.0e} apart). uint16, I;16: v2 (int16 ends at 32767).")
    print("  The others: neither gives 0..1; divide by the largest possible value yourself.")
    return {"scaling": scaling, "v2_difference": difference}


def normalize(gray: np.ndarray, steps: dict) -> dict:
    """class torchvision.transforms.Normalize(mean, std) · Normalized_image=(image-mean)/std
    逐通道标准化（笔记写作“正则化”）；除以的是标准差，不是方差。

    (1, H, W) in 0...1 with one mean and one standard deviation (std), and with three.
    """
    image = ToTensor()(gray)
    normalized = Normalize([0.5], [0.25])(image)
    show("Normalize([0.5], [0.25])", normalized, steps)
    same = torch.equal(normalized, (image - 0.5) / 0.25)
    print(f"  By hand, (image - 0.5) / 0.25 is equal: {same}")
    print(f"  With three, mean={MEAN}, std={STD}, of one channel:")
    found = {}
    for name, three in {"Normalize": Normalize, "v2.Normalize": v2.Normalize}.items():
        try:
            found[name] = three(MEAN, STD)(image).shape
        except (RuntimeError, ValueError) as error:
            found[name] = str(error)
        print(f"  {name}: {found[name]}")
    show("expand to 3 channels, Normalize", Normalize(MEAN, STD)(image.expand(3, -1, -1)), steps)
    return {"by_hand": same, "channel_error": found["Normalize"], "v2_shape": found["v2.Normalize"]}


def blue_green_red(image: np.ndarray, folder: Path, steps: dict) -> dict:
    """cv2.imread(img, 1)：返回结果为type: numpy.ndarray，多维数组 · Channels: blue, green, red
    得到的多维数组通道顺序是 BGR；读不出文件时返回 None，不报错。

    (H, W, 3), uint8, as OpenCV reads it and in RGB; what Normalize makes of either.
    """
    show("imread(img, 1): BGR", image, steps)
    # Not image[..., ::-1]: from_numpy and ToTensor refuse an array with a negative stride.
    show("cvtColor: RGB", cv2.cvtColor(image, cv2.COLOR_BGR2RGB), steps)
    pixels = {"BGR": np.uint8([[[0, 0, 255]]]), "RGB": np.uint8([[[255, 0, 0]]])}
    for order, pixel in pixels.items():
        pixels[order] = Normalize(MEAN, STD)(ToTensor()(pixel)).flatten().tolist()
        print(f"  A red pixel, normalized as {order}: {np.round(pixels[order], 2)}")

    print("  imread of no file and of three cut in half: no exception, only OpenCV's own messages:")
    for name in ("missing.png", "half.png", "half.tif", "half.jpg"):
        if name.startswith("half"):
            data = cv2.imencode(name[-4:], image)[1]
            data[: len(data) // 2].tofile(folder / name)
        result = cv2.imread(str(folder / name), 1)
        if result is None:
            print(f"  {name:33} None")
        else:  # a JPEG: imread fills the missing rows with gray
            show(name, result, steps)
    return {"type": type(image), "red_pixel": pixels}


def back_to_a_file(image: np.ndarray, file: Path, steps: dict) -> dict:
    """笔记之外：从张量回到图片 · Not in the notes: from a tensor back to a file
    从张量还原成图片文件：反标准化、四舍五入、转回 BGR，像素与原图完全一致。

    A normalized tensor (3, H, W) to (H, W, 3), uint8, and to a file.
    """
    mean, std = torch.tensor(MEAN).view(3, 1, 1), torch.tensor(STD).view(3, 1, 1)
    tensor = Normalize(MEAN, STD)(ToTensor()(cv2.cvtColor(image, cv2.COLOR_BGR2RGB)))
    show("Normalize: RGB", tensor, steps)
    # .byte() cuts off what follows the point, and makes 0 of 256: hence round and clamp.
    rgb = ((tensor * std + mean) * 255).round().clamp(0, 255).byte().permute(1, 2, 0).numpy()
    show("back to uint8", rgb, steps)
    write_picture(file, cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))
    same = np.array_equal(read_picture(file, 1), image)
    print(f"  Written as BGR and read again from {file.name}: every pixel the same: {same}")
    print("  imread and imwrite: on Windows not with Chinese in the path; see read_picture below.")
    return {"round_trip": same}


def main(argv: list[str] | None = None) -> dict:
    """Go through the notes' section, then the way back. Returns the values that it prints.

    `steps` has the shape, dtype, minimum and maximum of each picture on the contact sheet.
    """
    args = make_parser().parse_args(argv)
    out_dir = make_out_dir(args.out_dir)
    files = {"sheet": out_dir / "cv2-tensor-steps.png", "back": out_dir / "from-a-tensor.png"}
    gray_file = color_file = args.image
    if args.image is None:
        files["gray"], files["color"] = gray_file, color_file = draw_pictures(out_dir, args.seed)
    gray, color = read_picture(gray_file, 0), read_picture(color_file, 1)

    results, sheet = {}, {}
    # An ASCII path for imread here, too: on one that is not UTF-8, OpenCV 5.0 crashes.
    with tempfile.TemporaryDirectory(dir=out_dir if str(out_dir).isascii() else None) as folder:
        for section, inputs in {
            grayscale: [gray_file],
            brute_force: [gray, *args.size],
            width_first: [color],
            to_tensor: [gray, Path(folder)],
            normalize: [gray],
            blue_green_red: [color, Path(folder)],
            back_to_a_file: [color, files["back"]],
        }.items():
            print_heading("", *map(str.strip, section.__doc__.splitlines()[:2]))
            steps = sheet[section.__name__] = {}
            results |= section(*inputs, steps) or {}
    draw_contact_sheet(sheet, files["sheet"])
    print(f"\nWritten: {', '.join(map(str, files.values()))}")
    steps = {name: describe(image) for part in sheet.values() for name, image in part.items()}
    return results | {"steps": steps, "files": files}


# ---- Below: command line, data, pictures. Nothing of it is about tensors; read it last. ----


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("image", metavar="IMAGE", type=path, nargs="?", help="yours (two that it draws)")
    size = "width and height to resize to, up to 4096 (160 160)"
    add("--size", metavar=("W", "H"), type=up_to_4096, nargs=2, default=[160, 160], help=size)
    add("--seed", metavar="N", type=seed, default=0, help="of the drawn noise (%(default)s)")
    add("--out-dir", metavar="DIR", type=path, default=OUT_DIR, help="(%(default)s)")
    return parser


def up_to_4096(text: str) -> int:
    if not 1 <= int(text) <= 4096:
        raise ValueError  # argparse then says: invalid up_to_4096 value
    return int(text)


def seed(text: str) -> int:
    if not 0 <= int(text) < 2**32:  # what NumPy takes
        raise ValueError
    return int(text)


def path(text: str) -> Path:
    return Path(text).expanduser()


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


def write_picture(file: Path, image: np.ndarray) -> None:
    """`cv2.imwrite(file, image)`, but for any path: on Windows that fails on Chinese characters."""
    cv2.imencode(file.suffix, image)[1].tofile(file)


def draw_pictures(folder: Path, seed: int) -> tuple[Path, Path]:
    """A grayscale 512x512 TIFF, something like a CT slice, and a color PNG 320 wide, 240 high."""
    gray = np.zeros((512, 512), np.uint8)
    cv2.ellipse(gray, (256, 256), (220, 170), 0, 0, 360, 120, -1)  # the body
    for x in (165, 347):
        cv2.ellipse(gray, (x, 240), (75, 110), 0, 0, 360, 25, -1)  # the lungs
    cv2.circle(gray, (256, 365), 33, 225, -1)  # the spine
    noise = np.random.default_rng(seed).normal(0, 12, gray.shape)
    write_picture(folder / "gray.tif", (gray + noise).clip(0, 255).astype(np.uint8))

    color = np.tile(np.uint8(np.linspace(90, 250, 320))[:, None], (240, 1, 3))
    cv2.circle(color, (80, 90), 50, (0, 0, 255), -1)  # red: OpenCV draws in BGR, too
    cv2.circle(color, (265, 150), 40, (255, 0, 0), -1)
    write_picture(folder / "color.png", color)
    return folder / "gray.tif", folder / "color.png"


def describe(picture) -> dict:
    """Shape, dtype, minimum and maximum of an array or a tensor."""
    array = np.asarray(picture)
    found = {"min": array.min().item(), "max": array.max().item()}
    return {"shape": picture.shape, "dtype": str(picture.dtype), **found}


def text(found: dict) -> str:
    return f"{found['dtype']:13} {found['min']:.5g} .. {found['max']:.5g}"


def show(name: str, picture, steps: dict) -> None:
    """Print what a picture, array or tensor, is, and keep it for the contact sheet."""
    steps[name] = picture
    print(f"  {name:33} {picture.shape!s:26} {text(describe(picture))}")


def draw_contact_sheet(sheet: dict, file: Path) -> None:
    """One part of the page for each function, and under each picture what is black and white."""
    figure = plt.figure(figsize=(10, 11), layout="constrained")
    for part, (title, steps) in zip(figure.subfigures(4, 2).flat, sheet.items()):
        part.suptitle(title, weight="bold")
        axes = part.subplots(1, len(steps), squeeze=False).flat
        for ax, (name, image) in zip(axes, steps.items()):
            array = np.asarray(image, dtype=np.float32)
            if torch.is_tensor(image) or name == "reshape":  # channels first
                array = array.transpose(1, 2, 0)
            stride = max(1, max(array.shape[:2]) // 256)
            low, high = array.min(), array.max()
            ax.imshow((array[::stride, ::stride] - low) / max(high - low, 1e-6), cmap="gray")
            color = "red" if "wrong" in name else "black"
            ax.set_title(f"{name}\n{tuple(image.shape)}", fontsize=10, color=color)
            ax.set(xlabel=f"{image.dtype}\nblack {low:.5g}, white {high:.5g}", xticks=[], yticks=[])
    figure.savefig(file, bbox_inches="tight")
    plt.close(figure)


if __name__ == "__main__":
    main()

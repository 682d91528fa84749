"""From a picture file, through OpenCV, to a PyTorch tensor, and back.

Notes: Pytorch_cv2_Tensor相关

    python cv2_tensor.py                  # on pictures that it draws itself
    python cv2_tensor.py photo.jpg        # on one of yours
    python cv2_tensor.py --size 320 160   # resized to another width and height

It ends with a picture that went to a tensor and back, every bit the same (PyTorch 2.15,
torchvision 0.29, OpenCV 5.0 on 2 CPU cores, 4 seconds), and a contact sheet of every step.

**Try**

    --size 320 160                 # the shape is then (160, 320): height first
    outputs/cv2_tensor/color.png   # a picture in 29..250 becomes a tensor in 0.114..0.980, not
                                   # in 0..1: ToTensor divides by 255, whatever is in the picture

and take `.round()` out of `back_to_a_file`: 1.2 % of the values come back 1 too small.
"""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image
from torchvision.transforms import Normalize, ToTensor, v2

# The mean and the standard deviation of ImageNet's pixels: red, green, blue.
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


def main(argv: Sequence[str] | None = None) -> dict:
    """Go through the notes' section, then the way back. Returns the values that it prints.

    `steps` has the shape, dtype, minimum and maximum of each picture on the contact sheet.
    """
    # Without its usage text, argparse answers a mistake with the one line that matters.
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], usage=argparse.SUPPRESS)
    flag = parser.add_argument
    flag("image", type=Path, nargs="?", metavar="IMAGE", help="default: pictures that it draws")
    size = {"nargs": 2, "type": positive_integer, "metavar": ("W", "H"), "default": [160, 160]}
    flag("--size", **size, help="resize to this width and height, up to 4096; default: 160 160")
    flag("--seed", type=whole_number, metavar="N", default=0, help="default: 0")
    out_dir = Path("outputs", Path(__file__).stem)
    flag("--out-dir", type=Path, default=out_dir, help=f"default: {out_dir}")
    args = parser.parse_args(argv)
    if max(args.size) > 4096:
        parser.error("argument --size: 4096 pixels each way is the most")

    out_dir = make_out_dir(args.out_dir)
    files = {"sheet": out_dir / "cv2-tensor-steps.png", "back": out_dir / "图片 from a tensor.png"}
    gray_file = color_file = args.image
    if args.image is None:
        files["gray"] = gray_file = out_dir / "gray.tif"
        files["color"] = color_file = out_dir / "color.png"
        draw_pictures(gray_file, color_file, args.seed)

    steps = {}  # name: array or tensor
    results = grayscale(gray_file, steps)
    gray, color = steps["imread(file, 0)"], read_image(color_file, 1)
    results |= brute_force(gray, *args.size, steps)
    width_first(color, steps)
    results |= to_tensor(gray, out_dir, steps)
    results |= normalize(gray, steps)
    results |= blue_green_red(color, out_dir, steps)
    results |= back_to_a_file(color, files["back"], steps)
    results["steps"] = {name: describe(picture) for name, picture in steps.items()}
    results["files"] = files
    draw_contact_sheet(steps, files["sheet"])
    print(f"\nWritten: {', '.join(str(file) for file in files.values())}")
    return results


def grayscale(file: Path, steps: dict) -> dict:
    """A file to (H, W) uint8 to (1, H, W) float32 in 0...1."""
    image = read_image(file, 0)
    print("一个灰度的图片，只有一个通道 · A grayscale picture has one channel")
    show("imread(file, 0)", image, steps)
    image_tensor = ToTensor()(image)
    show("ToTensor", image_tensor, steps)
    default = read_image(file)
    print(f"  Without the 0, imread gives {default.shape}: three channels, even for a gray file.")
    return {"default_flag_shape": default.shape}


def brute_force(image: np.ndarray, width: int, height: int, steps: dict) -> dict:
    """(H, W) uint8 to (1, height, width) float32, still in 0...255."""
    print("\n暴力方法 · By force: resize, reshape, FloatTensor")
    image = cv2.resize(image, (width, height))
    show("resize", image, steps)
    image_new = image.reshape((1, height, width))
    show("reshape", image_new, steps)
    image_tensor = torch.FloatTensor(image_new)
    show("FloatTensor", image_tensor, steps)
    # torch.FloatTensor is a legacy constructor: torch.FloatTensor(3) is not a 3 but 3 numbers.
    same = torch.equal(torch.from_numpy(image_new).float(), image_tensor)
    print(f"  Values still 0..255. Today: torch.from_numpy(image_new).float(); equal: {same}")
    return {"from_numpy_equals_float_tensor": same}


def width_first(image: np.ndarray, steps: dict) -> None:
    """The size that cv2.resize takes is the shape of an array the other way round."""
    print("\n先宽后高 · resize takes (width, height); a shape is (height, width, channels)")
    height, width = (max(1, side // 2) for side in image.shape[:2])
    show("(width/2, height/2)", cv2.resize(image, (width, height)), steps)
    show("(height/2, width/2)", cv2.resize(image, (height, width)), steps)
    print(f"  Both from a picture of shape {image.shape}. The second is the mistake: no error, but")
    print("  squashed. On a square picture, like the notes', nobody sees it.")


def to_tensor(gray: np.ndarray, out_dir: Path, steps: dict) -> dict:
    """Which inputs ToTensor divides by 255, and which its v2 spelling scales."""
    print("\nclass torchvision.transforms.ToTensor · scales uint8, and nothing else")
    with tempfile.TemporaryDirectory(dir=out_dir) as folder:
        file = Path(folder, "sixteen-bit.png")
        write_image(file, gray.astype(np.uint16) * 257)  # 255 * 257 = 65535
        show("16 bits, imread 0", read_image(file, 0), steps)
        sixteen = read_image(file, cv2.IMREAD_UNCHANGED)
    show("IMREAD_UNCHANGED", sixteen, steps)

    # What ToTensor is today: its two steps by name. It scales integers of any size.
    today = v2.Compose([v2.ToImage(), v2.ToDtype(torch.float32, scale=True)])
    print(f"\n  {'input':16} {'ToTensor':34} v2.ToImage, v2.ToDtype(float32, scale=True)")
    scaling = {}
    for name, picture in {
        "uint8 array": gray,
        "uint16 array": sixteen,
        "float32 array": gray.astype(np.float32),
        "float64 array": gray.astype(np.float64),
        "PIL L": Image.fromarray(gray),
        "PIL I;16": Image.fromarray(sixteen),
        "PIL I": Image.fromarray(sixteen.astype(np.int32)),
        "PIL F": Image.fromarray(gray.astype(np.float32)),
    }.items():
        old, new = describe(ToTensor()(picture)), describe(today(picture))
        print(f"  {name:16} {text(old):34} {text(new)}")
        scaling[name] = {"ToTensor": old, "v2": new}
    difference = (ToTensor()(gray) - today(gray)).abs().max().item()
    print("  ToTensor leaves the rest as it is, and makes negative numbers of PIL's I;16.")
    print(f"  On uint8 the two differ by {difference:.0e} at most.")
    return {"scaling": scaling, "v2_difference": difference}


def normalize(gray: np.ndarray, steps: dict) -> dict:
    """(1, H, W) in 0...1 through Normalize, with one mean and with three."""
    print("\nclass torchvision.transforms.Normalize(mean, std) · (image - mean) / std")
    image = ToTensor()(gray)
    # One mean and one std for each channel. Std is the standard deviation, not the variance (方差).
    normalized = Normalize([0.5], [0.25])(image)
    show("Normalize, 1 channel", normalized, steps)
    same = torch.equal(normalized, (image - 0.5) / 0.25)
    print(f"  By hand, (image - 0.5) / 0.25 is equal: {same}")

    try:
        Normalize(MEAN, STD)(image)
    except RuntimeError as error:
        message = str(error)
    print(f"  Normalize with three means and stds: {message}")
    three = Normalize(MEAN, STD)(image.expand(3, -1, -1))
    show("expand, Normalize", three, steps)
    silent = v2.Normalize(MEAN, STD)(image).shape
    print("  Two ways out: one mean and std, or three equal channels by expand(3, -1, -1).")
    print(f"  v2.Normalize makes three channels of one unasked, with no error: {silent}")
    return {"by_hand": same, "channel_error": message, "v2_normalize_shape": silent}


def blue_green_red(image: np.ndarray, out_dir: Path, steps: dict) -> dict:
    """(H, W, 3) uint8 as OpenCV reads it, in RGB, and what Normalize makes of either."""
    print(f"\ncv2.imread(img, 1) · a {type(image)}; its channels are blue, green, red")
    show("imread(file, 1): BGR", image, steps)
    rgb = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
    show("cvtColor: RGB", rgb, steps)
    show("Normalize, RGB", Normalize(MEAN, STD)(ToTensor()(rgb)), steps)
    red = np.array([[[0, 0, 255]]], dtype=np.uint8)
    pixels = {}
    for order, pixel in (("BGR", red), ("RGB", cv2.cvtColor(red, cv2.COLOR_BGR2RGB))):
        pixels[order] = Normalize(MEAN, STD)(ToTensor()(pixel)).flatten().tolist()
        values = ", ".join(f"{value:.2f}" for value in pixels[order])
        print(f"  A red pixel, normalized as {order}: {values}")

    print("  A missing file, and three cut in half: imread raises no error (OpenCV complains on")
    print("  stderr), but returns None, or of the JPEG the part that is there:")
    unreadable = {}
    with tempfile.TemporaryDirectory(dir=out_dir) as folder:
        for name in ("missing.png", "half.png", "half.tif", "half.jpg"):
            file = Path(folder, name)
            if name.startswith("half"):
                data = cv2.imencode(file.suffix, image)[1]
                data[: len(data) // 2].tofile(file)
            sys.stdout.flush()
            result = cv2.imread(str(file), 1)
            unreadable[name] = None if result is None else result.shape
            print(f"  {name:12} {unreadable[name]}")
    if result is not None:
        show("half a JPEG", result, steps)
    return {"type": type(image), "red_pixel": pixels, "unreadable": unreadable}


def back_to_a_file(image: np.ndarray, file: Path, steps: dict) -> dict:
    """A normalized (3, H, W) tensor to (H, W, 3) uint8 and a file, and nothing is lost."""
    print("\nNot in the notes: the way back, from a tensor to a file")
    mean, std = torch.tensor(MEAN).view(3, 1, 1), torch.tensor(STD).view(3, 1, 1)
    tensor = Normalize(MEAN, STD)(ToTensor()(cv2.cvtColor(image, cv2.COLOR_BGR2RGB)))
    restored = (tensor * std + mean) * 255
    # .byte() cuts off what follows the point, and makes 0 of 256: hence round and clamp.
    rgb = restored.round().clamp(0, 255).byte().permute(1, 2, 0).numpy()
    show("back to uint8", rgb, steps)
    cut_off = (restored.byte() != restored.round().byte()).float().mean().item()
    write_image(file, cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))
    same = np.array_equal(read_image(file, 1), image)
    print(f"  Written as BGR and read again from {file.name}: every bit the same: {same}")
    print(f"  Without round(), {cut_off:.1%} of the values would be 1 too small.")
    opens = cv2.imread(str(file), 1) is not None
    print(f"  The name is Chinese and has spaces. cv2.imread opens it here: {opens}; on Windows")
    print("  it may not: cv2.imdecode(np.fromfile(file, np.uint8), 1) does everywhere.")
    return {"round_trip": same, "cut_off": cut_off}


def read_image(file: Path, flag: int = cv2.IMREAD_COLOR) -> np.ndarray:
    """`cv2.imread(file, flag)`, but for any path, and with an error instead of None.

    Returns (H, W) or (H, W, 3), in the order blue, green, red; uint8 unless IMREAD_UNCHANGED.
    """
    try:
        data = np.fromfile(file, dtype=np.uint8)
        image = cv2.imread(str(file), flag)  # the notes' line
        if image is None:  # damaged; or on Windows, in a path with Chinese characters
            image = cv2.imdecode(data, flag)
    except OSError as error:
        sys.exit(f"error: cannot read {file}: {error.strerror}")
    except cv2.error:  # an empty file, or a picture too large for OpenCV
        image = None
    if image is None:
        sys.exit(f"error: {file} is empty, damaged or not a picture that OpenCV reads")
    return image


def write_image(file: Path, image: np.ndarray) -> None:
    """`cv2.imwrite(file, image)`, but for any path: on Windows that fails on Chinese characters."""
    cv2.imencode(file.suffix, image)[1].tofile(file)


def draw_pictures(gray_file: Path, color_file: Path, seed: int) -> None:
    """A grayscale 512x512 TIFF, something like a CT slice, and a color PNG 320 wide, 240 high."""
    gray = np.zeros((512, 512), np.uint8)
    cv2.ellipse(gray, (256, 256), (220, 170), 0, 0, 360, 120, -1)  # the body
    for x in (165, 347):
        cv2.ellipse(gray, (x, 240), (75, 110), 0, 0, 360, 25, -1)  # the lungs
    cv2.circle(gray, (256, 365), 33, 225, -1)  # the spine
    noise = np.random.default_rng(seed).normal(0, 12, gray.shape)
    write_image(gray_file, (gray + noise).clip(0, 255).astype(np.uint8))

    color = np.zeros((240, 320, 3), np.uint8)
    color[:] = np.linspace(90, 250, 320)[:, None]
    cv2.circle(color, (80, 90), 50, (0, 0, 255), -1)  # red: OpenCV draws in BGR, too
    cv2.rectangle(color, (150, 40), (210, 200), (0, 160, 0), -1)
    cv2.circle(color, (265, 150), 40, (255, 0, 0), -1)
    write_image(color_file, color)


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
    print(f"  {name:21} {picture.shape!s:26} {text(describe(picture))}")


def draw_contact_sheet(steps: dict, file: Path) -> None:
    import matplotlib.pyplot as plt  # slow to import, so only where it is needed

    figure, axes = plt.subplots(4, 4, figsize=(9, 12), layout="constrained")
    figure.get_layout_engine().set(h_pad=0.12)
    figure.suptitle("Every step, shown as if RGB (BGR swaps red and blue), stretched to its range")
    for place in axes.flat[len(steps) :]:
        place.remove()
    for place, (name, picture) in zip(axes.flat, steps.items(), strict=False):
        array = np.asarray(picture, dtype=np.float32)
        if torch.is_tensor(picture) or name == "reshape":  # channels first
            array = array.transpose(1, 2, 0)
        stride = max(1, max(array.shape[:2]) // 256)
        array = array[::stride, ::stride]
        low, high = array.min(), array.max()
        place.imshow((array - low) / max(high - low, 1e-6), cmap="gray")
        found = describe(picture)
        under = f"{tuple(found['shape'])}\n{' '.join(text(found).split())}"
        place.set(title=name, xlabel=under, xticks=[], yticks=[])
    figure.savefig(file)
    plt.close(figure)


def whole_number(text, least=0):
    if not (text.isdecimal() and least <= int(text) < 2**63):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {least} on")
    return int(text)


def positive_integer(text):
    return whole_number(text, least=1)


def make_out_dir(folder: Path) -> Path:
    """Make the output folder and try it before training, not when the result wants saving."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        sys.exit(f"error: cannot write to --out-dir {folder}: {error.strerror}")
    return folder


if __name__ == "__main__":
    if hasattr(sys.stdout, "reconfigure"):  # a notebook's has not
        sys.stdout.reconfigure(errors="replace")  # where a console lacks a character it prints "?"
    main()

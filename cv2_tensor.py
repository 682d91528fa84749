"""From a picture file, through OpenCV, to a PyTorch tensor, and back.

Notes: https://github.com/yearing1017/PyTorch_Note
Pytorch_cv2_Tensor相关

    python cv2_tensor.py                  # on pictures that it draws itself
    python cv2_tensor.py photo.jpg        # on one of yours
    python cv2_tensor.py --size 320 160   # resized to another width and height

It ends with a picture that went to a tensor and back, each pixel the same, and with one PNG of all
the pictures on the way. 5 seconds on 2 CPU cores with PyTorch 2.15, torchvision 0.29, OpenCV 5.0.

**Try**

    --size 320 160                 # the shape is then (160, 320, 3): height first
    outputs/cv2_tensor/color.png   # the picture of the first run: read as gray, its 29..250 become
                                   # 0.1137..0.9804, not 0..1: ToTensor divides by 255, whatever
                                   # the largest value is
    outputs/cv2_tensor/slice.tif   # 16 bits: flags 0 and 1 leave 6 gray levels, in every section

and take `.round()` out of `back_to_a_file`: it then ends with False, since 1.2 % of the values come
back 1 too small.
"""

import argparse
import ast
import inspect
import os
import shutil
import sys
import tempfile
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import cv2
import matplotlib.pyplot as plt
import numpy as np
import torch
from PIL import Image
from torchvision.transforms import Normalize, ToTensor, v2

# 均值 · The mean and the standard deviation of ImageNet's pixels: red, green, blue.
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
OUT_DIR = Path("outputs", "cv2_tensor")

# 每个函数是笔记的一节，逐句打印并运行 · Each function below is a section of the notes. `run`
# prints each statement, and below it what it prints. args.gray, args.color and args.sixteen are
# picture files, drawn or made of IMAGE.


def span(image) -> str:
    """dtype, minimum and maximum of an array or a tensor."""
    array = np.asarray(image)  # of a uint16 tensor PyTorch has no minimum
    return f"{image.dtype} {array.min():.5g} .. {array.max():.5g}"


def grayscale(args):
    """一个灰度的图片，只有一个通道 · A grayscale picture has one channel

    灰度方式读入得到 [H, W]；ToTensor 变成 [C, H, W]，并归一化到 [0, 1]。
    """
    import cv2
    import torchvision.transforms

    # image_name = 'Dataset/2d_images/ID_0000_Z_0142.tif'
    image_name = args.gray
    image = cv2.imread(image_name, 0)
    print(image.shape)
    print(image.dtype, image.min(), image.max())
    # 归一化, 取值范围为[0,1.0]的torch.FloatTensor · 0...255 becomes 0...1, float32
    image_tensor = torchvision.transforms.ToTensor()(image)
    print(image_tensor.shape)
    print(image_tensor.dtype, image_tensor.min(), image_tensor.max())
    # Without the 0: three channels, even of a gray file
    color = cv2.imread(image_name)
    print(color.shape)


def brute_force(args):
    """暴力方法：先resize，再reshape，最后再转为tensor · Brute force

    先 resize，再 reshape，最后转为张量：形状对了，但没有归一化，仍是 0 到 255。
    """
    import torch

    image_name = args.gray
    image = cv2.imread(image_name, 0)
    print(image.shape)
    image = cv2.resize(image, (160, 160))
    image_new = image.reshape((1, 160, 160))
    image_tensor = torch.FloatTensor(image_new)
    print(image_new.shape)
    print(image_tensor.shape)
    # 没有进行归一化 · Not divided by 255; resize interpolates: the largest may be less
    print(image_tensor.min(), image_tensor.max())
    # Today, with the dtype by name (torch.FloatTensor(3) makes three numbers, not a 3)
    print(torch.equal(torch.from_numpy(image_new).float(), image_tensor))


def width_first(args):
    """cv2.resize(img, (width, height))参数是:先宽后高 · resize takes the width first

    resize 的参数先宽后高，shape 先高后宽；写反了不报错，但不是正方形的图片会变形。
    """
    image = cv2.imread(args.color, 1)
    print(image.shape)
    height, width = image.shape[:2]
    # 先宽后高 · To --size, or to half the width and height
    width, height = args.size or ((width + 1) // 2, (height + 1) // 2)
    resized = cv2.resize(image, (width, height))
    print(resized.shape)
    if width != height:  # swapped: no error, but distorted; of a square nobody sees it
        wrong = cv2.resize(image, (height, width))
        print(wrong.shape)


def to_tensor(args):
    """class torchvision.transforms.ToTensor · It scales uint8, and nothing else

    只有 uint8 会除以 255；16 位和浮点的输入不缩放。
    """
    image = cv2.imread(args.gray, 0)
    sixteen = np.uint16(image) * 257  # 255 * 257 = 65535, the largest of 16 bits
    floats = np.float32(image)
    # Today: the two steps by name. It scales integers of any size
    today = v2.Compose([v2.ToImage(), v2.ToDtype(torch.float32, scale=True)])
    print((ToTensor()(image) - today(image)).abs().max())
    # numpy.ndarray · ToTensor, v2. ToTensor divides by 255 only if the array is uint8
    for pixels in (image, sixteen, floats, np.float64(image)):
        print(f"{pixels.dtype!s:8}{span(ToTensor()(pixels)):33}{span(today(pixels))}")
    # PIL.Image · uint8, L: both agree. uint16, I;16: use v2; ToTensor's int16 overflows
    # above 32767. The others: divide by the largest possible value yourself
    for pixels in map(Image.fromarray, (image, sixteen, np.int32(sixteen), floats)):
        print(f"{pixels.mode:8}{span(ToTensor()(pixels)):33}{span(today(pixels))}")


def bits(args):
    """笔记之外：超过 8 位的图片 · Not in the notes: pictures of more than 8 bits

    CT 图片多为 int16：标志 0 只剩几个灰度；应原样读入，再按最小值和最大值缩放。
    """
    # A slice that is drawn, or IMAGE if it has 16 bits. How many gray levels are left?
    image = cv2.imread(args.sixteen, 0)
    print(image.dtype, len(np.unique(image)), "gray levels")
    # The upper of two bytes, without its sign: air (-1000) is lighter than bone (1000)
    print(cv2.imdecode(cv2.imencode(".tif", np.int16([[-1000, -1, 0, 1000]]))[1], 0))
    # As it is in the file; then from its own minimum and maximum to 0...255
    sixteen = cv2.imread(args.sixteen, cv2.IMREAD_UNCHANGED)
    print(sixteen.dtype, sixteen.min(), sixteen.max())
    scaled = cv2.normalize(sixteen, None, 0, 255, cv2.NORM_MINMAX, cv2.CV_8U)
    print(scaled.dtype, len(np.unique(scaled)), "gray levels")


def normalize(args):
    """class torchvision.transforms.Normalize(mean, std) · Normalized_image=(image-mean)/std

    逐通道标准化（笔记写作“正则化”）；除以的是标准差，不是方差。
    """
    image = ToTensor()(cv2.imread(args.gray, 0))
    normalized = Normalize([0.5], [0.25])(image)
    print(normalized.min(), normalized.max())
    # By hand
    print(torch.equal(normalized, (image - 0.5) / 0.25))
    # Three means and one channel: refused, but v2 makes three channels of it
    print(MEAN, STD)
    with refused(RuntimeError):
        Normalize(MEAN, STD)(image)
    three = v2.Normalize(MEAN, STD)(image)
    print(three.shape, three.min(), three.max())


def blue_green_red(args):
    """cv2.imread(img, 1)：返回结果为type: numpy.ndarray，多维数组 · Channels: blue, green, red

    得到的多维数组通道顺序是 BGR；读不出文件时返回 None，不报错。
    """
    image = cv2.imread(args.color, 1)
    print(type(image), image.shape)
    # Not image[..., ::-1]: ToTensor refuses an array with a negative stride
    rgb = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
    print(np.array_equal(rgb[..., 0], image[..., 2]))  # red comes first
    # A red pixel, normalized in BGR, and in RGB
    for red in ([0, 0, 255], [255, 0, 0]):
        print(Normalize(MEAN, STD)(ToTensor()(np.uint8([[red]]))).flatten())
    # None, and a warning on stderr: of no file, of half a file (not of half a JPEG)
    print(cv2.imread("no-such-file.png", 1))
    for suffix in (".png", ".tif", ".jpg"):
        data = cv2.imencode(suffix, image)[1]
        data[: len(data) // 2].tofile(f"{args.folder}/half{suffix}")
        half = cv2.imread(f"{args.folder}/half{suffix}", 1)
        print(suffix, None if half is None else half.shape)
    # And, on Windows, of a path with Chinese in it. This reads any path:
    print(np.array_equal(cv2.imdecode(np.fromfile(args.color, np.uint8), 1), image))


def back_to_a_file(args):
    """笔记之外：从张量回到图片 · Not in the notes: from a tensor back to a file

    从张量还原成图片文件：反标准化、四舍五入、转回 BGR，像素与原图完全一致。
    """
    image = cv2.imread(args.color, 1)
    tensor = Normalize(MEAN, STD)(ToTensor()(cv2.cvtColor(image, cv2.COLOR_BGR2RGB)))
    print(tensor.shape, tensor.min(), tensor.max())
    # Channels last, and Normalize undone
    rgb = tensor.permute(1, 2, 0) * torch.tensor(STD) + torch.tensor(MEAN)
    # .byte() drops what follows the point, and makes 0 of 256: hence round and clamp
    rgb = (rgb * 255).round().clamp(0, 255).byte().numpy()
    cv2.imwrite(args.back, cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))
    same = np.array_equal(cv2.imread(args.back, 1), image)
    print(same)


def main(argv: list[str] | None = None) -> dict:
    """Run the sections. Returns for each, by its name, its variables, and the files written."""
    make_stdout_tolerant()
    args = make_parser().parse_args(argv)
    torch.manual_seed(args.seed)
    out_dir = make_out_dir(args.out_dir)
    sections = [grayscale, brute_force, width_first, to_tensor, bits, normalize]
    sections += [blue_green_red, back_to_a_file]

    # On Windows imread opens no path with Chinese in it: hence a folder whose path has none.
    parent = next(name for name in (str(out_dir), tempfile.gettempdir(), ".") if name.isascii())
    names = ["gray.tif", "color.png", "slice.tif", "from-a-tensor.png"]
    with tempfile.TemporaryDirectory(dir=parent) as made:
        args.folder = f"{parent}/{Path(made).name}"  # made begins at the root, since Python 3.12
        args.gray, args.color, args.sixteen, args.back = (f"{args.folder}/{name}" for name in names)
        write_pictures(args)
        results = {section.__name__: run(section, args) for section in sections}
        names = names if args.image is None else names[-1:]
        for name in names:
            shutil.copy(Path(args.folder, name), out_dir)
    files = {name: out_dir / name for name in ["cv2-tensor-steps.png", *names]}
    draw_contact_sheet(results, files["cv2-tensor-steps.png"])
    print(f"\nWritten: {', '.join(map(str, files.values()))}")
    return results | {"files": files}


# ---- Below: sessions, command line, pictures. The lesson ends here; read it last. ----


def run(section: Callable, args: argparse.Namespace, *classes: type) -> dict:
    """Run a section as a session: print each statement, then run it. Returns its variables.

    The first paragraph of its docstring is the heading, the second is printed below it. The code
    of `classes`, which it uses, is printed first.
    """
    heading, chinese = inspect.getdoc(section).split("\n\n")
    print("", f"======== {heading} ({section.__name__})", chinese, "", sep="\n")
    file, _ = inspect.findsource(section)
    for used in classes:  # in a notebook inspect.getsource(used) finds no class
        start = [line.startswith(f"class {used.__name__}(") for line in file].index(True)
        print(textwrap.indent("".join(inspect.getblock(file[start:])), ">>> "), end="")
    lines, first = inspect.getsourcelines(section)
    tree = ast.parse("\n" * (first - 1) + "".join(lines))  # line numbers, for a debugger
    scope = section.__globals__ | {"args": args}
    for before, statement in pairwise(tree.body[0].body):  # the docstring comes before the first
        code = "".join(lines[before.end_lineno - first + 1 : statement.end_lineno - first + 1])
        print(textwrap.indent(textwrap.dedent(code), ">>> "), end="")
        exec(compile(ast.Module([statement], []), section.__code__.co_filename, "exec"), scope)
    del scope["args"]
    return {name: it for name, it in scope.items() if it is not section.__globals__.get(name)}


@contextmanager
def refused(*kinds: type[Exception]) -> Iterator[None]:
    """The block raises an error of one of these kinds: print its first sentence, and go on."""
    try:
        yield
    except kinds as error:
        sentence = str(error).strip().partition("\n")[0].partition(". ")[0]
        print(f"{type(error).__name__}: {sentence}")
    else:
        raise AssertionError(f"no error, where one of {kinds} was expected")


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    add = parser.add_argument
    add("image", metavar="IMAGE", type=path, nargs="?", help="yours (some that it draws)")
    size = "width and height to resize to, up to 4096 (half of the picture's)"
    add("--size", metavar=("W", "H"), type=up_to_4096, nargs=2, help=size)
    add("--seed", metavar="N", type=int, default=0, help="of the drawn noise (%(default)s)")
    add("--out-dir", metavar="DIR", type=path, default=OUT_DIR, help="(%(default)s)")
    return parser


def up_to_4096(text: str) -> int:
    if not 1 <= int(text) <= 4096:
        raise ValueError  # argparse then says: invalid up_to_4096 value
    return int(text)


def path(text: str) -> Path:
    return Path(os.path.expanduser(text))  # not Path.expanduser, which refuses ~nobody


def make_stdout_tolerant() -> None:
    """A console that lacks a character (of Chinese, of a file's name) shows "?" for it."""
    if hasattr(sys.stdout, "reconfigure"):  # a notebook's has not
        sys.stdout.reconfigure(errors="replace")


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


def write_pictures(args: argparse.Namespace) -> None:
    """The files that the sections read: drawn ones, or IMAGE as imread would read it."""
    ct = np.full((512, 512), -1000, np.float32)  # air
    cv2.ellipse(ct, (256, 256), (220, 170), 0, 0, 360, -30, -1)  # the body
    cv2.ellipse(ct, (165, 240), (75, 110), 0, 0, 360, -800, -1)  # the lungs
    cv2.ellipse(ct, (347, 240), (75, 110), 0, 0, 360, -800, -1)
    cv2.circle(ct, (256, 365), 33, 850, -1)  # the spine
    ct = (ct + 50 * torch.randn(512, 512).numpy()).clip(-1000, 1000).astype(np.int16)
    gray = cv2.normalize(ct, None, 0, 255, cv2.NORM_MINMAX, cv2.CV_8U)
    color = np.tile(np.uint8(np.linspace(90, 250, 320))[:, None], (240, 1, 3))
    cv2.circle(color, (80, 90), 50, (0, 0, 255), -1)  # red: OpenCV draws in BGR, too
    cv2.circle(color, (265, 150), 40, (255, 0, 0), -1)
    if args.image is not None:
        unchanged = read_picture(args.image, cv2.IMREAD_UNCHANGED)
        if unchanged.dtype.itemsize > 2:
            sys.exit(f"error: {args.image} is {unchanged.dtype}: not a picture of 8 or 16 bits")
        gray, color = read_picture(args.image, 0), read_picture(args.image, 1)
        if unchanged.dtype.itemsize == 2:
            print(f"!!! {args.image} has 16 bits, of which flags 0 and 1 leave 8: see bits below")
            ct = unchanged
    for file, picture in {args.gray: gray, args.color: color, args.sixteen: ct}.items():
        cv2.imwrite(file, picture)


def draw_contact_sheet(results: dict, file: Path) -> None:
    """A part for each section: its variables that are pictures, and what is black and white."""
    figure = plt.figure(figsize=(11, 11.6), layout="constrained")
    for part, (section, variables) in zip(figure.subfigures(4, 2).flat, results.items()):
        part.suptitle(section, weight="bold")
        images = {name: it for name, it in variables.items() if getattr(it, "ndim", 0) in (2, 3)}
        for ax, (name, image) in zip(part.subplots(1, len(images)), images.items()):
            array = np.asarray(image, dtype=np.float32)
            if array.ndim == 3 and (torch.is_tensor(image) or array.shape[2] > 4):
                array = array.transpose(1, 2, 0)  # channels were first
            low, high = array.min(), array.max()
            step = 1 + max(array.shape) // 400  # of a photo, some of the pixels
            ax.imshow((array[::step, ::step] - low) / max(high - low, 1e-6), cmap="gray")
            color = "red" if name == "wrong" else "black"
            ax.set_title(f"{name}\n{tuple(image.shape)}", fontsize=10, color=color)
            ax.set(xlabel=f"{image.dtype}\nblack {low:.5g}, white {high:.5g}", xticks=[], yticks=[])
    figure.savefig(file)
    plt.close(figure)


if __name__ == "__main__":
    main()

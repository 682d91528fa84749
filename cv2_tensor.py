"""Read a picture file with OpenCV, turn it into a PyTorch tensor, and write the tensor to a file again.

Notes: https://github.com/yearing1017/PyTorch_Note
Pytorch_cv2_Tensor相关

    python cv2_tensor.py                  # The script draws the pictures that it reads.
    python cv2_tensor.py photo.jpg        # This reads a picture of your own.
    python cv2_tensor.py --size 320 160   # This resizes to another width and height.

This script needs Python 3.10 or newer, PyTorch 2.6 or newer, torchvision, opencv-python and matplotlib.

In the last section, a picture becomes a tensor and then a file again, and every pixel is unchanged.
The script also writes one PNG file that shows the pictures at each step. The results below were measured
with PyTorch 2.15, torchvision 0.29 and OpenCV 5.0.

**Try**

    python cv2_tensor.py --size 320 160                 # The shape becomes (160, 320, 3): the height comes first.
    python cv2_tensor.py outputs/cv2_tensor/color.png   # The gray values 29...250 become 0.1137...0.9804, because
                                                        # ToTensor divides by 255, not by the largest value.
    python cv2_tensor.py outputs/cv2_tensor/slice.tif   # imread's flags 0 and 1 keep only 6 gray levels.

The last two commands read files that `python cv2_tensor.py` writes. You can also remove `.round()` from
`back_to_a_file`. The section then prints False, because 1.2% of the values come back too small by 1.
"""

import argparse
import inspect
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image
from torchvision.transforms import Normalize, ToTensor, v2

# ImageNet 像素的均值和标准差，顺序是红、绿、蓝
# The mean and the standard deviation of ImageNet's pixels, in the order red, green, blue.
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]

# SECTIONS 里的每个函数是一节，对应笔记的内容（“笔记之外”的两节除外）。`run` 逐行打印并运行代码，输出紧跟在每一行下面。
# args.gray、args.color 和 args.sixteen 是要读的图片，由脚本画出，或者由你的 IMAGE 转换而来；args.back 是要写入的文件。
# Each function in SECTIONS is a section of this lesson. `run` executes it line by line, and prints each line
# with its output. args.gray, args.color and args.sixteen are the picture files that the sections read. The
# script draws them, or makes them from your IMAGE. args.back is the file that the sections write.


def span(image) -> str:
    """Return the dtype, the minimum and the maximum of an array or a tensor, as text.

    返回一个字符串，写明数组或张量的数据类型、最小值和最大值。
    """
    array = np.asarray(image)  # uint16 张量没有 min() · PyTorch has no min() for uint16 tensors
    return f"{image.dtype} {array.min():.5g} .. {array.max():.5g}"


def grayscale(args):
    """一个灰度的图片，只有一个通道 · A grayscale picture has one channel

    以灰度方式读入得到的形状是 [H, W]；ToTensor 把它变成 [C, H, W]，并归一化到 [0, 1]。
    With the flag 0, a picture is read as [H, W]. ToTensor turns it into [C, H, W] and scales it to [0, 1].
    """
    import cv2
    import torchvision.transforms

    # 标志 0 表示以灰度方式读取，所以 shape 只有 [H, W]，没有通道这一维
    # The flag 0 means grayscale. The shape is therefore [H, W], without a channel dimension.
    # image_name = 'Dataset/2d_images/ID_0000_Z_0142.tif'
    image_name = args.gray
    image = cv2.imread(image_name, 0)
    print(image.shape)
    print(image.dtype, image.min(), image.max())

    # ToTensor 加上通道这一维，并除以 255 进行归一化，得到取值范围为 [0, 1.0] 的 torch.FloatTensor
    # ToTensor adds the channel dimension and divides by 255. The result is a float32 tensor with values in [0, 1].
    image_tensor = torchvision.transforms.ToTensor()(image)
    print(image_tensor.shape)
    print(image_tensor.dtype, image_tensor.min(), image_tensor.max())

    # 不写标志 0，灰度文件也会读成三个通道
    # Without the flag 0, even a grayscale file is read as three channels.
    color = cv2.imread(image_name)
    print(color.shape)


def brute_force(args):
    """暴力方法：先resize，再reshape，最后再转为tensor · The brute-force way: resize, reshape, convert

    形状对了，但没有归一化，值仍然在 0 到 255 之间。
    The shape is right, but the values are not scaled. They still lie between 0 and 255.
    """
    image_name = args.gray
    image = cv2.imread(image_name, 0)
    print(image.shape)
    image = cv2.resize(image, (160, 160))
    image_new = image.reshape((1, 160, 160))
    image_tensor = torch.FloatTensor(image_new)
    print(image_new.shape)
    print(image_tensor.shape)

    # 没有进行归一化，也就是没有除以 255；resize 会对相邻像素插值，所以最大值可能变小
    # The values are not divided by 255. resize() interpolates between pixels, so the maximum may become smaller.
    print(image_tensor.min(), image_tensor.max())

    # 推荐写法是 from_numpy 加 float()，结果相同；torch.FloatTensor(3) 得到的不是 3，而是长度为 3 的张量
    # Prefer from_numpy() and float(), which give the same result. torch.FloatTensor(3) has length 3, not the value 3.
    print(torch.equal(torch.from_numpy(image_new).float(), image_tensor))


def width_first(args):
    """cv2.resize(img, (width, height))参数是:先宽后高 · cv2.resize takes the width first

    shape 是先高后宽，resize 的参数却是先宽后高；写反了不会报错，但图片会变形。
    A shape starts with the height, but resize() takes the width first. Swapping them silently distorts the picture.
    """
    image = cv2.imread(args.color, 1)
    print(image.shape)
    height, width = image.shape[:2]

    # 缩放到 --size 给出的宽和高；没有给出时，宽和高都减半
    # Resize to the width and height given by --size. Without --size, halve the width and the height.
    width, height = args.size or ((width + 1) // 2, (height + 1) // 2)
    resized = cv2.resize(image, (width, height))
    print(resized.shape)

    # 把宽和高写反：不会报错，但图片变形了；如果缩放后的宽和高相等，就看不出写反了
    # Swap the width and the height. There is no error, but the picture is distorted, unless both are equal.
    wrong = cv2.resize(image, (height, width))
    print(wrong.shape)


def to_tensor(args):
    """class torchvision.transforms.ToTensor · ToTensor scales only uint8

    只有 uint8 会除以 255，取值范围从 [0, 255] 变成 [0, 1]；更大的整数类型和浮点数都不会缩放。
    ToTensor divides only uint8 by 255, which turns 0...255 into 0...1. Wider types and floats are not scaled.
    """
    image = cv2.imread(args.gray, 0)
    sixteen = np.uint16(image) * 257  # 255 * 257 = 65535：16 位的最大值 · the largest 16-bit number

    # v2 用两步代替 ToTensor：对 uint8，两者的结果几乎相同；16 位整数也会被 v2 缩放
    # v2 replaces ToTensor with two steps. For uint8, the results are nearly equal. v2 also scales 16-bit integers.
    today = v2.Compose([v2.ToImage(), v2.ToDtype(torch.float32, scale=True)])
    print((ToTensor()(image) - today(image)).abs().max())

    # 输入 numpy.ndarray：每行依次是输入的类型、ToTensor 的结果、v2 的结果
    # Pass a numpy.ndarray. Each row shows the type of the input, the result of ToTensor, and that of v2.
    for pixels in (image, sixteen, np.float32(image), np.float64(image)):
        print(f"{pixels.dtype!s:8}{span(ToTensor()(pixels)):33}{span(today(pixels))}")

    # 输入 PIL.Image：8 位灰度图（L）两者几乎相同。16 位（I;16）要用 v2：ToTensor 得到 int16，超过 32767 的值变成负数。
    # 模式 I 和 F 的图片，ToTensor 和 v2 都不会缩放到 0 到 1，要自己除以取值的上限。
    # Pass a PIL.Image. For 8-bit gray (L), both nearly agree. For 16 bits (I;16), use v2, because ToTensor returns
    # int16, in which values above 32767 become negative. Neither ToTensor nor v2 scales the modes I and F to
    # the full range 0...1, so divide such a picture by its largest possible value yourself.
    for pixels in map(Image.fromarray, (image, sixteen, np.int32(sixteen), np.float32(image))):
        print(f"{pixels.mode:8}{span(ToTensor()(pixels)):33}{span(today(pixels))}")


def bits(args):
    """笔记之外：超过 8 位的图片 · Not in the notes: pictures with more than 8 bits

    CT 图片多为 int16，用标志 0 读入只剩几级灰度；应该原样读入，再按最小值和最大值缩放。
    CT slices are often int16, and the flag 0 keeps only a few of their gray levels. Read such a file
    unchanged, and then scale its range, from minimum to maximum, to 0...255.
    """
    # 用标志 0 读入，还剩多少级灰度？图片是脚本画的 CT 切片；你给的 IMAGE 如果是 16 位的，就用 IMAGE
    # How many gray levels does the flag 0 keep? The picture is a drawn CT slice, or your IMAGE if it has 16 bits.
    image = cv2.imread(args.sixteen, 0)
    print(image.dtype, len(np.unique(image)), "gray levels")

    # 标志 0 只保留两个字节中的高字节，符号也丢了，所以空气（-1000）比骨头（1000）还亮
    # The flag 0 keeps the upper of the two bytes and loses the sign, so air (-1000) is brighter than bone (1000).
    print(cv2.imdecode(cv2.imencode(".tif", np.int16([[-1000, -1, 0, 1000]]))[1], 0))

    # 原样读入，再线性缩放，使最小值变成 0，最大值变成 255
    # Read the file unchanged, and scale it so that its minimum becomes 0 and its maximum becomes 255.
    sixteen = cv2.imread(args.sixteen, cv2.IMREAD_UNCHANGED)
    print(sixteen.dtype, sixteen.min(), sixteen.max())
    scaled = cv2.normalize(sixteen, None, 0, 255, cv2.NORM_MINMAX, cv2.CV_8U)
    print(scaled.dtype, len(np.unique(scaled)), "gray levels")


def normalize(args):
    """class torchvision.transforms.Normalize(mean, std) · Normalized_image=(image-mean)/std

    对每个通道做标准化：减去均值，再除以标准差（不是方差）。
    Normalize subtracts a given mean per channel and divides by a given standard deviation (not a variance).
    """
    # 均值 0.5，标准差 0.25：取值范围从 [0, 1] 变成 [-2, 2]
    # With a mean of 0.5 and a standard deviation of 0.25, the range [0, 1] becomes [-2, 2].
    image = ToTensor()(cv2.imread(args.gray, 0))
    normalized = Normalize([0.5], [0.25])(image)
    print(normalized.min(), normalized.max())

    # 用公式自己算一遍，结果完全相同
    # Computing the formula by hand gives exactly the same result.
    print(torch.equal(normalized, (image - 0.5) / 0.25))

    # 图片只有一个通道，却给出三个通道的均值和标准差：Normalize 会报错
    # Normalize raises an error if it gets three means and standard deviations for a picture with one channel.
    with refused(RuntimeError):
        Normalize(MEAN, STD)(image)


def blue_green_red(args):
    """cv2.imread(img, 1)：返回结果为type: numpy.ndarray，多维数组 · OpenCV's channels are blue, green, red

    多维数组的通道顺序是 BGR；文件读不出来时返回 None，而不是报错。
    The array has its channels in the order blue, green, red. If imread cannot read a file, it returns None.
    """
    image = cv2.imread(args.color, 1)
    print(type(image), image.shape)

    # 用 cvtColor 转成 RGB，红色就成了第一个通道；image[..., ::-1] 的步幅是负数，ToTensor 不接受
    # cvtColor converts to RGB, so red comes first. ToTensor refuses image[..., ::-1], which has a negative stride.
    rgb = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
    print(np.array_equal(rgb[..., 0], image[..., 2]))

    # 一个红色像素，先按 BGR、再按 RGB 标准化：均值和标准差的顺序是 RGB，所以只有第二个结果是对的
    # Normalize a red pixel as BGR, then as RGB. MEAN and STD are in RGB order, so only the second is right.
    for red in ([0, 0, 255], [255, 0, 0]):
        print(Normalize(MEAN, STD)(ToTensor()(np.uint8([[red]]))).flatten())

    # 文件不存在，或者 PNG、TIFF 只有前一半时，imread 返回 None。JPEG 只有前一半时，图片尺寸不变，但靠下的像素丢失了。
    # 读这些文件时，OpenCV 自己也会打印几行警告。
    # imread returns None for a missing file, and for half a PNG or TIFF. From half a JPEG, it returns
    # an array of full size, whose lower rows are lost. OpenCV prints warnings of its own about these files.
    print(cv2.imread("no-such-file.png", 1))
    for suffix in (".png", ".tif", ".jpg"):
        data = cv2.imencode(suffix, image)[1]
        data[: len(data) // 2].tofile(args.back)
        half = cv2.imread(args.back, 1)
        print(suffix, None if half is None else half.shape)

    # 在 Windows 上，路径里有中文时 imread 也返回 None；先读出字节，再用 imdecode 解码，什么路径都可以
    # On Windows, imread returns None for a path with Chinese characters, too. Decode the bytes instead.
    print(np.array_equal(cv2.imdecode(np.fromfile(args.color, np.uint8), 1), image))


def back_to_a_file(args):
    """笔记之外：从张量回到图片 · Not in the notes: from a tensor back to a file

    撤销标准化，四舍五入，转回 BGR，再写成文件：每个像素都与原图相同。
    Undo Normalize, round, convert back to BGR and write the file. Every pixel is the same as in the original.
    """
    image = cv2.imread(args.color, 1)
    tensor = Normalize(MEAN, STD)(ToTensor()(cv2.cvtColor(image, cv2.COLOR_BGR2RGB)))
    print(tensor.shape, tensor.min(), tensor.max())

    # 把通道移到最后一维，再撤销标准化：乘以标准差，加上均值
    # Move the channels to the last dimension, multiply by the standard deviation, and add the mean.
    rgb = tensor.permute(1, 2, 0) * torch.tensor(STD) + torch.tensor(MEAN)

    # 先四舍五入，再限制在 0 到 255，因为 .byte() 会直接舍去小数，还会把 256 变成 0
    # Round and clamp the values first, because .byte() drops the fraction and can turn 256 into 0.
    rgb = (rgb * 255).round().clamp(0, 255).byte().numpy()
    cv2.imwrite(args.back, cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))
    same = np.array_equal(cv2.imread(args.back, 1), image)
    print(same)


SECTIONS = [grayscale, brute_force, width_first, to_tensor, bits, normalize, blue_green_red, back_to_a_file]


def main(argv: list[str] | None = None) -> dict:
    """Run the sections. Return the variables of each section by its name, and the files that were written.

    依次运行各节，返回每一节的变量，以及写出的文件。
    """
    make_stdout_tolerant()
    args = make_parser().parse_args(argv)
    torch.manual_seed(args.seed)
    args.out_dir.mkdir(parents=True, exist_ok=True)

    # 在 Windows 上，OpenCV 打不开含中文的路径，所以各节在一个路径不含中文的临时文件夹里读写
    # On Windows, OpenCV cannot open a path with Chinese characters, so the sections use an ASCII-only path.
    names = ["gray.tif", "color.png", "slice.tif", "from-a-tensor.png"]
    parent = next(name for name in (str(args.out_dir), tempfile.gettempdir(), ".") if name.isascii())
    with tempfile.TemporaryDirectory(dir=parent) as made:
        args.gray, args.color, args.sixteen, args.back = (f"{parent}/{Path(made).name}/{name}" for name in names)
        try:
            write_pictures(args)
        except (OSError, ValueError) as error:
            sys.exit(f"error: {error}")
        results = {section.__name__: run(section, args) for section in SECTIONS}
        names = names if args.image is None else names[3:]
        for name in names:
            (args.out_dir / name).write_bytes(Path(made, name).read_bytes())

    files = {name: args.out_dir / name for name in ["cv2-tensor-steps.png", *names]}
    draw_contact_sheet(results, files["cv2-tensor-steps.png"])
    print("\nWritten:", *files.values(), sep="\n  ")
    return results | {"files": files}


# ---- Below: sessions, command line, pictures. The lesson ends here. ----


def run(section: Callable, args: argparse.Namespace, before: str = "") -> dict:
    """Run a section like an interactive session: print each line after ">>> ", just before that line runs.

    First print the section's docstring, then the text `before`. Return the section's variables as they are
    at its end. If a debugger already traces the lines, it stays active, and the lines are not printed.
    """
    lines, first = inspect.getsourcelines(section)
    docstring = "".join(lines).split('"""')[1]  # python -OO removes section.__doc__.
    heading, _, explanation = inspect.cleandoc(docstring).partition("\n\n")
    print(f"\n======== {heading} ({section.__name__})\n{explanation}\n\n{before}", end="")

    waiting = list(enumerate(lines, start=first))[docstring.count("\n") + 2 :]
    variables = {}

    def trace(frame, event, _):
        if frame.f_code is not section.__code__:
            return None
        while waiting and waiting[0][0] <= frame.f_lineno:
            _, code = waiting.pop(0)
            print(f">>> {code[4:]}" if code.strip() else code, end="")
        if event == "return":
            variables.update(frame.f_locals)
            sys.settrace(None)
        return trace

    sys.settrace(sys.gettrace() or trace)
    section(args)
    return variables


@contextmanager
def refused(kind: type[Exception]) -> Iterator[None]:
    """Expect an error of this kind in the block below, print the first sentence of its message, and go on."""
    try:
        yield
    except kind as error:
        sentence = str(error).strip().partition("\n")[0].partition(". ")[0]
        print(f"{type(error).__name__}: {sentence}")
    else:
        raise AssertionError(f"an error of kind {kind.__name__} was expected here, but none was raised")


def make_parser() -> argparse.ArgumentParser:
    # fmt: off
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0], allow_abbrev=False,
        epilog="example: python %(prog)s photo.jpg --size 320 160 --out-dir try")
    parser.add_argument("image", metavar="IMAGE", type=Path, nargs="?",
        help="picture file to read; section bits uses it only if it has 16 bits (default: drawn pictures)")
    parser.add_argument("--size", metavar=("W", "H"), type=length, nargs=2,
        help="width and height to which width_first resizes, each at most 4096 (default: half of the picture's)")
    parser.add_argument("--seed", type=lambda text: whole_number(text, 0), metavar="N", default=0,
        help="seed for the random noise in the drawn slice (default: %(default)s)")
    parser.add_argument("--out-dir", type=Path, metavar="DIR", default=Path("outputs", "cv2_tensor"),
        help="folder for the pictures; it is created if it is missing (default: %(default)s)")
    # fmt: on
    return parser


def length(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 4096:
        raise argparse.ArgumentTypeError("must be a whole number between 1 and 4096")
    return int(text)


def whole_number(text: str, least: int = 1) -> int:
    if not text.isdecimal() or not least <= int(text) < 2**63:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least {least}, and below 2**63")
    return int(text)


def make_stdout_tolerant() -> None:
    """Make print() write "?" for a character that the console cannot show, instead of raising an error."""
    if hasattr(sys.stdout, "reconfigure"):  # A notebook's sys.stdout has no such method and needs none.
        sys.stdout.reconfigure(errors="replace")


def read_picture(file: Path) -> list[np.ndarray]:
    """Return the user's picture three times: in gray, in color, and unchanged. Any path works.

    Raise OSError or ValueError with the reason if it cannot be read.
    """
    data = np.fromfile(file, np.uint8)
    pictures = [cv2.imdecode(data, flag) if len(data) else None for flag in (0, 1, cv2.IMREAD_UNCHANGED)]
    if pictures[-1] is None:
        raise ValueError(f"{file} is not a picture that OpenCV can read")
    if pictures[-1].dtype.itemsize > 2:
        raise ValueError(f"{file} has pixels of type {pictures[-1].dtype}; choose a file with 8 or 16 bits per channel")
    return pictures


def write_pictures(args: argparse.Namespace) -> None:
    """Write the files that the sections read: drawn pictures, or IMAGE in gray and in color."""
    ct = np.full((512, 512), -1000, np.float32)  # air
    cv2.ellipse(ct, (256, 256), (220, 170), 0, 0, 360, -30, -1)  # the body
    cv2.ellipse(ct, (165, 240), (75, 110), 0, 0, 360, -800, -1)  # the lungs
    cv2.ellipse(ct, (347, 240), (75, 110), 0, 0, 360, -800, -1)
    cv2.circle(ct, (256, 365), 33, 850, -1)  # the spine
    ct = (ct + 50 * torch.randn(512, 512).numpy()).clip(-1000, 1000).astype(np.int16)
    gray = cv2.normalize(ct, None, 0, 255, cv2.NORM_MINMAX, cv2.CV_8U)
    color = np.tile(np.uint8(np.linspace(90, 250, 320))[:, None], (240, 1, 3))
    cv2.circle(color, (80, 90), 50, (0, 0, 255), -1)  # red, because OpenCV draws in BGR as well
    cv2.circle(color, (265, 150), 40, (255, 0, 0), -1)
    if args.image is not None:
        gray, color, unchanged = read_picture(args.image)
        if unchanged.dtype.itemsize == 2:
            print("!!! 标志 0 和 1 只保留 16 位中的 8 位，见 bits · Flags 0 and 1 keep 8 of 16 bits; see section bits")
            ct = unchanged
    for file, picture in {args.gray: gray, args.color: color, args.sixteen: ct}.items():
        cv2.imwrite(file, picture)


def draw_contact_sheet(results: dict, file: Path) -> None:
    """Draw the pictures among the variables of each section. Below each, write what black and white stand for."""
    figure = Figure(figsize=(11, 12), layout="constrained")
    for part, (section, variables) in zip(figure.subfigures(4, 2, hspace=0.03).flat, results.items()):
        part.suptitle(section, weight="bold")
        images = {name: it for name, it in variables.items() if getattr(it, "ndim", 0) in (2, 3)}
        # In a debugger, `run` returns no variables, so a part of the figure can be empty.
        for ax, (name, image) in zip(part.subplots(1, len(images) or 1, squeeze=False)[0], images.items()):
            array = np.asarray(image, dtype=np.float32)
            if array.ndim == 3 and (torch.is_tensor(image) or array.shape[2] > 4):
                array = array.transpose(1, 2, 0)  # from channels first to channels last
            low, high = array.min(), array.max()
            step = 1 + max(array.shape) // 400  # For a large photo, some of the pixels are enough.
            ax.imshow((array[::step, ::step] - low) / max(high - low, 1e-6), cmap="gray")
            ax.set_title(f"{name}\n{tuple(image.shape)}", fontsize=10, color="red" if name == "wrong" else "black")
            ax.set(xlabel=f"{image.dtype}\nblack {low:.5g}, white {high:.5g}", xticks=[], yticks=[], anchor="N")
    figure.savefig(file)
    if "ipykernel" in sys.modules:  # A notebook shows the sheet as well.
        from IPython.display import display

        display(figure)


if __name__ == "__main__":
    main()

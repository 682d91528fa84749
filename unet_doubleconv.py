"""The channel error in a U-Net's DoubleConv: find the layer, correct it, and segment images.

Notes: https://github.com/yearing1017/PyTorch_Note
Pytorch_已解决问题_1

    python unet_doubleconv.py   # This needs no data, because the script draws the pictures.

This script needs Python 3.10 or newer, PyTorch 2.6 or newer, torchvision, opencv-python, matplotlib and tqdm.

On 64 held-out drawings, the U-Net finds the bags with an intersection over union (IoU) of 0.962, where 1 is
perfect. This was measured with seed 0 on 2 CPU cores with PyTorch 2.15.

**Try**

    python unet_doubleconv.py --epochs 2                      # 0.932, in half the time of the default five epochs
    python unet_doubleconv.py --lr 0.0005                     # 0.953: with smaller steps, the loss stays higher
    python unet_doubleconv.py --train-images 30 --epochs 30   # 0.960: fewer drawings, but each is used more often

These commands show what an option does. To choose a value, do not compare results on the test images. Use
validation images instead, which are used neither for training nor for the test.

To train the network on your own pictures, run `python -m own_data.pictures --images DIR --masks DIR`.
"""

import argparse
import shutil
import sys
from pathlib import Path

import cv2
import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision import tv_tensors
from torchvision.transforms import v2
from tqdm import tqdm

# 超参数：图片的边长（160）和批的大小（4）与笔记相同
# Hyperparameters. The height and width of the images and the batch size are those of the notes.
SIZE = 160
BATCH_SIZE = 4
EPOCHS = 5
LEARNING_RATE = 0.005
TRAIN_IMAGES = 200
HELD_OUT_IMAGES = 64
OUT_DIR = Path("outputs", "unet_doubleconv")

# U-Net 给图片的每个像素分类：沿下采样路径，每个位置看到的范围越来越大，网络从而知道图里有什么。
# 上采样路径再指出各个物体在哪里，跳跃连接把下采样时丢失的轮廓找回来。
# A U-Net classifies every pixel of an image. Its downsampling path halves the height and width four times. Each
# position therefore sees more and more of the image, and the network recognizes what the image shows. On its
# upsampling path, it finds out where everything is, and skip connections bring back the outlines that were
# lost on the downsampling path.


class WrongDoubleConv(nn.Module):
    """Repeat the mistake of the notes: the second convolution takes `in_channels`. This raises the error in the notes:

    RuntimeError: Given groups=1, weight of size 64 3 3 3, expected input[4, 64, 158, 158] to have 3 channels, but got 64 channels instead

    The weight of a Conv2d has the size [out_channels, in_channels, kernel height, kernel width].

    笔记里出错的模块：第二个卷积的输入应该是第一个卷积的输出，这里却把两个卷积的输入通道数设成了一样。
    """  # noqa: E501

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        # 构建一个“容器网络”：它按顺序调用其中的每一层
        # Build a container, which calls its layers one after another.
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


@torch.no_grad()
def trace_shapes(model: nn.Module, images: Tensor) -> None:
    """Call the model, and print the input shapes of each of its parts. If a part fails, raise its error.

    A forward pre-hook runs before its part, so the last line that is printed names the part that raised the error. A
    forward hook runs after its part, so it would print nothing for the part that raised the error.

    逐层打印输入的形状：钩子（pre-hook）在每一层计算之前运行，所以报错时，打印的最后一行就是出错的那一层。
    """

    def show(part, inputs):
        print(f"  {names[part]}: {type(part).__name__} gets", *(tuple(x.shape) for x in inputs))

    # 给模型的每个部分挂上钩子；最后一定要取下，报错时也一样，否则以后每次调用这个模型都会打印
    # Each part of the model gets a hook. All hooks are removed at the end, even after an error. Otherwise, every later
    # call of the model would print the shapes as well.
    names = {part: name for name, part in model.named_children()}
    hooks = [part.register_forward_pre_hook(show) for part in names]
    try:
        model(images)
    finally:
        for hook in hooks:
            hook.remove()


class DoubleConv(nn.Module):
    """Turn x (N, in_channels, H, W) into (N, out_channels, H - 4, W - 4). With padding=1, H and W stay the same.

    Without `padding`, the two convolutions are the corrected lines of the notes:
    nn.Conv2d(in_channels,out_channels,kernel_size=3) and nn.Conv2d(out_channels,out_channels,kernel_size=3).

    改好的模块：第二个卷积的输入通道数改为out_channels。
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


def find_the_layer() -> None:
    """Print the shapes up to the layer that raises the error, the error itself, and the shapes after the correction.

    解决思路：打印了一下输入的size，没有错误；于是逐层打印，找到报错的那一层，再验证改好的模块。
    """
    images = torch.rand(4, 3, SIZE, SIZE)
    print("输入是 3 个通道，没有错误。逐层打印输入的形状，就能看出报错的是哪一层：")
    print("The input has 3 channels, which is right. The shapes show which layer raises the error:")
    try:
        trace_shapes(WrongDoubleConv(3, 64).double_conv, images)
    except RuntimeError as error:
        print(f"RuntimeError: {error}\n")
    print("第二个卷积的输入应该是第一个卷积的输出，有 64 个通道，所以改为out_channels。")
    print("The first convolution returns 64 channels, so the second must take out_channels channels.\n")
    print("3x3 卷积使高和宽各减少 2；padding=1 先在四周补一圈 0，高和宽就不变：")
    print("A 3x3 convolution reduces the height and width by 2. With padding=1, a border of zeros prevents this:")
    for padding in (0, 1):
        shape = tuple(DoubleConv(3, 64, padding)(images).shape)
        print(f"  DoubleConv(3, 64, padding={padding}): {tuple(images.shape)} -> {shape}")


class Down(nn.Sequential):
    """Halve the height and width: x (N, in_channels, H, W) becomes (N, out_channels, H/2, W/2).

    下采样：池化使高和宽减半，之后同样大小的卷积核看到的范围，在高和宽上都是原来的两倍。
    """

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__(nn.MaxPool2d(2), DoubleConv(in_channels, out_channels, padding=1))


class Up(nn.Module):
    """Double the height and width of x, and join the result with `skip`, the features of the same size.

    `skip` comes from the downsampling path.

    x (N, in_channels, H, W) and skip (N, out_channels, 2H, 2W) become (N, out_channels, 2H, 2W).

    上采样：高和宽加倍，再与下采样路径上同样大小的特征拼接。
    """

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        # 转置卷积：用学到的权重把每个位置展开成 2x2 个像素，所以高和宽加倍
        # This transposed convolution spreads each position over 2x2 pixels, with weights that it learns.
        self.up = nn.ConvTranspose2d(in_channels, out_channels, kernel_size=2, stride=2)
        # 拼接后的通道数是 out_channels 的两倍：一半来自下面一级，一半来自跳跃连接
        # The joined input has 2 * out_channels channels: half from the level below, half from the skip connection.
        self.conv = DoubleConv(2 * out_channels, out_channels, padding=1)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        # 跳跃连接：x 说明图里有什么，skip 还保留着池化之前的清晰轮廓，两者沿通道这一维拼接
        # Join skip and the upsampled x along the channel dimension. x tells what is in the image, and skip
        # still has the sharp outlines.
        return self.conv(torch.cat([skip, self.up(x)], dim=1))


class UNet(nn.Module):
    """Turn images (N, 3, H, W) into logits (N, classes, H, W): at each pixel, one score for each class.

    H and W must be multiples of 16, because they are halved four times.
    The network follows "U-Net" by Ronneberger, Fischer and Brox (2015). The original begins with 64 channels and has
    no padding. This one begins with 16 to be faster on a CPU. With two classes, it has 1,944,066 parameters.

    U-Net：四次下采样，四次上采样；输出是每个像素在每一类上的得分（logits）。
    """

    def __init__(self, classes: int = 2):
        super().__init__()
        self.inc = DoubleConv(3, 16, padding=1)  # (N, 3, H, W) -> (N, 16, H, W)
        self.down1 = Down(16, 32)  # -> (N, 32, H/2, W/2)
        self.down2 = Down(32, 64)  # -> (N, 64, H/4, W/4)
        self.down3 = Down(64, 128)  # -> (N, 128, H/8, W/8)
        self.down4 = Down(128, 256)  # -> (N, 256, H/16, W/16)
        self.up1 = Up(256, 128)  # -> (N, 128, H/8, W/8)
        self.up2 = Up(128, 64)  # -> (N, 64, H/4, W/4)
        self.up3 = Up(64, 32)  # -> (N, 32, H/2, W/2)
        self.up4 = Up(32, 16)  # -> (N, 16, H, W)
        self.outc = nn.Conv2d(16, classes, kernel_size=1)  # -> (N, classes, H, W)

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


class Augmented(Dataset):
    """Return the training images and masks, randomly changed, so that they differ in every epoch.

    `images` is uint8 (N, 3, H, W), `masks` is uint8 (N, H, W), and `flips` is a list of transforms. Each item
    consists of an image, float32 (3, H, W) with values in [0, 1], and its mask, int64 (H, W).

    数据增强：每次读取图片都随机翻转、改变亮度，所以每轮看到的图片都不一样。
    """

    def __init__(self, images: Tensor, masks: Tensor, flips: list[nn.Module]):
        self.images, self.masks = images, masks
        brightness, scale = v2.ColorJitter(0.3), v2.ToDtype(torch.float32, scale=True)
        self.transform = v2.Compose([*flips, brightness, scale])

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        # 标明哪个是图片、哪个是掩码：要翻转就一起翻转，改变亮度和取值范围时，则只改图片
        # The types Image and Mask tell the transforms to flip both or neither, and to leave the values of a mask alone.
        image, mask = tv_tensors.Image(self.images[index]), tv_tensors.Mask(self.masks[index])
        image, mask = self.transform(image, mask)
        return image, mask.long()


def train_one_epoch(model, loader, criterion, optimizer, device, scheduler) -> float:
    """Train on each batch once. Return the mean loss over all images, measured just before each update.

    训练一轮，返回平均损失。损失逐批累计，而权重每一步都在变，所以它反映的是整轮训练，而不是这一轮结束时的模型。
    """
    model.train()
    total_loss, count = 0.0, 0
    for images, masks in tqdm(loader, leave=False, disable=None):
        images, masks = images.to(device), masks.to(device)

        # forward 计算：每个像素在每一类上得到一个得分，损失衡量这些得分与掩码相差多少
        # Forward pass: each pixel gets a score for each class. The loss measures how far the scores are from the mask.
        logits = model(images)
        loss = criterion(logits, masks)

        # 反向传播和优化：先把梯度清零，否则新的梯度会加到上一步的梯度上
        # Backpropagate and update the weights. Without zero_grad(), gradients would add up over the steps.
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step()  # 每一步都调整学习率 · Set the learning rate for the next step.

        # loss 是这一批图片的平均损失，乘以图片数再累加，这样即使各批大小不同，算出的平均损失也正确
        # The loss is the mean over a batch. It is multiplied by the number of images, so that each image counts
        # equally, even if the batches differ in size.
        total_loss += loss.item() * len(masks)
        count += len(masks)
    return total_loss / count


@torch.no_grad()
def segment(model: nn.Module, images: Tensor, device: torch.device, batch_size: int = BATCH_SIZE) -> Tensor:
    """Return the predicted masks, uint8 (N, H, W), for images, uint8 (N, 3, H, W).

    分割图片：每个像素取得分最大的那一类。
    """
    model.eval()
    masks = []
    for batch in images.split(batch_size):
        # 与训练时一样缩放到 [0, 1] · Scale to [0, 1], as in training.
        logits = model(batch.to(device) / 255)
        masks.append(logits.argmax(dim=1).byte().cpu())
    return torch.cat(masks)


def class_iou(predicted: Tensor, masks: Tensor, value: int) -> float:
    """Return the intersection over union (IoU) of the class that has the value `value` in the masks.

    IoU = (pixels that have the class in both masks) / (pixels that have it in at least one of them).
    The pixels of all masks are counted together. The IoU is 1 if the masks agree, 0 if they have no pixel of the class
    in common, and nan if neither has the class.

    交并比：在两个掩码里都属于这一类的像素数，除以至少在一个掩码里属于这一类的像素数；1 表示完全一致。
    """
    predicted, true = predicted == value, masks == value
    return ((predicted & true).sum() / (predicted | true).sum()).item()


def main(argv: list[str] | None = None) -> dict:
    """Find the wrong layer, train a U-Net, test it, save it, and load it again. Return the results and the files.

    完整流程：找到并改正错误，训练 U-Net 并测试，保存参数，再载入使用。
    """
    make_stdout_tolerant()
    args = make_parser().parse_args(argv)
    torch.manual_seed(args.seed)
    device = choose_device(args.device)
    args.out_dir.mkdir(parents=True, exist_ok=True)
    print("Pytorch_已解决问题_1 · The channel error in a U-Net\n")
    find_the_layer()

    # 数据集：图片和掩码由脚本画出；留出的图片不参加训练，只用来测试。
    # 图片是 uint8 (N, 3, 160, 160)，掩码是 uint8 (N, 160, 160)，0 是背景，1 是手提包
    # The script draws the images, uint8 (N, 3, 160, 160), and the masks, uint8 (N, 160, 160), in which 0 is the
    # background and 1 is the bag. The held-out images are used for the test only.
    train_set = Augmented(*draw_bags(args.train_images, seed=0), flips=[v2.RandomHorizontalFlip()])
    test_images, test_masks = draw_bags(HELD_OUT_IMAGES, seed=1)
    train_loader = DataLoader(train_set, args.batch_size, shuffle=True)

    # 把每个像素的各个通道放在相邻的内存里，CPU 上的卷积会更快
    # Keep the channels of each pixel side by side in memory, which makes convolutions faster on a CPU.
    layout = torch.channels_last if device.type == "cpu" else torch.contiguous_format
    model = UNet().to(device, memory_format=layout)
    print("\n用改好的 DoubleConv 搭建 U-Net · The U-Net is built from the corrected DoubleConv\n")
    print("每一级的输入形状；up1 到 up4 的输入除了下面一级的输出，还有跳跃连接送来的特征：")
    print("These are the shapes that each stage gets. up1 to up4 also get the features from the skip connections:")
    trace_shapes(model.eval(), test_images[:1].to(device) / 255)
    print(f"\n{len(train_set)} training images, {len(test_images)} held-out images, on {device}\n")

    # 损失函数和优化器：对每个像素都做一次分类，交叉熵逐个像素比较得分与掩码，再取平均
    # Loss function and optimizer. Each pixel is classified, so the cross entropy compares the logits (N, 2, H, W) with
    # the masks (N, H, W) pixel by pixel, and returns the mean.
    criterion = nn.CrossEntropyLoss()
    optimizer = torch.optim.Adam(model.parameters(), lr=args.lr)
    # 学习率先升到 --lr，再降到接近 0：开始时权重还是随机的，步子要小；最后步子也要小，权重才能稳定下来
    # The learning rate rises to --lr and then falls to almost 0. The first steps are short because the weights are
    # still random, and the last steps are short so that the weights can settle. While the rate is high, OneCycleLR
    # also lowers the momentum of Adam (beta1).
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, args.lr, args.epochs * len(train_loader))

    # 训练模型：每轮之后在留出的图片上测试一次 · Train, and test after each epoch
    print("IoU（交并比）= 两个掩码里都是这一类的像素数 / 至少在一个掩码里是这一类的像素数；学习率大时，IoU 可能下降。")
    print("IoU is the overlap of the two masks, divided by their union. It may fall while the learning rate is large.")
    losses, bag_ious, background_ious = [], [], []
    for epoch in range(1, args.epochs + 1):
        loss = train_one_epoch(model, train_loader, criterion, optimizer, device, scheduler)
        if not torch.tensor(loss).isfinite():
            sys.exit(f"error: the training loss is {loss}; try a smaller --lr")
        predicted = segment(model, test_images, device, args.batch_size)
        bag, background = class_iou(predicted, test_masks, 1), class_iou(predicted, test_masks, 0)
        losses.append(loss)
        bag_ious.append(bag)
        background_ious.append(background)
        if epoch == args.epochs or epoch % max(1, args.epochs // 10) == 0:  # 最多 19 行 · at most 19 lines
            print(f"epoch {epoch}: loss {loss:.4f}, IoU of the bag {bag:.4f}, of the background {background:.4f}")

    # 保存模型参数，再载入到新建的模型里：以后在别的程序里使用，也是这样载入
    # map_location：没有 GPU 的电脑也能载入在 GPU 上训练的权重；weights_only：不执行文件里可能藏着的代码
    # Save the parameters, and load them into a new model, as another program would. With map_location, a computer
    # without a GPU can load weights saved on a GPU. With weights_only, no code hidden in the file is run.
    weights = args.out_dir / "unet.pt"
    torch.save(model.state_dict(), weights)
    loaded = UNet()
    loaded.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    mask = segment(loaded, test_images[:1], torch.device("cpu"))
    print(f"\nHeld-out image 0, segmented by the loaded model: IoU of the bag {class_iou(mask, test_masks[:1], 1):.4f}")

    for value, chinese, english in ((0, "背景", "background"), (1, "手提包", "bag")):
        if value not in predicted:
            print(f"!!! 没有一个像素被预测为{chinese}：请增加 --epochs，或换一个 --lr")
            print(f"!!! No pixel is predicted as {english}. Try more --epochs, or another --lr.")
    files = {"weights": weights, "masks": args.out_dir / "unet-masks.png", "curves": args.out_dir / "unet-curves.png"}
    plot_masks(test_images, test_masks, predicted, files["masks"])
    plot_history({"training loss": losses, "held-out IoU of the bag": bag_ious}, files["curves"])
    print(f"\nIoU on held-out drawings: bag {bag:.4f}, background {background:.4f}")
    print_files(files)
    return {"train_loss": losses, "iou": bag_ious, "iou_background": background_ious, "files": files}


# ---- Below: command line, device, drawings, pictures. The lesson ends here. ----


def make_parser() -> argparse.ArgumentParser:
    # fmt: off
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0], allow_abbrev=False,
        epilog="example: python %(prog)s --epochs 2 --out-dir try")
    train = parser.add_argument_group("training")
    train.add_argument("--train-images", type=whole_number, metavar="N", default=TRAIN_IMAGES,
        help="how many images to draw for training (default: %(default)s)")
    train.add_argument("--epochs", type=whole_number, metavar="N", default=EPOCHS,
        help="how many times to go through the training images (default: %(default)s)")
    train.add_argument("--batch-size", type=whole_number, metavar="N", default=BATCH_SIZE,
        help="how many images to take in each training step (default: %(default)s)")
    train.add_argument("--lr", type=float, metavar="X", default=LEARNING_RATE,
        help="largest learning rate: how far the longest steps go (default: %(default)s)")
    train.add_argument("--seed", type=lambda text: whole_number(text, 0), metavar="N", default=0,
        help="seed for everything random in the training, not for the drawings (default: %(default)s)")
    train.add_argument("--device", default="auto",
        help="device to use, such as cpu, cuda, cuda:1 or mps; auto uses a working GPU or else the CPU (default: auto)")
    files = parser.add_argument_group("output")
    files.add_argument("--out-dir", type=Path, metavar="DIR", default=OUT_DIR,
        help="folder for the weights and the pictures; it is created if it is missing (default: %(default)s)")
    # fmt: on
    return parser


def whole_number(text: str, least: int = 1) -> int:
    if not text.isdecimal() or not least <= int(text) < 2**63:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least {least}, and below 2**63")
    return int(text)


def make_stdout_tolerant() -> None:
    """Make print() write "?" for a character that the console cannot show, instead of raising an error."""
    if hasattr(sys.stdout, "reconfigure"):  # A notebook's sys.stdout has no such method and needs none.
        sys.stdout.reconfigure(errors="replace")


def choose_device(name: str) -> torch.device:
    """Return the device with this name. For "auto", return the GPU if there is one that works, otherwise the CPU."""
    gpu = torch.accelerator.is_available() and str(torch.accelerator.current_accelerator())
    if name == "auto" and not gpu and torch.version.cuda and shutil.which("nvidia-smi"):
        print(f"!!! 只能用 CPU：NVIDIA 驱动可能太旧，不支持这个 PyTorch 所用的 CUDA {torch.version.cuda}")
        print(f"!!! This runs on the CPU. The NVIDIA driver may be too old for PyTorch's CUDA {torch.version.cuda}.\n")
    try:
        device = torch.device(gpu or "cpu" if name == "auto" else name)
        torch.ones(1, device=device).add(1).item()  # A GPU that is too old for this PyTorch fails here.
        return device
    except (RuntimeError, AssertionError, ImportError) as error:
        reason = str(error).partition("\n")[0]
        if name != "auto":
            sys.exit(f"error: --device {name} cannot be used here: {reason}")
        print(f"!!! {gpu} 用不了，改用 CPU · {gpu} cannot be used, so this runs on the CPU: {reason}\n")
        return torch.device("cpu")


def draw_bags(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Return images of bags, uint8 (N, 3, SIZE, SIZE), and their masks, uint8 (N, SIZE, SIZE), where 1 is the bag."""
    rng = np.random.default_rng(seed)
    images, masks = zip(*(draw_bag(rng) for _ in range(count)))
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2), torch.from_numpy(np.stack(masks))


def draw_bag(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return an RGB image, uint8 (SIZE, SIZE, 3), and its mask, uint8 (SIZE, SIZE)."""
    # Draw the body and half an ellipse as its handle, then turn and move both a little.
    top, bottom, height, handle = (rng.uniform(0.15, 0.27, 4) * SIZE).astype(int).tolist()
    corners = np.array([(-top, -height), (top, -height), (bottom, height), (-bottom, height)])
    mask = cv2.fillPoly(np.zeros((SIZE, SIZE), np.uint8), [corners + SIZE // 2], 1)
    cv2.ellipse(mask, (SIZE // 2, SIZE // 2 - height), (top // 2, handle), 0, 180, 360, 1, thickness=SIZE // 20)
    turn = cv2.getRotationMatrix2D((SIZE // 2, SIZE // 2), angle=rng.uniform(-25, 25), scale=1)
    turn[:, 2] += rng.uniform(-0.1, 0.1, 2) * SIZE
    mask = cv2.warpAffine(mask, turn, (SIZE, SIZE), flags=cv2.INTER_NEAREST)

    bag, background = draw_texture(rng, rng.uniform(0.6, 0.95)), draw_texture(rng, rng.uniform(0.1, 0.3))
    image = np.where(mask[:, :, np.newaxis] == 1, bag, background) + rng.normal(0, 0.05, bag.shape)
    return (image.clip(0, 1) * 255).astype(np.uint8), mask


def draw_texture(rng: np.random.Generator, saturation: float) -> np.ndarray:
    """Return an RGB image of bright and dark blobs of one hue, float32 (SIZE, SIZE, 3) with values in [0, 1].

    Brightness does not distinguish a bag from its background: both have bright and dark blobs. The colors of
    a bag are more saturated. If you know this, a threshold on the smoothed saturation finds the bags as well
    as the network does. The network has to learn this.
    """
    coarse = rng.uniform(-0.3, 1.3, [rng.integers(9, 34)] * 2)
    hsv = np.full((SIZE, SIZE, 3), (rng.uniform(0, 360), saturation, 0), np.float32)
    hsv[:, :, 2] = cv2.resize(coarse, (SIZE, SIZE), interpolation=cv2.INTER_CUBIC).clip(0.25, 0.9)
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)


def plot_masks(images: Tensor, masks: Tensor, predicted: Tensor, file: Path) -> None:
    """Draw the three images with the lowest IoU of the bag and the three with the highest, each with its masks."""
    ious = [class_iou(found, mask, 1) for found, mask in zip(predicted, masks)]
    order = torch.tensor(ious).argsort().tolist()
    figure = Figure(figsize=(12, 6.8), layout="constrained")
    axes = figure.subplots(3, 6, subplot_kw={"xticks": [], "yticks": []})
    for column, index in zip(axes.T, order[:3] + order[-3:]):
        for ax, picture in zip(column, [images[index].permute(1, 2, 0), masks[index], predicted[index]]):
            ax.imshow(picture.numpy(), cmap="gray", vmin=0, vmax=1)
        column[0].set_title(f"image {index}: IoU {ious[index]:.3f}")
    for ax, label in zip(axes[:, 0], ["image", "true mask", "predicted mask"]):
        ax.set_ylabel(label)
    figure.suptitle("Held-out images: the three worst and the three best. The bag is white, the background black.")
    figure.savefig(file)


def plot_history(curves: dict[str, list[float]], file: Path) -> None:
    """Draw a curve for each list, which has one value for each epoch."""
    figure = Figure(figsize=(6, 3.5), layout="constrained")
    ax = figure.subplots()
    for label, values in curves.items():
        ax.plot(range(1, len(values) + 1), values, ".-", label=label)
    ax.set_xlabel("epoch")
    ax.locator_params(axis="x", integer=True)
    ax.legend()
    figure.savefig(file)


def print_files(files: dict[str, Path]) -> None:
    """Print where the files are. In a notebook, show the pictures as well."""
    print("Written:", *files.values(), sep="\n  ")
    if "ipykernel" in sys.modules:
        from IPython.display import Image, display

        display(*(Image(filename=str(file)) for file in files.values() if file.suffix == ".png"))


if __name__ == "__main__":
    main()

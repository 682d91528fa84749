"""Convolutional networks on MNIST: LeNet, ResNet-18, and a ConvNet with BatchNorm.

Notes: https://github.com/yearing1017/PyTorch_Note
Pytorch_CNN：MINST+卷积神经网络训练测试
LeNet.ipynb：pytorch搭建LeNet网络
ResNet.ipynb：pytorch搭建ResNet

    python cnn_mnist.py                          # This trains ConvNet. The first run downloads MNIST (11 MB).
    python cnn_mnist.py --model lenet            # This trains LeNet. Use resnet for ResNet-18.
    python cnn_mnist.py --dataset digits         # This needs no network.

This script needs Python 3.10 or newer, PyTorch 2.6 or newer, torchvision, matplotlib, tqdm and scikit-learn.

The test accuracy is 99.1% for ConvNet, 97.8% for LeNet, and 99.1% for ResNet-18 after its single epoch,
measured with seed 0 on 2 CPU cores with PyTorch 2.15.

**Try**

    python cnn_mnist.py --limit 1000     # 92.8%: the same ConvNet with too few images and too few steps
    python cnn_mnist.py --model lenet    # 97.8%: LeNet has more parameters, but learns slowly with sigmoids

Afterwards, `python -m own_data.digits photo.png` reads the digits in your own photos.
"""

import argparse
import copy
import shutil
import socket
import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from torchvision import datasets
from tqdm import tqdm

# 超参数：与笔记相同；每个网络的轮数在下面的 MODELS 里
# Hyperparameters, as in the notes. The number of epochs for each network is in MODELS, further down.
BATCH_SIZE = 100
LEARNING_RATE = 0.001
OUT_DIR = Path("outputs", "cnn_mnist")


class ConvNet(nn.Module):
    """Turn images (N, 1, 28, 28) into logits (N, 10): two blocks of convolution, then one linear layer.

    A convolution slides a small window (the kernel) over the image and computes the same weighted sum at every
    place, so a stroke causes the same response wherever it is. Each output channel has a kernel of its own, which
    covers all input channels. With stride 1, a width of n pixels becomes n + 2 * padding - kernel_size + 1.
    BatchNorm brings the values of each channel to a similar range, which makes training faster and more stable.
    Max pooling keeps the largest value of each 2x2 square, so the next convolution sees a larger part of the image.
    The network has 29,034 parameters.

    网络搭建：卷积核在图片上滑动，在每个位置做同样的加权求和，所以同样的笔画无论在哪里，都得到同样的响应；每个输出通道
    有自己的卷积核，覆盖全部输入通道。步幅为 1 时，一行 n 个像素变成 n + 2 * padding - kernel_size + 1 个。
    BatchNorm 让各个通道的数值范围相近，训练更快也更稳定；最大池化只留下每个 2x2 方块里最大的值，
    下一层卷积就能看到更大的范围。
    """

    def __init__(self):
        super().__init__()
        self.layer1 = nn.Sequential(  # (N, 1, 28, 28) -> (N, 16, 14, 14)
            # input_channel: 1, output_channel: 16
            nn.Conv2d(1, 16, kernel_size=5, stride=1, padding=2),  # (N, 16, 28, 28)：padding 使大小不变 · same size
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.MaxPool2d(kernel_size=2, stride=2),  # (N, 16, 14, 14)
        )
        self.layer2 = nn.Sequential(  # (N, 16, 14, 14) -> (N, 32, 7, 7)
            nn.Conv2d(16, 32, kernel_size=5, stride=1, padding=2),  # (N, 32, 14, 14)
            nn.BatchNorm2d(32),
            nn.ReLU(),
            nn.MaxPool2d(kernel_size=2, stride=2),  # (N, 32, 7, 7)
        )
        self.fc = nn.Linear(7 * 7 * 32, 10)

    def forward(self, images: Tensor) -> Tensor:
        out = self.layer1(images)
        out = self.layer2(out)
        # size(0)提取tensor的第一维：batch_size · size(0) is the batch size
        out = out.reshape(out.size(0), -1)  # (N, 32, 7, 7) -> (N, 1568)
        out = self.fc(out)  # (N, 1568) -> (N, 10)
        return out


def train_one_epoch(model, loader, criterion, optimizer, device, scheduler) -> tuple[float, float]:
    """Train on each batch once. Return the mean loss and the accuracy (0 to 1) over the images.

    Both are measured while the weights change, so they describe the whole epoch, not the resulting model.

    训练一轮，返回平均损失和准确率。两者逐批累计，而权重每一步都在变，所以反映的是整轮训练，而不是这一轮结束时的模型。
    """
    # train() 和 eval() 只影响 BatchNorm、Dropout 这类层的行为，但无论什么模型都写上，是个好习惯
    # train() and eval() change only layers such as BatchNorm and Dropout. Calling them is a good habit in any model.
    model.train()
    total_loss, correct, count = 0.0, 0, 0
    for images, labels in tqdm(loader, leave=False, disable=None):
        images, labels = images.to(device), labels.to(device)

        # forward 计算：每张图片得到十个得分，损失衡量这些得分与标签相差多少
        # Forward pass: each image gets ten scores. The loss measures how far they are from the labels.
        logits = model(images)
        loss = criterion(logits, labels)

        # 反向传播和优化：先把梯度清零，否则新的梯度会加到上一步的梯度上
        # Backpropagate and update the weights. Without zero_grad(), gradients would add up over the steps.
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step()

        # loss 是这一批图片的平均损失，乘以图片数再累加，这样即使各批大小不同，算出的平均损失也正确
        # The loss is the mean over a batch. It is multiplied by the number of images, so that each image counts
        # equally, even if the batches differ in size.
        total_loss += loss.item() * len(labels)
        correct += (logits.argmax(dim=1) == labels).sum().item()
        count += len(labels)
    return total_loss / count, correct / count


@torch.no_grad()
def evaluate(model: nn.Module, loader: DataLoader, device: torch.device) -> float:
    """Return the accuracy (0 to 1): the fraction of images whose predicted digit equals the label.

    The digit with the largest logit also has the largest probability, so argmax needs no softmax. A test
    needs no gradients. With no_grad, nothing is recorded for backward(), which saves time and memory.

    测试模型：为了效率，不需进行梯度计算（no_grad），省时间也省内存；返回准确率。
    每张图片挑选得分最大的数字，它的概率也最大，所以不必先做 softmax。
    """
    model.eval()
    correct = 0
    for images, labels in loader:
        predicted = model(images.to(device)).argmax(dim=1)
        correct += (predicted == labels.to(device)).sum().item()
    return correct / len(loader.dataset)


class LeNet(nn.Module):
    """Turn images (N, 1, 28, 28) into logits (N, 10) with two convolutions and three linear layers.

    The network follows LeCun et al., "Gradient-Based Learning Applied to Document Recognition", 1998. The original
    took images of 32x32 pixels. It used tanh, pooling with learnable weights, and a different last layer.
    As in the notebook, this network has sigmoids and max pooling. It has 44,426 parameters.

    pytorch搭建LeNet网络：和笔记一样用 sigmoid 和最大池化；1998 年的原版输入是 32x32，用 tanh，
    池化层带有可学习的权重，最后一层也不同。
    """

    def __init__(self):
        super().__init__()
        self.conv = nn.Sequential(
            nn.Conv2d(1, 6, 5),  # in_channels, out_channels, kernel_size: (N, 6, 24, 24)
            nn.Sigmoid(),
            nn.MaxPool2d(2, 2),  # kernel_size, stride: (N, 6, 12, 12)
            nn.Conv2d(6, 16, 5),  # (N, 16, 8, 8)
            nn.Sigmoid(),
            nn.MaxPool2d(2, 2),  # (N, 16, 4, 4)
        )
        self.fc = nn.Sequential(
            nn.Linear(16 * 4 * 4, 120),
            nn.Sigmoid(),
            nn.Linear(120, 84),
            nn.Sigmoid(),
            nn.Linear(84, 10),
        )

    def forward(self, img: Tensor) -> Tensor:
        feature = self.conv(img)
        # 用 reshape 而不用 view：channels_last 改变了数据在内存里的顺序，这时 view 会报错，reshape 则复制一份数据
        # Use reshape here, not view: channels_last changes the order in memory. view would then raise
        # an error, whereas reshape makes a copy.
        output = self.fc(feature.reshape(img.shape[0], -1))  # (N, 16, 4, 4) -> (N, 256) -> (N, 10)
        return output


class Residual(nn.Module):
    """Turn (N, in, H, W) into (N, out, H / stride, W / stride) with two convolutions and a shortcut.

    H / stride and W / stride are rounded up. The shortcut adds the input to the output. The convolutions then
    only have to learn what to change, and the gradient has a direct path to the early layers of a deep network.
    Where the shape changes, the input cannot be added as it is, so a 1x1 convolution gives it the new shape first.
    See He et al., "Deep Residual Learning for Image Recognition", 2015.

    残差块的实现：捷径（残差连接）把输入加到输出上，卷积只需学习“要改变多少”，梯度也能直接传到前面的层；
    通道数或大小改变时，先用 1x1 卷积把输入变成与输出同样的形状，再相加。
    """

    def __init__(self, in_channels, out_channels, use_1x1conv=False, stride=1):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1, stride=stride)
        self.conv2 = nn.Conv2d(out_channels, out_channels, kernel_size=3, padding=1)
        if use_1x1conv:
            self.conv3 = nn.Conv2d(in_channels, out_channels, kernel_size=1, stride=stride)
        else:
            self.conv3 = None
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.bn2 = nn.BatchNorm2d(out_channels)

    def forward(self, X: Tensor) -> Tensor:
        Y = F.relu(self.bn1(self.conv1(X)))
        Y = self.bn2(self.conv2(Y))
        if self.conv3 is not None:
            X = self.conv3(X)
        return F.relu(Y + X)


def resnet_block(in_channels, out_channels, num_residuals, first_block=False) -> nn.Sequential:
    """Build one stage of residual blocks. All but the first double the channels and halve height and width.

    搭建一个模块，它由几个残差块组成：除第一个模块外，每个模块的第一个残差块把通道数翻倍，并将高和宽减半。
    """
    blk = []
    for i in range(num_residuals):
        if i == 0 and not first_block:
            blk.append(Residual(in_channels, out_channels, use_1x1conv=True, stride=2))
        else:
            blk.append(Residual(out_channels, out_channels))
    return nn.Sequential(*blk)


class ResNet(nn.Module):
    """Turn images (N, 1, H, W) into logits (N, 10). With the default `blocks`, it is ResNet-18.

    The 18 counts the convolution in the stem, two in each of the eight residual blocks, and the linear layer.
    The 1x1 convolutions of the shortcuts are not counted. As in the notebook, the convolutions have biases
    and the shortcuts have no BatchNorm, so the weights of torchvision's ResNet-18 do not fit. The network has
    11,178,378 parameters.

    pytorch搭建ResNet：开头的卷积和池化，四个由残差块组成的模块，全局平均池化层，最后是全连接层。
    ResNet-18 的 18 是卷积层和全连接层的总数，不算捷径里的 1x1 卷积。和笔记一样，卷积带偏置，捷径里没有 BatchNorm，
    所以不能直接载入 torchvision 的 ResNet-18 权重。
    """

    def __init__(self, blocks=(2, 2, 2, 2)):
        super().__init__()
        # 形状：左边是 MNIST 的图片，右边是笔记里的 224x224
        # The shapes on the left are for MNIST. Those on the right are for 224x224 pixels, as in the notebook.
        self.stem = nn.Sequential(  # 28x28              224x224
            nn.Conv2d(1, 64, kernel_size=7, stride=2, padding=3),  # (N, 64, 14, 14)    (N, 64, 112, 112)
            nn.BatchNorm2d(64),
            nn.ReLU(),
            nn.MaxPool2d(kernel_size=3, stride=2, padding=1),  # (N, 64, 7, 7)      (N, 64, 56, 56)
        )
        self.resnet_block1 = resnet_block(64, 64, blocks[0], first_block=True)  # (N, 64, 7, 7)      (N, 64, 56, 56)
        self.resnet_block2 = resnet_block(64, 128, blocks[1])  # (N, 128, 4, 4)     (N, 128, 28, 28)
        self.resnet_block3 = resnet_block(128, 256, blocks[2])  # (N, 256, 2, 2)     (N, 256, 14, 14)
        self.resnet_block4 = resnet_block(256, 512, blocks[3])  # (N, 512, 1, 1)     (N, 512, 7, 7)
        # 全局平均池化层：每个通道取平均 · The mean of each channel
        self.global_avg_pool = nn.AdaptiveAvgPool2d(1)  # (N, 512, 1, 1)     (N, 512, 1, 1)
        self.fc = nn.Sequential(nn.Flatten(), nn.Linear(512, 10))  # (N, 10)            (N, 10)

    def forward(self, images: Tensor) -> Tensor:
        x = self.stem(images)
        x = self.resnet_block1(x)
        x = self.resnet_block2(x)
        x = self.resnet_block3(x)
        x = self.resnet_block4(x)
        return self.fc(self.global_avg_pool(x))


# 每行依次是网络的类、在两个数据集上的轮数、训练结束时学习率与初始值之比。ResNet 在 MNIST 上只训练一轮，学习率不变的话，
# 这一轮结束时权重的好坏全凭运气，所以让它的学习率降到 0
# Each row has the class of a network, its epochs on the two data sets, and the fraction of the learning rate
# that is left at the end. On MNIST, ResNet is trained for only one epoch. With a constant rate, the quality of
# its weights at the end of that epoch would depend on chance, so its rate falls to 0.
MODELS = {
    "convnet": (ConvNet, {"mnist": 5, "digits": 20}, 1.0),
    "lenet": (LeNet, {"mnist": 5, "digits": 100}, 1.0),
    "resnet": (ResNet, {"mnist": 1, "digits": 10}, 0.0),
}


def main(argv: list[str] | None = None) -> dict:
    """Train the model, test it, save it, and load it. Return the name of the data set, the results, and the files.

    完整流程：准备数据，训练并测试，保存参数，再载入使用。
    """
    make_stdout_tolerant()
    parser = make_parser(epochs="5 on MNIST and 20 on the digits for convnet, 5 and 100 for lenet, 1 and 10 for resnet")
    parser.add_argument("--model", choices=MODELS, default="convnet", help="which network to train (default: convnet)")
    args = parser.parse_args(argv)
    torch.manual_seed(args.seed)
    device = choose_device(args.device)
    args.out_dir.mkdir(parents=True, exist_ok=True)
    print(f"卷积神经网络 · A convolutional network: {args.model}\n")

    # 数据集：把 0 到 255 的像素缩放到 [0, 1]，默认的初始权重和学习率适合这样大小的输入；再加上通道这一维
    # Scale the pixels from 0...255 to [0, 1], because the initial weights and the usual learning rates are
    # meant for small inputs. Then add the channel dimension: (N, 1, 28, 28).
    dataset, (images, labels), (test_images, test_labels) = load_data(args.dataset, args.data_dir)
    train_set = TensorDataset(images[: args.limit].unsqueeze(1) / 255, labels[: args.limit])
    test_set = TensorDataset(test_images.unsqueeze(1) / 255, test_labels)
    print(f"{dataset}: {len(train_set):,} training images, {len(test_set):,} test images")

    # 数据加载器：训练图片每轮打乱，丢掉不满的最后一批，因为一批只有一张时，ResNet 最后几层的 BatchNorm 算不出方差
    # Shuffle the training images again in every epoch, and leave out an incomplete last batch. If it had only
    # one image, the last BatchNorm layers of ResNet could not compute a variance.
    train_loader = DataLoader(train_set, args.batch_size, shuffle=True, drop_last=True)
    test_loader = DataLoader(test_set, args.batch_size)
    if args.batch_size == 1 or len(train_loader) == 0:
        sys.exit("error: --batch-size must be at least 2, and at most the number of training images")

    # 模型、损失函数和优化器 · Model, loss function and optimizer
    model_class, default_epochs, final_rate = MODELS[args.model]
    model = model_class().to(device)
    if device.type == "cpu":
        # 把每个像素的各个通道放在相邻的内存里，CPU 上的卷积会更快
        # Keep the channels of each pixel side by side in memory, which makes convolutions faster on a CPU.
        model = model.to(memory_format=torch.channels_last)
    criterion = nn.CrossEntropyLoss()
    optimizer = torch.optim.Adam(model.parameters(), lr=args.lr)
    print(f"{model}, on {device}\n")
    print_shapes(model, test_set[:1][0].to(device))

    # 学习率调度：每一步之后降低一点，到训练结束时，正好沿直线降到原来的 final_rate 倍；1.0 表示保持不变
    # The scheduler lowers the learning rate by the same amount after each step. At the end of the training, the
    # rate is final_rate times its first value. If final_rate is 1.0, the rate stays the same.
    epochs = args.epochs or default_epochs[dataset]
    scheduler = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, final_rate, epochs * len(train_loader))

    # 训练模型：每轮之后测试一次 · Train, and test after each epoch
    results = {"train_loss": [], "train_accuracy": [], "test_accuracy": []}
    for epoch in range(1, epochs + 1):
        loss, accuracy = train_one_epoch(model, train_loader, criterion, optimizer, device, scheduler)
        if not torch.tensor(loss).isfinite():
            sys.exit(f"error: the training loss is {loss}; try a smaller --lr")
        test_accuracy = evaluate(model, test_loader, device)
        results["train_loss"].append(loss)
        results["train_accuracy"].append(accuracy)
        results["test_accuracy"].append(test_accuracy)
        if epoch == epochs or epoch % max(1, epochs // 10) == 0:  # 最多 19 行 · at most 19 lines
            print(f"epoch {epoch}: loss {loss:.4f}, accuracy {accuracy:.2%} (training), {test_accuracy:.2%} (test)")

    # 保存模型参数，再载入到新建的模型里：以后在别的程序里使用，也是这样载入
    # map_location：没有 GPU 的电脑也能载入在 GPU 上训练的权重；weights_only：不执行文件里可能藏着的代码
    # Save the parameters, and load them into a new model, as another program would. With map_location, a computer
    # without a GPU can load weights saved on a GPU. With weights_only, no code hidden in the file is run.
    name = f"{args.model}-{dataset}"
    weights = args.out_dir / f"{name}.pt"
    torch.save(model.state_dict(), weights)
    loaded = model_class()
    loaded.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    loaded.eval()

    # 模型的输入要有批这一维，单张图片用 unsqueeze(0) 加上
    # A single image needs the batch dimension as well, which unsqueeze(0) adds.
    image, label = test_set[0]
    predicted = loaded(image.unsqueeze(0)).argmax(dim=1).item()
    print(f"\nTest image 0 shows a {label}. The loaded model predicts {predicted}.")

    compare_train_and_eval(loaded, test_set)
    curves, mistakes = args.out_dir / f"{name}-curves.png", args.out_dir / f"{name}-mistakes.png"
    plot_curves(results, curves)
    plot_mistakes(model, test_loader, device, mistakes)
    files = {"weights": weights, "curves": curves, "mistakes": mistakes}
    print_result(dataset, test_accuracy, files)
    return results | {"dataset": dataset, "files": files}


@torch.no_grad()
def print_shapes(model: nn.Module, x: Tensor) -> None:
    """Print the output shape of each part of the network. The input x is one image, (1, 1, 28, 28).

    逐层打印输出的形状：（批，通道，高，宽）。
    """
    print("各层输出的形状 · The shape after each part: (batch, channels, height, width)")
    model.eval()
    for name, layer in model.named_children():
        x = layer(x.flatten(1) if name == "fc" else x)
        print(f"  {name:16} {tuple(x.shape)}")
    print()


@torch.no_grad()
def compare_train_and_eval(model: nn.Module, test_set: TensorDataset) -> None:
    """Print how many of 100 images of a 1 the model recognizes in eval mode and in train mode.

    In train mode, BatchNorm normalizes with the mean and the variance of the batch. In eval mode, it uses the
    moving averages that it collected during training. A batch with only the digit 1, which has little ink,
    differs from the mixed batches in training. If you forget eval(), such predictions get worse, and no error
    warns you. Dropout is the other common layer that works differently in the two modes.

    eval模式和train模式的区别：BatchNorm 在 train() 时用这一批的均值和方差，在 eval() 时用训练时累积的移动平均。
    整批都是数字 1 的图片，墨迹很少，与训练时的批次很不一样，所以忘记 eval() 时，这样的预测会变差，而且没有任何报错。
    Dropout 是另一种在两种模式下行为不同的常用层。
    """
    images, labels = test_set.tensors
    ones = images[labels == 1][:100]
    # 在副本上做：train 模式下每次前向计算都会改变移动平均；model.train(False) 与 model.eval() 相同
    # Use a copy, because each forward pass in train mode changes the moving averages. model.train(False) does the same
    # as model.eval().
    model = copy.deepcopy(model)
    print("\neval模式和train模式的区别 · What train() and eval() change:")
    for mode, training in ("eval()", False), ("train()", True):
        model.train(training)
        logits, pair = model(ones), model(ones[:2])
        right = (logits.argmax(dim=1) == 1).sum()
        change = (logits[:2] - pair).abs().max()
        print(f"  {mode}：{len(ones)} 张数字 1 的图片认对 {right} 张；前两张单独作为一批，得分最多变化 {change:.4f}")
        print(f"  {mode}: {right} of {len(ones)} images of a 1 are recognized.", end=" ")
        print(f"In a batch of only the first two, their logits change by up to {change:.4f}.")
    print("  忘记 eval() 时，图片的得分会受同一批里其他图片的影响，预测也可能改变。LeNet 没有 BatchNorm，不受影响。")
    print("  Without eval(), an image's logits depend on its whole batch. LeNet has no BatchNorm and is unaffected.")


@torch.no_grad()
def plot_mistakes(model: nn.Module, loader: DataLoader, device: torch.device, file: Path) -> None:
    """Draw the first 24 images in `loader` that the model gets wrong, each with its label and the prediction.

    画出前 24 张认错的测试图片，每张上面写着标签，箭头后面是预测。
    """
    wrong = []
    model.eval()
    for images, labels in loader:
        predicted = model(images.to(device)).argmax(dim=1).cpu()
        wrong += [row for row in zip(images, labels, predicted) if row[1] != row[2]]
    figure = Figure(figsize=(9, 4.6), layout="constrained")
    figure.suptitle(f"{len(wrong)} of {len(loader.dataset):,} predictions are wrong (label → prediction)")
    for place, (image, label, prediction) in enumerate(wrong[:24], start=1):
        ax = figure.add_subplot(3, 8, place, title=f"{label} → {prediction}", xticks=[], yticks=[])
        ax.imshow(image[0].numpy(), cmap="gray")
    figure.savefig(file)


def plot_curves(results: dict[str, list], file: Path) -> None:
    """Draw the loss and the accuracies of each epoch.

    If the test accuracy stops rising while the training accuracy still rises, the model overfits.

    画出每轮的损失和准确率：训练准确率还在上升，测试准确率却不再上升，就是过拟合。
    """
    figure = Figure(figsize=(9, 3.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    epochs = range(1, len(results["train_loss"]) + 1)
    left.plot(epochs, results["train_loss"], ".-", label="training loss")
    right.plot(epochs, results["train_accuracy"], ".-", label="training accuracy, during the epoch")
    right.plot(epochs, results["test_accuracy"], ".-", label="test accuracy, after the epoch")
    for ax in (left, right):
        ax.set_xlabel("epoch")
        ax.locator_params(axis="x", integer=True)
        ax.legend()
    figure.savefig(file)


# ---- Below: command line, device, data files. The lesson ends here. ----
# 以下代码与教学无关，三个 MNIST 脚本里逐字相同；用到上面的 BATCH_SIZE、LEARNING_RATE、OUT_DIR 和文档字符串的第一行。
# These functions are the same, word for word, in logistic_regression.py, nn_demo.py and cnn_mnist.py.
# They use BATCH_SIZE, LEARNING_RATE, OUT_DIR and the first line of the docstring, which are above.


def make_parser(epochs: str) -> argparse.ArgumentParser:
    """Return the parser of the command line. `epochs` describes the default of --epochs in words."""
    # fmt: off
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0], allow_abbrev=False,
        epilog="example: python %(prog)s --dataset digits --epochs 3 --out-dir try")
    train = parser.add_argument_group("training")
    train.add_argument("--epochs", type=whole_number, metavar="N",
        help=f"how many times to go through the training images (default: {epochs})")
    train.add_argument("--batch-size", type=whole_number, metavar="N", default=BATCH_SIZE,
        help="how many images to take in each training step (default: %(default)s)")
    train.add_argument("--lr", type=float, metavar="X", default=LEARNING_RATE,
        help="learning rate: how far each step goes (default: %(default)s)")
    train.add_argument("--seed", type=lambda text: whole_number(text, 0), metavar="N", default=0,
        help="seed for the random numbers; the same seed and CPU give the same result (default: %(default)s)")
    train.add_argument("--device", default="auto",
        help="device to use, such as cpu, cuda, cuda:1 or mps; auto uses a working GPU or else the CPU (default: auto)")
    files = parser.add_argument_group("data and output")
    files.add_argument("--dataset", choices=["auto", "mnist", "digits"], default="auto",
        help="data set to use; mnist is downloaded if it is missing, digits comes with scikit-learn and needs no"
             " network, and auto means mnist, or digits if mnist cannot be downloaded (default: %(default)s)")
    files.add_argument("--data-dir", type=Path, metavar="DIR", default="data",
        help="folder that contains MNIST, or will contain it after the download (default: %(default)s)")
    files.add_argument("--limit", type=whole_number, metavar="N",
        help="train on the first N training images only; the test set stays complete (default: use all)")
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


def load_data(choice: str, data_dir: Path) -> tuple[str, tuple, tuple]:
    """Return the name of the data set, then the images and labels for training, then those for the test.

    Images are uint8 or float32 (N, 28, 28), with values from 0 to 255. Labels are int64 (N,), with values from 0 to 9.
    """
    if choice != "digits":
        while data_dir.name in ("MNIST", "raw"):  # torchvision itself adds MNIST/raw.
            data_dir = data_dir.parent
        timeout = socket.getdefaulttimeout()
        socket.setdefaulttimeout(10)  # A download that receives nothing for ten seconds has failed.
        try:
            parts = [datasets.MNIST(data_dir, train, download=True) for train in (True, False)]
            return "mnist", *((part.data, part.targets) for part in parts)
        except Exception as error:  # For example, there is no network, the disk is full, or a file is damaged.
            reason = str(error).strip().rpartition("\n")[2] or type(error).__name__
        finally:
            socket.setdefaulttimeout(timeout)
        names = ", ".join(name.removesuffix(".gz") for name, _ in datasets.MNIST.resources)
        found = [str(file) for file in data_dir.rglob("*ubyte")]
        if choice == "mnist" or len(found) > 3:  # If four are there, some are damaged or misnamed.
            sys.exit(f"error: MNIST cannot be loaded ({reason}). It needs four undamaged files in"
                     f" {data_dir / 'MNIST' / 'raw'}: {names}. Found: {', '.join(found) or 'none'}")  # fmt: skip
        print("!!! 无法下载 MNIST，改用 scikit-learn 的手写数字：图片少而粗糙。手动下载的方法见 docs/installing.zh.md")
        print(f"!!! MNIST cannot be downloaded ({reason}). This uses scikit-learn's digits. See docs/installing.md.\n")
    from sklearn.datasets import load_digits  # scikit-learn is slow to import and is only needed here.

    # Enlarge the 1,797 images from 8x8 to 20x20 pixels, and center them in 28x28, as in MNIST.
    images, labels = map(torch.from_numpy, load_digits(return_X_y=True))
    images = nn.functional.interpolate(images.view(-1, 1, 8, 8).float() / 16, size=20, mode="bilinear")
    images = 255 * nn.functional.pad(images, (4, 4, 4, 4)).squeeze(1)
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    return "digits", *((images[part], labels[part].long()) for part in (order[360:], order[:360]))


def print_result(dataset: str, accuracy: float, files: dict[str, Path]) -> None:
    """Print the last lines of a run. In a notebook, show the pictures as well."""
    name = "MNIST" if dataset == "mnist" else "scikit-learn's digits, not MNIST"
    print(f"\nTest accuracy on {name}: {accuracy:.2%}")
    print("Written:", *files.values(), sep="\n  ")
    if "ipykernel" in sys.modules:
        from IPython.display import Image, display

        display(*(Image(filename=str(file)) for file in files.values() if file.suffix == ".png"))


if __name__ == "__main__":
    main()

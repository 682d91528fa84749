"""The 60-minute tour of PyTorch, then datasets, a pretrained model, saving and loading.

Notes: https://github.com/yearing1017/PyTorch_Note
60分钟熟悉Pytorch,
Pytorch_Basic.py：自动求导、数据集的使用、模型保存及载入,
pytorch_cuda.ipynb：pytorch有关cuda的基本操作与概念

    python pytorch_basic.py                               # everything, offline
    python pytorch_basic.py --list                        # the sections
    python pytorch_basic.py --section autograd gradients  # some of them
    python pytorch_basic.py --section own_dataset --images DIR --masks DIR   # your own pictures
    python pytorch_basic.py --download                    # with CIFAR-10 (170 MB), weights (45 MB)

All of it takes about 10 seconds of one CPU core, with PyTorch 2.15. It writes three files: the
whole model, its parameters, and a checkpoint, from which a stopped run goes on.

**Try**

    --section update_weights --seed 1   # other weights to begin with: 69 steps, not 54
    --section tensors --seed 1          # other random numbers, the same shapes and dtypes
    --section devices --device meta     # an error: the device meta has shapes, but no numbers
"""

import argparse
import ast
import copy
import inspect
import itertools
import os
import pickle
import socket
import sys
import tempfile
import textwrap
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
import torch.optim as optim
from torch.utils.data import DataLoader, Dataset, random_split
from torchvision import datasets, models, transforms
from tqdm import tqdm

OUT_DIR = Path("outputs", "pytorch_basic")

# 每个函数是笔记的一节，逐句打印并运行 · Each function below is a section of the notes. `run`
# prints each statement, and below it what it prints. `with refused(ValueError)` is an error that
# is worth seeing: its first sentence is printed, and the session goes on.

# ---- 60分钟熟悉Pytorch · The 60-minute tour ----


def tensors(args):
    """张量 · Tensors

    创建没有初始化、随机初始化、填满 0 的矩阵，直接从数据构造张量；new_* 沿用原张量的 dtype。
    """
    # Only Python 2 needs this as well: from __future__ import print_function
    import torch

    # 创建一个没有初始化的5*3矩阵 · Not initialized: whatever was in memory
    x = torch.empty(5, 3)
    print(x)
    # 创建一个随机初始化矩阵 · Random numbers, uniform between 0 and 1
    x = torch.rand(5, 3)
    print(x)
    # 构造一个填满0且数据类型为long的矩阵 · Zeros, of dtype long
    x = torch.zeros(5, 3, dtype=torch.long)
    print(x)
    # 直接从数据构造张量 · From data (torch.Tensor(3) makes three numbers, not a 3)
    x = torch.tensor([5.5, 3])
    print(x)
    # 根据已有的tensor建立新的tensor · new_* takes dtype and device from x
    print(x.new_ones(2).dtype)
    # new_* methods take in sizes
    x = x.new_ones(5, 3, dtype=torch.double)
    print(x)
    # 重载 dtype, 结果size一致 · *_like takes the size as well; here with another dtype
    x = torch.randn_like(x, dtype=torch.float)
    print(x)
    # 获取张量的形状 · Its shape; x.shape is the same
    print(x.size())


def operations(args):
    """运算 · Operations

    加法的几种写法、原地操作（in-place）、索引、改变形状（view 与 reshape）、.item()。
    """
    x = torch.randn(5, 3)
    # 以加法为例 · Addition
    y = torch.rand(5, 3)
    print(x + y)
    # 加法形式二 · In another form
    print(torch.add(x, y))
    # 给定一个输出张量作为参数 · With a tensor for the result
    result = torch.empty(5, 3)
    torch.add(x, y, out=result)
    print(result)
    # 原位/原地操作（in-place） · y.add_, y.copy_, y.t_ change y, as y += x does
    # adds x to y
    y.add_(x)
    print(y)
    # 索引 · As in NumPy, but without negative steps: x.flip(0), not x[::-1]
    print(x[:, 1])
    # 改变形状 · view never copies: it is the same memory in another shape
    x = torch.randn(4, 4)
    y = x.view(16)
    # -1 表示根据其他的数值来计算该位置的数值 · -1: computed from the other sizes
    z = x.view(-1, 8)
    print(x.size(), y.size(), z.size())
    with refused(RuntimeError):
        x.t().view(-1)  # would have to copy; x.t().reshape(-1) does that
    # 使用.item()来得到对应的python数值 · Of one element, the Python number
    x = torch.randn(1)
    print(x)
    print(x.item())
    # 超过100种tensor的运算操作 · All: https://docs.pytorch.org/docs/stable/torch.html
    # 补充 · The matrix product; broadcasting: a row is added to each row; sums; joining
    a = torch.tensor([[1, 2, 3], [4, 5, 6]])
    print(a @ a.t())  # torch.matmul: (2, 3) times (3, 2)
    print(a + torch.tensor([10, 20, 30]))  # (2, 3) and (3,)
    print(a.sum(), a.sum(dim=0), a.sum(dim=1))  # dim: the dimension that goes
    print(torch.cat([a, a]).shape, torch.stack([a, a]).shape)


def numpy_bridge(args):
    """桥接Numpy · The bridge to NumPy

    .numpy() 和 from_numpy() 共享内存，torch.tensor() 会复制；需要求导的张量先 .detach()。
    """
    a = torch.ones(5)
    print(a)
    b = a.numpy()
    print(b)
    # 共享它们的底层内存位置 · One memory: a changes, and so does b
    a.add_(1)
    print(a)
    print(b)
    # numpy数组转换为张量 · From an array, shared as well; NumPy's default is float64
    import numpy as np

    a = np.ones(5)
    b = torch.from_numpy(a)
    np.add(a, 1, out=a)
    print(a)
    print(b)
    # 补充 · torch.tensor makes a copy
    copy = torch.tensor(a)
    a[0] = 100
    print(b)
    print(copy)
    # CPU上的所有张量都支持与Numpy的相互转换 · If NumPy has the dtype
    print(torch.ones(3, dtype=torch.int8).numpy())
    with refused(TypeError):
        torch.ones(3, dtype=torch.bfloat16).numpy()


def devices(args):
    """pytorch有关cuda的基本操作与概念 · Devices: the CPU and the GPU

    张量和模型要在同一设备上才能一起运算；0 维的 CPU 张量例外。
    """
    # 查看GPU是否可用, 查看GPU数量 · Is there a GPU for CUDA? How many?
    print(torch.cuda.is_available(), torch.cuda.device_count())
    # 默认情况下，Tensor会被存在内存上 · A tensor is made on the CPU
    x = torch.tensor([1, 2, 3])
    print(x.device)
    if torch.cuda.is_available():
        # 查看当前GPU索引号, 根据索引号查看GPU名字 · The current GPU, and its name
        print(torch.cuda.current_device(), torch.cuda.get_device_name(0))
        # cuda(0)和cuda()等价 · Unless torch.cuda.set_device has chosen another GPU
        device = torch.device("cuda")  # a CUDA device object
        print(x.cuda(0), x.cuda(), x.to(device))
    # 移动到任何设备（device）上 · On that of this run: the GPU or, without one, the CPU
    device = args.device
    x = torch.randn(1)
    # 直接在GPU上创建tensor · Made there
    y = torch.ones_like(x, device=device)
    # 使用`.to`方法 · Moved there
    x = x.to(device)
    z = x + y
    print(z)
    if device.type != "mps":  # Apple's, which has no double
        # `.to`也能在移动时改变dtype · .to can change the dtype as well
        print(z.to("cpu", torch.double))
    # Without a GPU, "meta" stands for it: its tensors have a shape, but no numbers
    there = device if device.type != "cpu" else torch.device("meta")
    # 如果对在GPU上的数据进行运算，那么结果还是存放在GPU上 · The result stays there
    x = torch.tensor([1, 2, 3], device=there)
    y = x**2
    print(y)
    # 存储在不同位置中的数据是不可以直接进行计算的 · Not with a tensor on the CPU
    with refused(RuntimeError):
        z = y + torch.tensor([1, 2, 3])
    # But with a CPU tensor of no dimensions
    print((y + torch.tensor(1)).device)
    # 模型也可以转换到GPU上 · net.to moves net itself; x.to makes another tensor
    net = nn.Linear(3, 1)
    net.to(there)
    # 检查模型的参数的device属性 · A model is where its parameters are
    print(next(net.parameters()).device)
    # 需要保证模型输入的Tensor和模型都在同一设备上 · Input and model on one device
    x = torch.rand(2, 3).to(there)
    print(net(x))
    with refused(RuntimeError):
        net(torch.rand(2, 3))


def autograd(args):
    """自动求导 · 张量 · Autograd: a tensor and its history

    追踪运算、生成计算图；只有叶子张量保留 .grad，多次 backward 会累加；非标量要给 gradient 参数。
    """
    # 创建一个张量并设置requires_grad=True用来追踪其计算历史 · Tracked from here on
    x = torch.ones(2, 2, requires_grad=True)
    print(x)
    # 对张量做一次运算 · y is a result, so it has a grad_fn; no operation made x
    y = x + 2
    print(y)
    print(y.grad_fn)
    print(x.grad_fn)
    # 对y进行更多操作 · More operations
    z = y * y * 3
    # 对所有元素求均值 · The mean of all elements
    out = z.mean()
    print(z, out)
    # 运行时定义（define-by-run） · The graph is the code that ran; an if may change it
    for double in (False, True):
        print((x * 2 if double else x - 1).grad_fn)
    # .requires_grad_(...) 原地改变了现有张量的 requires_grad 标志 · To True
    a = torch.randn(2, 2)
    a = (a * 3) / (a - 1)
    print(a.requires_grad)
    a.requires_grad_(True)
    print(a.requires_grad)
    b = (a * a).sum()
    print(b.grad_fn)
    # 阻止一个张量被跟踪历史 · Not tracked: x detached, and what is done under no_grad
    print(x.detach().requires_grad)
    with torch.no_grad():
        print((x * 2).requires_grad)
    # 标量 · From a tensor of one element; from others with a gradient of the same shape
    with refused(RuntimeError):
        y.backward()
    y.backward(torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
    print(x.grad)
    # 累加 · It is added to what is in x.grad
    y.backward(torch.ones(2, 2))
    print(x.grad)
    # Only leaves keep their gradient: tensors that no tracked operation made
    print(x.is_leaf, y.is_leaf)
    with refused(RuntimeError):
        x.add_(1)


def gradients(args):
    """梯度 · Gradients

    out 是标量，x.grad 处处是 4.5；backward() 会释放计算图中保存的中间结果，所以不能再调一次。
    """
    x = torch.ones(2, 2, requires_grad=True)
    y = x + 2
    z = y * y * 3
    out = z.mean()
    # 自动计算所有的梯度 · All gradients, automatically
    out.backward()
    # 输出导数 d(out)/dx · out is 1/4 of the sum of 3 (x + 2)², so this is 3/2 (x + 2)
    print(x.grad)
    # 和 out.backward(torch.tensor(1.)) 等价 · The same
    same = torch.ones(2, 2, requires_grad=True)
    (3 * (same + 2) ** 2).mean().backward(torch.tensor(1.0))
    print(same.grad)
    # The first backward() has freed what the graph had stored
    with refused(RuntimeError):
        out.backward()


class Net(nn.Module):
    """Images (N, 1, 32, 32) to ten scores for each, logits (N, 10).

    `forward` computes the output from the input, by differentiable operations:
    argmax ends the graph, round has gradient 0. From it autograd makes backward.
    """

    def __init__(self):
        super().__init__()  # in older code: super(Net, self).__init__()
        # 输入图像channel：1；输出channel：6；5x5卷积核 · In, out, kernel
        self.conv1 = nn.Conv2d(1, 6, 5)
        self.conv2 = nn.Conv2d(6, 16, 5)
        # an affine operation: y = Wx + b
        self.fc1 = nn.Linear(16 * 5 * 5, 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, 10)

    def forward(self, x):
        # 2x2 Max pooling
        x = F.max_pool2d(F.relu(self.conv1(x)), (2, 2))
        # 如果是方阵,则可以只使用一个数字进行定义 · 2 is short for (2, 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        # 见下面该函数 · A row for each image; today: x = torch.flatten(x, 1)
        x = x.view(-1, self.num_flat_features(x))
        x = F.relu(self.fc1(x))
        x = F.relu(self.fc2(x))
        x = self.fc3(x)
        return x

    def num_flat_features(self, x):
        # 除去batch_size的其他所有维度 · All sizes but the batch's
        size = x.size()[1:]
        num_features = 1
        for s in size:
            num_features *= s
        return num_features


def network(args):
    """神经网络 · 定义网络 · Neural networks: defining one

    可学习参数、前向计算、清零梯度缓存；输出是 logits，softmax 之后才是概率。
    """
    import torch.nn as nn
    import torch.nn.functional as F

    net = Net()
    print(net)
    # 可学习参数 · A weight and a bias for each of the five layers
    params = list(net.parameters())
    print(len(params))
    # conv1's .weight
    print(params[0].size())
    # 尝试一个随机的32x32的输入 · Batch size, channels, height, width
    input = torch.randn(1, 1, 32, 32)
    out = net(input)
    print(out)
    # These scores are no probabilities, which sum to 1; softmax makes them so
    print(out.sum().item(), F.softmax(out, dim=1).sum().item())
    # 清零所有参数的梯度缓存 · No gradients from before
    net.zero_grad()
    # 进行随机梯度的反向传播 · Backward, from a random gradient
    out.backward(torch.randn(1, 10))
    # 小批量（mini-batches） · Conv2d takes a single sample, too; BatchNorm2d does not
    print(net.conv1(input[0]).size())
    with refused(ValueError):
        nn.BatchNorm2d(1)(input[0])
    with refused(RuntimeError):
        net(input[0])  # takes the 16 channels for a batch: 16 rows of 5x5
    # 使用input.unsqueeze(0)来添加一个“假的”批大小维度 · A batch of one
    print(net(input[0].unsqueeze(0)))


def loss(args):
    """损失函数 · Loss functions

    均方误差 MSELoss 与手算一致；再沿 grad_fn 从 loss 往回看计算图。
    """
    net = Net()
    input = torch.randn(1, 1, 32, 32)
    output = net(input)
    # 本例子中使用模拟数据 · Random numbers, in place of the right answer
    target = torch.randn(10)
    # 使目标值与数据值形状一致 · Of output's shape, (1, 10): with (10,) PyTorch warns
    target = target.view(1, -1)
    # 均方误差函数 · The mean of the squared errors
    criterion = nn.MSELoss()
    loss = criterion(output, target)
    print(loss)
    print(((output - target) ** 2).mean())
    # 计算图 · The graph:
    # input -> conv2d -> relu -> maxpool2d -> conv2d -> relu -> maxpool2d
    #       -> view -> linear -> relu -> linear -> relu -> linear
    #       -> MSELoss
    #       -> loss
    # 使用loss的.grad_fn属性跟踪 · From its end back: MSELoss, linear (Addmm), relu
    print(loss.grad_fn)
    linear = loss.grad_fn.next_functions[0][0]
    print(linear)
    print(linear.next_functions[1][0])  # [0] leads to the bias, a leaf


def backpropagation(args):
    """反向传播 · Backpropagation

    zero_grad 之后、backward 之前，conv1 偏置的梯度是 None；backward 之后才有值。
    """
    net = Net()
    input = torch.randn(1, 1, 32, 32)
    target = torch.randn(1, 10)
    criterion = nn.MSELoss()
    net(input).sum().backward()  # some gradients from before
    loss = criterion(net(input), target)
    # 清零所有参数（parameter）的梯度缓存 · Or the next would be added to these
    net.zero_grad()
    print("conv1.bias.grad before backward")
    print(net.conv1.bias.grad)
    loss.backward()
    print("conv1.bias.grad after backward")
    print(net.conv1.bias.grad)


def update_weights(args):
    """更新权重 · Updating the weights

    手写一步随机梯度下降，与优化器的一步相同；再用优化器训练，直到损失很小。
    """
    # 1. 定义包含一些可学习参数的神经网络 · A network with parameters to learn
    net = Net()
    input = torch.randn(1, 1, 32, 32)
    target = torch.randn(1, 10)
    criterion = nn.MSELoss()
    by_hand = copy.deepcopy(net)
    criterion(by_hand(input), target).backward()
    # 随机梯度下降法（SGD） · The rule, as code. But its result is a new tensor
    weight, gradient = by_hand.fc3.weight, by_hand.fc3.weight.grad
    lr = learning_rate = 0.01
    weight = weight - learning_rate * gradient
    with refused(TypeError):
        by_hand.fc3.weight = weight
    # 补充 · So change the layers' own weights, in place, not tracked
    with torch.no_grad():
        for weight in by_hand.parameters():
            weight -= lr * weight.grad
    # 创建优化器（optimizer） · Or SGD(..., nesterov=True), Adam(...), RMSprop(...)
    import torch.optim as optim

    optimizer = optim.SGD(net.parameters(), lr=0.01)
    criterion(net(input), target).backward()
    optimizer.step()
    print(all(map(torch.allclose, net.parameters(), by_hand.parameters())))
    # 2. 在输入数据集上迭代 · Over the data again and again; here over one image
    for step in range(500):
        # 清零梯度缓存 · Or the next gradients would be added to these
        optimizer.zero_grad()
        # 3. 通过网络处理输入 · The input through the network
        output = net(input)
        # 4. 计算损失 · How far is the output from the target?
        loss = criterion(output, target)
        if loss <= 0.001:
            break
        # 5. 将梯度反向传播给网络的参数 · The gradient of each parameter
        loss.backward()
        # 6. 更新网络的权重 · The update
        optimizer.step()
    print(step, "steps, loss", loss.item())


# ---- Pytorch_Basic.py：自动求导、数据集的使用、模型保存及载入 ----


def first_examples(args):
    """自动求导例子 1, 自动求导例子 2, Loading data from numpy · Autograd twice, and NumPy

    先对一个公式求导，再训练线性层一步，最后是 NumPy 数组与张量互转（共享内存）。
    """
    # 自动求导例子 1
    # 使用单个数字创建tensor · Tensors of one number, tracked
    x = torch.tensor(1.0, requires_grad=True)
    w = torch.tensor(2.0, requires_grad=True)
    b = torch.tensor(3.0, requires_grad=True)
    # 一个公式 · A formula
    y = w * x + b  # y = 2 * x + 3
    # 计算梯度 · The gradients
    y.backward()
    print(x.grad)  # x.grad = 2
    print(w.grad)  # w.grad = 1
    print(b.grad)  # b.grad = 1

    # 自动求导例子 2
    # 创建 tensor shape 为(10, 3)和(10, 2)，随机初始化 · Random numbers
    x = torch.randn(10, 3)
    y = torch.randn(10, 2)
    # 一个全连接层 · A linear layer
    linear = nn.Linear(3, 2)
    print("w: ", linear.weight)
    print("b: ", linear.bias)
    # 损失函数和优化器 · Loss function and optimizer
    criterion = nn.MSELoss()
    optimizer = torch.optim.SGD(linear.parameters(), lr=0.01)
    # Forward 计算 · From the inputs to the loss
    pred = linear(x)
    loss = criterion(pred, y)
    print("loss: ", loss.item())
    # Backward 计算 · And back, to the gradients
    loss.backward()
    print("dL/dw: ", linear.weight.grad)
    print("dL/db: ", linear.bias.grad)
    # 进行权重更新 · One step
    optimizer.step()
    # 在权重更新之后，再次查看损失 · Then the loss is lower
    pred = linear(x)
    loss = criterion(pred, y)
    print("loss after 1 step optimization: ", loss.item())

    # Loading data from numpy
    # 建一个numpy array · A NumPy array
    x = np.array([[1, 2], [3, 4]])
    # Convert the numpy array to a torch tensor.
    y = torch.from_numpy(x)
    # Convert the torch tensor to a numpy array.
    z = y.numpy()
    print(y, z)


def official_dataset(args):
    """使用官方的datasets方法 · The official datasets: CIFAR-10

    取一个样本，再用数据加载器分批读取；默认用随机图片代替 CIFAR-10。
    """
    # transform 包含了如何对数据进行处理 · What becomes of each picture; today this is
    # v2.Compose([v2.ToImage(), v2.ToDtype(torch.float32, scale=True)])
    transform = transforms.ToTensor()
    # Download CIFAR-10 dataset. 170 MB with --download, else random pictures
    if args.download:
        with downloading("CIFAR-10"):
            train_dataset = datasets.CIFAR10(args.data_dir, transform=transform, download=True)
    else:
        train_dataset = datasets.FakeData(1000, (3, 32, 32), transform=transform)
    print(train_dataset)
    # 只读一组数据 · One picture, and its label
    image, label = train_dataset[0]
    print(image.size())
    print(label)
    # 数据加载器：设置batch大小，是否打乱等 · In batches, in another order each time
    train_loader = DataLoader(dataset=train_dataset, batch_size=64, shuffle=True)
    # 遍历加载器 · The loader's batches, one by one
    data_iter = iter(train_loader)
    # next方法得到一个batch · data_iter.next() is gone since PyTorch 1.13
    images, labels = next(data_iter)
    print(images.shape, labels.shape)
    # 每次batch大小进行喂入数据 · All of it once; the last batch is smaller
    for images, labels in train_loader:
        # Training code should be written here.
        pass
    print(len(train_loader), "batches; the last:", images.shape)


class CustomDataset(Dataset):
    """标准创建自己的数据类的形式 · A length, and items by their number."""

    def __init__(self):
        # 1. 初始化工作，transform · Once: which files are there?
        pass

    def __getitem__(self, index):
        # 1. 从路径去读文件 · Read one file
        # 2. torchvision.Transform 处理数据 · Make it a tensor
        # 3. 返回一对 image & label · Return the pair of image and label
        pass

    def __len__(self):
        # 0 代替你的数据的数量 · The number of your files, in place of 0
        return 0


class BagDataset(Dataset):
    """Images, float32 (3, 160, 160), with masks, float32 (2, 160, 160), one-hot.

    The first channel of a mask is 1 where it is black, the second where white.
    """

    def __init__(self, images, masks, transform=None):
        self.files = find_pairs(images, masks)
        self.threshold = check_pairs(self.files)
        self.transform = transform

    def __len__(self):
        return len(self.files)

    # 实现__getitem__方法 · For bag[0], and for a DataLoader: read when needed
    def __getitem__(self, idx):
        image_file, mask_file = self.files[idx]
        # OpenCV reads blue, green, red; mean and std below are of red, green, blue
        imgA = cv2.cvtColor(to_bgr(read_picture(image_file, COLOR)), cv2.COLOR_BGR2RGB)
        imgA = cv2.resize(imgA, (160, 160), interpolation=cv2.INTER_AREA)
        # 读入mask图片 · 0 is black, 1 white; resized without values between these
        imgB = (read_mask(mask_file) > self.threshold).astype(np.uint8)
        imgB = cv2.resize(imgB, (160, 160), interpolation=cv2.INTER_NEAREST_EXACT)
        # onehot编码为2类 · (160, 160) to (160, 160, 2)
        imgB = F.one_hot(torch.from_numpy(imgB).long(), num_classes=2)
        imgB = imgB.permute(2, 0, 1).float()
        # 对输入放入图片进行transform转换 · To a tensor, and normalized
        if self.transform:
            imgA = self.transform(imgA)
        return imgA, imgB


def own_dataset(args):
    """使用自己的数据 · Your own data: images and masks in two folders

    图片转 RGB 并标准化，掩码做 one-hot 编码，再划分训练集和测试集。
    """
    # 构造loader加载器 · Of a dataset with no items, none can be drawn
    custom_dataset = CustomDataset()
    with refused(ValueError):
        DataLoader(dataset=custom_dataset, batch_size=64, shuffle=True)
    # Mean and standard deviation of ImageNet's pixels, red, green, blue, in [0, 1]
    normalize = transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    transform = transforms.Compose([transforms.ToTensor(), normalize])
    # 实例化一个对象 · From --images and --masks, or from discs that this script draws
    bag = BagDataset(args.images, args.masks, transform)
    imgA, imgB = bag[0]
    print(imgA.shape, imgA.dtype, imgA.min(), imgA.max())
    print(imgB.shape, imgB.dtype, imgB.unique())
    # How much of a mask is black, how much white?
    print(torch.stack([imgB.mean(dim=(1, 2)) for imgA, imgB in bag]).mean(dim=0))
    # 此处调用len方法会调用类的内置方法__len__ · len(bag) calls bag.__len__()
    train_size = max(1, int(0.9 * len(bag)))
    test_size = len(bag) - train_size
    # 划分成没有重叠的新数据集组合 · Two parts, at random, with no item in common
    train_dataset, test_dataset = random_split(bag, [train_size, test_size])
    # 数据加载时会调用 __getitem__内置方法 · Here; with num_workers=4 in processes,
    # which need the `if __name__ == "__main__":` at the end of this file
    train_dataloader = DataLoader(train_dataset, batch_size=4, shuffle=True)
    test_dataloader = DataLoader(test_dataset, batch_size=4)
    print(len(train_dataset), "pairs to train on,", len(test_dataset), "to test on")
    print(len(train_dataloader), "and", len(test_dataloader), "batches")
    for imgA, imgB in train_dataloader:
        print(imgA.shape, imgB.shape)


def pretrained(args):
    """预训练模型的使用 · A pretrained model with a new head

    冻结主干、只训练新的全连接层；还要 eval()，否则 BatchNorm 的统计量会变。
    """
    # 下载并载入预训练好的模型ResNet-18 · 45 MB with --download, else random weights.
    # Pictures for them are prepared by models.ResNet18_Weights.DEFAULT.transforms()
    if args.download:
        with downloading("ResNet-18's weights"):
            resnet = models.resnet18(weights=models.ResNet18_Weights.DEFAULT)
    else:
        resnet = models.resnet18()
    # 如果只想微调 top layer，如下设置 · Not tracked, so not trained
    for param in resnet.parameters():
        param.requires_grad = False
    # 替换 top layer · A new one, tracked; 100 is an example.
    resnet.fc = nn.Linear(resnet.fc.in_features, 100)
    print([name for name, param in resnet.named_parameters() if param.requires_grad])
    # forward计算 · 64 pictures to 100 scores for each
    resnet.to(args.device).eval()
    images = torch.randn(64, 3, 224, 224, device=args.device)
    with torch.no_grad():
        outputs = resnet(images)
    print(outputs.size())
    # That does not freeze BatchNorm: a forward pass in train mode moves its averages.
    # So the frozen body stays in eval mode, in training as well
    average = resnet.bn1.running_mean.clone()
    for training in (False, True):
        resnet.train(training)
        resnet(images[:2])
        print(training, torch.equal(resnet.bn1.running_mean, average))


def save_and_load(args):
    """保存和载入模型的使用方法 · Saving and loading a model

    三种保存和载入方式：整个模型、参数（状态字典 state_dict）、检查点（可从中断处接着训练）。
    """

    def learn(model, optimizer, epochs):
        for _ in range(epochs):
            optimizer.zero_grad()
            F.mse_loss(model(inputs), targets).backward()
            optimizer.step()

    inputs, targets = torch.randn(20, 3), torch.randn(20, 2)
    net = nn.Linear(3, 2)
    optimizer = optim.Adam(net.parameters(), lr=0.01)
    learn(net, optimizer, epochs=3)

    # 保存和载入 · The whole model. Such a file can run any code when it is loaded, so
    # weights_only=False is for a file that you made yourself; it needs the class, too
    whole = args.out_dir / "model-whole.pt"
    torch.save(net, whole)
    with refused(pickle.UnpicklingError):
        model = torch.load(whole)
    model = torch.load(whole, weights_only=False)
    print(torch.equal(model(inputs), net(inputs)))

    # 只保存训练好模型的参数 · Only the parameters: nearly always what you want
    weights = args.out_dir / "model-weights.pt"
    torch.save(net.state_dict(), weights)
    model = nn.Linear(3, 2)
    model.load_state_dict(torch.load(weights, weights_only=True))
    print(torch.equal(model(inputs), net(inputs)))

    # 补充 · A checkpoint, to go on from; the optimizer has state, too (Adam's averages).
    # With shuffling or dropout save torch.get_rng_state() as well
    checkpoint = args.out_dir / "checkpoint.pt"
    state = {"epoch": 3, "model": net.state_dict(), "optimizer": optimizer.state_dict()}
    torch.save(state, checkpoint)
    # The uninterrupted run: to epoch 5
    learn(net, optimizer, epochs=2)
    # And the one that was stopped after epoch 3
    state = torch.load(checkpoint, weights_only=True)
    resumed = nn.Linear(3, 2)
    resumed.load_state_dict(state["model"])
    optimizer = optim.Adam(resumed.parameters(), lr=0.01)
    optimizer.load_state_dict(state["optimizer"])
    learn(resumed, optimizer, epochs=5 - state["epoch"])
    print(torch.equal(resumed(inputs), net(inputs)))
    print(f"Written: {whole}, {weights}, {checkpoint}")


BASICS = [tensors, operations, numpy_bridge, devices, autograd, gradients]
NETWORK = [network, loss, backpropagation, update_weights]
PYTORCH_BASIC = [first_examples, official_dataset, own_dataset, pretrained, save_and_load]
SECTIONS = {section.__name__: section for section in BASICS + NETWORK + PYTORCH_BASIC}
CLASSES = {"network": [Net], "own_dataset": [CustomDataset, BagDataset]}  # printed before them


def main(argv: list[str] | None = None) -> dict:
    """Run the sections asked for. Returns a dict: for each name, the variables of that section."""
    make_stdout_tolerant()
    parser = make_parser()
    args = parser.parse_args(argv)
    if bool(args.images) != bool(args.masks):
        parser.error("--images and --masks go together")
    if args.list:
        for name, section in SECTIONS.items():
            heading, chinese = inspect.getdoc(section).split("\n\n")
            print(f"{name:17}{heading}\n{'':17}{chinese}")
        return {}
    args.device = choose_device(args.device)
    args.out_dir = make_out_dir(args.out_dir)
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        if not args.images:
            args.images, args.masks = draw_discs(Path(folder))
        for name in args.section or SECTIONS:
            torch.manual_seed(args.seed)  # so that a section alone prints the same as among all
            results[name] = run(SECTIONS[name], args, *CLASSES.get(name, []))
    return results


# ---- Below: sessions, command line, data. Nothing of it is about PyTorch; read it last. ----

LOSSY = {".jp2", ".jpeg", ".jpg", ".webp"}
SUFFIXES = {".bmp", ".gif", ".pgm", ".png", ".ppm", ".tif", ".tiff", *LOSSY}
# No alpha, 8 bits or more; a photo is not turned by its EXIF, as its mask is not.
GRAY = cv2.IMREAD_ANYDEPTH | cv2.IMREAD_IGNORE_ORIENTATION
COLOR = cv2.IMREAD_ANYCOLOR | GRAY  # BGR, but of a gray file gray


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
    add("--section", metavar="NAME", nargs="+", choices=SECTIONS, help="sections to run (all)")
    add("--list", action="store_true", help="print the names of the sections, and stop")
    add("--images", metavar="DIR", type=path, help="for own_dataset (drawn discs)")
    add("--masks", metavar="DIR", type=path, help="for own_dataset: a mask for each of --images")
    add("--download", action="store_true", help="CIFAR-10 (170 MB), ResNet's weights (45 MB)")
    add("--data-dir", metavar="DIR", type=path, default="data", help="of CIFAR-10 (%(default)s)")
    add("--seed", metavar="N", type=int, default=0, help="of all but drawn and fake pictures (0)")
    add("--device", default="auto", help="cpu, cuda, cuda:1, mps, ... (%(default)s)")
    add("--out-dir", metavar="DIR", type=path, default=OUT_DIR, help="(%(default)s)")
    return parser


def path(text: str) -> Path:
    return Path(os.path.expanduser(text))  # not Path.expanduser, which refuses ~nobody


def make_stdout_tolerant() -> None:
    """A console that lacks a character (of Chinese, of a file's name) shows "?" for it."""
    if hasattr(sys.stdout, "reconfigure"):  # a notebook's has not
        sys.stdout.reconfigure(errors="replace")


def choose_device(name: str) -> torch.device:
    """The device of that name; for "auto" the accelerator (CUDA, MPS, ...) if it works, or CPU."""
    accelerator = torch.accelerator.is_available() and torch.accelerator.current_accelerator()
    device = str(accelerator or "cpu") if name == "auto" else name
    try:
        torch.ones(1, device=device).add(1).item()  # a GPU too old for this PyTorch fails here
    except (RuntimeError, AssertionError, ImportError) as error:
        reason = str(error).partition("\n")[0].partition(". ")[0][:200]
        if name != "auto":
            sys.exit(f"error: {device} cannot be used here ({reason}): try --device cpu")
        print(f"!!! {device} cannot be used here ({reason}): going on without it")
        device = "cpu"
    return torch.device(device)


def make_out_dir(folder: Path) -> Path:
    """Make the folder, and try to write to it: an error comes now, not at the end."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        sys.exit(f"error: cannot write to --out-dir {folder}: {error.strerror}")
    return folder


@contextmanager
def downloading(what: str) -> Iterator[None]:
    """Around a download: one that gets nothing for 10 seconds has failed; one line says why."""
    socket.setdefaulttimeout(10)
    try:
        yield
    except Exception as error:  # no network, a stall, a full disk, ...
        reason = str(error).strip().rpartition("\n")[2] or repr(error)
        sys.exit(f"error: {what} cannot be downloaded: {reason}")


def draw_discs(folder: Path) -> tuple[Path, Path]:
    """Twenty pictures of discs, 200x240, and their masks."""
    rng = np.random.default_rng(0)
    images, masks = folder / "images", folder / "masks"
    images.mkdir()
    masks.mkdir()
    for number in range(20):
        mask = np.zeros((200, 240), np.uint8)
        cv2.circle(mask, rng.integers(60, 140, 2).tolist(), int(rng.integers(20, 50)), 255, -1)
        image = mask[:, :, None] // 2 + rng.integers(0, 100, (200, 240, 3), np.uint8)
        # Not cv2.imwrite, which on Windows cannot write to every path.
        cv2.imencode(".jpg", image)[1].tofile(images / f"{number:02}.jpg")
        cv2.imencode(".png", mask)[1].tofile(masks / f"{number:02}.png")
    return images, masks


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


def read_mask(file: Path) -> np.ndarray:
    """The values of a mask, float32 (H, W); of a color, as in a palette, how bright it is."""
    return np.nan_to_num(read_picture(file, GRAY)).astype(np.float32)


def to_bgr(image: np.ndarray) -> np.ndarray:
    """BGR, uint8 (H, W, 3). More than 8 bits are scaled by the picture's minimum and maximum."""
    if image.dtype != np.uint8:
        image = np.nan_to_num(image, posinf=0, neginf=0)
        image = cv2.normalize(image, None, 0, 255, cv2.NORM_MINMAX, cv2.CV_8U)
    return image if image.ndim == 3 else cv2.cvtColor(image, cv2.COLOR_GRAY2BGR)


def list_pictures(folder: Path) -> dict[str, Path]:
    """The pictures of a folder, sorted, by their names before the suffix."""
    pictures, others = {}, []
    for file in sorted(file for file in folder.glob("[!.]*") if file.is_file()):
        if file.suffix.lower() not in SUFFIXES:
            others.append(file.name)
        elif pictures.setdefault(file.stem, file) != file:
            sys.exit(f"error: {pictures[file.stem]} and {file} have the same name: which is meant?")
    if not pictures:
        sys.exit(f"error: no {'pictures in' if folder.is_dir() else 'folder'} {folder}")
    if others:
        print(f"!!! {folder}: files that are not read, {len(others)}: {', '.join(others[:5])}")
    return pictures


def find_pairs(image_dir: Path, mask_dir: Path) -> list[tuple[Path, Path]]:
    """The pictures of a folder, each with its mask, which has the same name before the suffix.

    Or, by one rule for all, another end of it: "1_manual" for "1_training". In one folder for both,
    a longer one: "1_mask" for "1".
    """
    images = list_pictures(image_dir)
    one_folder = image_dir.resolve() == mask_dir.resolve()
    masks = images if one_folder else list_pictures(mask_dir)
    # Which change of the end of an image's name makes the name of a mask, and how often?
    rules = Counter({("", ""): 0})
    for name, mask in itertools.product(list(images)[:10], masks):
        same = len(os.path.commonprefix([name, mask]))  # noqa: RUF071
        end, other = name[same:], mask[same:]
        if not one_folder or (other and not end and not other.isdigit()):  # 10 is no mask of 1
            rules[end, other] += 1
    (end, other), _ = rules.most_common(1)[0]
    pairs = []
    for name, image in images.items():
        mask = masks.get(name.removesuffix(end) + other)
        if one_folder and other and name.endswith(other):  # a mask
            continue
        if mask in (None, image):
            there = ", ".join(file.name for file in list(masks.values())[:3])
            sys.exit(f"error: no mask for {image.name} in {mask_dir}, where there are {there}, ...")
        pairs.append((image, mask))
    if end or other:
        print(f"{pairs[0][1].name} is the mask of {pairs[0][0].name}, and so on, by their names.")
    return pairs


def check_pairs(pairs: list[tuple[Path, Path]]) -> float:
    """Read all of them, before any training. Returns the threshold: above it, a mask is white.

    What a value means is decided for all masks together. The lowest is black, the highest white.
    What stands between must not fill squares of 5x5 pixels, as soft edges do not, unless it is
    almost black or white, as in a JPEG: a third value is an error.
    """
    seen, found, depths, square = {}, {}, set(), np.ones((5, 5), np.uint8)
    for image_file, mask_file in tqdm(pairs, unit="pair", delay=2, leave=False, disable=None):
        image, mask = read_picture(image_file, COLOR), read_mask(mask_file)
        if image.shape[:2] != mask.shape:
            sizes = f"{image.shape[:2]} and {mask.shape}"
            sys.exit(f"error: {image_file} and {mask_file} differ in height and width: {sizes}")
        depths.add(image.dtype.name)
        seen |= dict.fromkeys(np.unique(mask).tolist(), mask_file)
        filled = cv2.erode(mask, square) == cv2.dilate(mask, square)
        gray = abs(mask - (mask.min() + mask.max()) / 2) < np.ptp(mask) * 3 / 8
        counted = mask if gray.mean() > 0.5 else mask[filled]  # mostly gray: no mask, but a photo
        found |= dict.fromkeys(np.unique(counted).tolist(), mask_file)
    low, high = min(seen), max(seen)
    near = (high - low) / 8 if high - low > 100 else 0
    jpeg = low not in found or any(high - near <= value < high for value in found)
    near = near if jpeg or mask_file.suffix.lower() in LOSSY else 0
    found = seen if len(seen) < 5 else found  # soft edges have more values
    others = [value for value in sorted(found) if low + near < value < high - near]
    if others or low == high:
        values = [f"{value:g} in {seen[value].name}" for value in sorted({low, *others[:5], high})]
        sys.exit(f"error: masks need two values; here are, as gray, {', '.join(values)}")
    print(f"In the masks {low:g} is black and {high:g} is white.")
    if depths != {"uint8"}:
        print("Images of more than 8 bits are scaled, each by its own minimum and maximum.")
    return (low + high) / 2


if __name__ == "__main__":
    main()

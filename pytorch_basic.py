"""The 60-minute tour of PyTorch, followed by datasets, a pretrained model, and saving and loading a model.

Notes: https://github.com/yearing1017/PyTorch_Note
60分钟熟悉Pytorch
Pytorch_Basic.py：自动求导、数据集的使用、模型保存及载入
pytorch_cuda.ipynb：pytorch有关cuda的基本操作与概念

    python pytorch_basic.py                             # Run all sections. This needs no network.
    python pytorch_basic.py --section tensors autograd  # Run only these two sections.
    python pytorch_basic.py --help                      # Print the names of the sections and all options.
    python pytorch_basic.py --download                  # Download CIFAR-10 (170 MB) and ResNet-18 (45 MB).

This script needs Python 3.10 or newer, PyTorch 2.6 or newer, torchvision, opencv-python and scikit-learn.

All sections together take less than half a minute on 2 CPU cores with PyTorch 2.15. At the end of the
tour, the model in training_loop recognizes 96.7% of the digits that it was not trained on. At the end of
the run, training that resumes from a checkpoint gives the same result, to the last bit, as training
without a break.

**Try**

    python pytorch_basic.py --section neural_network --seed 1  # The loss after 100 steps is 0.001 instead of 3e-07,
                                                               # mainly because the input and target differ.
    python pytorch_basic.py --section training_loop --seed 2   # The accuracy is 96.1%, on different test images.
    python pytorch_basic.py --section tensors --seed 1         # Only the values change, not shapes or types.
"""

import argparse
import ast
import inspect
import pickle
import shutil
import socket
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.utils.data import DataLoader, Dataset, TensorDataset, random_split
from torchvision import datasets, models, transforms

# 每个函数是笔记的一节。运行时先打印一行代码，再执行这一行，它的输出就在下面；没有执行的分支也会打印出来。
# Each function in SECTIONS is a section of the notes. When it runs, each line of code is printed and then
# executed, so the output of a line appears below it. The lines of a skipped branch are printed as well.
# 例如 with refused(ValueError): 下面的代码会故意引发 ValueError；程序打印错误信息的第一句，然后继续运行。
# The code below `with refused(ValueError):` raises a ValueError on purpose. The first sentence of the
# error's message is printed, and the section continues.

# ---- 60分钟熟悉Pytorch · The 60-minute tour ----


def tensors(args):
    """张量 · Tensors

    创建张量的五种方法：不初始化、随机、填满 0、直接从数据构造、根据已有的张量新建。
    Create tensors in five ways: uninitialized, random, full of zeros, from data, and from another tensor.
    """
    import torch

    # 创建一个没有初始化的5*3矩阵：里面是这块内存原来的内容，每次可能不同
    # Create an uninitialized 5x3 matrix. It contains whatever was in its memory before.
    x = torch.empty(5, 3)
    print(x)
    # 创建一个随机初始化矩阵：均匀分布，从 0 到 1，不含 1
    # Create a matrix of random numbers, which are uniformly distributed between 0 and 1, excluding 1.
    x = torch.rand(5, 3)
    print(x)
    # 构造一个填满0且数据类型为long的矩阵：long 就是 int64
    # Create a matrix full of zeros. Its data type is long, which is another name for int64.
    x = torch.zeros(5, 3, dtype=torch.long)
    print(x)
    # 直接从数据构造张量：torch.tensor(3) 是数 3，大写的 torch.Tensor(3) 却是三个没有初始化的数
    # Create a tensor from data. torch.tensor(3) holds a 3, but torch.Tensor(3) has 3 uninitialized numbers.
    x = torch.tensor([5.5, 3])
    print(x)
    # 根据已有的tensor建立新的tensor：没有另外指定时，new_* 方法沿用 x 的 dtype 和设备
    # Create a tensor from an existing one. By default, the new_* methods use the dtype and the device of x.
    print(x.new_ones(2).dtype)  # torch.float32
    # 也可以提供新的值，例如另一个 dtype；尺寸则必须给出
    # You can also specify another dtype. The size is always required.
    x = x.new_ones(5, 3, dtype=torch.double)
    print(x)
    # 覆盖 dtype：randn_like 的尺寸取自 x，所以结果size一致
    # Override the dtype. The result has the same size as x, because randn_like takes the size from x.
    x = torch.randn_like(x, dtype=torch.float)
    print(x)
    # 获取张量的形状，也可以写 x.shape
    # Get the shape of a tensor. You can also write x.shape.
    print(x.size())  # torch.Size([5, 3])


def operations(args):
    """运算 · Operations

    加法的四种写法、索引、改变形状（view 与 reshape）、取出 Python 数值，以及矩阵乘法、广播、求和、拼接。
    Add tensors in four ways, index them, reshape them, and convert one to a Python number. Then compute
    a matrix product, and broadcast, sum and join tensors.
    """
    x = torch.randn(5, 3)
    # 以加法为例 · Addition as an example
    y = torch.rand(5, 3)
    print(x + y)
    # 加法形式二 · The second form of addition
    print(torch.add(x, y))
    # 给定一个输出张量作为参数：结果写进它已有的内存
    # Provide an output tensor as an argument. The result is written into its memory.
    result = torch.empty(5, 3)
    torch.add(x, y, out=result)
    print(result)
    # 原位/原地操作（in-place）：以 _ 结尾的方法会改变张量本身；y += x 和 y[0] = 5 也会
    # Add x to y in place. A method whose name ends in _ changes the tensor itself. So do y += x and y[0] = 5.
    y.add_(x)
    print(y)
    # 索引：可以像 NumPy 那样写，只是步长不能为负；要倒过来时写 x.flip(0)，不能写 x[::-1]
    # Index as in NumPy. However, negative steps are not allowed: to reverse x, write x.flip(0) instead of x[::-1].
    print(x[:, 1])
    # 改变形状：view 从不复制，y 和 x 共用同一块内存，只是形状不同
    # Change the shape. view never copies data, so y shares the memory of x and differs only in its shape.
    x = torch.randn(4, 4)
    y = x.view(16)
    # -1 表示这一维的大小根据其余各维来计算
    # A size of -1 is inferred from the other sizes.
    z = x.view(-1, 8)
    print(x.size(), y.size(), z.size())
    # 转置后的元素在内存里不再按行排列，view 会报错；x.t().reshape(-1) 会复制一份
    # The elements of the transpose are not stored row by row, so view fails. x.t().reshape(-1) makes a copy.
    with refused(RuntimeError):
        x.t().view(-1)
    # 如果是仅包含一个元素的tensor，可以使用.item()来得到对应的python数值
    # If a tensor has only one element, .item() returns that element as a Python number.
    x = torch.randn(1)
    print(x)
    print(x.item())

    # 超过100种tensor的运算操作，见 https://docs.pytorch.org/docs/stable/torch.html ；这里补充常用的四种
    # The page linked above describes more than 100 operations. Here are four of the most common ones.
    a = torch.tensor([[1, 2, 3], [4, 5, 6]])
    # 矩阵乘法：形状 (2, 3) 乘 (3, 2)，得到 (2, 2)
    # Compute the matrix product. The shapes (2, 3) and (3, 2) give the shape (2, 2).
    print(a @ a.t())  # tensor([[14, 32], [32, 77]])
    # 广播：形状为 (3,) 的一行加到 (2, 3) 的每一行上
    # Broadcasting adds the row of shape (3,) to each row of the matrix of shape (2, 3).
    print(a + torch.tensor([10, 20, 30]))  # tensor([[11, 22, 33], [14, 25, 36]])
    # 求和：不写 dim 时所有元素相加；dim 指定沿哪一维相加，结果里就没有这一维了
    # Sum all elements, or sum over the dimension dim, in which case the result no longer has this dimension.
    print(a.sum(), a.sum(dim=0), a.sum(dim=1))  # tensor(21) tensor([5, 7, 9]) tensor([ 6, 15])
    # 拼接：cat 沿已有的一维接起来，stack 会新建一维
    # Join tensors. cat joins them along an existing dimension, whereas stack creates a new one.
    print(torch.cat([a, a]).shape, torch.stack([a, a]).shape)  # (4, 3) and (2, 2, 3)


def numpy_bridge(args):
    """桥接Numpy · The bridge to NumPy

    张量与数组互相转换：.numpy() 和 from_numpy() 共享内存，torch.tensor() 复制一份。
    Convert between tensors and arrays. .numpy() and from_numpy() share memory, whereas torch.tensor() makes a copy.
    """
    a = torch.ones(5)
    print(a)
    # 转换成数组；需要求导的张量不能直接转换，要写 a.detach().numpy()
    # Convert the tensor to an array. A tensor that requires grad must be detached first, as in a.detach().numpy().
    b = a.numpy()
    print(b)
    # 张量和数组共享它们的底层内存位置，因此一个改变时，另一个也会改变
    # The tensor and the array share their memory, so when one changes, the other changes as well.
    a.add_(1)
    print(a)
    print(b)
    # numpy数组转换为张量：也共享内存；NumPy 默认的浮点类型是 float64
    # Convert an array to a tensor. They share memory, too. NumPy's default floating-point type is float64.
    import numpy as np

    a = np.ones(5)
    b = torch.from_numpy(a)
    np.add(a, 1, out=a)
    print(a)
    print(b)
    # torch.tensor 会复制一份，所以之后再改变 a 不影响 copy
    # torch.tensor makes a copy, so later changes to a do not affect it.
    copy = torch.tensor(a)
    a[0] = 100
    print(copy)  # tensor([2., 2., 2., 2., 2.], dtype=torch.float64)
    # CPU上的张量都支持与Numpy的相互转换，NumPy 没有的类型除外，如 bfloat16
    # Tensors on the CPU can be converted to NumPy and back, except for types that NumPy lacks, like bfloat16.
    with refused(TypeError):
        torch.ones(3, dtype=torch.bfloat16).numpy()


def devices(args):
    """pytorch有关cuda的基本操作与概念 · Devices: the CPU and the GPU

    张量和模型要在同一设备上才能一起运算。没有 GPU 时，一部分代码改用 meta 设备演示，它的张量只有形状，没有数值。
    Move tensors and models to the same device, so that they can be used together. Without a GPU, some of
    the lines use the meta device, whose tensors have shapes but no data.
    """
    # 查看GPU是否可用，查看GPU数量
    # Check whether PyTorch can use a GPU with CUDA, and count the GPUs.
    print(torch.cuda.is_available(), torch.cuda.device_count())
    # 默认情况下，Tensor会被存在内存上，由 CPU 计算
    # By default, a tensor is stored in main memory, and the CPU computes with it.
    x = torch.tensor([1, 2, 3])
    print(x)
    print(x.device)  # cpu
    if torch.cuda.is_available():
        # 查看当前GPU索引号，索引号从0开始；根据索引号查看GPU名字
        # Get the index of the current GPU, counted from 0, and the name of the GPU with index 0.
        print(torch.cuda.current_device(), torch.cuda.get_device_name(0))
        # 当前 GPU 是 0 号时，cuda(0)和cuda()等价：都把张量复制到这块 GPU 上
        # If GPU 0 is the current one, cuda(0) and cuda() are equivalent. Both copy the tensor to this GPU.
        device = torch.device("cuda")  # a CUDA device object
        print(x.cuda(0), x.cuda(), x.to(device))

    # 张量可以使用.to方法移动到任何设备（device）上；这里用本次运行所选的设备，没有 GPU 时就是 CPU
    # The method .to moves a tensor to any device. Here, it is args.device, the CPU if there is no GPU.
    device = args.device
    x = torch.randn(1)
    # 直接在这个设备上创建tensor
    # Create a tensor directly on this device.
    y = torch.ones_like(x, device=device)
    x = x.to(device)
    z = x + y
    print(z)
    # .to也能在移动时改变dtype；苹果的 mps 不支持 double
    # .to can also change the dtype during the move. Apple's mps device does not support double.
    if device.type != "mps":
        print(z.to("cpu", torch.double))

    # 没有 GPU 时，下面用 meta 代替它，这样放错设备同样会报错
    # Without a GPU, the lines below use the meta device instead, so mixing devices raises an error here, too.
    there = device if device.type != "cpu" else torch.device("meta")
    # 直接在创建的时候就指定设备
    # You can specify the device when you create a tensor.
    x = torch.tensor([1, 2, 3], device=there)
    # 如果对在GPU上的数据进行运算，那么结果还是存放在GPU上
    # The result of a computation on the GPU stays on the GPU.
    y = x**2
    print(y)
    # 存储在不同位置中的数据是不可以直接进行计算的，只有 CPU 上 0 维的张量例外，如 torch.tensor(1)
    # Operations on tensors of different devices fail. The exception is arithmetic with a zero-dimensional
    # tensor on the CPU, such as torch.tensor(1), which works with a tensor on any device.
    with refused(RuntimeError):
        z = y + torch.tensor([1, 2, 3])
    # 通过检查模型的参数的device属性来查看存放模型的设备
    # To find the device of a model, look at the device of its parameters.
    net = nn.Linear(3, 1)
    print(next(net.parameters()).device)  # cpu
    # 将模型转换到GPU上：net.to 改变 net 本身；x.to 不改变 x，而是返回目标设备上的张量。移到 meta 后，权重的数值会丢失
    # Move the model to the GPU. net.to moves net itself, whereas x.to returns a tensor on that device and
    # leaves x where it is. A move to the meta device loses the values of the weights.
    net.to(there)
    print(next(net.parameters()).device)
    # 需要保证模型输入的Tensor和模型都在同一设备上，否则会报错
    # The model and its input must be on the same device. Otherwise, an error is raised.
    x = torch.rand(2, 3).to(there)
    print(net(x))
    with refused(RuntimeError):
        net(torch.rand(2, 3))


def autograd(args):
    """自动求导 · 张量 · Autograd: a tensor and its history

    设置 requires_grad=True 之后，对张量的运算会记录成计算图，backward() 沿着图求出梯度。
    Set requires_grad=True to record the operations on a tensor as a graph, from which backward() computes gradients.
    """
    # 创建一个张量并设置requires_grad=True用来追踪其计算历史
    # Create a tensor, and set requires_grad=True to track the operations on it.
    x = torch.ones(2, 2, requires_grad=True)
    print(x)
    # 对张量做一次运算：y是计算的结果，所以它有grad_fn属性
    # Perform an operation on the tensor. y is its result, so y has a grad_fn.
    y = x + 2
    print(y)
    print(y.grad_fn)
    # 用户自己创建的张量没有 grad_fn；由不需要求导的张量算出来的结果也没有
    # A tensor that you create yourself has no grad_fn. Nor has a result computed only from untracked ones.
    print(x.grad_fn)  # None
    # 对y进行更多操作 · More operations on y
    z = y * y * 3
    # 对所有元素求均值 · The mean of all elements
    out = z.mean()
    print(z, out)
    # 运行时定义（define-by-run）：计算图由实际运行的代码边运行边生成，所以每次迭代可以不同
    # Define-by-run means that the code builds the graph as it runs, so the graph can differ in each iteration.
    for double in (False, True):
        print((x * 2 if double else x - 1).grad_fn)
    # .requires_grad_(...) 原地改变标志，不写参数时改成 True；新建张量时如果没有指定，标志是 False
    # .requires_grad_() changes the flag in place, by default to True. The flag of a new tensor is False by default.
    a = torch.randn(2, 2)
    a = (a * 3) / (a - 1)
    print(a.requires_grad)  # False
    a.requires_grad_(True)
    print(a.requires_grad)  # True
    b = (a * a).sum()
    print(b.grad_fn)
    # 不想被跟踪，常用的办法有两种。一种是 x.detach()：返回一个不被跟踪的新张量，与 x 共享内存；x 本身照旧被跟踪
    # There are two common ways to avoid tracking. One is .detach(), which returns a new, untracked tensor that shares
    # the memory of x. x itself is still tracked.
    print(x.detach().requires_grad)  # False
    # 另一种是 with torch.no_grad():，在评估模型时特别有用，可以省内存
    # The other is torch.no_grad(). It is especially useful for evaluating a model, because it saves memory.
    with torch.no_grad():
        print((x * 2).requires_grad)  # False

    # ---- 梯度 · Gradients ----
    # 自动计算所有的梯度：只有叶子张量才保留 .grad，例如 x；y 是运算的结果，所以 y.grad 是 None
    # Compute all gradients automatically. Only leaf tensors, such as x, keep their gradient in .grad. A leaf
    # is not the result of a tracked operation. y is, so y.grad is None.
    out.backward()
    # 输出导数 d(out)/dx：out 是四个 3(x+2)**2 的平均，所以导数是 3(x+2)/2，当 x=1 时等于 4.5
    # Print d(out)/dx. out is the mean of the four values 3(x+2)**2, so its derivative is 3(x+2)/2, or 4.5 for x=1.
    print(x.grad)  # tensor([[4.5, 4.5], [4.5, 4.5]])
    # 不能接着再调用一次：第一次 backward() 已经释放了计算图里的中间结果；要保留，第一次就写 backward(retain_graph=True)
    # A second call to backward() fails, because the first one has freed the intermediate results in the
    # graph. To keep them, write out.backward(retain_graph=True) in the first call.
    with refused(RuntimeError):
        out.backward()
    # 标量不需要为 backward() 指定参数；张量有多个元素时，需要一个形状匹配的 gradient 参数
    # For a scalar, backward() needs no argument. With more elements, it needs a gradient of the same shape.
    with refused(RuntimeError):
        (a * 2).backward()
    (a * 2).backward(torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
    print(a.grad)  # tensor([[2., 4.], [6., 8.]])
    # out 是一个标量，因此 out.backward() 和 out.backward(torch.tensor(1.)) 等价
    # 下面求出的和也是标量，对每个元素的导数是 2；梯度将会自动累加到.grad属性，所以已有的梯度都加上 2
    # out is a scalar, so out.backward() and out.backward(torch.tensor(1.)) are equivalent. The sum below is also a
    # scalar, and its derivative with respect to each element is 2. Gradients accumulate in .grad, so 2 is added to
    # each of the existing ones.
    (a * 2).sum().backward(torch.tensor(1.0))
    print(a.grad)  # tensor([[4., 6.], [8., 10.]])


class Net(nn.Module):
    """Turn images of shape (N, 1, 32, 32) into logits of shape (N, 10), which are ten scores for each image.

    `forward` computes the output from the input. autograd derives the backward pass from it. So `forward`
    must use differentiable operations: argmax would end the graph, and the gradient of round is 0.

    一个小型卷积网络。只需要定义 forward，反向的计算由 autograd 自动得到，所以 forward 里要用可导的运算。
    """

    def __init__(self):
        super().__init__()
        # 卷积让一个小窗口（卷积核）滑过图片，在每个位置算一次加权和，所以同样的图案在哪里都认得出
        # A convolution slides a small window (the kernel) over the image and computes a weighted sum at each position.
        # 输入图像channel：1；输出channel：6；5x5卷积核
        # This one has 1 input channel, 6 output channels and kernels of 5x5 pixels.
        self.conv1 = nn.Conv2d(1, 6, 5)
        self.conv2 = nn.Conv2d(6, 16, 5)
        # 全连接层，也就是仿射运算 y = Wx + b
        # A fully connected layer is an affine operation: y = Wx + b.
        self.fc1 = nn.Linear(16 * 5 * 5, 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, 10)

    def forward(self, x):
        # 2x2 Max pooling：每个 2x2 的区域只留最大值，高和宽减半
        # Max pooling keeps the largest value of each 2x2 square, so the height and the width are halved.
        x = F.max_pool2d(F.relu(self.conv1(x)), (2, 2))  # (N, 1, 32, 32) -> (N, 6, 28, 28) -> (N, 6, 14, 14)
        # 池化窗口如果是方阵,则可以只使用一个数字进行定义：2 就是 (2, 2)
        # If the window is a square, a single number is enough. Here 2 means (2, 2).
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)  # (N, 6, 14, 14) -> (N, 16, 10, 10) -> (N, 16, 5, 5)
        # 把每张图片展平成一行；PyTorch 自带的写法是 torch.flatten(x, 1)
        # Flatten each image into one row. PyTorch's own torch.flatten(x, 1) does the same.
        x = x.view(-1, self.num_flat_features(x))  # (N, 16, 5, 5) -> (N, 400)
        x = F.relu(self.fc1(x))  # (N, 400) -> (N, 120)
        x = F.relu(self.fc2(x))  # (N, 120) -> (N, 84)
        x = self.fc3(x)  # (N, 84) -> (N, 10)
        return x

    def num_flat_features(self, x):
        # 除去batch_size的其他所有维度 · All dimensions except the batch dimension
        size = x.size()[1:]
        num_features = 1
        for s in size:
            num_features *= s
        return num_features


def neural_network(args):
    """神经网络 · Neural networks

    定义网络，计算损失，反向传播，更新权重：每一部分都接着使用前面的变量。
    Define a network, compute a loss and its gradients, and update the weights. Each part continues with the variables
    of the previous part.
    """
    import torch.nn as nn
    import torch.nn.functional as F

    # ---- 定义网络 · Defining a network ----
    # 1. 定义包含一些可学习参数（或者叫权重）的神经网络 · Define a network with learnable parameters
    net = Net()
    print(net)
    # 可学习参数：五层各有一个权重张量和一个偏置张量，所以是 10 个
    # List the learnable parameters. They are ten tensors: a weight and a bias for each of the five layers.
    params = list(net.parameters())
    print(len(params))
    print(params[0].size())  # conv1's .weight
    # 尝试一个随机的32x32的输入：四个数分别是批大小、通道数、高、宽
    # Try a random 32x32 input. The four numbers are the batch size, the number of channels, the height and the width.
    input = torch.randn(1, 1, 32, 32)
    out = net(input)
    print(out)
    # 输出是得分（logits），不是概率，加起来不一定是 1；经过 softmax 才是概率
    # The outputs are logits. Unlike probabilities, they need not sum to 1. Softmax turns them into probabilities.
    print(out.sum().item(), F.softmax(out, dim=1).sum().item())
    # 清零所有参数的梯度缓存，然后进行随机梯度的反向传播
    # Clear the gradients of all parameters, then backpropagate a random gradient.
    net.zero_grad()
    out.backward(torch.randn(1, 10))
    # Net 只支持小批量（mini-batches）：Conv2d 也接受单个样本，但 Net 里的 view 会把 16 个通道当成 16 个样本
    # Net takes only mini-batches. Conv2d also takes a single sample, but Net would mistake 16 channels for 16 samples.
    with refused(RuntimeError):
        net(input[0])
    # 如果是一个单独的样本，使用input.unsqueeze(0)来添加一个“假的”批大小维度
    # For a single sample, unsqueeze(0) adds a batch dimension of size 1.
    print(net(input[0].unsqueeze(0)))

    # ---- 损失函数 · Loss functions ----
    # 一个损失函数接受一对(output, target)作为输入，计算一个值来估计网络的输出和目标值相差多少
    # A loss function takes an output and a target, and computes a number that says how far apart they are.
    output = net(input)
    # 本例子中使用模拟数据，而不是真正的答案
    # This example uses random numbers instead of a real target.
    target = torch.randn(10)
    # 使目标值与数据值形状一致，都是 (1, 10)；不一致时会按广播计算，只警告而不报错，损失可能算错
    # Give the target the shape of the output, (1, 10). If the shapes differ but can be broadcast, there is
    # only a warning, and the loss can be wrong.
    target = target.view(1, -1)
    # 均方误差函数：误差平方的平均，与手算的结果一致
    # MSELoss computes the mean of the squared errors. A calculation by hand gives the same result.
    criterion = nn.MSELoss()
    loss = criterion(output, target)
    print(loss)
    print(((output - target) ** 2).mean())
    # 计算图如下 · This is the graph:
    # input -> conv2d -> relu -> maxpool2d -> conv2d -> relu -> maxpool2d
    #       -> view -> linear -> relu -> linear -> relu -> linear
    #       -> MSELoss
    #       -> loss
    # 使用loss的.grad_fn属性跟踪反向传播过程：先是 MSELoss，再是最后的 linear（名为 Addmm），然后是 relu
    # Follow .grad_fn backward from the loss. First comes MSELoss, then the last linear layer (named Addmm), then relu.
    print(loss.grad_fn)
    linear = loss.grad_fn.next_functions[0][0]
    print(linear)
    # next_functions[0] 通向这一层的偏置，偏置是叶子张量；next_functions[1] 通向这一层的输入
    # next_functions[0] leads to the bias of this layer, which is a leaf. next_functions[1] leads to the layer's input.
    print(linear.next_functions[1][0])

    # ---- 反向传播 · Backpropagation ----
    # loss.backward() 算出每个参数的梯度；看看 conv1 的偏置（bias）在反向传播前后的梯度
    # loss.backward() computes all the gradients. Print that of conv1's bias before and after the call.
    # 清零所有参数（parameter）的梯度缓存，否则梯度将会与已有的梯度累加；清零后 .grad 是 None
    # Clear the gradients of all parameters, because new gradients are added to the old ones. This sets .grad to None.
    net.zero_grad()
    print("conv1.bias.grad before backward")
    print(net.conv1.bias.grad)  # None
    loss.backward()
    print("conv1.bias.grad after backward")
    print(net.conv1.bias.grad)

    # ---- 更新权重 · Updating the weights ----
    # 最简单的更新规则是随机梯度下降法（SGD）；照公式写，得到的却是一个新张量，不能当作层的参数
    # The simplest update rule is stochastic gradient descent (SGD). Written as an ordinary assignment, it
    # creates a new tensor, which a layer does not accept as its parameter.
    learning_rate = 0.01
    weight, gradient = net.fc3.weight, net.fc3.weight.grad
    weight = weight - learning_rate * gradient
    with refused(TypeError):
        net.fc3.weight = weight
    # 所以要原地改变每个参数；需要求导的叶子张量只有在 no_grad 里才能原地改变，更新本身也不该被跟踪
    # So change each parameter in place. A leaf that requires grad can be changed in place only under no_grad. Besides,
    # the update itself should not be tracked.
    with torch.no_grad():
        for parameter in net.parameters():
            parameter -= learning_rate * parameter.grad
    # 创建优化器（optimizer）：换成 Adam、RMSprop，或带 Nesterov 动量的 SGD（加上 momentum=0.9, nesterov=True），
    # 也只需要改 optimizer = 这一行
    # Create an optimizer. To use optim.Adam, optim.RMSprop, or SGD with Nesterov momentum, change only the
    # line `optimizer = ...`. For Nesterov momentum, add nesterov=True and a momentum, such as momentum=0.9.
    import torch.optim as optim

    optimizer = optim.SGD(net.parameters(), lr=0.01)
    # 优化器的一步与手写的一步相同：梯度没有变，所以权重再减去同样的一项
    # A step of the optimizer does the same thing as the step by hand. The gradients have not changed, so the same
    # amount is subtracted from the weights once more.
    optimizer.step()
    print(torch.allclose(net.fc3.weight, weight - learning_rate * gradient))  # True
    # 2. 在输入数据集上迭代：这里只有一张图片
    # 2. Iterate over the data, which is a single image here.
    for step in range(100):
        # 清零梯度缓存 · Clear the gradients
        optimizer.zero_grad()
        # 3. 通过网络处理输入 · Send the input through the network
        output = net(input)
        # 4. 计算损失（输出和正确答案的距离）
        # 4. Compute the loss, which says how far the output is from the target.
        loss = criterion(output, target)
        # 5. 将梯度反向传播给网络的参数
        # 5. Propagate the gradients back to the parameters of the network.
        loss.backward()
        # 6. 更新网络的权重 · Update the weights
        optimizer.step()
    print("loss after 100 steps:", loss.item())


def training_loop(args):
    """一个神经网络的典型训练过程 · A training loop on real data

    scikit-learn 自带 1,797 张手写数字图片（8×8）：用其中 1,437 张训练，再用其余 360 张测试准确率。
    Train a model on 1,437 of the 1,797 handwritten digits in scikit-learn. Measure its accuracy on the other 360.
    """
    from sklearn.datasets import load_digits

    # 把像素值从 [0, 16] 缩放到 [0, 1]；标签是类别编号 0 到 9，类型为 int64
    # Scale the pixels from [0, 16] to [0, 1]. The labels are the class numbers from 0 to 9, of type int64.
    images, labels = map(torch.from_numpy, load_digits(return_X_y=True))
    dataset = TensorDataset(images.float() / 16, labels.long())  # (1797, 64) and (1797,)
    # 随机划分成两部分：测试图片不参与训练，才能看出模型认不认得新图片
    # Split the data at random. The test images are not used in training, so they show how well the model generalizes.
    train_set, test_set = random_split(dataset, [1437, 360])
    # 数据加载器：每次给出一批 64 张，每轮重新打乱
    # The loader returns batches of 64 images. It reshuffles the images in every epoch.
    train_loader = DataLoader(train_set, batch_size=64, shuffle=True)
    model = nn.Sequential(nn.Linear(64, 100), nn.ReLU(), nn.Linear(100, 10))
    # 交叉熵损失：输入得分（logits）和类别编号，损失函数内部已经包含 softmax
    # The cross-entropy loss takes logits and class numbers. It applies softmax itself.
    criterion = nn.CrossEntropyLoss()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for epoch in range(1, 11):
        for images, labels in train_loader:
            optimizer.zero_grad()
            loss = criterion(model(images), labels)
            loss.backward()
            optimizer.step()
        # 打印最后一批的损失：有起伏，但总的趋势是下降
        # Print the loss of the last batch. It goes up and down, but it tends to fall.
        print(f"epoch {epoch}: loss {loss.item():.3f}")
    # 测试：得分最高的数字就是预测结果；测试用不到梯度，不计算梯度更快，也更省内存
    # Test the model. The digit with the highest score is the prediction. Without gradients, testing takes less time
    # and less memory.
    images, labels = test_set[:]
    with torch.no_grad():
        predicted = model(images).argmax(dim=1)
    accuracy = (predicted == labels).float().mean().item()
    print(f"accuracy on {len(test_set)} test images: {accuracy:.1%}")


# ---- Pytorch_Basic.py：自动求导、数据集的使用、模型保存及载入 ----


def first_examples(args):
    """自动求导例子 1, 自动求导例子 2, Loading data from numpy · Two autograd examples and data from NumPy

    先对一个公式求导，再把线性层训练一步，最后在 NumPy 数组与张量之间互相转换。
    Differentiate a formula, train a linear layer for one step, and convert between an array and a tensor.
    """
    # 自动求导例子 1 · Autograd, example 1
    # 使用单个数字创建tensor；requires_grad=True：追踪它的所有操作，用于之后计算梯度
    # Create tensors from single numbers. requires_grad=True tracks the operations on them, to compute gradients later.
    x = torch.tensor(1.0, requires_grad=True)
    w = torch.tensor(2.0, requires_grad=True)
    b = torch.tensor(3.0, requires_grad=True)
    # 一个公式 · A formula
    y = w * x + b  # y = 2 * x + 3
    # 计算梯度：y 对 x 的导数是 w，对 w 的导数是 x，对 b 的导数是 1
    # Compute the gradients. The derivatives of y are dy/dx = w, dy/dw = x and dy/db = 1.
    y.backward()
    print(x.grad)  # x.grad = 2
    print(w.grad)  # w.grad = 1
    print(b.grad)  # b.grad = 1

    # 自动求导例子 2 · Autograd, example 2
    # 创建 tensor shape 为(10, 3)和(10, 2)，随机初始化
    # Create random tensors of shape (10, 3) and (10, 2).
    x = torch.randn(10, 3)
    y = torch.randn(10, 2)
    # 一个全连接层：3 个输入，2 个输出
    # Create a fully connected layer with 3 inputs and 2 outputs.
    linear = nn.Linear(3, 2)
    print("w: ", linear.weight)
    print("b: ", linear.bias)
    # 损失函数和优化器 · Loss function and optimizer
    criterion = nn.MSELoss()
    optimizer = torch.optim.SGD(linear.parameters(), lr=0.01)
    # Forward 计算，然后计算损失 · Forward pass and loss
    pred = linear(x)
    loss = criterion(pred, y)
    print("loss: ", loss.item())
    # Backward 计算，然后打印梯度 · Backward pass and gradients
    loss.backward()
    print("dL/dw: ", linear.weight.grad)
    print("dL/db: ", linear.bias.grad)
    # 进行权重更新 · Update the weights
    optimizer.step()
    # 在权重更新之后，再次查看损失：它变小了
    # Look at the loss again. After the update, it is smaller.
    pred = linear(x)
    loss = criterion(pred, y)
    print("loss after 1 step optimization: ", loss.item())

    # 建一个numpy array · Create a NumPy array
    x = np.array([[1, 2], [3, 4]])
    # 把 numpy array 转换成张量
    # Convert the NumPy array to a PyTorch tensor.
    y = torch.from_numpy(x)
    # 再转换回 numpy array，三者共享内存
    # Convert the PyTorch tensor back to a NumPy array. All three share the same memory.
    z = y.numpy()
    print(y, z)


def official_dataset(args):
    """使用官方的datasets方法 · The official datasets: CIFAR-10

    取出一个样本，再用数据加载器分批读取。没有 --download 时，用形状相同的随机图片代替 CIFAR-10。
    Get a sample, then load batches. Without --download, random images of the same shape replace CIFAR-10.
    """
    # transform 包含了如何对数据进行处理：ToTensor 把图片变成形状为 [C, H, W]、取值在 [0, 1.0] 之间的张量
    # The transform defines how to process the data. ToTensor turns an image into a tensor of shape [C, H, W] with
    # values in [0, 1].
    transform = transforms.ToTensor()
    # 下载 CIFAR-10（170 MB），或者随机生成 1000 张图片
    # Download the CIFAR-10 dataset (170 MB), or generate 1000 random images.
    if args.download:
        with downloading("CIFAR-10"):
            train_dataset = datasets.CIFAR10(args.data_dir, transform=transform, download=True)
    else:
        train_dataset = datasets.FakeData(1000, (3, 32, 32), transform=transform)
    print(train_dataset)
    # 只读一组数据：一张图片和它的标签
    # Read a single sample, which is an image and its label.
    image, label = train_dataset[0]
    print(image.size())  # torch.Size([3, 32, 32])
    print(label)
    # 数据加载器：设置batch大小，是否打乱等
    # Create a data loader. Set the batch size, and whether to shuffle the samples.
    train_loader = DataLoader(dataset=train_dataset, batch_size=64, shuffle=True)
    # 遍历加载器 得到每个batch
    # Iterate over the loader to get each batch.
    data_iter = iter(train_loader)
    # next方法得到一个batch：标签也是张量，类型为 int64
    # next() returns a batch. The labels are a tensor as well, and their type is int64.
    images, labels = next(data_iter)
    print(images.shape, labels.shape)
    # 每次batch大小进行喂入数据，也就是一次喂一批：遍历一次就是一轮，最后一批可能较小
    # Feed the data in batches. One pass over the loader is an epoch, and its last batch may be smaller.
    for images, labels in train_loader:
        # 训练的代码写在这里 · Training code should be written here.
        pass
    print(len(train_loader), "batches, the last of shape", images.shape)


class CustomDataset(Dataset):
    """Show the methods that every dataset needs. Fill them in for your own data.

    标准创建自己的数据类的形式：DataLoader 靠 __len__ 得知有多少个样本，用 __getitem__ 取出第 index 个。
    """

    def __init__(self):
        # 1. 初始化工作，例如记下文件名和 transform · Prepare the dataset, for example by listing the files
        pass

    def __getitem__(self, index):
        # 1. 从路径去读文件 · Read a file from its path
        # 2. torchvision.Transform 处理数据 · Process the data with a transform
        # 3. 返回一对 image & label
        # 3. Return an image and its label as a pair.
        pass

    def __len__(self):
        # 这里先用 0 代替你的数据的数量，使用时要换成真正的数量
        # Return the number of your samples instead of 0.
        return 0


class BagDataset(Dataset):
    """Read images from one folder and masks from another. An image and its mask have the same file name.

    An item is a pair of an image and its mask. Before the transform, the image is a uint8 array of shape
    (160, 160, 3). The mask is a float32 tensor of shape (2, 160, 160). It is one-hot, so channel 0 is 1 where
    the mask is black, and channel 1 is 1 where the mask is white.

    自己的数据集：图片和掩码放在两个文件夹里，图片与它的掩码文件名相同。每一项是图片和独热编码的掩码 (2, 160, 160)。
    """

    def __init__(self, image_dir, mask_dir, transform=None):
        self.image_dir, self.mask_dir = Path(image_dir), Path(mask_dir)
        # 文件名只列出一次，并且排序，这样同一个编号总是对应同一张图片
        # List the file names once, and sort them, so that an index always refers to the same image.
        self.names = sorted(file.name for file in self.image_dir.iterdir())
        self.transform = transform

    def __len__(self):
        return len(self.names)

    # 实现__getitem__方法后，可以用 bag[0] 取样本；用到时才读文件
    # With __getitem__, bag[0] returns a sample. The files are read only when they are needed.
    def __getitem__(self, idx):
        img_name = self.names[idx]
        # 读入图片：cv2.imread 在 Windows 上打不开含中文的路径，所以先读出字节再解码
        # Read the image. On Windows, cv2.imread cannot open a path with Chinese characters, so read the bytes first
        # and then decode them.
        imgA = cv2.imdecode(np.fromfile(self.image_dir / img_name, np.uint8), 1)
        imgA = cv2.resize(imgA, (160, 160))
        # OpenCV 的颜色顺序是 BGR，而 Normalize 的均值按 RGB 的顺序给出，所以先转换
        # OpenCV orders the colors as BGR, but the mean for Normalize is in RGB order, so convert the image first.
        imgA = cv2.cvtColor(imgA, cv2.COLOR_BGR2RGB)
        # 读入mask图片，0表示以灰度模式读；缩放用最近邻插值，不会在边缘产生中间灰度值
        # Read the mask. The 0 means grayscale. Nearest-neighbor resizing adds no intermediate grays at the edges.
        imgB = cv2.imdecode(np.fromfile(self.mask_dir / img_name, np.uint8), 0)
        imgB = cv2.resize(imgB, (160, 160), interpolation=cv2.INTER_NEAREST_EXACT)
        # 黑色是第 0 类，白色是第 1 类；白色存成 1 或 255 都可以
        # Black is class 0 and white is class 1, whether the file stores white as 1 or as 255.
        imgB = torch.from_numpy(imgB > imgB.max() / 2).long()
        # onehot编码为2类：(160, 160) -> (160, 160, 2) -> (2, 160, 160) · One-hot encoding
        imgB = F.one_hot(imgB, num_classes=2).permute(2, 0, 1).float()
        # 对输入放入图片进行transform转换 · Apply the transform to the image
        if self.transform:
            imgA = self.transform(imgA)
        return imgA, imgB


def own_dataset(args):
    """使用自己的数据 · Your own data: images and masks in two folders

    读入图片和掩码，划分成训练集和测试集，再分批加载；这里的图片是脚本自己画的圆盘。
    Read images and masks, split them into a training set and a test set, and load batches. The images show
    discs, which the script draws itself.
    """
    # 像下面一样使用自己数据 构造loader加载器；数据集是空的，没有样本可以打乱，所以报错
    # Create a loader for your own data. Here the dataset is empty, so shuffle=True raises an error.
    custom_dataset = CustomDataset()
    with refused(ValueError):
        DataLoader(dataset=custom_dataset, batch_size=64, shuffle=True)
    # 转成张量再标准化：均值和标准差是 ImageNet 的，顺序为 RGB
    # Convert the image to a tensor. Then normalize it with ImageNet's mean and standard deviation, in RGB order.
    normalize = transforms.Normalize(mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225])
    transform = transforms.Compose([transforms.ToTensor(), normalize])
    # 画 20 张图片和掩码；用自己的数据时，换成自己的两个文件夹，并去掉 draw_discs 这一行
    # Draw 20 images and masks. For your own data, change both folders, and delete the line with draw_discs.
    image_dir, mask_dir = args.out_dir / "bag_data", args.out_dir / "bag_data_msk"
    draw_discs(image_dir, mask_dir)
    # 实例化一个对象 · Create an instance
    bag = BagDataset(image_dir, mask_dir, transform)
    imgA, imgB = bag[0]
    print(imgA.shape, imgA.dtype, imgA.min(), imgA.max())
    print(imgB.shape, imgB.dtype, imgB.unique())
    # 此处调用len方法会调用类的内置方法__len__ · len(bag) calls the method __len__
    train_size = int(0.9 * len(bag))
    test_size = len(bag) - train_size
    # random_split:按照给定的长度将数据集划分成没有重叠的新数据集组合，每个样本分到哪个数据集是随机的
    # random_split divides the dataset at random into new, non-overlapping datasets of the given lengths.
    train_dataset, test_dataset = random_split(bag, [train_size, test_size])  # 18 and 2 pairs
    # 加上 num_workers=4 就由 4 个进程同时读图片；这时主程序要写在 if __name__ == "__main__": 下面，
    # 只有 Python 3.14 之前的 Linux 不需要
    # With num_workers=4, four processes read the images. The main program must then be under
    # `if __name__ == "__main__":`, as at the end of this file, except on Linux before Python 3.14.
    train_dataloader = DataLoader(train_dataset, batch_size=4, shuffle=True)
    test_dataloader = DataLoader(test_dataset, batch_size=4)
    print(len(train_dataloader), "batches for training,", len(test_dataloader), "for testing")  # 5 and 1
    # 数据加载时会调用 __getitem__内置方法 · The loader calls __getitem__
    for imgA, imgB in train_dataloader:
        print(imgA.shape, imgB.shape)


def pretrained(args):
    """预训练模型的使用 · A pretrained model with a new head

    冻结预训练的主干，训练时就只有新换的全连接层会更新；还要用 eval()，因为 BatchNorm 和 Dropout 在两种模式下行为不同。
    Freeze a pretrained body, so that training updates only the new last layer. Call eval() as well, because
    BatchNorm and Dropout behave differently in train mode and in eval mode.
    """
    # 下载并载入预训练好的模型ResNet-18（45 MB）；没有 --download 时参数是随机的
    # Download and load the pretrained ResNet-18 (45 MB). Without --download, its parameters are random.
    # 真实图片要先用 models.ResNet18_Weights.DEFAULT.transforms() 处理
    # First process real images with the transform that models.ResNet18_Weights.DEFAULT.transforms() returns.
    with downloading("ResNet-18"):
        resnet = models.resnet18(weights="DEFAULT" if args.download else None)
    # 如果只想微调 top layer，如下设置：不跟踪原有的参数，训练时它们就不会更新
    # To fine-tune only a new top layer, stop tracking all present parameters, so that they are not updated.
    for param in resnet.parameters():
        param.requires_grad = False
    # 替换 top layer：新的一层的参数默认会被跟踪
    # Replace the top layer. By default, the parameters of the new layer are tracked.
    resnet.fc = nn.Linear(resnet.fc.in_features, 100)  # 100 is an example.
    print([name for name, param in resnet.named_parameters() if param.requires_grad])
    # forward计算：64 张图片，每张 100 个得分
    # Run the forward pass. Each of the 64 images gets 100 scores.
    resnet.to(args.device).eval()
    images = torch.randn(64, 3, 224, 224, device=args.device)
    with torch.no_grad():
        outputs = resnet(images)
    print(outputs.size())  # torch.Size([64, 100])
    # 冻结参数并不能冻结 BatchNorm 的移动平均：在 train 模式下，每次前向计算都会改变它
    # 所以主干要一直用 eval 模式，训练时也一样
    # Freezing the parameters does not freeze BatchNorm's moving averages. In train mode, a forward pass updates them.
    # So keep the frozen body in eval mode during training as well.
    average = resnet.bn1.running_mean.clone()
    resnet.train()
    resnet(images[:2])
    print(torch.equal(resnet.bn1.running_mean, average))  # False
    # Dropout 在 train 模式下让每个数以 0.5 的概率变成 0，其余的乘以 2，使期望不变；在 eval 模式下什么也不做
    # In train mode, Dropout sets each number to 0 with probability 0.5, and doubles the others, so that the expected
    # value stays the same. In eval mode, it does nothing.
    dropout = nn.Dropout(p=0.5)
    print(dropout.train()(torch.ones(8)))
    print(dropout.eval()(torch.ones(8)))


def save_and_load(args):
    """保存和载入模型的使用方法 · Saving and loading a model

    三种方式：保存整个模型、只保存参数（state_dict）、保存检查点以便从中断的地方接着训练。
    Save a whole model, save only its parameters, and save a checkpoint from which training can resume.
    """

    # 训练 epochs 轮 · Train for the given number of epochs
    def learn(model, optimizer, epochs):
        for _ in range(epochs):
            optimizer.zero_grad()
            F.mse_loss(model(inputs), targets).backward()
            optimizer.step()

    inputs, targets = torch.randn(20, 3), torch.randn(20, 2)
    net = nn.Linear(3, 2)
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    learn(net, optimizer, epochs=3)

    # 保存和载入整个模型：载入这种文件时可能执行任意代码，所以 PyTorch 默认拒绝载入
    # Save and load the whole model. Loading such a file can execute arbitrary code, so PyTorch refuses it by default.
    whole = args.out_dir / "model-whole.pt"
    torch.save(net, whole)
    with refused(pickle.UnpicklingError):
        model = torch.load(whole)
    # weights_only=False 只应该用于自己保存的文件；载入时还要能找到这个模型的类定义
    # Use weights_only=False only for a file that you saved yourself. Loading also requires the class of the model.
    model = torch.load(whole, weights_only=False)
    print(torch.equal(model(inputs), net(inputs)))  # True

    # 只保存训练好模型的参数：一般都用这种方式；载入时要先建一个同样的模型。
    # 参数是在 GPU 上保存的，而载入的电脑没有 GPU，就要加 map_location="cpu"
    # The usual way is to save only the parameters (and buffers). To load them, first create the same model.
    # On a computer without a GPU, add map_location="cpu" to load a file that was saved on a GPU.
    weights = args.out_dir / "model-weights.pt"
    torch.save(net.state_dict(), weights)
    model = nn.Linear(3, 2)
    model.load_state_dict(torch.load(weights, weights_only=True))
    print(torch.equal(model(inputs), net(inputs)))  # True

    # 检查点：优化器也有状态（Adam 的移动平均），所以一起保存
    # Save a checkpoint. The optimizer also has a state (the moving averages of Adam), so save it as well.
    # 如果用到随机打乱或 Dropout，还要保存和恢复随机数生成器的状态：
    # torch.get_rng_state()，用 GPU 时再加 torch.cuda.get_rng_state()
    # If training shuffles the data or uses Dropout, also save and restore the state of the random number
    # generator, torch.get_rng_state(), and for a CUDA GPU torch.cuda.get_rng_state() as well.
    checkpoint = args.out_dir / "checkpoint.pt"
    state = {"epoch": 3, "model": net.state_dict(), "optimizer": optimizer.state_dict()}
    torch.save(state, checkpoint)
    # 没有中断的训练：再训练两轮，到第 5 轮为止
    # Without an interruption, training continues for two more epochs, up to the fifth.
    learn(net, optimizer, epochs=2)
    # 第 3 轮之后中断的训练：载入检查点，接着训练到第 5 轮
    # If training was interrupted after the third epoch, load the checkpoint, and continue up to the fifth.
    state = torch.load(checkpoint, weights_only=True)
    resumed = nn.Linear(3, 2)
    resumed.load_state_dict(state["model"])
    optimizer = torch.optim.Adam(resumed.parameters(), lr=0.01)
    optimizer.load_state_dict(state["optimizer"])
    learn(resumed, optimizer, epochs=5 - state["epoch"])
    # 两者的结果完全相同 · Both give exactly the same result
    print(torch.equal(resumed(inputs), net(inputs)))  # True
    print("Written:", whole, weights, checkpoint, sep="\n  ")


TOUR = [tensors, operations, numpy_bridge, devices, autograd, neural_network, training_loop]
PYTORCH_BASIC = [first_examples, official_dataset, own_dataset, pretrained, save_and_load]
SECTIONS = {section.__name__: section for section in TOUR + PYTORCH_BASIC}


def main(argv: list[str] | None = None) -> dict:
    """Run the chosen sections. Return a dict that maps the name of each section to a dict of its variables.

    依次运行选中的各节，没有选择时运行全部；返回每一节的变量。
    """
    make_stdout_tolerant()
    args = make_parser().parse_args(argv)
    args.device = choose_device(args.device)
    args.out_dir.mkdir(parents=True, exist_ok=True)
    results = {}
    for name in args.section or SECTIONS:
        # 每一节开始时都重新设置随机种子，所以单独运行时结果也相同
        # Each section starts from the same seed, so it gives the same results when it runs alone.
        torch.manual_seed(args.seed)
        results[name] = run(SECTIONS[name], args, before=classes_of(SECTIONS[name]))
    return results


# ---- Below: sessions, command line, device, downloads, drawn images. The lesson ends here. ----


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


def classes_of(section: Callable) -> str:
    """Return the code of the classes that the section uses, with ">>> " before each line."""
    source = "".join(inspect.findsource(section)[0])
    classes = [node for node in ast.parse(source).body if isinstance(node, ast.ClassDef)]
    used = [ast.get_source_segment(source, node) for node in classes if node.name in section.__code__.co_names]
    return "".join(textwrap.indent(code, ">>> ") + "\n\n" for code in used)


def make_parser() -> argparse.ArgumentParser:
    # fmt: off
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0], allow_abbrev=False,
        epilog="example: python %(prog)s --section autograd neural_network --seed 1")
    choose = parser.add_argument_group("sections")
    choose.add_argument("--section", metavar="NAME", nargs="+", choices=SECTIONS,
        help=f"sections to run, separated by spaces, from these: {', '.join(SECTIONS)} (default: run all sections)")
    choose.add_argument("--seed", type=lambda text: whole_number(text, 0), metavar="N", default=0,
        help="seed for the random numbers; repeated runs on one CPU then agree (default: %(default)s)")
    choose.add_argument("--device", default="auto",
        help="device to use, such as cpu, cuda, cuda:1 or mps; auto uses a working GPU or else the CPU (default: auto)")
    files = parser.add_argument_group("data and output")
    files.add_argument("--download", action="store_true",
        help="download CIFAR-10 (170 MB) for official_dataset and the weights of ResNet-18 (45 MB) for pretrained,"
             " unless they were downloaded before (default: use random images and random weights)")
    files.add_argument("--data-dir", type=Path, metavar="DIR", default="data",
        help="folder that contains CIFAR-10, or will contain it after the download (default: %(default)s)")
    files.add_argument("--out-dir", type=Path, metavar="DIR", default=Path("outputs", "pytorch_basic"),
        help="folder for the files that own_dataset and save_and_load write; it is created if it is missing"
             " (default: %(default)s)")
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


@contextmanager
def downloading(what: str) -> Iterator[None]:
    """End the script with a one-line message if the download in the block below fails.

    The download also fails if nothing arrives for ten seconds.
    """
    timeout = socket.getdefaulttimeout()
    socket.setdefaulttimeout(10)
    try:
        yield
    except Exception as error:  # For example, there is no network, the disk is full, or a file is damaged.
        reason = str(error).strip().rpartition("\n")[2] or type(error).__name__
        sys.exit(f"error: {what} cannot be downloaded ({reason}). Try again later, or run without --download.")
    finally:
        socket.setdefaulttimeout(timeout)


def draw_discs(image_dir: Path, mask_dir: Path) -> None:
    """Draw 20 gray images of a disc, each of 240x200 pixels, and their masks, which have the same file names."""
    for number in range(20):
        mask = np.zeros((200, 240), np.uint8)
        cv2.circle(mask, (60 + 6 * number, 100), 20 + number, 255, -1)
        for folder, picture in ((image_dir, 50 + mask // 2), (mask_dir, mask)):
            folder.mkdir(exist_ok=True)
            cv2.imencode(".png", picture)[1].tofile(folder / f"{number:02}.png")


if __name__ == "__main__":
    main()

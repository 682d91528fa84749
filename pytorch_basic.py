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
parameters of a model, the whole model, and a checkpoint, from which a stopped run goes on.

**Try**

    --section update_weights --seed 1   # other weights to begin with: SGD takes 92 steps, not 38
    --section tensors --seed 1          # other random numbers, the same shapes and dtypes
    --section devices --device meta     # an error: the device meta has shapes, but no numbers
"""

import argparse
import inspect
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn, optim
from torch.utils.data import DataLoader, Dataset, random_split
from torchvision import datasets, models, transforms

OUT_DIR = Path("outputs", "pytorch_basic")
SUFFIXES = {".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"}


def refused(what: str, function: Callable, *args) -> str:
    """Call what PyTorch refuses. Prints and returns the first sentence of its error."""
    error = "no error"
    try:
        function(*args)
    except Exception as caught:  # of whatever kind: the reader is to see which
        sentence = str(caught).strip().partition("\n")[0].partition(". ")[0]
        error = f"{type(caught).__name__}: {sentence}"
    print(f"{what} → {error}")
    return error


# ---- 60分钟熟悉Pytorch · The 60-minute tour ----
# Each section is a function. The first line of its docstring is the heading that it is printed
# under, the other says in Chinese what happens there. It returns what it found, for the tests.


def tensors(args) -> dict:
    """张量 · Tensors

    创建没有初始化、随机初始化、填满 0 的矩阵，直接从数据构造张量；new_* 沿用原张量的 dtype。
    """
    found = {}
    # The notes begin with `from __future__ import print_function`, which only Python 2 needed.
    found["empty"] = x = torch.empty(5, 3)
    print(f"x = torch.empty(5, 3): not initialized, so whatever was in memory\n{x}")
    found["rand"] = x = torch.rand(5, 3)
    print(f"x = torch.rand(5, 3): uniform between 0 and 1\n{x}")
    found["zeros"] = x = torch.zeros(5, 3, dtype=torch.long)
    print(f"x = torch.zeros(5, 3, dtype=torch.long)\n{x}")

    # 直接从数据构造张量 · Straight from data: torch.tensor, not the old torch.Tensor and
    # torch.FloatTensor, which take a number for a size.
    found["data"] = x = torch.tensor([5.5, 3])
    print(f"x = torch.tensor([5.5, 3])\n{x}")
    print(f"{torch.tensor(3).shape = }: no dimensions, a number; {torch.Tensor(3).shape = }: three")

    # 根据已有的tensor建立新的tensor · new_* takes dtype and device from x, *_like the size as well.
    print(f"\n{x.dtype = }, {x.new_ones(2).dtype = }: x's dtype, unless you give another:")
    found["new_ones"] = x = x.new_ones(5, 3, dtype=torch.double)
    print(f"x = x.new_ones(5, 3, dtype=torch.double)\n{x}")
    found["randn_like"] = x = torch.randn_like(x, dtype=torch.float)  # 重载 dtype: float for double
    print(f"x = torch.randn_like(x, dtype=torch.float): x's size as well\n{x}")
    # 获取张量的形状 · Its shape
    print(f"{x.size() = }  (a tuple; x.shape is the same)")
    return found


def operations(args) -> dict:
    """运算 · Operations

    加法的几种写法、原地操作（in-place）、索引、改变形状（view 与 reshape）、.item()。
    """
    x = torch.randn(5, 3)
    y = torch.rand(5, 3)
    print(f"{x[0] = }\n{y[0] = }\n{(x + y)[0] = }")

    # 加法 · Addition; the third form takes a tensor for the sum: 给定一个输出张量作为参数.
    result = torch.empty(5, 3)
    torch.add(x, y, out=result)
    found = {"sums": [x + y, torch.add(x, y), result, y]}
    # 加法：原位/原地操作（in-place） · Adds x to y, and so changes the y in the list, too.
    y.add_(x)
    equal = all(torch.equal(result, other) for other in found["sums"])
    print(f"x + y, torch.add(x, y), torch.add(x, y, out=result) and y.add_(x) agree: {equal}")
    print(f"y.add_(x) has changed y itself: {y[0] = }")
    print("Methods that end in _ work in place: x.copy_(y), x.t_(). So do y += x and y[0] = 5.")

    # 索引 · Indexing as in NumPy, but a tensor's strides (how far apart its numbers are in memory)
    # are never negative. So an array with negative ones, such as img[..., ::-1], is refused, too.
    print(f"\n{x[:, 1] = }")
    found["step_error"] = refused("x[::-1] (today: x.flip(0))", lambda: x[::-1])
    found["array_error"] = refused("from_numpy(a[::-1])", torch.from_numpy, np.arange(3)[::-1])

    # 改变形状 · Another shape: the notes' torch.view is a method, Tensor.view. It never copies: it
    # is the same memory in another shape. x.t() only reads the memory in another order, and there
    # view(-1) would have to copy; reshape does that when it must.
    x = torch.randn(4, 4)
    y = x.view(16)
    z = x.view(-1, 8)  # -1: the size that is left over, here 2
    found["views"] = [tuple(view.shape) for view in (x, y, z)]
    print(f"\n{x.size() = }, {y.size() = }, {z.size() = }")
    found["view_error"] = refused("x.t().view(-1) (but not .reshape(-1))", x.t().view, -1)

    found["tensor"] = x = torch.randn(1)
    print(f"\n{x = }, {x.item() = } (a Python number)")
    print("All the other operations: https://docs.pytorch.org/docs/stable/torch.html")
    return found


def numpy_bridge(args) -> dict:
    """桥接Numpy · The bridge to NumPy

    .numpy() 和 from_numpy() 共享内存，torch.tensor() 会复制；需要求导的张量先 .detach()。
    """
    # 共享 · a and b are two names of one memory.
    a = torch.ones(5)
    b = a.numpy()
    a.add_(1)
    found = {"to_numpy": [a, b]}
    print(f"a = torch.ones(5); b = a.numpy(); a.add_(1)\n{a = }\n{b = }")
    a = np.ones(5)
    b = torch.from_numpy(a)
    np.add(a, 1, out=a)
    print(f"a = np.ones(5); b = torch.from_numpy(a); np.add(a, 1, out=a)\n{a = }\n{b = }")
    copy = torch.tensor(a)
    a[0] = 100
    found |= {"from_numpy": [a, b], "copy": copy}
    print(f"copy = torch.tensor(a); a[0] = 100\n{b = }: shared\n{copy = }: a copy")

    found["char"] = torch.ones(3, dtype=torch.int8).numpy()
    print("\nnotes: every tensor on the CPU can become an array, except CharTensor")
    print(f"today: CharTensor can ({found['char'].dtype}), but not a dtype that NumPy lacks:")
    found["bfloat16"] = refused("bfloat16", torch.ones(3, dtype=torch.bfloat16).numpy)
    found["tracked"] = refused("without detach()", torch.ones(3, requires_grad=True).numpy)
    return found


def devices(args) -> dict:
    """pytorch有关cuda的基本操作与概念 · Devices: the CPU and the GPU

    张量和模型要在同一设备上才能一起运算；0 维的 CPU 张量例外。
    """
    found = {}
    # 查看GPU是否可用, GPU数量, 当前GPU索引号, GPU名字
    print(f"{torch.cuda.is_available() = }, {torch.cuda.device_count() = }")
    x = torch.tensor([1, 2, 3])
    print(f"x = {x}, {x.device = }: a tensor is made on the CPU")
    device = torch.device("cuda")  # only a name: it can be made without a GPU, too
    if torch.cuda.is_available():
        print(f"{torch.cuda.current_device() = }, {torch.cuda.get_device_name(0) = }")
        # .cuda() is .cuda(0), unless torch.cuda.set_device has made another GPU the current one.
        moved = [x.cuda(), x.cuda(0), x.to(device), torch.tensor([1, 2, 3], device=device)]
        print(f"x.cuda(), x.cuda(0), x.to(device), and made there: {moved}")
    else:
        moved = refused("x.cuda()", x.cuda)
        print("With a GPU: torch.cuda.current_device() → 0, torch.cuda.get_device_name(0) → a name")
        print("x.cuda(), x.cuda(0), x.to('cuda') → tensor([1, 2, 3], device='cuda:0')")

    # 张量可以移动到任何设备 · The tour's lines, on whatever device this run has
    device = args.device
    x = torch.randn(1)
    y = torch.ones_like(x, device=device)  # 直接在GPU上创建tensor: made there
    x = x.to(device)  # moved there
    found["z"] = z = x + y
    # The notes' z.to("cpu", torch.double) in two steps, since Apple's MPS has no float64.
    found["back"] = back = z.to("cpu").to(torch.double)
    print(f"\nOn this run's device, {device}: z = x + y = {z}")
    print(f"z.to('cpu').to(torch.double) = {back}: .to changes the dtype as well")

    # On a CPU no move can be seen, so there "meta" stands for the GPU: a device that every machine
    # has, whose tensors have a shape and a dtype, but no numbers.
    there = device if device.type != "cpu" else torch.device("meta")
    x = torch.tensor([1, 2, 3])
    found["y"] = y = x.to(there) ** 2
    print("\nOn a CPU no move can be seen: there 'meta' (shapes, no numbers) stands for the GPU.")
    print(f"x = torch.tensor([1, 2, 3]); y = x.to('{there}') ** 2\n{y = }: it stays there")
    print("notes: expected backend CUDA and dtype Long but got backend CPU and dtype Long")
    found["two_devices"] = refused("today: y + x", y.add, x)
    found["scalar"] = scalar = y + torch.tensor(1)
    print(f"y + torch.tensor(1), a CPU tensor of no dimensions: allowed, result on {scalar.device}")

    net = nn.Linear(3, 1)
    module = found["module"] = [next(net.parameters()).device]
    net.to(there)  # this changes net itself; x.to returns another tensor: x = x.to(device)
    module += [next(net.parameters()).device, net(torch.rand(2, 3, device=there)).device]
    print("\nParameters of net: on {}, after net.to on {}; its output: on {}".format(*module))
    found["wrong_input"] = refused("net(an input on the CPU)", net, torch.rand(2, 3))
    return found | {"moved": moved}


def autograd(args) -> dict:
    """自动求导 · 张量 · Autograd: a tensor and its history

    追踪运算、生成计算图；只有叶子张量保留 .grad，多次 backward 会累加；非标量要给 gradient 参数。
    """
    found = {}
    # 追踪 · With requires_grad=True each operation on x is tracked: its result has a Function, the
    # grad_fn. Tensor and Function make an acyclic graph (无圈图, 有向无环图), the whole history.
    found["x"] = x = torch.ones(2, 2, requires_grad=True)
    print(f"x = {x}\n{x.grad_fn = }: no operation made x")
    found["y"] = y = x + 2
    print(f"y = x + 2 = {y}\n{y.grad_fn = }")
    found["z"] = z = y * y * 3
    found["out"] = out = z.mean()
    print(f"z = y * y * 3 = {z}\nout = z.mean() = {out!r}")

    # define-by-run: the graph is the code that ran, so an `if` or a loop may change it each time.
    graphs = found["graphs"] = []
    for double in (False, True):
        result = x * 2 if double else x - 1
        graphs.append(type(result.grad_fn).__name__)
    print(f"\nx * 2 if double else x - 1: {graphs[0]} when double is False, {graphs[1]} when True")

    a = torch.randn(2, 2)
    a = (a * 3) / (a - 1)
    flags = found["flags"] = [a.requires_grad]
    a.requires_grad_(True)  # in place; True is its default, too (the notes say False)
    flags.append(a.requires_grad)
    b = (a * a).sum()
    print("a = ((a * 3) / (a - 1))")
    print(f"requires_grad before and after a.requires_grad_(True): {flags}; {b.grad_fn = }")
    # 阻止跟踪历史 · Not tracked: two ways
    with torch.no_grad():
        untracked = found["untracked"] = [x.detach().requires_grad, (x * 2).requires_grad]
    print(f"requires_grad of x.detach() and, with torch.no_grad(), of x * 2: {untracked}")

    # 标量 · From a scalar, backward() needs no argument; from any other tensor, one of its shape.
    found["not_scalar"] = refused("\ny.backward()", y.backward)
    found["wrong_shape"] = refused("y.backward(torch.ones(3))", y.backward, torch.ones(3))
    gradient = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    (x + 2).backward(gradient)
    print(f"(x + 2).backward({gradient.tolist()}): x.grad = {x.grad.tolist()}")
    (x + 2).backward(gradient)  # 累加 · It adds to what is in x.grad.
    print(f"the same once more: x.grad = {x.grad.tolist()}, it adds up")
    # A leaf is a tensor that no tracked operation made: only leaves keep their gradient, and one
    # that requires grad cannot be changed in place while operations are tracked.
    print(f"Only a leaf keeps its grad: {x.is_leaf = }, {y.is_leaf = }")
    found["in_place"] = refused("x.add_(1)", x.add_, 1)
    return found


def gradients(args) -> dict:
    """梯度 · Gradients

    out 是标量，x.grad 处处是 4.5；backward() 会释放计算图中保存的中间结果，所以不能再调一次。
    """
    x = torch.ones(2, 2, requires_grad=True)
    y = x + 2
    z = y * y * 3
    out = z.mean()
    out.backward()
    # 导数 · out is 1/4 of the sum of 3 (x + 2)², so d(out)/dx = 3/2 (x + 2): 4.5 where x is 1.
    print(f"out.backward(), then the derivatives d(out)/dx are in x.grad\n{x.grad}")
    same = torch.ones(2, 2, requires_grad=True)
    (3 * (same + 2) ** 2).mean().backward(torch.tensor(1.0))
    print(f"out.backward(torch.tensor(1.)) gives the same: {torch.equal(x.grad, same.grad)}")
    # The first backward() frees what the graph has saved (a graph of additions only saves nothing).
    again = refused("but after it: out.backward()", out.backward)
    return {"grad": x.grad, "same": same.grad, "again": again}


class Net(nn.Module):
    """Images (N, 1, 32, 32) to 10 scores for each, (N, 10): the tour's network.

    An `nn.Module` has layers and a `forward`, which says what becomes of the input. Any
    differentiable operation may stand there: argmax ends the graph, and round has gradient 0. From
    forward, autograd makes the backward by itself.

    The notes' text of it mixes tabs and spaces, so it does not parse. `super(Net,self).__init__()`
    is `super().__init__()` today, and torch.flatten(x, 1) does the work of these lines:

        x = x.view(-1, self.num_flat_features(x))

        def num_flat_features(self, x):
            size = x.size()[1:]  # 除去batch_size的其他所有维度: all sizes but the batch's
            num_features = 1
            for s in size:
                num_features *= s
            return num_features
    """

    def __init__(self):
        super().__init__()
        # 输入图像channel：1；输出channel：6；5x5卷积核: 1 channel in, 6 out, a kernel of 5x5
        self.conv1 = nn.Conv2d(1, 6, 5)
        self.conv2 = nn.Conv2d(6, 16, 5)
        # an affine operation: y = Wx + b; 16 channels of 5x5 are left of an image of 32x32
        self.fc1 = nn.Linear(16 * 5 * 5, 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.conv1(x)), (2, 2))
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)  # 2 is short for (2, 2)
        x = torch.flatten(x, 1)  # from dimension 1 on: each image becomes one row
        x = F.relu(self.fc1(x))
        x = F.relu(self.fc2(x))
        x = self.fc3(x)
        return x


def network(args) -> dict:
    """神经网络 · 定义网络 · Neural networks: defining one

    可学习参数、前向计算、清零梯度缓存；输出是 logits，softmax 之后才是概率。
    """
    net = Net()
    params = list(net.parameters())  # 可学习参数: a weight and a bias of each of the five layers
    print(f"{net}\n{len(params) = }, {params[0].size() = } (conv1's weight)")
    input = torch.randn(1, 1, 32, 32)  # batch size, channels, height, width
    out = net(input)
    print(f"out = net(input): ten scores (logits), one for each class\n{out}")
    print("notes: grad_fn=<AddmmBackward>   today: grad_fn=<AddmmBackward0>")
    print(f"Probabilities sum to 1; {out.sum() = :.3f}, {out.softmax(dim=1).sum() = :.3f}")
    net.zero_grad()  # 清零所有参数的梯度缓存
    out.backward(torch.randn(1, 10))
    filled = sum(bool(parameter.grad.any()) for parameter in params)
    print(f"out.backward(torch.randn(1, 10)): {filled} of the {len(params)} now have a gradient")

    # 小批量 · Mini-batches. A single sample (单个样本) becomes a batch of one by unsqueeze(0).
    print("\nnotes: torch.nn takes mini-batches only")
    print("today: Conv2d, Linear and max_pool2d take a single sample, too. BatchNorm2d does not,")
    print("       nor does Net, whose flatten takes the 16 channels for a batch: 16 rows of 5x5")
    found = {"single": net.conv1(input[0]), "unsqueezed": net(input[0].unsqueeze(0))}
    print(f"net.conv1(input[0]) → {found['single'].shape}")
    found["batch_norm_error"] = refused("nn.BatchNorm2d(1)(input[0])", nn.BatchNorm2d(1), input[0])
    found["net_error"] = refused("net(input[0])", net, input[0])
    print(f"net(input[0].unsqueeze(0)) → {found['unsqueezed'].shape}")
    return found | {"params": params, "out": out, "filled": filled}


def loss(args) -> dict:
    """损失函数 · Loss functions

    均方误差 MSELoss 与手算一致；再沿 grad_fn 从 loss 往回走一遍计算图。
    """
    net = Net()
    input = torch.randn(1, 1, 32, 32)
    output = net(input)
    target = torch.randn(10)
    # 使目标值与数据值形状一致 · The shape of output, (1, 10): with (10,) there is a warning.
    target = target.view(1, -1)
    criterion = nn.MSELoss()  # 均方误差函数 · The mean of the squared errors
    loss = criterion(output, target)
    by_hand = ((output - target) ** 2).mean()
    print(f"loss = criterion(output, target): {loss!r}\nby hand: {by_hand!r}")
    print("notes: grad_fn=<MseLossBackward>   today: grad_fn=<MseLossBackward0>")

    # 计算图 · Each node of the graph knows the nodes of its inputs. Beside the input, a layer has
    # its weight and bias: leaves (a weight may be transposed first), so go past them.
    node, names = loss.grad_fn, []
    while node is not None:
        names.insert(0, type(node).__name__)
        inputs = [function for function, _ in node.next_functions if function is not None]
        inputs = [f for f in inputs if type(f).__name__ not in ("AccumulateGrad", "TBackward0")]
        node = inputs[0] if inputs else None
    print("\nThe graph, from loss.grad_fn back by next_functions, printed from the input on:")
    print("input → " + " → ".join(names) + " → loss")
    print("Addmm: a linear layer. x.sum() is SumBackward0, its variant x.sum(dim=0) SumBackward1.")
    return {"loss": loss, "by_hand": by_hand, "names": names}


def backpropagation(args) -> dict:
    """反向传播 · Backpropagation

    zero_grad 之后、backward 之前，conv1 偏置的梯度是 None（笔记打印的是 0）；backward 之后才有值。
    """
    net, criterion = Net(), nn.MSELoss()
    input, target = torch.randn(1, 1, 32, 32), torch.randn(1, 10)
    criterion(net(input), target).backward()  # the notes' net has seen a backward() before, too

    net.zero_grad()  # 清零所有参数的梯度缓存, or the next gradients would be added to these
    output = net(input)
    loss = criterion(output, target)
    before = net.conv1.bias.grad  # 偏置 · of the bias
    print("conv1.bias.grad before backward, after net.zero_grad()")
    print(f"notes: tensor([0., 0., 0., 0., 0., 0.])   today: {before}, no gradient at all")
    loss.backward()
    print(f"conv1.bias.grad after backward\n{net.conv1.bias.grad}")
    return {"before": before, "after": net.conv1.bias.grad}


def update_weights(args) -> dict:
    """更新权重 · Updating the weights

    手写一步随机梯度下降，与优化器的一步逐位一致；再看四种优化器各用多少步（学习率各自设定，不是排名）。
    """
    input, target = torch.randn(1, 1, 32, 32), torch.randn(1, 10)
    criterion = nn.MSELoss()
    net, by_hand = Net(), Net()
    by_hand.load_state_dict(net.state_dict())

    # 随机梯度下降法（SGD） · The rule as a line of code: a layer takes no tensor that is not a
    # Parameter; a bare name does, but it is no leaf any more, and has no gradient the next time.
    print("notes: weight = weight - learning_rate * gradient\ntoday: ", end="")
    fc3 = by_hand.fc3
    criterion(by_hand(input), target).backward()
    new = fc3.weight - 0.01 * fc3.weight.grad
    literal = refused("fc3.weight = fc3.weight - lr * fc3.weight.grad", setattr, fc3, "weight", new)
    with torch.no_grad():  # so in place, and not tracked
        for weight in by_hand.parameters():
            weight.add_(weight.grad, alpha=-0.01)

    # 创建优化器（optimizer） · The same from torch.optim
    optimizer = optim.SGD(net.parameters(), lr=0.01)
    criterion(net(input), target).backward()
    optimizer.step()
    same = all(map(torch.equal, net.parameters(), by_hand.parameters()))
    print(f"with no_grad(): weight.add_(weight.grad, alpha=-lr) is optim.SGD's step: {same}\n")

    print("Steps to a loss of 0.001, at most 500. No ranking: other rates (lr), other counts.")
    steps = {}
    for name, make in {
        "SGD": lambda params: optim.SGD(params, lr=0.01),
        "Nesterov-SGD": lambda params: optim.SGD(params, lr=0.01, momentum=0.9, nesterov=True),
        "Adam": lambda params: optim.Adam(params, lr=0.001),
        "RMSprop": lambda params: optim.RMSprop(params, lr=0.0001),  # RMSProp in the notes
    }.items():
        torch.manual_seed(args.seed)
        net = Net()  # 1. 定义 · a network with parameters to learn, the same for each optimizer
        optimizer = make(net.parameters())
        for step in range(501):  # 2. 迭代 · over the data again and again; here one image
            optimizer.zero_grad()  # 清零梯度缓存
            output = net(input)  # 3. 处理输入 · the input through the network
            loss = criterion(output, target)  # 4. 计算损失 · how far from the target?
            if loss <= 0.001:
                break
            loss.backward()  # 5. 反向传播 · the gradients, into each parameter's .grad
            optimizer.step()  # 6. 更新参数 · the update
        steps[name] = step
        print(f"{name:12}  lr {optimizer.defaults['lr']:<6}  {step:3} steps  loss {loss:.5f}")
    return {"literal": literal, "same": same, "steps": steps}


# ---- Pytorch_Basic.py：自动求导、数据集的使用、模型保存及载入 ----


def first_examples(args) -> dict:
    """自动求导例子 1, 自动求导例子 2, Loading data from numpy · Autograd twice, and NumPy

    先对一个公式求导，再训练线性层一步，最后是 NumPy 数组与张量互转（共享内存）。
    """
    # 自动求导例子 1
    x = torch.tensor(1.0, requires_grad=True)
    w = torch.tensor(2.0, requires_grad=True)
    b = torch.tensor(3.0, requires_grad=True)
    y = w * x + b
    y.backward()
    gradients = [x.grad.item(), w.grad.item(), b.grad.item()]
    print(f"y = w * x + b at x = 1, w = 2, b = 3: {x.grad = }, {w.grad = }, {b.grad = }\n")

    # 自动求导例子 2
    x = torch.randn(10, 3)
    y = torch.randn(10, 2)
    linear = nn.Linear(3, 2)  # 一个全连接层
    print(f"w: {linear.weight}\nb: {linear.bias}")
    criterion = nn.MSELoss()
    optimizer = optim.SGD(linear.parameters(), lr=0.01)
    pred = linear(x)
    loss = criterion(pred, y)
    loss.backward()
    print(f"loss: {loss.item():.5f}\ndL/dw: {linear.weight.grad}\ndL/db: {linear.bias.grad}")
    optimizer.step()
    losses = [loss.item(), criterion(linear(x), y).item()]
    print(f"loss after 1 step: {losses[1]:.5f}\n")

    # Loading data from numpy
    x = np.array([[1, 2], [3, 4]])
    y = torch.from_numpy(x)
    z = y.numpy()
    print(f"{x.tolist() = }\n{y = }\n{z.tolist() = }, {np.shares_memory(x, z) = }")
    return {"gradients": gradients, "losses": losses, "arrays": [x, y, z]}


def official_dataset(args) -> dict:
    """使用官方的datasets方法 · The official datasets: CIFAR-10

    取一个样本，再用数据加载器分批读取；默认用随机图片代替 CIFAR-10。
    """
    to_tensor = transforms.ToTensor()  # for what it is today, see cv2_tensor.py
    if args.download:
        with downloading("CIFAR-10"):
            dataset = datasets.CIFAR10(args.data_dir, transform=to_tensor, download=True)
    else:
        dataset = datasets.FakeData(1000, (3, 32, 32), num_classes=10, transform=to_tensor)
        print("Random pictures, shaped as CIFAR-10's are; the real ones (170 MB) with --download")
    print(f"{type(dataset).__name__}: {len(dataset):,} pictures")
    image, label = dataset[0]  # 只读一组数据
    print(f"image, label = dataset[0]: {image.size() = }, {label = }")

    # 数据加载器 · The notes' next example has num_workers=4: processes that, on Windows, macOS and
    # since Python 3.14 Linux, import the file again; hence the `if __name__ == "__main__"` below.
    train_loader = DataLoader(dataset, batch_size=64, shuffle=True)
    data_iter = iter(train_loader)
    images, labels = next(data_iter)  # data_iter.next() in the notes: gone since PyTorch 1.13
    found = {"image": image, "label": label, "batch": tuple(images.shape), "labels": labels}
    print(f"next(data_iter): {images.shape = }, {labels.shape = }, both tensors")
    seen = 0
    for images, _ in train_loader:
        seen += len(images)  # training code would be here
    print(f"All of it: {len(train_loader)} batches, {seen:,} pictures, {len(images)} in the last")
    return found | {"sizes": [len(train_loader), seen, len(images)]}


class BagDataset(Dataset):
    """A folder of images and a folder of masks with the same names before the suffix.

    An item is imgA, the image, float32 (3, 160, 160), normalized with ImageNet's mean and standard
    deviation, and imgB, its mask, float32 (2, 160, 160), one-hot: background, object.
    """

    # The notes' CustomDataset shows these three methods with nothing in them. With them an object
    # has a length and can be indexed. (The notes call it an iterator: next(dataset) is an error.)

    def __init__(self, images: Path, masks: Path):
        """初始化工作: once, what is there, and how will it be converted?

        The notes list the folder for each item, in the order that the system happens to give.
        """
        self.pairs = find_pairs(images, masks)
        # Mean and standard deviation (the notes say variance) of red, green and blue
        normalize = transforms.Normalize(mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225])
        self.transform = transforms.Compose([transforms.ToTensor(), normalize])

    def __len__(self) -> int:
        """数据的数量: with CustomDataset's 0, a DataLoader that shuffles raises ValueError."""
        return len(self.pairs)

    def __getitem__(self, idx: int) -> tuple[Tensor, Tensor]:
        """从路径去读文件, 返回一对: read now, so that memory holds only the batch in use."""
        image, mask = read_pair(*self.pairs[idx])  # RGB; the notes leave it BGR
        imgA = self.transform(cv2.resize(image, (160, 160)))
        # Nearest neighbour: bilinear, as in the notes, makes values between the classes, and those
        # become 0 in their astype('uint8').
        mask = cv2.resize(mask, (160, 160), interpolation=cv2.INTER_NEAREST)
        imgB = F.one_hot(torch.from_numpy(mask).long(), num_classes=2)  # onehot编码为2类
        return imgA, imgB.permute(2, 0, 1).float()


def own_dataset(args) -> dict:
    """使用自己的数据 · Your own data: images and masks in two folders

    图片转 RGB 并标准化，掩码做 one-hot 编码，再划分训练集和测试集。
    """
    with tempfile.TemporaryDirectory() as folder:
        images, masks = (args.images, args.masks) if args.images else draw_folder(Path(folder))
        bag = BagDataset(images, masks)
        if len(bag) < 2:
            sys.exit(f"error: only one picture in {images}: none would be left to test on")
        image, mask = bag[0]
        print(f"{len(bag)} pairs of a picture and its mask. The first, as tensors:")
        print(f"image {tuple(image.shape)}, {image.dtype}, {image.min():.2f} to {image.max():.2f}")
        print(f"mask {tuple(mask.shape)}, {mask.dtype}, one-hot: background, object")
        share = sum(bag[i][1][1].mean().item() for i in range(len(bag))) / len(bag)
        if share == 0:
            sys.exit(f"error: no mask in {masks} has an object: none is white, or 1, anywhere")
        print(f"share of the object in all masks: {share:.1%}")

        # random_split: two parts, chosen at random, that have no item in common
        test_size = max(1, len(bag) // 10)
        train_dataset, test_dataset = random_split(bag, [len(bag) - test_size, test_size])
        train_dataloader = DataLoader(train_dataset, batch_size=4, shuffle=True)
        batches = [tuple(imgA.shape) for imgA, imgB in train_dataloader]
    sizes = [len(bag), len(train_dataset), len(test_dataset)]
    print(f"{sizes[1]} pairs for training, {sizes[2]} for testing; the first batch: {batches[0]}")
    return {"image": image, "mask": mask, "share": share, "sizes": sizes, "batches": batches}


def pretrained(args) -> dict:
    """预训练模型的使用 · A pretrained model with a new head

    冻结主干、只训练新的全连接层；还要 eval()，否则 BatchNorm 的统计量会变。
    """
    if args.download:
        with downloading("ResNet-18's weights"):  # the notes' pretrained=True is deprecated
            resnet = models.resnet18(weights=models.ResNet18_Weights.DEFAULT)
    else:
        resnet = models.resnet18()
        print("ResNet-18 with random weights; those learned on ImageNet (45 MB) with --download")
    for param in resnet.parameters():
        param.requires_grad = False
    resnet.fc = nn.Linear(resnet.fc.in_features, 100)  # 替换 top layer: new, so it requires grad
    learned = [name for name, param in resnet.named_parameters() if param.requires_grad]
    print(f"Only the new head, for 100 classes as in the notes, is trained: {learned}")

    resnet.to(args.device).eval()
    images = torch.randn(64, 3, 224, 224, device=args.device)
    with torch.no_grad():
        outputs = resnet(images)
    print(f"outputs = resnet(images) for 64 pictures of 224x224: {outputs.size() = }")

    # Without requires_grad the body is not yet frozen: BatchNorm has running averages of what it
    # sees, and updates them in train mode. So resnet.eval() before each epoch of training.
    moved = {}
    for mode in ("eval", "train"):
        resnet.train(mode == "train")
        before = resnet.bn1.running_mean.clone()
        resnet(torch.rand(8, 3, 64, 64, device=args.device))
        moved[mode] = (resnet.bn1.running_mean - before).abs().max().item()
        print(f"A forward pass in {mode}() moves bn1.running_mean by up to {moved[mode]:.3f}")
    return {"learned": learned, "moved": moved, "outputs": outputs}


def new_model() -> tuple[nn.Module, optim.Optimizer]:
    model = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2))
    return model, optim.Adam(model.parameters(), lr=0.01)


def learn(model, optimizer, inputs, targets, epochs) -> None:
    for _ in range(epochs):
        optimizer.zero_grad()
        F.mse_loss(model(inputs), targets).backward()
        optimizer.step()


def save_and_load(args) -> dict:
    """保存和载入模型的使用方法 · Saving and loading a model

    保存和载入三种：参数 state_dict、整个模型、检查点（可从中断处接着训练）。
    """
    inputs, targets = torch.randn(20, 3), torch.randn(20, 2)
    model, optimizer = new_model()
    learn(model, optimizer, inputs, targets, epochs=3)

    # 1. 只保存训练好模型的参数 · The parameters: nearly always what you want. Mind the brackets of
    # state_dict(). Each file has its own name; the notes' scripts all write model.ckpt.
    weights = args.out_dir / "model-weights.pt"
    torch.save(model.state_dict(), weights)
    restored, _ = new_model()
    restored.load_state_dict(torch.load(weights, weights_only=True))
    found = {"same": torch.equal(restored(inputs), model(inputs))}
    print(f"state_dict, saved and loaded: the same predictions, bit for bit: {found['same']}")

    # 2. The whole model, as a pickle. It holds the names of the classes, not their code, so loading
    # needs the same classes importable; and a pickle can run any code, so that torch.load refuses
    # it since PyTorch 2.6. weights_only=False is for a file that you made yourself, and no other.
    whole = args.out_dir / "model-whole.pt"
    torch.save(model, whole)
    found["refusal"] = refused("The whole model: torch.load(file)", torch.load, whole)
    loaded = torch.load(whole, weights_only=False)
    found["whole_same"] = torch.equal(loaded(inputs), model(inputs))
    print(f"with weights_only=False: the same predictions, bit for bit: {found['whole_same']}")

    # 3. A checkpoint to go on from. The optimizer has a memory, too (Adam's averages). That is all
    # there is here; with shuffling or dropout save torch.get_rng_state() as well, and with a
    # learning rate scheduler its state_dict().
    checkpoint = args.out_dir / "checkpoint.pt"
    state = {"epoch": 3, "model": model.state_dict(), "optimizer": optimizer.state_dict()}
    torch.save(state, checkpoint)
    learn(model, optimizer, inputs, targets, epochs=2)  # the uninterrupted run, to epoch 5

    state = torch.load(checkpoint, weights_only=True)
    resumed, optimizer = new_model()
    resumed.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    learn(resumed, optimizer, inputs, targets, epochs=5 - state["epoch"])
    found["resumed_same"] = all(map(torch.equal, resumed.parameters(), model.parameters()))
    print("A checkpoint: stopped after epoch 3, resumed to epoch 5; equal to an uninterrupted run,")
    print(f"bit for bit: {found['resumed_same']} (there is no shuffling here, and no dropout)")
    print(f"Written: {weights}, {whole}, {checkpoint}")
    return found | {"files": {"weights": weights, "whole": whole, "checkpoint": checkpoint}}


BASICS = [tensors, operations, numpy_bridge, devices, autograd, gradients]
NETWORK = [network, loss, backpropagation, update_weights]
PYTORCH_BASIC = [first_examples, official_dataset, own_dataset, pretrained, save_and_load]
SECTIONS = {section.__name__: section for section in BASICS + NETWORK + PYTORCH_BASIC}


def main(argv: list[str] | None = None) -> dict:
    """Run the sections asked for. Returns for each name a dict of what that section found."""
    parser = make_parser()
    args = parser.parse_args(argv)
    if bool(args.images) != bool(args.masks):
        parser.error("--images and --masks go together")
    headings = {name: inspect.getdoc(section).split("\n\n") for name, section in SECTIONS.items()}
    if args.list:
        print_heading(*(f"{name:17}{a}\n{'':17}{b}" for name, (a, b) in headings.items()))
        return {}
    args.device = choose_device(args.device)
    args.out_dir = make_out_dir(args.out_dir)
    results = {}
    for name in args.section or SECTIONS:
        print_heading("", f"======== {headings[name][0]} ({name})", headings[name][1])
        torch.manual_seed(args.seed)  # so that a section alone prints the same as among all
        results[name] = SECTIONS[name](args)
    return results


# ---- Below: command line, data, pictures. Nothing of it is about PyTorch; read it last. ----


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--section", metavar="NAME", nargs="+", choices=SECTIONS, help="sections to run (all)")
    add("--list", action="store_true", help="print the names of the sections, and stop")
    add("--images", metavar="DIR", type=path, help="for own_dataset (it draws a folder)")
    add("--masks", metavar="DIR", type=path, help="for own_dataset: a mask for each of --images")
    add("--download", action="store_true", help="CIFAR-10 (170 MB), ResNet's weights (45 MB)")
    add("--data-dir", metavar="DIR", type=path, default="data", help="of CIFAR-10 (%(default)s)")
    add("--seed", metavar="N", type=seed, default=0, help="of all random numbers (%(default)s)")
    add("--device", default="auto", help="cpu, cuda, cuda:1, mps, ... (%(default)s)")
    add("--out-dir", metavar="DIR", type=path, default=OUT_DIR, help="(%(default)s)")
    return parser


def seed(text: str) -> int:
    if not 0 <= int(text) < 2**32:  # what NumPy takes
        raise ValueError
    return int(text)


def path(text: str) -> Path:
    return Path(text).expanduser()


def choose_device(name: str) -> torch.device:
    """The device of that name; for "auto" the accelerator (CUDA, MPS, ...) if it works, or CPU."""
    accelerator = torch.accelerator.is_available() and torch.accelerator.current_accelerator()
    wanted = str(accelerator or "cpu") if name == "auto" else name
    try:
        torch.ones(1, device=wanted).add(1).item()  # a GPU too old for this PyTorch fails here
        return torch.device(wanted)
    except (RuntimeError, AssertionError, ImportError) as error:
        reason = str(error).partition("\n")[0].partition(". ")[0][:200]
    if name != "auto":
        sys.exit(f"error: {wanted} cannot be used here ({reason}): try --device cpu")
    print(f"!!! {wanted} cannot be used here ({reason}): going on without it")
    return torch.device("cpu")


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


@contextmanager
def downloading(what: str) -> Iterator[None]:
    """Around a download: one that gets nothing for 10 seconds has failed; one line says why."""
    timeout = socket.getdefaulttimeout()
    socket.setdefaulttimeout(10)
    try:
        yield
    except Exception as error:  # no network, a stall, a full disk, ...
        reason = str(error).strip().rpartition("\n")[2] or repr(error)
        sys.exit(f"error: {what} cannot be downloaded: {reason}")
    finally:
        socket.setdefaulttimeout(timeout)


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


def find_pairs(images: Path, masks: Path) -> list[tuple[Path, Path]]:
    """The pictures of a folder, sorted, each with its mask: the picture in the other folder that
    has the same name before the suffix."""
    files = [file for file in sorted(images.glob("[!.]*")) if file.suffix.lower() in SUFFIXES]
    mask_of = {file.stem: file for file in masks.glob("[!.]*") if file.suffix.lower() in SUFFIXES}
    if not files:
        sys.exit(f"error: no {'pictures in' if images.is_dir() else 'folder'} {images}")
    for file in files:
        if file.stem not in mask_of:
            sys.exit(f"error: no mask in {masks} for {file.name}")
    return [(file, mask_of[file.stem]) for file in files]


def read_pair(image_file: Path, mask_file: Path) -> tuple[np.ndarray, np.ndarray]:
    """An image, uint8 (H, W, 3), in RGB order, and its mask, uint8 (H, W), of 0 and 1."""
    image = read_picture(image_file, cv2.IMREAD_COLOR)
    mask = read_picture(mask_file, cv2.IMREAD_GRAYSCALE)
    if image.shape[:2] != mask.shape:
        sizes = f"{image.shape[:2]} and {mask.shape}"
        sys.exit(f"error: {image_file} and {mask_file} differ in height and width: {sizes}")
    # Masks hold 0 and 255, or 0 and 1; edges may be gray, and a JPEG's black is not quite 0.
    mask = mask > (127 if mask.max() > 1 else 0)
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB), mask.astype(np.uint8)


def draw_folder(folder: Path) -> tuple[Path, Path]:
    """Twenty pictures of discs, 200x240, and their masks."""
    rng = np.random.default_rng(0)
    images, masks = folder / "images", folder / "masks"
    images.mkdir()
    masks.mkdir()
    for number in range(20):
        image = rng.integers(0, 100, (200, 240, 3), dtype=np.uint8)
        mask = np.zeros((200, 240), dtype=np.uint8)
        center, radius = rng.integers(60, 140, 2).tolist(), int(rng.integers(20, 50))
        cv2.circle(image, center, radius, rng.integers(120, 255, 3).tolist(), thickness=-1)
        cv2.circle(mask, center, radius, 255, thickness=-1)
        # Not cv2.imwrite, which on Windows cannot write to every path.
        cv2.imencode(".jpg", image)[1].tofile(images / f"{number:02}.jpg")
        cv2.imencode(".png", mask)[1].tofile(masks / f"{number:02}.png")
    return images, masks


if __name__ == "__main__":
    main()

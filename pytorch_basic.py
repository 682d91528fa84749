"""The 60-minute tour of PyTorch, then datasets, a pretrained model, saving and loading.

Notes: Pytorch_tutorial, 60分钟熟悉Pytorch,
Pytorch_Basic.py：自动求导、数据集的使用、模型保存及载入 and
pytorch_cuda.ipynb：pytorch有关cuda的基本操作与概念

    python pytorch_basic.py                               # everything, offline
    python pytorch_basic.py --list                        # what there is
    python pytorch_basic.py --section autograd gradients  # some of it
    python pytorch_basic.py --section own_dataset --images DIR --masks DIR   # your own files
    python pytorch_basic.py --download                    # with CIFAR-10 (170 MB), weights (45 MB)

All of it takes about 6 seconds on 2 CPU cores with PyTorch 2.15, and writes three files: a model's
weights, the whole model, and a checkpoint, from which a stopped run goes on bit for bit.

**Try**

    --section update_weights --seed 1   # other weights: SGD takes 92 steps to a small loss, not 38
    --section tensors --seed 1          # other random numbers, the same shapes and dtypes
    --device meta                       # one clear line: not every device can compute
"""

import argparse
import pickle
import socket
import sys
import tempfile
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn, optim
from torch.utils.data import DataLoader, Dataset, random_split
from torchvision import datasets, models, transforms

STALL_SECONDS = 10  # a download that receives nothing for this long has failed


def main(argv: Sequence[str] | None = None) -> dict[str, dict]:
    """Run the sections asked for. Returns for each, under its name, the values it printed."""
    # Without its usage text, argparse answers a mistake with the one line that matters.
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], usage=argparse.SUPPRESS)
    flag = parser.add_argument
    names = {"nargs": "+", "choices": SECTIONS, "default": list(SECTIONS), "metavar": "NAME"}
    flag("--section", **names, help="default: all")
    flag("--list", action="store_true", help="print the sections' names and headings, and stop")
    flag("--images", type=Path, metavar="DIR", help="for own_dataset; default: it draws a folder")
    flag("--masks", type=Path, metavar="DIR", help="for own_dataset: a mask for each of --images")
    flag("--download", action="store_true", help="CIFAR-10 (170 MB), ResNet's weights (45 MB)")
    flag("--data-dir", default="data", help="where CIFAR-10 is or goes to; default: data")
    flag("--seed", type=whole_number, metavar="N", default=0, help="default: 0")
    flag("--device", default="auto", help="auto (default), cpu, cuda, cuda:1, mps, ...")
    out_dir = Path("outputs", Path(__file__).stem)
    flag("--out-dir", type=Path, default=out_dir, help=f"default: {out_dir}")
    args = parser.parse_args(argv)
    if (args.images is None) != (args.masks is None):
        parser.error("--images and --masks go together")
    for folder in (args.images, args.masks):
        if folder and not folder.is_dir():
            sys.exit(f"error: {folder} is not a folder")
    if args.list:
        for name, section in SECTIONS.items():
            print(f"{name:18} {section.__doc__.splitlines()[0]}")
        return {}
    args.device = choose_device(args.device)
    args.out_dir = make_out_dir(args.out_dir)
    socket.setdefaulttimeout(STALL_SECONDS)

    results = {}
    for name in args.section:
        print(f"\n======== {SECTIONS[name].__doc__.splitlines()[0]} ({name})\n")
        torch.manual_seed(args.seed)  # so that a section alone prints the same as among all
        results[name] = SECTIONS[name](args)
    return results


def refused(code: Callable) -> str:
    """Run what must fail. Returns the first line of the error."""
    try:
        code()
    except (RuntimeError, TypeError, ValueError, AssertionError, pickle.PickleError) as error:
        first_line, _, _ = str(error).partition("\n")
        return f"{type(error).__name__}: {first_line}"
    raise SystemExit("error: this should have failed, but PyTorch accepted it")


# ---- 60分钟熟悉Pytorch · The 60-minute tour ----


def tensors(args) -> dict:
    """张量 · Tensors"""
    # The notes begin with `from __future__ import print_function`: Python 2 needed it.
    empty = torch.empty(5, 3)
    print(f"torch.empty(5, 3): not initialized, so whatever was in memory\n{empty}")
    rand = torch.rand(5, 3)
    print(f"torch.rand(5, 3): uniform between 0 and 1\n{rand}")
    zeros = torch.zeros(5, 3, dtype=torch.long)
    print(f"torch.zeros(5, 3, dtype=torch.long)\n{zeros}")
    x = data = torch.tensor([5.5, 3])
    print(f"torch.tensor([5.5, 3]): straight from data\n{data}")

    x = ones = x.new_ones(5, 3, dtype=torch.double)
    print(f"x.new_ones(5, 3, dtype=torch.double): like x, except for what you override\n{ones}")
    x = randn = torch.randn_like(x, dtype=torch.float)
    print(f"torch.randn_like(x, dtype=torch.float): the size is x's, the dtype is not\n{randn}")
    print(f"{x.size() = }  (a tuple; x.shape is the same)")
    inherited = data.new_ones(2)
    print(f"{data.dtype = }, {data.new_ones(2).dtype = }")

    print("\nToday: torch.tensor, not torch.Tensor or torch.FloatTensor, which take sizes, too:")
    print(f"{torch.Tensor(3).shape = }, {torch.tensor(3).shape = }")
    return dict(
        empty=empty,
        rand=rand,
        zeros=zeros,
        data=data,
        new_ones=ones,
        randn_like=randn,
        size=x.size(),
        inherited=inherited,
    )


def operations(args) -> dict:
    """运算 · Operations"""
    x, y = torch.randn(5, 3), torch.rand(5, 3)
    plus = x + y
    print(f"x + y\n{plus}")
    add = torch.add(x, y)
    print(f"{torch.equal(torch.add(x, y), x + y) = }")
    out = torch.empty(5, 3)
    torch.add(x, y, out=out)
    print(f"torch.add(x, y, out=out): {torch.equal(out, x + y) = }")
    in_place = y.clone()
    in_place.add_(x)
    print(f"y.add_(x) changes y itself: {torch.equal(in_place, x + y) = }")
    print("Methods that end in _ work in place: y.copy_(x), y.t_(). (So do y += x and y[0] = 5.)")

    column = x[:, 1]
    print(f"\nNumPy's indexing: {x[:, 1] = }")
    step_error = refused(lambda: x[::-1])
    print(f"but not its negative steps: x[::-1] → {step_error}; that is x.flip(0)")

    square = torch.randn(4, 4)
    flat, wide = square.view(16), square.view(-1, 8)  # -1: whatever is left, here 2
    print(f"\n{square.size() = }, {flat.size() = }, {wide.size() = }")
    print("A view shares the memory, so it cannot take every shape; reshape copies when it must:")
    view_error = refused(lambda: square.t().view(-1))
    print(f"square.t().view(-1) → {view_error}")
    one = torch.randn(1)
    print(f"\n{one = }, {one.item() = } (a tensor of one element becomes a Python number)")
    print("All the other operations: https://docs.pytorch.org/docs/stable/torch.html")
    return dict(
        x=x,
        y=y,
        sums=[plus, add, out, in_place],
        column=column,
        views=[tuple(view.shape) for view in (square, flat, wide)],
        view_error=view_error,
        step_error=step_error,
        item=one.item(),
        tensor=one,
    )


def numpy_bridge(args) -> dict:
    """桥接Numpy · The bridge to NumPy"""
    a = torch.ones(5)
    b = a.numpy()
    a.add_(1)
    print(f"a = torch.ones(5); b = a.numpy(); a.add_(1)\n{a = }\n{b = }: one memory, two names")
    c = np.ones(5)
    d = torch.from_numpy(c)
    np.add(c, 1, out=c)
    print(f"c = np.ones(5); d = torch.from_numpy(c); np.add(c, 1, out=c)\n{c = }\n{d = }")
    copy = torch.tensor(c)
    c[0] = 100
    print(f"torch.tensor(c) copies: after c[0] = 100 {d[0].item() = }, {copy[0].item() = }")

    print("\nThe notes: every CPU tensor but CharTensor can become an array. Today CharTensor can,")
    char = torch.ones(3, dtype=torch.int8).numpy()
    bfloat16 = refused(lambda: torch.ones(3, dtype=torch.bfloat16).numpy())
    print(f"{char.dtype = }; bfloat16, which NumPy lacks, cannot: {bfloat16}")
    tracked = refused(lambda: torch.ones(3, requires_grad=True).numpy())
    print(f"A tensor that tracks its history must be detached first: {tracked}")
    return dict(a=a, b=b, d=d, copy=copy, char=char, bfloat16=bfloat16, tracked=tracked)


def devices(args) -> dict:
    """CUDA, pytorch_cuda.ipynb · Devices: the CPU and the GPU"""
    results = {"available": torch.cuda.is_available(), "count": torch.cuda.device_count()}
    print(f"{torch.cuda.is_available() = }, {torch.cuda.device_count() = }")
    if torch.cuda.is_available():
        print(f"{torch.cuda.current_device() = }, {torch.cuda.get_device_name(0) = }")
    else:
        print("No CUDA GPU here. With one: current_device() → 0, get_device_name(0) → its name.")

    # The tour's block. It holds for any device, so here it runs on the one that was chosen.
    device = args.device
    print(f"\nThe device of this run: {device}. A tensor that is not on the CPU says where it is.")
    x = torch.randn(1)
    y = torch.ones_like(x, device=device)  # made there
    x = x.to(device)  # moved there
    z = x + y
    # The tour's z.to("cpu", torch.double) in two steps: Apple's MPS knows no float64.
    back = z.to("cpu").to(torch.double)
    print(f"x + y = {z}\nz.to('cpu').to(torch.double) = {back}: .to changes the dtype as well")

    start, x = x, torch.tensor([1, 2, 3])
    print(f"\n{x.device = } (a tensor is made on the CPU)")
    moves = {
        "x.cuda()": lambda: x.cuda(),
        "x.cuda(0)": lambda: x.cuda(0),
        "x.to('cuda')": lambda: x.to("cuda"),
        "torch.tensor([1, 2, 3], device='cuda')": lambda: torch.tensor([1, 2, 3], device="cuda"),
    }
    moved = {}
    for code, move in moves.items():  # four ways to one thing: the first GPU
        moved[code] = str(move()) if torch.cuda.is_available() else refused(move)
        print(f"{code} → {moved[code]}")
    square = x.to(device) ** 2
    print(f"x.to(device)**2 = {square}: results stay where their inputs are")

    other = torch.ones(3, device="cpu" if device.type != "cpu" else "meta")
    print("\n(Every machine has the device meta: its tensors have a shape and no data.)")
    two_devices = refused(lambda: square + other)
    print(f"A tensor on {device} + one on {other.device} → {two_devices}")
    scalar = square + torch.tensor(1)
    print(f"(A CPU tensor without dimensions may join in: {scalar})")

    net = nn.Linear(3, 1)
    before = next(net.parameters()).device
    net.to(device)
    after = next(net.parameters()).device
    output = net(torch.rand(2, 3, device=device))
    print(f"\nA module's parameters: on {before}, after net.to(device) on {after}")
    print(f"Its output: on {output.device}")
    wrong_input = refused(lambda: net(torch.rand(2, 3, device=other.device)))
    print(f"An input on {other.device} → {wrong_input}")
    print("A tensor's .to returns a tensor (itself, if it is there already); a module's moves the")
    print("module itself.")
    return results | dict(
        x=start,
        z=z,
        moves=moved,
        back=back,
        square=square,
        two_devices=two_devices,
        scalar=scalar,
        module=[before, after, output.device],
        wrong_input=wrong_input,
    )


def autograd(args) -> dict:
    """自动求导 · 张量: Automatic differentiation and the graph it keeps"""
    x = torch.ones(2, 2, requires_grad=True)
    print(f"x = {x}\n{x.grad_fn = }: you made x, no operation did")
    y = x + 2
    print(f"y = x + 2 = {y}\n{y.grad_fn = }")
    z = y * y * 3
    out = z.mean()
    print(f"z = y * y * 3 = {z}\nout = z.mean() = {out!r}")

    # Define-by-run: the graph is the code that ran, so an `if` or a loop may change it each time.
    graphs = []
    for double in (False, True):
        result = x * 2 if double else x - 1
        graphs.append(type(result.grad_fn).__name__)
    print(f"The same lines, another branch, another graph: {graphs}")

    a = torch.randn(2, 2)
    a = (a * 3) / (a - 1)
    flags = [a.requires_grad]
    a.requires_grad_(True)  # in place; True is its default (the notes say False: a tensor's is)
    flags.append(a.requires_grad)
    b = (a * a).sum()
    print(f"\nrequires_grad before and after a.requires_grad_(True): {flags}; {b.grad_fn = }")
    with torch.no_grad():
        untracked = [x.detach().requires_grad, (x * 2).requires_grad]
    print(f"x.detach() and, under no_grad, x * 2 require grad: {untracked}")

    not_scalar = refused(lambda: (x + 2).backward())
    wrong_shape = refused(lambda: (x + 2).backward(torch.ones(3)))
    print(f"\nbackward() of a 2x2 tensor → {not_scalar}")
    print(f"backward(torch.ones(3)) of it → {wrong_shape}")
    weights = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    (x + 2).backward(weights)
    once = x.grad.clone()
    (x + 2).backward(weights)
    twice = x.grad.clone()
    print(f"backward(weights), then the same again: x.grad = {once}, then {twice}: it adds up")
    print(f"Only leaves, the tensors you made, keep a grad: {x.is_leaf = }, {y.is_leaf = }")
    in_place = refused(lambda: x.add_(1))
    print(f"and one that requires grad does not change in place: x.add_(1) → {in_place}")
    return dict(
        x=x,
        y=y,
        z=z,
        out=out,
        graphs=graphs,
        flags=flags,
        untracked=untracked,
        not_scalar=not_scalar,
        wrong_shape=wrong_shape,
        once=once,
        twice=twice,
        in_place=in_place,
    )


def gradients(args) -> dict:
    """梯度 · Gradients"""
    x = torch.ones(2, 2, requires_grad=True)
    out = (3 * (x + 2) ** 2).mean()
    out.backward()
    # out = 1/4 · sum of 3 (x + 2)², so d out / dx = 3/2 · (x + 2), which is 4.5 where x is 1.
    print(f"out.backward(), then x.grad = d out / dx:\n{x.grad}")
    same = torch.ones(2, 2, requires_grad=True)
    (3 * (same + 2) ** 2).mean().backward(torch.tensor(1.0))
    print(f"out.backward(torch.tensor(1.)) gives the same: {torch.equal(x.grad, same.grad) = }")
    again = refused(lambda: out.backward())
    print(f"But not after it, since backward() frees what the graph saved: {again}")
    return {"grad": x.grad, "same": same.grad, "again": again}


class Net(nn.Module):
    """Images (N, 1, 32, 32) to logits (N, 10): the tour's network. (The notes' text of it mixes
    tabs and spaces, so it does not parse; its num_flat_features is torch.flatten.)

    `forward` says what becomes of the input, with any differentiable operation (argmax has no
    gradient, round has gradient 0). Autograd makes the backward from it.
    """

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 6, 5)  # 1 channel in, 6 out, 5x5 kernel
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.fc1 = nn.Linear(16 * 5 * 5, 120)  # y = Wx + b
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.conv1(x)), (2, 2))
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)  # 2 is short for (2, 2)
        x = torch.flatten(x, 1)  # all dimensions but the first, the batch
        x = F.relu(self.fc1(x))
        x = F.relu(self.fc2(x))
        return self.fc3(x)


def network(args) -> dict:
    """神经网络, 定义网络 · Defining a network"""
    net = Net()
    params = list(net.parameters())
    print(f"{net}\n{len(params) = }, {params[0].size() = } (conv1's weight)")
    input = torch.randn(1, 1, 32, 32)  # a batch of one image with one channel
    out = net(input)
    print(f"net(input): ten logits\n{out}")
    probabilities = out.softmax(dim=1)
    print(f"Logits are not probabilities (their sum is {out.sum():.3f}); softmax turns them into")
    print(f"probabilities (sum {probabilities.sum():.3f}).")
    net.zero_grad()
    out.backward(torch.randn(1, 10))
    print(f"After backward with a random gradient: {net.conv1.weight.grad.abs().sum() = :.4f}")

    print("\nThe notes: torch.nn takes mini-batches only. Today Conv2d, Linear and max_pool2d take")
    single = net.conv1(input[0]).shape
    print(f"a single sample too: {single = }. BatchNorm2d and Net itself do not:")
    net_error = refused(lambda: net(input[0]))
    batch_norm_error = refused(lambda: nn.BatchNorm2d(1)(input[0]))
    print(f"Net → {net_error}\nBatchNorm2d → {batch_norm_error}")
    unsqueezed = net(input[0].unsqueeze(0))
    print(f"So unsqueeze(0) still: {unsqueezed.shape = }")
    return dict(
        printed=str(net),
        params=params,
        out=out,
        probabilities=probabilities,
        conv1_grad=net.conv1.weight.grad,
        single=single,
        unsqueezed=unsqueezed,
        net_error=net_error,
        batch_norm_error=batch_norm_error,
    )


def loss(args) -> dict:
    """损失函数 · Loss functions"""
    net, criterion = Net(), nn.MSELoss()
    output = net(torch.randn(1, 1, 32, 32))
    target = torch.randn(10).view(1, -1)  # [1, 10] like the output: [10] would only warn
    loss = criterion(output, target)
    by_hand = ((output - target) ** 2).mean()
    print(f"MSELoss: {loss!r}\nby hand: {by_hand!r}")

    print("From the loss back to the input, by grad_fn.next_functions:")
    node, names = loss.grad_fn, []
    while node is not None:
        names.append(type(node).__name__)
        # Beside its input, a layer's node leads to its weight and bias: leaves, so step past them.
        inputs = [function for function, _ in node.next_functions if function is not None]
        inputs = [f for f in inputs if type(f).__name__ not in ("AccumulateGrad", "TBackward0")]
        node = inputs[0] if inputs else None
    print("  " + " ← ".join(names))
    print("(Addmm is a linear layer. Today every name ends in a number, which tells an operation's")
    print("overloads apart: x.sum() is SumBackward0, x.sum(dim=0) SumBackward1.)")
    return {"loss": loss, "by_hand": by_hand, "names": names}


def backpropagation(args) -> dict:
    """反向传播 · Backpropagation"""
    net, criterion = Net(), nn.MSELoss()
    loss = criterion(net(torch.randn(1, 1, 32, 32)), torch.randn(1, 10))
    net.zero_grad()  # or this backward's gradients are added to the last one's
    before = net.conv1.bias.grad
    print(f"conv1.bias.grad before backward: {before} (zeros in the notes; today None)")
    loss.backward()
    after = net.conv1.bias.grad.clone()
    print(f"conv1.bias.grad after backward:  {after}")
    net.zero_grad()
    cleared = net.conv1.bias.grad
    print(f"conv1.bias.grad after zero_grad: {cleared}")
    return {"before": before, "after": after, "cleared": cleared}


def update_weights(args) -> dict:
    """更新权重 · Updating the weights"""
    images, target = torch.randn(1, 1, 32, 32), torch.randn(1, 10)
    criterion = nn.MSELoss()
    net, by_hand = Net(), Net()
    by_hand.load_state_dict(net.state_dict())

    # weight = weight - learning_rate * gradient, literally, is refused for a Parameter ...
    layer = by_hand.fc3
    criterion(by_hand(images), target).backward()
    literal = refused(lambda: setattr(layer, "weight", layer.weight - 0.01 * layer.weight.grad))
    print(f"layer.weight = layer.weight - lr * gradient → {literal}")
    with torch.no_grad():  # ... so in place, and untracked
        for parameter in by_hand.parameters():
            parameter.add_(parameter.grad, alpha=-0.01)

    optimizer = optim.SGD(net.parameters(), lr=0.01)
    criterion(net(images), target).backward()
    optimizer.step()
    same = all(map(torch.equal, net.parameters(), by_hand.parameters()))
    print(f"In place under no_grad it equals a step of optim.SGD, bit for bit: {same}\n")

    final = {}
    for name, make in {
        "SGD": lambda parameters: optim.SGD(parameters, lr=0.01),
        "Nesterov": lambda parameters: optim.SGD(parameters, lr=0.01, momentum=0.9, nesterov=True),
        "Adam": lambda parameters: optim.Adam(parameters, lr=0.001),
        "RMSprop": lambda parameters: optim.RMSprop(parameters, lr=0.0001),  # the notes: RMSProp
    }.items():
        torch.manual_seed(args.seed)
        net = Net()  # 1. a network with parameters to learn
        optimizer = make(net.parameters())
        for step in range(501):  # 2. over the data again and again; here one image
            optimizer.zero_grad()
            output = net(images)  # 3. the input through the network
            loss = criterion(output, target)  # 4. how far from the target?
            if loss <= 1e-3:
                break
            loss.backward()  # 5. gradients into the parameters
            optimizer.step()  # 6. the update
        final[name] = loss.item()
        print(f"{name:8} loss {loss:.5f} after {step} steps")
    return {"literal": literal, "same": same, "final": final}


# ---- Pytorch_Basic.py：自动求导、数据集的使用、模型保存及载入 ----


def first_examples(args) -> dict:
    """Pytorch_Basic.py：自动求导 · Two examples of autograd, and NumPy"""
    x, w, b = (torch.tensor(value, requires_grad=True) for value in (1.0, 2.0, 3.0))
    y = w * x + b
    y.backward()
    print(f"y = w x + b at x=1, w=2, b=3: {x.grad = }, {w.grad = }, {b.grad = }\n")

    inputs, targets = torch.randn(10, 3), torch.randn(10, 2)
    linear = nn.Linear(3, 2)
    criterion = nn.MSELoss()
    optimizer = optim.SGD(linear.parameters(), lr=0.01)
    print(f"weight: {linear.weight}\nbias: {linear.bias}")
    loss = criterion(linear(inputs), targets)
    loss.backward()
    print(f"loss: {loss.item():.5f}\ndL/dw: {linear.weight.grad}\ndL/db: {linear.bias.grad}")
    optimizer.step()
    later = criterion(linear(inputs), targets)
    print(f"loss after one step: {later.item():.5f}\n")

    array = np.array([[1, 2], [3, 4]])
    tensor = torch.from_numpy(array)
    back = tensor.numpy()
    print(f"{array = }\n{tensor = }\n{back = }\n{np.shares_memory(array, back) = }")
    return dict(
        gradients=[x.grad.item(), w.grad.item(), b.grad.item()],
        shapes=[tuple(linear.weight.shape), tuple(linear.bias.shape)],
        losses=[loss.item(), later.item()],
        arrays=[array, tensor, back],
    )


def official_dataset(args) -> dict:
    """Pytorch_Basic.py：数据集的使用 · The datasets that torchvision knows: CIFAR-10"""
    to_tensor = transforms.ToTensor()  # for what it is today, see cv2_tensor.py
    if args.download:
        try:
            dataset = datasets.CIFAR10(args.data_dir, transform=to_tensor, download=True)
        except Exception as error:  # no network, a stall, a full disk, ...
            reason = str(error).rstrip().rpartition("\n")[2]
            sys.exit(f"error: CIFAR-10 cannot be downloaded: {reason}")
        print(f"CIFAR-10: {len(dataset):,} pictures")
    else:
        dataset = datasets.FakeData(1000, (3, 32, 32), num_classes=10, transform=to_tensor)
        print("torchvision's FakeData: 1,000 random pictures, shaped as CIFAR-10's are.")
        print("The real CIFAR-10 (170 MB) comes with --download.")
    image, label = dataset[0]
    print(f"dataset[0]: {image.size() = }, {label = }")

    # The notes' num_workers=4 starts processes, each of which imports this file again on Windows,
    # macOS and since Python 3.14 Linux: hence the `if __name__ == "__main__"` at its end.
    loader = DataLoader(dataset, batch_size=64, shuffle=True)
    first_images, labels = next(iter(loader))  # the notes' data_iter.next() is gone
    print(f"next(iter(loader)): {first_images.shape = }, {labels.shape = } (tensors, not arrays)")
    seen = 0
    for images, _ in loader:
        seen += len(images)  # a training step would go here
    print(f"One pass: {len(loader)} batches, {seen:,} pictures, the last batch of {len(images)}")
    return dict(
        dataset=type(dataset).__name__,
        image=image,
        label=label,
        batch=tuple(first_images.shape),
        labels=labels,
        sizes=[len(loader), seen, len(images)],
    )


class ImageMaskDataset(Dataset):
    """A folder of images and a folder of masks; a pair has one name before the suffix.

    An item is the image, float32 (3, 160, 160), normalized with ImageNet's mean and standard
    deviation, and its mask, float32 (2, 160, 160), one-hot: background, object.

    Raises ValueError for an empty folder, an image without a mask, a file that is no picture.
    """

    # The three methods a Dataset needs. With them it can be indexed and has a length; it is no
    # iterator (the notes say so), which `next(dataset)` would show by a TypeError.

    def __init__(self, images: Path, masks: Path):
        """Once: what is there? (The notes list the folder for each item, in no fixed order.)"""
        mask_of = {file.stem: file for file in masks.iterdir()}
        files = sorted(file for file in images.iterdir() if file.name[0] != ".")  # no .DS_Store
        self.pairs = [(file, mask_of.get(file.stem)) for file in files]
        if not self.pairs:  # found here; a DataLoader would say: num_samples should be positive
            raise ValueError(f"no images in {images}")
        for image, mask in self.pairs:
            if mask is None:
                raise ValueError(f"no mask in {masks} for {image.name}")
        # Of red, green and blue the mean and the standard deviation (the notes: variance).
        mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
        self.to_input = transforms.Compose([transforms.ToTensor(), transforms.Normalize(mean, std)])

    def __len__(self) -> int:
        """How many items?"""
        return len(self.pairs)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """One item, made now: only what a batch needs is in memory."""
        image_file, mask_file = self.pairs[index]
        image = self.read(image_file, cv2.IMREAD_COLOR)
        image = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)  # the notes leave it BGR
        image = self.to_input(cv2.resize(image, (160, 160)))
        mask = self.read(mask_file, cv2.IMREAD_GRAYSCALE)
        # Nearest neighbour: any other way makes values between the classes. The notes' division as
        # uint8 turns those into background, and with them a whole mask of 0 and 1.
        mask = cv2.resize(mask, (160, 160), interpolation=cv2.INTER_NEAREST)
        classes = torch.from_numpy(mask > mask.max() / 2).long()  # 0 or 1, (160, 160)
        return image, F.one_hot(classes, num_classes=2).permute(2, 0, 1).float()

    @staticmethod
    def read(file: Path, flag: int) -> np.ndarray:
        # Not cv2.imread, which on Windows cannot open every path.
        try:
            picture = cv2.imdecode(np.fromfile(file, dtype=np.uint8), flag)
        except cv2.error:  # the file is empty, or the picture too large
            picture = None
        if picture is None:  # damaged, or no picture: OpenCV does not raise then
            raise ValueError(f"{file} is not a picture that OpenCV can read")
        return picture


def draw_folder(folder: Path) -> tuple[Path, Path]:
    """Twenty pictures of discs, 200x240, and their masks."""
    rng = np.random.default_rng(0)
    images, masks = folder / "images", folder / "masks"
    images.mkdir()
    masks.mkdir()
    for number in range(20):
        image = rng.integers(0, 100, (200, 240, 3), dtype=np.uint8)
        mask = np.zeros((200, 240), dtype=np.uint8)
        center = [int(rng.integers(60, 140)), int(rng.integers(60, 140))]
        radius = int(rng.integers(20, 50))
        cv2.circle(image, center, radius, rng.integers(120, 255, 3).tolist(), thickness=-1)
        cv2.circle(mask, center, radius, 255, thickness=-1)
        # Not cv2.imwrite, which on Windows cannot write to every path.
        cv2.imencode(".jpg", image)[1].tofile(images / f"{number:02}.jpg")
        cv2.imencode(".png", mask)[1].tofile(masks / f"{number:02}.png")
    return images, masks


def own_dataset(args) -> dict:
    """Pytorch_Basic.py：数据集的使用, 自定义数据集 · Your own: images and masks from folders"""
    with tempfile.TemporaryDirectory() as folder:
        images, masks = (args.images, args.masks) if args.images else draw_folder(Path(folder))
        try:
            dataset = ImageMaskDataset(images, masks)
            image, mask = dataset[0]
            print(f"{len(dataset)} pairs; dataset[0]: {image.shape = }, {mask.shape = }")
            print(f"image from {image.min():.2f} to {image.max():.2f} {image.dtype}")
            print(f"mask, one-hot: {mask.mean(dim=(1, 2)) = } (background, object)")
            test_size = len(dataset) // 10
            train, test = random_split(dataset, [len(dataset) - test_size, test_size])
            loader = DataLoader(train, batch_size=4, shuffle=True)
            batches = [tuple(batch.shape) for batch, _ in loader]
        except (OSError, ValueError) as error:
            sys.exit(f"error: {error}")
    print(f"{len(train)} to train, {len(test)} to test; batches: {batches}")
    sizes = [len(dataset), len(train), len(test)]
    return dict(image=image, mask=mask, sizes=sizes, batches=batches)


def pretrained(args) -> dict:
    """Pytorch_Basic.py：预训练模型 · A pretrained model with a new head"""
    # The notes' pretrained=True is deprecated.
    weights = models.ResNet18_Weights.DEFAULT if args.download else None
    try:
        resnet = models.resnet18(weights=weights)
    except Exception as error:  # no network, a stall, a full disk, ...
        reason = str(error).rstrip().rpartition("\n")[2]
        sys.exit(f"error: ResNet-18's weights cannot be downloaded: {reason}")
    if weights is None:
        print("ResNet-18, random weights; --download fetches those learned on ImageNet (45 MB).")

    for parameter in resnet.parameters():
        parameter.requires_grad = False
    resnet.fc = nn.Linear(resnet.fc.in_features, 100)  # new, so it does require grad
    learned = [name for name, parameter in resnet.named_parameters() if parameter.requires_grad]
    print(f"Only the new head learns: {learned}")

    # Without requires_grad the body is not frozen yet: BatchNorm's running averages still move.
    images = torch.randn(8, 3, 64, 64)
    before = resnet.eval()(images)
    resnet.train()(images)
    moved = (resnet.eval()(images) - before).abs().max().item()
    print(f"One forward pass in train() changed the frozen body's outputs by up to {moved:.2f}:")
    still = torch.equal(resnet(images), resnet(images))
    print(f"freezing needs eval() as well (two passes in eval() give the same: {still}).")

    with torch.no_grad():
        outputs = resnet.to(args.device)(torch.randn(64, 3, 224, 224, device=args.device))
    print(f"outputs of 64 pictures of 224x224: {outputs.shape = }")
    return {"learned": learned, "moved": moved, "still": still, "outputs": outputs}


def save_and_load(args) -> dict:
    """Pytorch_Basic.py：模型保存及载入 · Saving and loading a model"""
    inputs, targets = torch.randn(20, 3), torch.randn(20, 2)
    model, optimizer = new_model()
    learn(model, optimizer, inputs, targets, epochs=3)

    # 1. The parameters: what you want, nearly always. Each file has a name of its own; the notes'
    # five scripts all write model.ckpt.
    weights = args.out_dir / "model-weights.pt"
    torch.save(model.state_dict(), weights)
    restored, _ = new_model()
    restored.load_state_dict(torch.load(weights, weights_only=True))
    same = torch.equal(restored(inputs), model(inputs))
    print(f"state_dict saved, loaded: same predictions, bit for bit: {same}")

    # 2. The whole model, pickled with its class. Loading a pickle can run any code in it, so it is
    # refused by default since 2.6. weights_only=False: for a file you made yourself, and no other.
    whole = args.out_dir / "model-whole.pt"
    torch.save(model, whole)
    refusal = refused(lambda: torch.load(whole)).partition(". ")[0]  # the rest is long
    print(f"Whole model: torch.load(file) → {refusal}")
    loaded = torch.load(whole, weights_only=False)
    whole_same = torch.equal(loaded(inputs), model(inputs))
    print(f"with weights_only=False: same predictions, bit for bit: {whole_same}")

    # 3. A checkpoint to go on from: the optimizer has a memory too (Adam's averages).
    checkpoint = args.out_dir / "checkpoint.pt"
    state = {"epoch": 3, "model": model.state_dict(), "optimizer": optimizer.state_dict()}
    torch.save(state, checkpoint)
    learn(model, optimizer, inputs, targets, epochs=2)  # the run that was not interrupted

    state = torch.load(checkpoint, weights_only=True)
    resumed, optimizer = new_model()
    resumed.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    learn(resumed, optimizer, inputs, targets, epochs=5 - state["epoch"])
    resumed_same = all(map(torch.equal, resumed.parameters(), model.parameters()))
    print(f"Stopped after epoch 3, resumed to 5: as if never stopped, bit for bit: {resumed_same}")
    files = {"weights": weights, "whole": whole, "checkpoint": checkpoint}
    print(f"Written: {', '.join(str(file) for file in files.values())}")
    return dict(
        same=same, refusal=refusal, whole_same=whole_same, resumed_same=resumed_same, files=files
    )


def new_model() -> tuple[nn.Module, optim.Optimizer]:
    model = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2))
    return model, optim.Adam(model.parameters(), lr=0.01)


def learn(model, optimizer, inputs, targets, epochs) -> None:
    for _ in range(epochs):
        optimizer.zero_grad()
        F.mse_loss(model(inputs), targets).backward()
        optimizer.step()


SECTIONS = {
    section.__name__: section
    for section in (
        tensors,
        operations,
        numpy_bridge,
        devices,
        autograd,
        gradients,
        network,
        loss,
        backpropagation,
        update_weights,
        first_examples,
        official_dataset,
        own_dataset,
        pretrained,
        save_and_load,
    )
}


def whole_number(text, least=0):
    if not (text.isdecimal() and least <= int(text) < 2**63):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {least} on")
    return int(text)


def choose_device(name: str) -> torch.device:
    """`auto` is the accelerator when there is one (CUDA, or Apple's MPS, ...), else the CPU."""
    if name == "auto":
        accelerator = torch.accelerator.is_available()
        return torch.accelerator.current_accelerator() if accelerator else torch.device("cpu")
    try:
        torch.zeros(1, device=name).item()
    except (RuntimeError, AssertionError, ImportError) as error:
        reason = textwrap.shorten(str(error), 80, placeholder=" ...")
        sys.exit(f"error: --device {name} cannot be used here (auto and cpu can): {reason}")
    return torch.device(name)


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

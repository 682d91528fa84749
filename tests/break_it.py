"""Changes of one line of a script, each with what it costs or brings. Run by hand:

    python tests/break_it.py --data-dir data             # the tables of docs/break-it.md
    python tests/break_it.py --only no_relu other_model  # some of their rows

An edit is made in the text of a script, not in its file, and the text is run: with the script's
default flags and MNIST here, with little data in tests/test_break_it.py.
"""

import argparse
import contextlib
import io
import itertools
import linecache
import math
import os
import statistics
import sys
import tempfile
import time
import types
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import NamedTuple

import torch

os.environ["MPLBACKEND"] = "Agg"  # before pyplot is imported: no windows

ROOT = Path(__file__).parents[1]
MNIST_SCRIPTS = "logistic_regression", "nn_demo", "cnn_mnist"


class Edit(NamedTuple):
    """One line of a script, what stands in its place, and what a reader then sees.

    The script has `line` once (or as often as `times` says), apart from the spaces before it and a
    comment behind it. `see` makes of what `main` returned the words for the table. `claim` compares
    two of these dicts, of the script as it is and as edited. A mistake that has no `loud`, a part
    of the error or warning that it gives, is silent.
    """

    name: str
    what: str
    script: str
    line: str
    edited: str
    see: Callable[[dict], str] = lambda found: f"`{found['message'].partition('. ')[0]}`"
    claim: Callable[[dict, dict], bool] = lambda right, broken: True
    flags: str = ""  # for the page
    tiny: str = ""  # for the test, if not those of its script there
    loud: str = ""
    times: int = 1


def accuracy(found: dict) -> float:
    return found["test_accuracy"][-1]


def loss(found: dict) -> float:
    return found["train_loss"][-1]


def learned(found: dict) -> str:
    return f"{accuracy(found):.1%}, training loss {loss(found):.3f}".replace("%", " %", 1)


def worse(right: dict, broken: dict) -> bool:
    return accuracy(broken) < accuracy(right) - 0.01


def better(right: dict, edited: dict) -> bool:
    return accuracy(edited) > accuracy(right)


def fitted(found: dict) -> str:
    return f"slope {found['slope']:.3f}, training loss {loss(found):.3f}"


def iou(found: dict) -> str:
    return f"IoU {found['iou_white'][-1]:.3f}, training loss {loss(found):.3f}"


def history(losses: list) -> int:
    """How many steps of the graph (operations to go backward through) the losses keep alive."""
    waiting, seen = [getattr(loss, "grad_fn", None) for loss in losses], set()
    while waiting:
        node = waiting.pop()
        if node is not None and node not in seen:
            seen.add(node)
            waiting += [function for function, _ in node.next_functions]
    return len(seen)


def kept(found: dict) -> str:
    return f"{history(found['train_loss']):,} nodes of the graph kept"


def x_grad(found: dict) -> str:
    """For pytorch_basic.py and cv2_tensor.py: of a section's variables, what it prints."""
    return f"`x.grad = {found['gradients']['x'].grad.tolist()}`"


def copied(found: dict) -> str:
    return f"`copy = {found['numpy_bridge']['copy'].tolist()}`"


def resumed(found: dict) -> str:
    last = found["save_and_load"]
    same = torch.equal(last["resumed"](last["inputs"]), last["net"](last["inputs"]))
    return f"`torch.equal(resumed(inputs), net(inputs))` is {same}"


def back(found: dict) -> str:
    last = found["back_to_a_file"]
    low, high = last["tensor"].min(), last["tensor"].max()
    return f"{low:.2f} to {high:.2f}; every pixel the same: {last['same']}"


def half_size(found: dict) -> str:
    return f"{found['width_first']['resized'].shape}"


def differ(see: Callable[[dict], str]) -> Callable[[dict, dict], bool]:
    return lambda right, broken: see(right) != see(broken)


ZERO_GRAD = "optimizer.zero_grad()"
MLP_OUTPUT = "out = self.fc2(out)"
TRAIN_LOADER = "train_loader = DataLoader(train_set, args.batch_size, shuffle=True)"
TRAIN_SET = "train_set = TensorDataset(images[: args.limit], labels[: args.limit])"
MLP_ADAM = "optimizer = torch.optim.Adam(model.parameters(), lr=args.lr)"
LOGITS = "logits = model(images)"
NORMALIZED = "tensor = Normalize(MEAN, STD)(ToTensor()(cv2.cvtColor(image, cv2.COLOR_BGR2RGB)))"
MISTAKES = [
    Edit(
        "logistic_no_zero_grad",
        "Gradients not set to zero",
        "logistic_regression",
        ZERO_GRAD,
        f"# {ZERO_GRAD}",
        learned,
        better,
    ),
    Edit(
        "mlp_no_zero_grad",
        "Gradients not set to zero, with Adam",
        "nn_demo",
        ZERO_GRAD,
        f"# {ZERO_GRAD}",
        learned,
        worse,
    ),
    Edit(
        "softmax",
        "Softmax before CrossEntropyLoss",
        "nn_demo",
        MLP_OUTPUT,
        "out = self.fc2(out).softmax(dim=1)",
        learned,
        lambda right, broken: loss(broken) > 1.46 > loss(right),
    ),
    Edit(
        "last_relu",
        "ReLU after the last layer",
        "nn_demo",
        MLP_OUTPUT,
        "out = self.relu(self.fc2(out))",
        learned,
        worse,
    ),
    Edit(
        "no_relu",
        "No ReLU",
        "nn_demo",
        "out = self.relu(out)",
        "# out = self.relu(out)",
        learned,
        lambda right, broken: worse(right, broken) and loss(broken) > 2 * loss(right),
        tiny="--dataset digits --epochs 5 --lr 0.02",
    ),
    Edit(
        "zero_weights",
        "All weights zero at the start",
        "nn_demo",
        "model = NeuralNet().to(device)",
        "model = NeuralNet().to(device).apply(lambda m: [p.data.zero_() for p in m.parameters()])",
        learned,
        worse,
    ),
    Edit(
        "sorted",
        "Sorted by label, not shuffled",
        "nn_demo",
        TRAIN_LOADER,
        TRAIN_LOADER.replace("shuffle=True", "sampler=labels.argsort().tolist()"),
        learned,
        worse,
    ),
    Edit(
        "other_model",
        "Optimizer over another model's parameters",
        "nn_demo",
        MLP_ADAM,
        MLP_ADAM.replace("model.", "NeuralNet()."),
        learned,
        worse,
    ),
    Edit(
        "nll",
        "NLLLoss on logits",
        "nn_demo",
        "criterion = nn.CrossEntropyLoss()",
        "criterion = nn.NLLLoss()",
        learned,
        worse,
    ),
    Edit(
        "not_scaled",
        "Training images 0...255, test images 0...1",
        "nn_demo",
        "images = images.unsqueeze(1) / 255",
        "images = images.unsqueeze(1).float()",
        learned,
        lambda right, broken: abs(broken["first_loss"] - math.log(10)) > 1,
    ),
    Edit(
        "training_images",
        "Tested on the training images",
        "nn_demo",
        "test_accuracy = evaluate(model, test_loader, device)",
        "test_accuracy = evaluate(model, train_loader, device)",
        learned,
        better,
    ),
    Edit(
        "broadcast",
        "Outputs (15, 1) minus targets (15,)",
        "linear_regression",
        "loss = criterion(outputs, targets)",
        "loss = ((outputs - targets.flatten()) ** 2).mean()",
        fitted,
        lambda right, broken: loss(broken) > 2 * loss(right),
    ),
    Edit(
        "history",
        "The loss kept with its graph",
        "linear_regression",
        "train_loss.append(loss.item())",
        "train_loss.append(loss)",
        kept,
        lambda right, broken: (
            history(right["train_loss"]) == 0
            and history(broken["train_loss"]) >= 3 * broken["epochs"]
        ),
        flags="--epochs 30000",
    ),
    Edit(
        "detach",
        "Detached in the middle",
        "pytorch_basic",
        "z = y * y * 3",
        "z = y.detach() * y * 3",
        x_grad,
        lambda right, broken: broken["gradients"]["x"].grad.equal(right["gradients"]["x"].grad / 2),
        flags="--section gradients",
        times=2,
    ),
    Edit(
        "shared_memory",
        "A copy that still shares memory",
        "pytorch_basic",
        "copy = torch.tensor(a)",
        "copy = torch.from_numpy(a)",
        copied,
        differ(copied),
        flags="--section numpy_bridge",
    ),
    Edit(
        "resumed",
        "Resumed without the optimizer's state",
        "pytorch_basic",
        'optimizer.load_state_dict(state["optimizer"])',
        '# optimizer.load_state_dict(state["optimizer"])',
        resumed,
        differ(resumed),
        flags="--section save_and_load",
    ),
    Edit(
        "bgr",
        "BGR taken for RGB",
        "cv2_tensor",
        NORMALIZED,
        "tensor = Normalize(MEAN, STD)(ToTensor()(image))",
        back,
        lambda right, broken: back(right).endswith("True") and back(broken).endswith("False"),
    ),
    Edit(
        "float_pixels",
        "ToTensor of floats 0...255",
        "cv2_tensor",
        NORMALIZED,
        NORMALIZED.replace("COLOR_BGR2RGB)", "COLOR_BGR2RGB).astype(np.float32)"),
        back,
        differ(back),
    ),
    Edit(
        "height_first",
        "Width and height swapped",
        "cv2_tensor",
        "resized = cv2.resize(image, (width, height))",
        "resized = cv2.resize(image, (height, width))",
        half_size,
        differ(half_size),
    ),
    Edit(
        "mask_left",
        "Image flipped, mask not",
        "unet_doubleconv",
        "image, mask = self.transform(image, mask)",
        "image = self.transform(image)",
        iou,
        lambda right, broken: loss(broken) > 1.05 * loss(right),
    ),
    Edit(
        "target_shape",
        "Targets (15,) for outputs (15, 1)",
        "linear_regression",
        "x_train, y_train = torch.tensor(X).unsqueeze(1), torch.tensor(Y).unsqueeze(1)",
        "x_train, y_train = torch.tensor(X).unsqueeze(1), torch.tensor(Y)",
        loud="UserWarning: Using a target size",
    ),
    Edit(
        "history_summed",
        "The loss summed with its graph",
        "nn_demo",
        "total_loss += loss.item() * len(labels)",
        "total_loss += loss * len(labels)",
        loud="RuntimeError: Can't call numpy() on Tensor that requires grad",
    ),
    Edit(
        "no_grad_asked",
        "No requires_grad",
        "pytorch_basic",
        "x = torch.ones(2, 2, requires_grad=True)",
        "x = torch.ones(2, 2)",
        flags="--section gradients",
        times=2,
        loud="RuntimeError: element 0 of tensors does not require grad",
    ),
    Edit(
        "two_devices",
        "Model on a device, input on the CPU",
        "pytorch_basic",
        "x = torch.rand(2, 3).to(there)",
        "x = torch.rand(2, 3)",
        flags="--section devices",
        loud="RuntimeError: ",
    ),
    Edit(
        "brackets",
        "state_dict without brackets",
        "logistic_regression",
        "torch.save(model.state_dict(), weights)",
        "torch.save(model.state_dict, weights)",
        loud="UnpicklingError: Weights only load failed",
    ),
    Edit(
        "other_names",
        "Weights of a model whose layers have other names",
        "logistic_regression",
        "loaded = LogisticRegression()",
        "loaded = nn.Sequential(nn.Flatten(), nn.Linear(28 * 28, 10))",
        loud="RuntimeError: Error(s) in loading state_dict for Sequential: Missing key(s)",
    ),
    Edit(
        "notes_error",
        "The notes' error: in_channels for the second convolution",
        "unet_doubleconv",
        "nn.Conv2d(out_channels, out_channels, kernel_size=3, padding=padding),",
        "nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=padding),",
        loud="RuntimeError: Given groups=1, weight of size [64, 3, 3, 3]",
    ),
]
BETTER = [
    Edit(
        "better_rate",
        "A larger learning rate",
        "logistic_regression",
        "LEARNING_RATE = 0.001",
        "LEARNING_RATE = 0.1",
        learned,
        better,
    ),
    Edit(
        "better_momentum",
        "Momentum",
        "logistic_regression",
        "optimizer = torch.optim.SGD(model.parameters(), lr=args.lr)",
        "optimizer = torch.optim.SGD(model.parameters(), lr=args.lr, momentum=0.9)",
        learned,
        better,
    ),
    Edit(
        "better_width",
        "Four times the hidden units",
        "nn_demo",
        "HIDDEN_SIZE = 500",
        "HIDDEN_SIZE = 2000",
        learned,
        lambda right, wide: loss(wide) < loss(right),
    ),
    Edit(
        "better_decay",
        "A rate that falls to 0",
        "cnn_mnist",
        "scheduler, size = None, 28",
        "scheduler, size = torch.optim.lr_scheduler.LinearLR("
        "optimizer, 1.0, 0.0, epochs * len(train_loader)), 28",
        learned,
        better,
    ),
]


# Each changes how fast an epoch is, and but for bfloat16 nothing else.
FASTER = [
    Edit(
        "batch_sampler",
        "Whole batches by index",
        "logistic_regression",
        TRAIN_LOADER,
        "train_loader = DataLoader(train_set, sampler=torch.utils.data.BatchSampler("
        "torch.utils.data.RandomSampler(train_set), args.batch_size, False), batch_size=None)",
    ),
    Edit(
        "to_tensor",
        "ToTensor on each image",
        "logistic_regression",
        TRAIN_SET,
        "import torchvision; train_set = datasets.MNIST("
        "args.data_dir, transform=torchvision.transforms.ToTensor())",
    ),
    Edit(
        "fused",
        "Fused Adam",
        "nn_demo",
        MLP_ADAM,
        MLP_ADAM.replace("lr=args.lr", "lr=args.lr, fused=True"),
    ),
    Edit(
        "keep_grads",
        "Gradients set to zeros, not to None",
        "nn_demo",
        ZERO_GRAD,
        "optimizer.zero_grad(set_to_none=False)",
    ),
    Edit(
        "one_thread",
        "One thread instead of two",
        "nn_demo",
        "torch.manual_seed(args.seed)",
        "torch.manual_seed(args.seed), torch.set_num_threads(1)",
    ),
    Edit(
        "compile",
        "torch.compile",
        "nn_demo",
        "criterion = nn.CrossEntropyLoss()",
        "criterion = nn.CrossEntropyLoss(); model.compile()",
    ),
    Edit(
        "one_thread_conv",
        "One thread instead of two, with convolutions",
        "cnn_mnist",
        "torch.manual_seed(args.seed)",
        "torch.manual_seed(args.seed), torch.set_num_threads(1)",
        tiny="--dataset digits --limit 300 --epochs 2",
    ),
    Edit(
        "channels_last",
        "PyTorch's default memory format",
        "cnn_mnist",
        "model = model.to(memory_format=torch.channels_last)",
        "model = model.to(memory_format=torch.contiguous_format)",
        tiny="--dataset digits --limit 300 --epochs 2",
    ),
    Edit(
        "bfloat16",
        "bfloat16 by autocast",
        "cnn_mnist",
        LOGITS,
        f"with torch.autocast(device.type, torch.bfloat16): {LOGITS}",
        tiny="--dataset digits --limit 300 --epochs 2",
    ),
]
# What a part of a network is worth
PARTS = [
    Edit(
        "no_batchnorm",
        "ConvNet without its first BatchNorm",
        "cnn_mnist",
        "nn.BatchNorm2d(16),",
        "nn.Identity(),",
        learned,
        differ(learned),
    ),
    Edit(
        "relu_lenet",
        "LeNet with ReLU instead of sigmoid",
        "cnn_mnist",
        "nn.Sigmoid(),",
        "nn.ReLU(),",
        learned,
        better,
        flags="--model lenet",
        tiny="--model lenet --dataset digits --limit 600 --epochs 8 --lr 0.005 --batch-size 25",
        times=4,
    ),
    Edit(
        "no_shortcuts",
        "ResNet without its shortcuts",
        "cnn_mnist",
        "return F.relu(Y + X)",
        "return F.relu(Y)",
        learned,
        lambda right, without: loss(without) > loss(right),
        flags="--model resnet",
        tiny="--model resnet --dataset digits --limit 100 --batch-size 50 --epochs 1",
    ),
    Edit(
        "no_skip",
        "U-Net without its skip connections",
        "unet_doubleconv",
        "return self.conv(torch.cat([skip, self.up(x)], dim=1))",
        "return self.conv(torch.cat([skip * 0, self.up(x)], dim=1))",
        iou,
        lambda right, without: loss(without) > 1.05 * loss(right),
    ),
    Edit(
        "no_augmentation",
        "U-Net without augmentation, on 30 pictures",
        "unet_doubleconv",
        "self.transform = v2.Compose([*flips, brightness, scale])",
        "self.transform = v2.Compose([scale])",
        iou,
        lambda right, without: loss(without) < loss(right),
        flags="--train-images 30 --epochs 60",
        tiny="--train-images 8 --epochs 15",
    ),
]
EDITS = MISTAKES + BETTER + FASTER + PARTS


def lines_of(text: str) -> list[str]:
    """Without the spaces before a line, and the comment behind it."""
    return [line.partition("  # ")[0].strip() for line in text.splitlines()]


def source(script: str, edit: Edit | None = None) -> str:
    """The text of a script, as it is or with one line changed."""
    text = (ROOT / f"{script}.py").read_text(encoding="utf-8")
    if edit is None:
        return text
    lines = text.splitlines()
    places = [at for at, line in enumerate(lines_of(text)) if line == edit.line]
    assert len(places) == edit.times, f"{edit.name}: {len(places)} such lines"
    for at in places:
        lines[at] = lines[at].replace(edit.line, edit.edited)
    return "\n".join(lines) + "\n"


def run(text: str, flags: str, **constants) -> dict:
    """What `main` returns with these flags; and `message`, its error or warning, or nothing."""
    module, found, message = types.ModuleType("edited"), {}, ""
    sys.modules["edited"] = module  # where pickle looks for its classes
    linecache.cache["edited"] = len(text), None, text.splitlines(keepends=True), "edited"
    threads = torch.get_num_threads()
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", UserWarning)
        exec(compile(text, "edited", "exec"), module.__dict__)
        vars(module).update(constants)
        try:
            found = module.main(flags.split())
        except Exception as error:
            message = f"{type(error).__name__}: {' '.join(str(error).split())}"
    torch.set_num_threads(threads)
    if caught and not message:
        message = f"UserWarning: {caught[0].message}"
    return found | {"message": message}


def main() -> None:
    names = [edit.name for edit in EDITS] + ["choosing"]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir", type=Path, default=Path("data"), help="where MNIST is")
    parser.add_argument("--only", nargs="+", choices=names, default=names, metavar="NAME")
    args = parser.parse_args()
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        print_tables(args.only, args.data_dir.absolute(), folder)
    print(f"\n{(time.perf_counter() - start) / 60:.0f} minutes")


def print_tables(names: list[str], data_dir: Path, out_dir: str) -> None:
    def found_by(script: str, flags: str, edit: Edit | None = None) -> dict:
        mnist = f" --dataset mnist --data-dir {data_dir}" if script in MNIST_SCRIPTS else ""
        return run(source(script, edit), f"{flags}{mnist} --out-dir {out_dir}")

    once = cache(found_by)  # many rows have one script, and one run of it as it is
    print("## Two checks\n\n| what | loss before training | at the 50th step |\n|---|---|---|")
    checked = [edit for edit in MISTAKES if edit.script == "nn_demo" and not edit.loud]
    for edit in (None, *(edit for edit in checked if edit.name in names)):
        if edit or any(edit.name in names for edit in checked):
            found = once("nn_demo", "", edit)
            losses = f"{found['first_loss']:.3f} | {found['overfit_loss']:.3f}"
            print(f"| {edit.what if edit else 'none'} | {losses} |", flush=True)

    silent = [edit for edit in MISTAKES if not edit.loud]
    loud = [edit for edit in MISTAKES if edit.loud]
    tables = {
        "Silent": silent,
        "Loud": loud,
        "Make it better": BETTER,
        "What a part is worth": PARTS,
    }
    for title, edits in tables.items():
        print(f"\n## {title}\n\n| what | the line | what you see | as it is |\n|---|---|---|---|")
        for edit in (edit for edit in edits if edit.name in names):
            found, right = once(edit.script, edit.flags, edit), "no error"
            cells = [edit.what, code(edit), edit.see(found)]
            if edit.see is not Edit._field_defaults["see"]:
                right = once(edit.script, edit.flags)
                cells[2] += "" if edit.claim(right, found) else " !!! not as claimed"
                right = edit.see(right)
            print("|", " | ".join([*cells, right]), "|", flush=True)

    print(
        "\n## Make it faster\n\n| what | the line | an epoch | as it is | ratio |\n"
        + "|---" * 5
        + "|"
    )
    for edit in (edit for edit in FASTER if edit.name in names):
        flags = f"{edit.flags} --epochs 2"
        turns = [(found_by(edit.script, flags, edit), found_by(edit.script, flags)) for _ in "12"]
        seconds, as_it_is = (
            statistics.median(itertools.chain(*(found["train_seconds"] for found in side)))
            for side in zip(*turns)
        )
        cells = [edit.what, code(edit), f"{seconds:.2f} s", f"{as_it_is:.2f} s"]
        first = turns[0][0]["train_seconds"][0] - seconds
        cells += [f"{as_it_is / seconds:.2f} times as fast, the first epoch {first:+.1f} s"]
        print("|", " | ".join(cells), "|", flush=True)
    if "choosing" in names:
        print_choice(data_dir)


def print_choice(data_dir: Path) -> None:
    """Of 18 networks, choose the best by a test set, or by a validation set: what is it worth?

    `nn_demo.py`'s network, 200 images to train on, 200 to validate, 200 to test, six rates and
    three seeds; images that were in none of these say how good the choice is. Ten splits.
    """
    sys.path.insert(0, str(ROOT))
    import nn_demo

    _, _, (images, labels) = nn_demo.load_data("mnist", data_dir)
    images = images.unsqueeze(1) / 255
    sums = torch.zeros(2, 2)
    for split in range(10):
        torch.manual_seed(split)
        parts = torch.randperm(len(labels)).split([200, 200, 200, len(labels) - 600])
        train, *parts = parts
        scores = []
        for rate, seed in itertools.product([0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03], range(3)):
            torch.manual_seed(seed)
            model = nn_demo.NeuralNet()
            optimizer = torch.optim.Adam(model.parameters(), lr=rate)
            for _ in range(20):
                loss = torch.nn.functional.cross_entropy(model(images[train]), labels[train])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            with torch.no_grad():
                right = (model(images).argmax(dim=1) == labels).float()
            scores.append([right[part].mean().item() for part in parts])
        by_test = max(scores, key=lambda score: score[1])
        by_validation = max(scores, key=lambda score: score[0])
        sums += torch.tensor([by_test[1:], by_validation[1:]])
    print(
        "\n## Choosing by the test set\n\n| chosen by | test images | new images |\n|---|---|---|"
    )
    for name, (test, new) in zip(("test images", "validation images"), (sums / 10).tolist()):
        print(f"| {name} | {test:.1%} | {new:.1%} |", flush=True)


def code(edit: Edit) -> str:
    """The script, its flags if there are some, the line as it is and as edited."""
    command = f"`{edit.script}.py{edit.flags and ' '}{edit.flags}`"
    return f"{command}: `{edit.line}` → `{edit.edited}`".replace("|", "\\|")


if __name__ == "__main__":
    main()

"""Change one line of a script, and measure what happens: the exercises of docs/break-it.md. Run it by hand:

    python tests/break_it.py --data-dir data                   # Measure everything, in about 30 minutes.
    python tests/break_it.py --data-dir data --write           # Write the results into both pages as well.
    python tests/break_it.py --only no_relu detach             # Measure only these exercises.

The change is made in the text of the script, not in its file. Then the text runs with the script's default
options and MNIST. tests/test_break_it.py runs the same changes on little data.
"""

import argparse
import contextlib
import io
import itertools
import linecache
import math
import statistics
import sys
import tempfile
import time
import types
import warnings
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

ROOT = Path(__file__).parents[1]
PAGES = ROOT / "docs/break-it.md", ROOT / "docs/break-it.zh.md"
MNIST_SCRIPTS = "logistic_regression", "nn_demo", "cnn_mnist"


class Edit(NamedTuple):
    """A change of one line of a script.

    The script contains `line` exactly `times` times, apart from the spaces before it and a comment after it.
    `edited` replaces it, and can have several lines. `see` turns what `main` returned into the cells of the
    page's table. `claim` compares what the unchanged script returned with what the changed one returned.
    A mistake with `loud` raises an error or a warning that begins with this text. Otherwise it is silent.
    """

    name: str
    script: str
    line: str
    edited: str
    see: Callable[[dict], list[str]] | None = None
    claim: Callable[[dict, dict], bool] = lambda right, broken: True
    flags: str = ""  # on the page
    tiny: str = ""  # in the test, if they are not those that the test has for the script
    loud: str = ""
    times: int = 1


def accuracy(found: dict) -> float:
    return np.ravel(found["test_accuracy"])[-1]  # logistic_regression.py returns that of the last epoch only.


def loss(found: dict) -> float:
    return np.ravel(found["train_loss"])[-1]


def learned(found: dict) -> list[str]:
    return [f"{accuracy(found):.1%}", f"{loss(found):.3f}"]


def worse(right: dict, broken: dict) -> bool:
    return accuracy(broken) < accuracy(right) - 0.01


def better(right: dict, edited: dict) -> bool:
    return accuracy(edited) > accuracy(right)


def fitted(found: dict) -> list[str]:
    return [f"{found['slope']:.3f}", f"{loss(found):.3f}"]


def iou(found: dict) -> list[str]:
    return [f"{found['iou'][-1]:.3f}", f"{loss(found):.3f}"]


def seconds(found: dict) -> list[str]:
    return [f"{statistics.median(found['seconds']):.2f} s"]


def history(losses: list) -> int:
    """Count the nodes of the autograd graph that the losses keep alive."""
    waiting, seen = [getattr(loss, "grad_fn", None) for loss in losses], set()
    while waiting:
        node = waiting.pop()
        if node is not None and node not in seen:
            seen.add(node)
            waiting += [function for function, _ in node.next_functions]
    return len(seen)


def kept(found: dict) -> list[str]:
    return [f"{history(found['train_loss']):,}"]


def x_grad(found: dict) -> list[str]:
    return [f"`{found['autograd']['x'].grad.tolist()}`"]


def copied(found: dict) -> list[str]:
    return [f"`{found['numpy_bridge']['copy'].tolist()}`"]


def resumed(found: dict) -> list[str]:
    last = found["save_and_load"]
    return [f"`{torch.equal(last['resumed'](last['inputs']), last['net'](last['inputs']))}`"]


def back(found: dict) -> list[str]:
    last = found["back_to_a_file"]
    return [f"{last['tensor'].min():.2f}", f"{last['tensor'].max():.2f}", f"`{last['same']}`"]


def half_size(found: dict) -> list[str]:
    return [f"`{found['width_first']['resized'].shape}`"]


def differ(see: Callable[[dict], list[str]]) -> Callable[[dict, dict], bool]:
    return lambda right, broken: see(right) != see(broken)


ZERO_GRAD = "optimizer.zero_grad()"
MLP_OUTPUT = "out = self.fc2(out)"
TRAIN_LOADER = "train_loader = DataLoader(train_set, args.batch_size, shuffle=True)"
TRAIN_SET = "train_set = TensorDataset(images[: args.limit].unsqueeze(1) / 255, labels[: args.limit])"
TEST_SET = "test_set = TensorDataset(test_images.unsqueeze(1) / 255, test_labels)"
MLP_ADAM = "optimizer = torch.optim.Adam(model.parameters(), lr=args.lr)"
LOGITS = "logits = model(images)"
SEED = "torch.manual_seed(args.seed)"
NORMALIZED = "tensor = Normalize(MEAN, STD)(ToTensor()(cv2.cvtColor(image, cv2.COLOR_BGR2RGB)))"
SMALL_CNN = "--dataset digits --limit 300 --epochs 2"
MISTAKES = [
    Edit("logistic_no_zero_grad", "logistic_regression", ZERO_GRAD, f"# {ZERO_GRAD}", learned, better),
    Edit("mlp_no_zero_grad", "nn_demo", ZERO_GRAD, f"# {ZERO_GRAD}", learned, worse),
    Edit(
        "softmax",
        "nn_demo",
        MLP_OUTPUT,
        "out = self.fc2(out).softmax(dim=1)",
        learned,
        lambda right, broken: loss(broken) > 1.46 > loss(right),
    ),
    Edit("last_relu", "nn_demo", MLP_OUTPUT, "out = self.relu(self.fc2(out))", learned, worse),
    Edit(
        "no_relu",
        "nn_demo",
        "out = self.relu(out)",
        "# out = self.relu(out)",
        learned,
        lambda right, broken: worse(right, broken) and loss(broken) > 2 * loss(right),
        tiny="--dataset digits --epochs 5 --lr 0.02",
    ),
    Edit(
        "zero_weights",
        "nn_demo",
        "model = NeuralNet().to(device)",
        "model = NeuralNet().to(device)\nfor parameter in model.parameters():\n    nn.init.zeros_(parameter)",
        learned,
        worse,
    ),
    Edit(
        "sorted",
        "nn_demo",
        TRAIN_LOADER,
        TRAIN_LOADER.replace("shuffle=True", "sampler=labels.argsort().tolist()"),
        learned,
        worse,
    ),
    Edit("other_model", "nn_demo", MLP_ADAM, MLP_ADAM.replace("model.", "NeuralNet()."), learned, worse),
    Edit("nll", "nn_demo", "criterion = nn.CrossEntropyLoss()", "criterion = nn.NLLLoss()", learned, worse),
    Edit(
        "not_scaled",
        "nn_demo",
        TRAIN_SET,
        TRAIN_SET.replace(" / 255", ".float()"),
        learned,
        lambda right, broken: abs(broken["first_loss"] - math.log(10)) > 1,
    ),
    Edit(
        "training_images",
        "nn_demo",
        "test_accuracy = evaluate(model, test_loader, device)",
        "test_accuracy = evaluate(model, train_loader, device)",
        learned,
        better,
    ),
    Edit(
        "broadcast",
        "linear_regression",
        "loss = criterion(outputs, targets)",
        "loss = ((outputs - targets.flatten()) ** 2).mean()",
        fitted,
        lambda right, broken: loss(broken) > 2 * loss(right),
    ),
    Edit(
        "history",
        "linear_regression",
        "train_loss.append(loss.item())",
        "train_loss.append(loss)",
        kept,
        lambda right, broken: (
            history(right["train_loss"]) == 0 and history(broken["train_loss"]) >= 3 * broken["epochs"]
        ),
        flags="--epochs 30000",
    ),
    Edit(
        "detach",
        "pytorch_basic",
        "z = y * y * 3",
        "z = y.detach() * y * 3",
        x_grad,
        lambda right, broken: broken["autograd"]["x"].grad.equal(right["autograd"]["x"].grad / 2),
        flags="--section autograd",
    ),
    Edit(
        "shared_memory",
        "pytorch_basic",
        "copy = torch.tensor(a)",
        "copy = torch.from_numpy(a)",
        copied,
        differ(copied),
        flags="--section numpy_bridge",
    ),
    Edit(
        "resumed",
        "pytorch_basic",
        'optimizer.load_state_dict(state["optimizer"])',
        '# optimizer.load_state_dict(state["optimizer"])',
        resumed,
        differ(resumed),
        flags="--section save_and_load",
    ),
    Edit(
        "bgr",
        "cv2_tensor",
        NORMALIZED,
        "tensor = Normalize(MEAN, STD)(ToTensor()(image))",
        back,
        lambda right, broken: (back(right)[2], back(broken)[2]) == ("`True`", "`False`"),
    ),
    Edit(
        "float_pixels",
        "cv2_tensor",
        NORMALIZED,
        NORMALIZED.replace("COLOR_BGR2RGB)", "COLOR_BGR2RGB).astype(np.float32)"),
        back,
        lambda right, broken: float(back(broken)[1]) > 100 > float(back(right)[1]),
    ),
    Edit(
        "height_first",
        "cv2_tensor",
        "resized = cv2.resize(image, (width, height))",
        "resized = cv2.resize(image, (height, width))",
        half_size,
        differ(half_size),
    ),
    Edit(
        "mask_left",
        "unet_doubleconv",
        "image, mask = self.transform(image, mask)",
        "image = self.transform(image)",
        iou,
        lambda right, broken: loss(broken) > 1.05 * loss(right),
    ),
    Edit(
        "target_shape",
        "linear_regression",
        "x_train, y_train = torch.tensor(X).unsqueeze(1), torch.tensor(Y).unsqueeze(1)",
        "x_train, y_train = torch.tensor(X).unsqueeze(1), torch.tensor(Y)",
        loud="UserWarning: Using a target size (torch.Size([15]))",
    ),
    Edit(
        "history_summed",
        "nn_demo",
        "total_loss += loss.item() * len(labels)",
        "total_loss += loss * len(labels)",
        loud="RuntimeError: Can't call numpy() on Tensor that requires grad",
    ),
    Edit(
        "no_grad_asked",
        "pytorch_basic",
        "x = torch.ones(2, 2, requires_grad=True)",
        "x = torch.ones(2, 2)",
        flags="--section autograd",
        loud="RuntimeError: element 0 of tensors does not require grad",
    ),
    Edit(
        "two_devices",
        "pytorch_basic",
        "x = torch.rand(2, 3).to(there)",
        "x = torch.rand(2, 3)",
        flags="--section devices",
        loud="RuntimeError: ",
    ),
    Edit(
        "brackets",
        "logistic_regression",
        "torch.save(model.state_dict(), weights)",
        "torch.save(model.state_dict, weights)",
        loud="UnpicklingError: Weights only load failed",
    ),
    Edit(
        "other_names",
        "logistic_regression",
        "loaded = LogisticRegression()",
        "loaded = nn.Sequential(nn.Flatten(), nn.Linear(28 * 28, 10))",
        loud="RuntimeError: Error(s) in loading state_dict for Sequential: Missing key(s)",
    ),
    Edit(
        "notes_error",
        "unet_doubleconv",
        "nn.Conv2d(out_channels, out_channels, kernel_size=3, padding=padding),",
        "nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=padding),",
        loud="RuntimeError: Given groups=1, weight of size [64, 3, 3, 3]",
    ),
]
BETTER = [
    Edit("better_rate", "logistic_regression", "LEARNING_RATE = 0.001", "LEARNING_RATE = 0.1", learned, better),
    Edit(
        "better_momentum",
        "logistic_regression",
        "optimizer = torch.optim.SGD(model.parameters(), lr=args.lr)",
        "optimizer = torch.optim.SGD(model.parameters(), lr=args.lr, momentum=0.9)",
        learned,
        better,
    ),
    Edit(
        "better_width",
        "nn_demo",
        "HIDDEN_SIZE = 500",
        "HIDDEN_SIZE = 2000",
        learned,
        lambda right, wide: loss(wide) < loss(right),
    ),
    Edit(
        "better_decay",
        "cnn_mnist",
        '"convnet": (ConvNet, {"mnist": 5, "digits": 20}, 1.0),',
        '"convnet": (ConvNet, {"mnist": 5, "digits": 20}, 0.0),',
        learned,
        better,
    ),
]
# Each of these changes how long an epoch takes. Apart from rounding, it changes nothing else.
FASTER = [
    Edit(
        "batch_sampler",
        "logistic_regression",
        TRAIN_LOADER,
        "from torch.utils.data import BatchSampler, RandomSampler\n"
        "batches = BatchSampler(RandomSampler(train_set), args.batch_size, drop_last=False)\n"
        "train_loader = DataLoader(train_set, sampler=batches, batch_size=None)",
        seconds,
    ),
    Edit(
        "to_tensor",
        "logistic_regression",
        TRAIN_SET,
        "from torchvision.transforms import ToTensor\ntrain_set = datasets.MNIST(args.data_dir, transform=ToTensor())",
        seconds,
    ),
    Edit("fused", "nn_demo", MLP_ADAM, MLP_ADAM.replace("lr=args.lr", "lr=args.lr, fused=True"), seconds),
    Edit("keep_grads", "nn_demo", ZERO_GRAD, "optimizer.zero_grad(set_to_none=False)", seconds),
    Edit("one_thread", "nn_demo", SEED, f"{SEED}\ntorch.set_num_threads(1)", seconds),
    Edit(
        "compile",
        "nn_demo",
        MLP_ADAM,
        f"{MLP_ADAM}\nmodel.compile()",
        lambda found: [*seconds(found), f"{found['first_epoch']:.1f} s"],
    ),
    Edit("one_thread_conv", "cnn_mnist", SEED, f"{SEED}\ntorch.set_num_threads(1)", seconds, tiny=SMALL_CNN),
    Edit(
        "channels_last",
        "cnn_mnist",
        "model = model.to(memory_format=torch.channels_last)",
        "model = model.to(memory_format=torch.contiguous_format)",
        seconds,
        tiny=SMALL_CNN,
    ),
    Edit(
        "bfloat16",
        "cnn_mnist",
        LOGITS,
        f"with torch.autocast(device.type, torch.bfloat16):\n    {LOGITS}",
        seconds,
        tiny=SMALL_CNN,
    ),
]
# What a part of a network is worth
PARTS = [
    Edit("no_batchnorm", "cnn_mnist", "nn.BatchNorm2d(16),", "nn.Identity(),", learned, differ(learned)),
    Edit(
        "relu_lenet",
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
        "unet_doubleconv",
        "return self.conv(torch.cat([skip, self.up(x)], dim=1))",
        "return self.conv(torch.cat([skip * 0, self.up(x)], dim=1))",
        iou,
        lambda right, without: loss(without) > 1.05 * loss(right),
    ),
    Edit(
        "no_augmentation",
        "unet_doubleconv",
        "self.transform = v2.Compose([*flips, brightness, scale])",
        "self.transform = v2.Compose([scale])",
        iou,
        lambda right, without: loss(without) < loss(right),
        flags="--train-images 30 --epochs 60",
        tiny="--train-images 4 --epochs 15",
    ),
]
VALIDATION = Edit(
    "validation",
    "nn_demo",
    TEST_SET,
    "test_set = TensorDataset(images[-10_000:].unsqueeze(1) / 255, labels[-10_000:])",
    learned,
    lambda right, held_out: loss(held_out) == loss(right),
    flags="--limit 50000",
)
EDITS = [*MISTAKES, *BETTER, *FASTER, *PARTS, VALIDATION]
CHECKED = [edit for edit in MISTAKES if edit.script == "nn_demo" and not edit.loud]


def source(script: str, edit: Edit | None = None) -> str:
    """Return the text of a script, unchanged or with one line changed."""
    text = (ROOT / f"{script}.py").read_text(encoding="utf-8")
    if edit is None:
        return text
    lines = text.splitlines()
    places = [at for at, line in enumerate(lines) if line.partition("  # ")[0].strip() == edit.line]
    if len(places) != edit.times:
        raise ValueError(f"{edit.name}: {script}.py has this line {len(places)} times: {edit.line}")
    for at in places:
        indent = lines[at].partition(edit.line)[0]
        lines[at] = lines[at].replace(edit.line, edit.edited.replace("\n", f"\n{indent}"))
    return "\n".join(lines) + "\n"


def run(text: str, flags: str, **constants) -> dict:
    """Run the text of a script. Return what `main` returns, its message, and the seconds of each epoch.

    The message is that of an error or a warning, and "" if there is none.
    """
    module, found, message, times = types.ModuleType("edited"), {}, "", []
    sys.modules["edited"] = module  # pickle looks for the classes there.
    linecache.cache["edited"] = len(text), None, text.splitlines(keepends=True), "edited"
    threads = torch.get_num_threads()
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", UserWarning)
        exec(compile(text, "edited", "exec"), module.__dict__)
        vars(module).update(constants)
        train_one_epoch = getattr(module, "train_one_epoch", None)

        def timed(*args):
            start = time.perf_counter()
            result = train_one_epoch(*args)
            times.append(time.perf_counter() - start)
            return result

        module.train_one_epoch = timed
        try:
            found = module.main(flags.split())
        except Exception as error:
            message = f"{type(error).__name__}: {' '.join(str(error).split())}"
    torch.set_num_threads(threads)
    if caught and not message:
        message = f"UserWarning: {caught[0].message}"
    losses = found.get("train_loss", [])
    epochs = len(losses) if isinstance(losses, list) else len(times)  # nn_demo.py has trained for its checks before.
    times = times[-epochs:] or [math.nan]
    return found | {"message": message, "seconds": times, "first_epoch": times[0]}


def code(edit: Edit) -> str:
    """Return what the page shows of a change: the script, its options, the line before and after."""
    lines = [f"- {edit.line}", *(f"+ {line}" for line in edit.edited.split("\n"))]
    return "\n".join([f"`{edit.script}.py {edit.flags}".rstrip() + "`", "", "```diff", *lines, "```"])


def fill(text: str, anchor: str, measured: list[list[str]] | str) -> str:
    """Return the text of a page with what was measured in the place below `anchor`.

    A message replaces the line in the next block of text. Otherwise each list of cells replaces those of one
    row of the next tables. The label of a row stays, and so do the rows in which the reader has to guess.
    """
    before, after = text.split(anchor)
    lines = after.split("\n")
    if isinstance(measured, str):
        lines[lines.index("```text") + 1] = measured
    else:
        rows = [at for at, line in enumerate(lines) if line.startswith("| ") and "| ? |" not in line]
        rows = [at for at in rows if not lines[at + 1].startswith("|---")]
        for at, cells in zip(rows, measured):
            lines[at] = " | ".join([lines[at].partition(" | ")[0], *cells]) + " |"
    return before + anchor + "\n".join(lines)


def main() -> None:
    names = [*(edit.name for edit in EDITS), "checks", "choosing"]
    parser = argparse.ArgumentParser(description="Measure the exercises of docs/break-it.md.")
    parser.add_argument("--data-dir", type=Path, default=Path("data"), help="folder that contains MNIST")
    parser.add_argument("--only", nargs="+", choices=names, default=names, metavar="NAME")
    parser.add_argument("--write", action="store_true", help="write the results into both pages as well")
    args = parser.parse_args()
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        for name, anchor, measured in measure(args.only, args.data_dir.absolute(), folder):
            rows = [measured] if isinstance(measured, str) else [" | ".join(cells) for cells in measured]
            print(f"\n{name}", *rows, sep="\n  ", flush=True)
            for page in PAGES if args.write else ():
                page.write_text(fill(page.read_text(encoding="utf-8"), anchor, measured), encoding="utf-8")
    print(f"\n{(time.perf_counter() - start) / 60:.0f} minutes")


def measure(names: list[str], data_dir: Path, out_dir: str) -> Iterator[tuple[str, str, list[list[str]] | str]]:
    """Give for each exercise its name, what is above it on the page, and the cells or the message."""

    def found_by(script: str, flags: str, edit: Edit | None = None) -> dict:
        mnist = f" --dataset mnist --data-dir {data_dir}" if script in MNIST_SCRIPTS else ""
        return run(source(script, edit), f"{flags}{mnist} --out-dir {out_dir}")

    once = cache(found_by)  # Many exercises share the run of the unchanged script.
    for edit in EDITS:
        if edit.name not in names:
            continue
        if edit in FASTER:
            # Take turns, so that a slower minute of the machine slows both.
            flags = f"{edit.flags} --epochs 2"
            turns = [(found_by(edit.script, flags), found_by(edit.script, flags, edit)) for _ in "123"]
            # torch.compile works in the first epoch of the first turn. What is measured are the second epochs.
            right, found = (
                {"seconds": [turn["seconds"][1] for turn in side], "first_epoch": side[0]["first_epoch"]}
                for side in zip(*turns)
            )
            ratio = statistics.median(right["seconds"]) / statistics.median(found["seconds"])
            yield edit.name, code(edit), [[*edit.see(right), "1.00"], [*edit.see(found), f"{ratio:.2f}"]]
        else:
            found = once(edit.script, edit.flags, edit)
            measured = found["message"].partition(". ")[0]
            if not edit.loud:
                right = once(edit.script, edit.flags)
                measured = [edit.see(right), edit.see(found)]
                if found["message"] or not edit.claim(right, found):
                    print(f"\n!!! {edit.name} is not as claimed {found['message']}")
            yield edit.name, code(edit), measured
    if "checks" in names:
        runs = [once("nn_demo", "", edit) for edit in (None, *CHECKED)]
        yield "checks", "<!-- checks -->", [check(found) for found in runs]
    if "choosing" in names:
        yield "choosing", "<!-- choosing -->", choose(data_dir)


def check(found: dict) -> list[str]:
    """Return the two losses of `check` in nn_demo.py, and which of them shows that something is wrong."""
    first, last = found["first_loss"], found["overfit_loss"]
    seen = ["1"] * (abs(first - math.log(10)) > 0.5) + ["2"] * (abs(last) > 0.05)
    return [f"{first:.3f}", f"{last:.3f}", ", ".join(seen) or "-"]


def choose(data_dir: Path) -> list[list[str]]:
    """Choose the best of 18 networks by test images, then by validation images. What is the choice worth?

    The 18 are the network of nn_demo.py with six learning rates and three seeds, trained on 200 images. The
    choice is made by 200 validation images or by 200 test images. The remaining images are new. Return the mean
    accuracies over ten splits on the test images and on the new images, first for the choice by test images.
    """
    sys.path.insert(0, str(ROOT))
    import nn_demo

    _, _, (images, labels) = nn_demo.load_data("mnist", data_dir)
    images = images.unsqueeze(1) / 255
    sums = torch.zeros(2, 2)
    for split in range(10):
        torch.manual_seed(split)
        train, *parts = torch.randperm(len(labels)).split([200, 200, 200, len(labels) - 600])
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
    return [[f"{value:.1%}" for value in row] for row in (sums / 10).tolist()]


if __name__ == "__main__":
    main()

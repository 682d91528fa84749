"""The classic mistakes, each one line of a script, and what each costs. Run by hand:

    python tests/break_it.py --data-dir data             # the tables of docs/break-it.md
    python tests/break_it.py --only no_relu other_model  # some of their rows

An edit is made in the text of a script, not in its file, and the text is run: with the script's
default flags and MNIST here, with little data in tests/test_break_it.py.
"""

import argparse
import contextlib
import io
import math
import os
import sys
import tempfile
import time
import types
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import NamedTuple

os.environ["MPLBACKEND"] = "Agg"  # before pyplot is imported: no windows

ROOT = Path(__file__).parents[1]
MNIST_SCRIPTS = "logistic_regression", "nn_demo", "cnn_mnist"


class Edit(NamedTuple):
    """One line of a script, what stands in its place, and what a reader then sees.

    The script has `line` once, apart from the spaces before it and a comment behind it. `see` makes
    of what `main` returned the words for the table. `claim` compares two of these dicts, of the
    script as it is and as edited. A mistake that has no `loud`, a part of the error or warning that
    it gives, is silent.
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
    return f"IoU {found['iou'][-1]:.3f}, training loss {loss(found):.3f}"


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


def section(name: str, key: str) -> Callable[[dict], str]:
    """For pytorch_basic.py: what a section returned."""

    def see(found: dict) -> str:
        value = found[name][key]
        return f"`{key} = {value.tolist() if hasattr(value, 'tolist') else value}`"

    return see


def differ(see: Callable[[dict], str]) -> Callable[[dict, dict], bool]:
    return lambda right, broken: see(right) != see(broken)


def range_of(step: str) -> Callable[[dict], str]:
    """For cv2_tensor.py: the range of a step, and whether the way back leads to the picture."""

    def see(found: dict) -> str:
        low, high = found["steps"][step]["min"], found["steps"][step]["max"]
        return f"{low:.2f} to {high:.2f}; every pixel the same: {found['round_trip']}"

    return see


def half_size(found: dict) -> str:
    return next(f"{step['shape']}" for name, step in found["steps"].items() if "resize(" in name)


ZERO_GRAD = "optimizer.zero_grad()"
MLP_OUTPUT = "return self.fc2(out)"
NORMALIZED = "tensor = Normalize(MEAN, STD)(ToTensor()(cv2.cvtColor(image, cv2.COLOR_BGR2RGB)))"
IMAGES = "return [TensorDataset(part.data.unsqueeze(1) / 255, part.targets) for part in parts]"
ORDER = "batches = BatchSampler(RandomSampler(dataset), batch_size, drop_last=False)"
TESTED = "predicted = [model(batch.to(device)).argmax(dim=1) for batch in images.split(200)]"
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
        "return self.fc2(out).softmax(dim=1)",
        learned,
        lambda right, broken: loss(broken) > 1.46 > loss(right),
    ),
    Edit(
        "last_relu",
        "ReLU after the last layer",
        "nn_demo",
        MLP_OUTPUT,
        "return self.relu(self.fc2(out))",
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
        ORDER,
        ORDER.replace("RandomSampler(dataset)", "dataset.tensors[1].argsort().tolist()"),
        learned,
        worse,
    ),
    Edit(
        "other_model",
        "Optimizer over another model's parameters",
        "nn_demo",
        "optimizer = torch.optim.Adam(model.parameters(), lr=args.lr, fused=True)",
        "optimizer = torch.optim.Adam(NeuralNet().parameters(), lr=args.lr, fused=True)",
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
        lambda right, broken: worse(right, broken) and loss(broken) < 0,
    ),
    Edit(
        "not_scaled",
        "Pixels 0...255, not 0...1",
        "nn_demo",
        IMAGES,
        IMAGES.replace(" / 255", ".float()"),
        learned,
        lambda right, broken: abs(broken["first_loss"] - math.log(10)) > 1,
    ),
    Edit(
        "training_images",
        "Tested on the training images",
        "nn_demo",
        "test_accuracy.append(evaluate(model, test_set, device))",
        "test_accuracy.append(evaluate(model, train_set, device))",
        learned,
        better,
    ),
    Edit(
        "train_mode",
        "Tested in train mode, one image at a time",
        "cnn_mnist",
        TESTED,
        "predicted = [model.train()(one.to(device)).argmax(dim=1) for one in images.split(1)]",
        learned,
        worse,
        tiny="--dataset mnist --data-dir {mnist} --batch-size 20 --epochs 4 --lr 0.3",
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
        section("gradients", "grad"),
        lambda right, broken: broken["gradients"]["grad"].equal(right["gradients"]["grad"] / 2),
        flags="--section gradients",
    ),
    Edit(
        "shared_memory",
        "A copy that is none",
        "pytorch_basic",
        "copy = torch.tensor(a)",
        "copy = torch.from_numpy(a)",
        section("numpy_bridge", "copy"),
        differ(section("numpy_bridge", "copy")),
        flags="--section numpy_bridge",
    ),
    Edit(
        "resumed",
        "Resumed without the optimizer's state",
        "pytorch_basic",
        'optimizer.load_state_dict(state["optimizer"])',
        '# optimizer.load_state_dict(state["optimizer"])',
        section("save_and_load", "resumed_same"),
        differ(section("save_and_load", "resumed_same")),
        flags="--section save_and_load",
    ),
    Edit(
        "bgr",
        "BGR taken for RGB",
        "cv2_tensor",
        NORMALIZED,
        "tensor = Normalize(MEAN, STD)(ToTensor()(image))",
        range_of("Normalize: RGB"),
        lambda right, broken: right["round_trip"] and not broken["round_trip"],
    ),
    Edit(
        "float_pixels",
        "ToTensor of floats 0...255",
        "cv2_tensor",
        NORMALIZED,
        NORMALIZED.replace("COLOR_BGR2RGB)", "COLOR_BGR2RGB).astype(np.float32)"),
        range_of("Normalize: RGB"),
        differ(range_of("Normalize: RGB")),
    ),
    Edit(
        "height_first",
        "Width and height swapped",
        "cv2_tensor",
        'show(f"resize(image, {width, height})", cv2.resize(image, (width, height)), steps)',
        'show(f"resize(image, {width, height})", cv2.resize(image, (height, width)), steps)',
        half_size,
        differ(half_size),
    ),
    Edit(
        "no_skip",
        "Nothing through the skip connections",
        "unet_doubleconv",
        "return self.conv(torch.cat([skip, self.up(x)], dim=1))",
        "return self.conv(torch.cat([skip * 0, self.up(x)], dim=1))",
        iou,
        lambda right, broken: loss(broken) > 1.05 * loss(right),
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
        loud="RuntimeError: element 0 of tensors does not require grad",
    ),
    Edit(
        "two_devices",
        "Model on a device, input on the CPU",
        "pytorch_basic",
        "module += [next(net.parameters()).device, net(torch.rand(2, 3, device=there)).device]",
        "module += [next(net.parameters()).device, net(torch.rand(2, 3)).device]",
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
        loud="RuntimeError: Given groups=1, weight of size [16, 3, 3, 3]",
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
        'if args.model == "resnet":',
        'if args.model in ("resnet", "convnet"):',
        learned,
        better,
    ),
]


def lines_of(text: str) -> list[str]:
    """Without the spaces before a line, and the comment behind it."""
    return [line.partition("  # ")[0].strip() for line in text.splitlines()]


def source(script: str, edit: Edit | None = None) -> str:
    """The text of a script, as it is or with one line changed."""
    text = (ROOT / f"{script}.py").read_text(encoding="utf-8")
    if edit is None:
        return text
    lines = text.splitlines()
    (at,) = (i for i, line in enumerate(lines_of(text)) if line == edit.line)
    lines[at] = lines[at].replace(edit.line, edit.edited)
    return "\n".join(lines)


def run(text: str, flags: str, **constants) -> dict:
    """What `main` returns with these flags; and `message`, its error or warning, or nothing."""
    module, found, message = types.ModuleType("edited"), {}, ""
    sys.modules["edited"] = module  # where pickle looks for its classes
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", UserWarning)
        exec(compile(text, "edited", "exec"), module.__dict__)
        vars(module).update(constants)
        try:
            found = module.main(flags.split())
        except Exception as error:
            message = f"{type(error).__name__}: {' '.join(str(error).split())}"
    if caught:
        message = f"UserWarning: {caught[0].message}"
    return found | {"message": message}


def main() -> None:
    names = [edit.name for edit in MISTAKES + BETTER]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir", type=Path, default=Path("data"), help="where MNIST is")
    parser.add_argument("--only", nargs="+", choices=names, default=names, metavar="NAME")
    args = parser.parse_args()
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        print_tables(args.only, args.data_dir.absolute(), folder)
    print(f"\n{(time.perf_counter() - start) / 60:.0f} minutes")


def print_tables(names: list[str], data_dir: Path, out_dir: str) -> None:
    @cache  # many rows have one script, and one run of it as it is
    def found_by(script: str, flags: str, edit: Edit | None = None) -> dict:
        mnist = f" --dataset mnist --data-dir {data_dir}" if script in MNIST_SCRIPTS else ""
        return run(source(script, edit), f"{flags}{mnist} --out-dir {out_dir}")

    silent = [edit for edit in MISTAKES if not edit.loud]
    loud = [edit for edit in MISTAKES if edit.loud]
    for title, edits in {"Silent": silent, "Loud": loud, "Make it better": BETTER}.items():
        print(f"\n## {title}\n\n| what | the line | what you see | as it is |\n|---|---|---|---|")
        for edit in (edit for edit in edits if edit.name in names):
            found, right = found_by(edit.script, edit.flags, edit), "no error"
            cells = [edit.what, code(edit), edit.see(found)]
            if edit.see is not Edit._field_defaults["see"]:
                right = found_by(edit.script, edit.flags)
                cells[2] += "" if edit.claim(right, found) else " !!! not as claimed"
                right = edit.see(right)
            print("|", " | ".join([*cells, right]), "|", flush=True)

    print("\n## Two habits\n\n| what | loss before training | by heart |\n|---|---|---|")
    for edit in (edit for edit in silent if edit.script == "nn_demo" and edit.name in names):
        found = found_by(edit.script, edit.flags, edit)
        print(f"| {edit.what} | {found['first_loss']:.3f} | {found['by_heart']:.3f} |", flush=True)


def code(edit: Edit) -> str:
    """The script, its flags if there are some, the line as it is and as edited."""
    command = f"`{edit.script}.py{edit.flags and ' '}{edit.flags}`"
    return f"{command}: `{edit.line}` → `{edit.edited}`".replace("|", "\\|")


if __name__ == "__main__":
    main()

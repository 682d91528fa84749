"""Measure speed and results for docs/reference.md. Run it by hand; pytest does not collect it.

    python tests/benchmark.py --data-dir data             # How fast is an epoch on MNIST? (about 5 minutes)
    python tests/benchmark.py --data-dir data --results   # What do all models reach? (about 20 minutes)

Without --results, three ways take 60,000 images once in batches of 100, for each of four models:

- notes: the way of the notes, with `ToTensor` on each image of torchvision's MNIST;
- ours: all images are converted once, then `train_one_epoch` of the script takes them from a DataLoader;
- limit: the same model and optimizer make 600 steps on one batch that is in memory already.

They take turns, so that a slower minute of the machine slows all three. The times are medians in seconds.

With --results, each script is run with seeds 0, 1 and 2. The time of an epoch is a median. It, the time of the
whole run and the peak memory belong to seed 0. With --images and --masks, the U-Net is trained on pictures of
your own as well.
"""

import argparse
import contextlib
import importlib
import io
import multiprocessing
import statistics
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from torchvision import datasets, transforms

sys.path.insert(0, str(Path(__file__).parents[1]))
import cnn_mnist
import logistic_regression
import nn_demo
import unet_doubleconv

MODELS = {
    "logistic": (logistic_regression.LogisticRegression, torch.optim.SGD),
    "MLP": (nn_demo.NeuralNet, torch.optim.Adam),
    "LeNet": (cnn_mnist.LeNet, torch.optim.Adam),
    "ConvNet": (cnn_mnist.ConvNet, torch.optim.Adam),
}
MNIST_SCRIPTS = {
    "logistic": ["logistic_regression"],
    "MLP": ["nn_demo"],
    "LeNet": ["cnn_mnist", "--model", "lenet"],
    "ConvNet": ["cnn_mnist"],
    "ResNet-18": ["cnn_mnist", "--model", "resnet"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure the speed of the scripts, or their results.")
    parser.add_argument("--data-dir", type=Path, default="data", help="folder that contains MNIST")
    parser.add_argument("--rounds", type=int, default=5, help="how many times to measure the speed")
    parser.add_argument("--models", nargs="+", choices=[*MNIST_SCRIPTS, "U-Net"], metavar="NAME")
    parser.add_argument("--results", action="store_true", help="measure results, time and memory of whole runs")
    parser.add_argument("--images", type=Path, help="with --results: folder with images for the U-Net")
    parser.add_argument("--masks", type=Path, help="with --results: folder with their masks")
    args = parser.parse_args()

    device = logistic_regression.choose_device("auto")
    print(f"torch {torch.__version__}, {device}, {torch.get_num_threads()} threads\n")
    if args.results:
        print_results(args)
        return
    print("| model | notes | ours | limit | notes / ours | ours / limit |")
    print("|---|---|---|---|---|---|", flush=True)
    for name in MODELS:
        if name in (args.models or MODELS):
            notes, ours, limit = in_new_process(measure_speed, name, args.data_dir, args.rounds, device)
            print(f"| {name} | {notes:.2f} | {ours:.2f} | {limit:.2f} | {notes / ours:.1f} | {ours / limit:.2f} |")
            sys.stdout.flush()


def in_new_process(function, *args):
    """Call the function in a process of its own, because earlier use of the memory changes times and the peak."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as executor:
        return executor.submit(function, *args).result()


def measure_speed(name: str, data_dir: Path, rounds: int, device: torch.device) -> list[float]:
    """Return the median seconds of an epoch in each of the three ways."""
    _, (images, labels), _ = logistic_regression.load_data("mnist", data_dir)
    train_set = TensorDataset(images.unsqueeze(1) / 255, labels)
    batch = tuple(tensor.to(device) for tensor in train_set[:100])
    notes_data = datasets.MNIST(data_dir, transform=transforms.ToTensor())
    loaders = {
        "notes": DataLoader(notes_data, batch_size=100, shuffle=True),
        "ours": DataLoader(train_set, batch_size=100, shuffle=True),
        "limit": [batch] * 600,
    }
    model_class, optimizer_class = MODELS[name]
    torch.manual_seed(0)
    seconds = {way: [] for way in loaders}
    steps = {}
    for way in loaders:
        model = model_class().to(device)
        if way != "notes" and model_class.__module__ == "cnn_mnist" and device.type == "cpu":
            model = model.to(memory_format=torch.channels_last)
        steps[way] = (model, optimizer_class(model.parameters(), lr=0.001))
    for _ in range(rounds):
        for way, loader in loaders.items():
            start = time.perf_counter()
            train(loader, *steps[way], device, ours=way == "ours")
            seconds[way].append(time.perf_counter() - start)
    return [statistics.median(times) for times in seconds.values()]


def train(loader, model, optimizer, device, ours: bool) -> None:
    criterion = nn.CrossEntropyLoss()
    if ours:
        # The loop of nn_demo.py also measures the training accuracy, as that of cnn_mnist.py does.
        script = logistic_regression if isinstance(model, logistic_regression.LogisticRegression) else nn_demo
        script.train_one_epoch(model, loader, criterion, optimizer, device)
        return
    model.train()
    for images, labels in loader:
        loss = criterion(model(images.to(device)), labels.to(device))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    loss.item()  # A GPU has finished only now.


def print_results(args: argparse.Namespace) -> None:
    """Print a row for each model and data set, and what can be reached without a U-Net."""
    data_dir = ["--data-dir", str(args.data_dir.absolute())]
    runs = [
        (name, data, [*script, "--dataset", data, *data_dir])
        for data in ("mnist", "digits")
        for name, script in MNIST_SCRIPTS.items()
    ]
    runs.append(("U-Net", "drawings", ["unet_doubleconv"]))
    if args.images and args.masks:
        folders = [str(folder.absolute()) for folder in (args.images, args.masks)]
        runs.append(("U-Net", "own pictures", ["own_data.pictures", "--images", folders[0], "--masks", folders[1]]))
    print("| model | data | epochs | result, seeds 0 / 1 / 2 | seconds an epoch | whole run | peak memory |")
    print("|---|---|---|---|---|---|---|", flush=True)
    for name, data, (script, *flags) in runs:
        if name in (args.models or [name]):
            start = time.perf_counter()
            found, epochs, epoch, gib = in_new_process(run_script, script, [*flags, "--seed", "0"])
            whole = time.perf_counter() - start
            others = [in_new_process(run_script, script, [*flags, "--seed", seed])[0] for seed in "12"]
            results = " / ".join(map(result, [found, *others]))
            cells = [name, data, str(epochs), results, f"{epoch:.2g}", f"{whole:.0f} s"]
            print("|", " | ".join([*cells, f"{gib:.2f} GiB"]), "|", flush=True)
    if "U-Net" in (args.models or ["U-Net"]):
        print("\nIoU of the bag in the held-out drawings")
        for name, value in without_a_network().items():
            print(f"  {name}: {value:.3f}")


def run_script(name: str, flags: list[str]) -> tuple[dict, int, float, float]:
    """Return what `main` returns, the number of epochs, the median seconds of an epoch, and the peak memory in GiB."""
    import resource

    script = importlib.import_module(name)
    lesson = unet_doubleconv if name == "own_data.pictures" else script
    train_one_epoch, times = lesson.train_one_epoch, []

    def timed(*args):
        start = time.perf_counter()
        found = train_one_epoch(*args)
        times.append(time.perf_counter() - start)
        return found

    lesson.train_one_epoch = timed
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        found = script.main([*flags, "--out-dir", folder])
    losses = found["train_loss"]
    epochs = len(losses) if isinstance(losses, list) else len(times)  # nn_demo.py has trained for its checks before.
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return found, epochs, statistics.median(times[-epochs:]), peak / 2**30


def result(found: dict) -> str:
    """Return the last test accuracy in percent, the last IoU, or the IoU of each class in the best epoch."""
    if "test_accuracy" in found:
        return f"{100 * np.ravel(found['test_accuracy'])[-1]:.1f}"
    if isinstance(found["iou"], dict):
        best = found["best_epoch"] - 1
        return ", ".join(f"{name} {values[best]:.3f}" for name, values in found["iou"].items())
    return f"{found['iou'][-1]:.3f}"


def without_a_network() -> dict[str, float]:
    """Return the IoU of the bag for three ways to guess the masks: all pixels, brightness, and saturation."""
    train_images, train_masks = unet_doubleconv.draw_bags(unet_doubleconv.TRAIN_IMAGES, seed=0)
    images, masks = unet_doubleconv.draw_bags(unet_doubleconv.HELD_OUT_IMAGES, seed=1)
    levels = range(0, 256, 5)
    fits = [unet_doubleconv.class_iou(saturation(train_images) > level, train_masks, True) for level in levels]
    otsu = []
    for image, mask in zip(images, masks):
        gray = cv2.cvtColor(image.permute(1, 2, 0).contiguous().numpy(), cv2.COLOR_RGB2GRAY)
        bright = torch.from_numpy(cv2.threshold(gray, 0, 1, cv2.THRESH_OTSU)[1])
        otsu.append(max(bright, 1 - bright, key=lambda side: unet_doubleconv.class_iou(side, mask, 1)))
    guesses = {"every pixel labeled as bag": torch.ones_like(masks)}
    guesses["Otsu's threshold, with the better of the two sides in each picture"] = torch.stack(otsu)
    best = levels[fits.index(max(fits))]
    guesses["a threshold on the smoothed saturation"] = (saturation(images) > best).byte()
    return {name: unet_doubleconv.class_iou(guess, masks, 1) for name, guess in guesses.items()}


def saturation(images: torch.Tensor) -> torch.Tensor:
    """Return how saturated the colors around each pixel are, uint8 (N, H, W)."""
    colors = [cv2.cvtColor(image.permute(1, 2, 0).contiguous().numpy(), cv2.COLOR_RGB2HSV) for image in images]
    return torch.stack([torch.from_numpy(cv2.GaussianBlur(color[:, :, 1], (9, 9), 0)) for color in colors])


if __name__ == "__main__":
    main()

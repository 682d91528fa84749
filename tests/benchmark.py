"""How fast is an epoch on MNIST? Run by hand; pytest does not collect it.

    python tests/benchmark.py --data-dir data

Three ways to take 60,000 images once in batches of 100, for each of four models:

- notes: the notes' pipeline, `ToTensor` on each image of torchvision's MNIST through a DataLoader;
- ours: all images converted once, a plain DataLoader, `train_one_epoch` of the scripts;
- limit: the same model and optimizer, stepping 600 times on one batch that is in memory already.

They take turns, round by round, so that a slower minute of the machine slows all three; the table
gives medians in seconds and the ratios of the medians.
"""

import argparse
import multiprocessing
import statistics
import sys
import time
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from torchvision import datasets, transforms

sys.path.insert(0, str(Path(__file__).parents[1]))
import cnn_mnist
import logistic_regression
import nn_demo

MODELS = {
    "logistic": (logistic_regression.LogisticRegression, torch.optim.SGD),
    "MLP": (nn_demo.NeuralNet, torch.optim.Adam),
    "LeNet": (cnn_mnist.LeNet, torch.optim.Adam),
    "ConvNet": (cnn_mnist.ConvNet, torch.optim.Adam),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir", type=Path, default="data")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    args = parser.parse_args()

    device = logistic_regression.choose_device("auto")
    print(f"torch {torch.__version__}, {device}, {torch.get_num_threads()} threads")
    print(f"medians of {args.rounds} interleaved rounds, seconds an epoch\n")
    print("| model | notes | ours | limit | notes / ours | ours / limit |")
    print("|---|---|---|---|---|---|", flush=True)
    # Each model in a process of its own: how a process has used its memory before changes times.
    context = multiprocessing.get_context("spawn")
    for name in args.models:
        measuring = context.Process(target=measure, args=(name, args.data_dir, args.rounds, device))
        measuring.start()
        measuring.join()


def measure(name: str, data_dir: Path, rounds: int, device: torch.device) -> None:
    """Print the line of a model."""
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
    notes, ours, limit = (statistics.median(times) for times in seconds.values())
    print(
        f"| {name} | {notes:.2f} | {ours:.2f} | {limit:.2f} | "
        f"{notes / ours:.1f} | {ours / limit:.2f} |",
        flush=True,
    )


def train(loader, model, optimizer, device, ours: bool) -> None:
    criterion = nn.CrossEntropyLoss()
    if ours:
        logistic_regression.train_one_epoch(model, loader, criterion, optimizer, device)
        return
    model.train()
    for images, labels in loader:
        loss = criterion(model(images.to(device)), labels.to(device))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    loss.item()  # a GPU is done only now


if __name__ == "__main__":
    main()

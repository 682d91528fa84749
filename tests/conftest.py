"""What every test shares: tiny data in MNIST's own file format, and a network that is not there."""

import contextlib
import io
import os
import struct
import urllib.request

import cv2
import numpy as np
import pytest
import torch

import pytorch_basic

if "PYTEST_XDIST_WORKER" in os.environ:  # pytest -n 2: one core each, or they fight over both
    torch.set_num_threads(1)


@pytest.fixture(params=["cpu", *(["cuda"] if torch.cuda.is_available() else [])])
def device(request):
    return request.param


@pytest.fixture
def set_proxy(monkeypatch):
    """A function that sends all downloads, of subprocesses too, to a proxy; None: to none."""

    def set_proxy(address):
        for name in ("http_proxy", "https_proxy", "no_proxy"):
            for spelling in (name, name.upper()):
                monkeypatch.delenv(spelling, raising=False)
                if address and name != "no_proxy":
                    monkeypatch.setenv(spelling, address)
        urllib.request.install_opener(None)  # it remembers the proxies of its first download

    return set_proxy


@pytest.fixture(autouse=True)
def no_network(set_proxy):
    """Whatever wants to download is refused at once."""
    set_proxy("http://127.0.0.1:9")


def draw_digit(digit: int, rng: np.random.Generator) -> np.ndarray:
    """uint8 (28, 28): the digit in one of OpenCV's fonts, bright on black, as MNIST has it."""
    image = np.zeros((28, 28), np.uint8)
    corner = (int(rng.integers(5, 8)), int(rng.integers(21, 24)))
    font = int(rng.choice([cv2.FONT_HERSHEY_SIMPLEX, cv2.FONT_HERSHEY_DUPLEX]))
    cv2.putText(image, str(digit), corner, font, rng.uniform(0.7, 0.85), 255, 2, cv2.LINE_AA)
    return image


def write_idx(path, array: np.ndarray) -> None:
    """MNIST's file format: magic number, one big-endian size a dimension, then the bytes."""
    header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    path.write_bytes(header + array.astype(np.uint8).tobytes())


def write_mnist(folder, train: int = 600, test: int = 200) -> None:
    raw = folder / "MNIST" / "raw"
    raw.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for split, count in (("train", train), ("t10k", test)):
        labels = rng.integers(0, 10, count)
        images = np.stack([draw_digit(label, rng) for label in labels])
        write_idx(raw / f"{split}-images-idx3-ubyte", images)
        write_idx(raw / f"{split}-labels-idx1-ubyte", labels)


@pytest.fixture(scope="session")
def mnist_dir(tmp_path_factory):
    """A --data-dir with 600 + 200 drawn digits. Tests that change files copy it first."""
    folder = tmp_path_factory.mktemp("data")
    write_mnist(folder)
    return folder


@pytest.fixture(scope="session", params=["cpu", *(["cuda"] if torch.cuda.is_available() else [])])
def basics(request, tmp_path_factory):
    """Run all sections of pytorch_basic.py once. Return what main returns, and what is printed."""
    folder = str(tmp_path_factory.mktemp("basics"))
    with contextlib.redirect_stdout(io.StringIO()) as stdout:
        found = pytorch_basic.main(["--device", request.param, "--out-dir", folder])
    return found, stdout.getvalue()

"""Where the images come from: MNIST there, downloaded, refused, stalled, damaged; the digits."""

import functools
import gzip
import hashlib
import http.server
import shutil
import socket
import threading

import pytest
import torch
from torchvision import datasets

import logistic_regression
from logistic_regression import load_data

NAMES = ["train-images", "train-labels", "t10k-images", "t10k-labels"]


def same(first, second):
    """Do two results of load_data hold the same numbers?"""
    pairs = zip(first[1] + first[2], second[1] + second[2])
    return first[0] == second[0] and all(torch.equal(a, b) for a, b in pairs)


def error(*arguments) -> str:
    with pytest.raises(SystemExit) as stop:
        load_data(*arguments)
    assert stop.value.code.startswith("error: ") and "\n" not in stop.value.code
    return stop.value.code


def test_mnist_files_become_tensors(mnist_dir):
    dataset, (images, labels), (test_images, test_labels) = load_data("mnist", mnist_dir)
    assert dataset == "mnist"
    assert images.shape == (600, 28, 28) and labels.shape == (600,)
    assert images.dtype == torch.uint8 and labels.dtype == torch.int64
    assert images.min() == 0 and images.max() == 255
    # The same image and label as torchvision's own way, image by image, gives.
    picture, label = datasets.MNIST(mnist_dir, train=False)[7]
    assert torch.equal(test_images[7].flatten(), torch.tensor(list(picture.tobytes())))
    assert test_labels[7] == label and len(test_images) == 200


@pytest.mark.parametrize("limit", [30, 700])
def test_limit_takes_the_first_images_and_ctrl_c_writes_nothing(limit, mnist_dir, tmp_path, monkeypatch):
    def look(model, loader, *_):
        images, labels = load_data("mnist", mnist_dir)[1]
        assert torch.equal(loader.dataset[:][0].squeeze(1), images[:limit] / 255)
        assert torch.equal(loader.dataset[:][1], labels[:limit])
        raise KeyboardInterrupt  # that is all

    monkeypatch.setattr(logistic_regression, "train_one_epoch", look)
    flags = ["--data-dir", str(mnist_dir), "--out-dir", str(tmp_path), "--limit", str(limit)]
    with pytest.raises(KeyboardInterrupt):
        logistic_regression.main(flags)
    assert not any(tmp_path.iterdir())  # Ctrl-C writes nothing


def test_digits_are_real_handwriting_always_split_alike(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(datasets.MNIST, "download", None)
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(1)
    first = load_data("digits", tmp_path)
    torch.manual_seed(2)
    assert same(first, load_data("digits", tmp_path))
    assert "!!!" not in capsys.readouterr().out and list(tmp_path.iterdir()) == []
    dataset, (images, labels), (test_images, test_labels) = first
    assert dataset == "digits"
    assert images.shape == (1437, 28, 28) and test_images.shape == (360, 28, 28)
    assert images.min() == 0 and 240 < images.max() <= 255
    assert (images[:, :4] == 0).all() and (images[:, :, -4:] == 0).all()
    assert torch.bincount(torch.cat([labels, test_labels])).tolist()[:4] == [178, 182, 177, 183]
    together = torch.cat([images, test_images]).flatten(1)
    assert len(together.unique(dim=0)) == 1797  # no image is in both parts


def test_no_network_auto_takes_the_digits_and_says_so_twice(tmp_path, capsys):
    flags = ["--epochs", "1", "--limit", "100", "--data-dir", str(tmp_path / "data")]
    results = logistic_regression.main([*flags, "--out-dir", str(tmp_path / "out")])
    assert results["dataset"] == "digits"
    assert results["files"]["weights"].name == "logistic-digits.pt"
    printed = capsys.readouterr().out
    assert "MNIST cannot be downloaded (" in printed and "!!! 无法下载 MNIST" in printed
    assert "\nTest accuracy on scikit-learn's digits, not MNIST: " in printed


def test_no_network_mnist_asked_for_is_an_error_that_names_the_files(tmp_path):
    message = error("mnist", tmp_path)
    assert message.startswith("error: MNIST cannot be loaded (") and message.endswith("Found: none")
    assert str(tmp_path / "MNIST" / "raw") in message
    assert all(f"{name}-idx" in message for name in NAMES)


def test_stalled_download_ends_and_the_callers_timeout_is_left_as_it_was(tmp_path, monkeypatch, set_proxy):
    """A server that accepts, and answers nothing."""
    set_timeout, asked = socket.setdefaulttimeout, []
    monkeypatch.setattr(socket, "getdefaulttimeout", lambda: 7)
    monkeypatch.setattr(socket, "setdefaulttimeout", lambda value: asked.append(value) or set_timeout(0.2))
    with socket.create_server(("127.0.0.1", 0)) as server:
        set_proxy(f"http://127.0.0.1:{server.getsockname()[1]}/")
        assert load_data("auto", tmp_path)[0] == "digits"
        server.settimeout(1)
        server.accept()[0].close()  # it was asked
    set_timeout(None)
    assert asked == [10, 7]


@pytest.mark.parametrize("choice", ["auto", "mnist"])
def test_mnist_under_another_name_is_named_and_at_another_level_found(choice, mnist_dir, tmp_path):
    raw = mnist_dir / "MNIST" / "raw"
    assert same(load_data(choice, raw), load_data(choice, mnist_dir))
    assert same(load_data(choice, raw.parent), load_data(choice, mnist_dir))
    for file in raw.iterdir():  # as 7-Zip and WinRAR name them
        shutil.copy(file, tmp_path / file.name.replace("-idx", ".idx"))
    message = error(choice, tmp_path)
    assert str(tmp_path / "train-images.idx3-ubyte") in message.partition("Found: ")[2]
    assert str(tmp_path / "MNIST" / "raw") in message and "train-images-idx3-ubyte" in message


def test_download_then_offline_again(mnist_dir, tmp_path, monkeypatch, set_proxy, capsys):
    mirror, data_dir = tmp_path / "mirror", tmp_path / "data"
    mirror.mkdir()
    resources = []
    for name, _ in datasets.MNIST.resources:
        packed = gzip.compress((mnist_dir / "MNIST" / "raw" / name).with_suffix("").read_bytes())
        (mirror / name).write_bytes(packed)
        resources.append((name, hashlib.md5(packed).hexdigest()))
    monkeypatch.setattr(datasets.MNIST, "resources", resources)
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=mirror)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(datasets.MNIST, "mirrors", [f"http://127.0.0.1:{server.server_port}/"])
    set_proxy(None)
    downloaded = load_data("auto", data_dir)
    server.shutdown()
    server.server_close()
    kept = load_data("auto", data_dir)
    assert "!!!" not in capsys.readouterr().out
    there = load_data("mnist", mnist_dir)
    assert same(downloaded, there) and same(kept, there)
    # The original .gz files, put there by hand, are unpacked: no network.
    for name in (data_dir / "MNIST" / "raw").iterdir():
        name.unlink()
    for name, _ in resources:
        shutil.copy(mirror / name, data_dir / "MNIST" / "raw")
    assert same(load_data("mnist", data_dir), there)


DAMAGE = {
    "cut short": lambda data: data[:-100],
    "empty": lambda data: b"",
    "text": lambda data: b"<html>404 Not Found</html>" * 100,
    "header only": lambda data: data[:16],
    "another kind": lambda data: data[:3] + bytes([4 - data[3]]) + data[4:],  # images, labels
}


@pytest.mark.parametrize("choice", ["auto", "mnist"])
@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("name", ["train-images-idx3-ubyte", "t10k-labels-idx1-ubyte"])
def test_damaged_files_are_an_error_that_names_the_folder(choice, damage, name, mnist_dir, tmp_path):
    shutil.copytree(mnist_dir, tmp_path, dirs_exist_ok=True)
    file = tmp_path / "MNIST" / "raw" / name
    file.write_bytes(DAMAGE[damage](file.read_bytes()))
    message = error(choice, tmp_path)
    assert str(tmp_path / "MNIST" / "raw") in message and "undamaged" in message and str(file) in message

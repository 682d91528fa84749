"""Where the pictures come from: MNIST there, downloaded, refused, stalled, damaged; the digits."""

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

import cnn_mnist
import logistic_regression
from logistic_regression import load_data

CPU = torch.device("cpu")
QUICK = ["--epochs", "1", "--limit", "100", "--device", "cpu"]


def test_mnist_files_become_tensors(mnist_dir):
    dataset, images, labels, test_images, test_labels = load_data("mnist", mnist_dir, None, CPU)
    assert dataset == "mnist"
    assert images.shape == (600, 1, 28, 28) and test_images.shape == (200, 1, 28, 28)
    assert labels.shape == (600,) and test_labels.shape == (200,)
    assert images.dtype == torch.float32 and labels.dtype == torch.int64
    assert images.min() == 0 and images.max() == 1
    # The same picture and label as torchvision's own way, image by image, gives.
    notes = datasets.MNIST(mnist_dir, train=False)
    picture, label = notes[7]
    assert torch.equal(
        (test_images[7, 0] * 255).byte().flatten(), torch.tensor(list(picture.tobytes()))
    )
    assert test_labels[7] == label


def test_limit_takes_the_first_training_images_only(mnist_dir):
    _, images, labels, test_images, _ = load_data("mnist", mnist_dir, 30, CPU)
    _, all_images, all_labels, _, _ = load_data("mnist", mnist_dir, None, CPU)
    assert torch.equal(images, all_images[:30]) and torch.equal(labels, all_labels[:30])
    assert len(test_images) == 200


def test_digits_are_real_handwriting_always_split_alike():
    torch.manual_seed(1)
    first = load_data("digits", "nowhere", None, CPU)
    torch.manual_seed(2)
    again = load_data("digits", "nowhere", None, CPU)
    assert all(torch.equal(a, b) for a, b in zip(first[1:], again[1:]))
    dataset, images, labels, test_images, test_labels = first
    assert dataset == "digits"
    assert images.shape == (1437, 1, 28, 28) and test_images.shape == (360, 1, 28, 28)
    assert images.min() == 0 and 0.9 < images.max() <= 1
    assert (images[:, :, :4] == 0).all() and (images[:, :, :, -4:] == 0).all()
    assert torch.bincount(torch.cat([labels, test_labels])).tolist() == [
        178, 182, 177, 183, 181, 182, 181, 179, 174, 180,
    ]  # fmt: skip
    together = torch.cat([images, test_images]).flatten(1)
    assert len(together.unique(dim=0)) == 1797  # no picture is in both parts


def test_no_network_auto_takes_the_digits_and_says_so_twice(tmp_path, capsys):
    results = logistic_regression.main(
        [*QUICK, "--data-dir", str(tmp_path / "data"), "--out-dir", str(tmp_path / "out")]
    )
    assert results["dataset"] == "digits"
    assert results["files"]["weights"].name == "logistic-digits.pt"
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("!!!") and "digits" in line for line in lines[:6])
    assert "MNIST could not be downloaded" in lines[-1]


def test_no_network_mnist_asked_for_is_an_error_that_names_the_files(tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        load_data("mnist", tmp_path, None, CPU)
    message = stop.value.code
    assert message.startswith("error: MNIST cannot be downloaded (") and "\n" not in message
    assert str(tmp_path / "MNIST" / "raw") in message
    for name in ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"):
        assert f"{name}-ubyte" in message


def test_digits_asked_for_do_not_touch_the_network(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(datasets.MNIST, "download", None)
    monkeypatch.chdir(tmp_path)
    assert load_data("digits", "data", None, CPU)[0] == "digits"
    assert "!!!" not in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("sent", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 9999999\r\n\r\nhalf"])
def test_stalled_download_ends(sent, tmp_path, monkeypatch, set_proxy):
    """A server that accepts and answers nothing, or stops in the middle of a file."""
    server = socket.create_server(("127.0.0.1", 0))
    connections = []

    def accept():
        while True:
            try:
                connection, _ = server.accept()
            except OSError:  # the test is over
                return
            connections.append(connection)
            connection.sendall(sent)

    threading.Thread(target=accept, daemon=True).start()
    address = f"http://127.0.0.1:{server.getsockname()[1]}/"
    set_proxy(None if sent else address)
    if sent:
        monkeypatch.setattr(datasets.MNIST, "mirrors", [address])
    monkeypatch.setattr(logistic_regression, "STALL_SECONDS", 0.2)
    assert load_data("auto", tmp_path, 10, CPU)[0] == "digits"
    assert connections
    for connection in (server, *connections):
        connection.close()
    # What it left behind does not count as MNIST in the next run either.
    assert load_data("auto", tmp_path, 10, CPU)[0] == "digits"


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
    downloaded = load_data("auto", data_dir, None, CPU)
    server.shutdown()
    server.server_close()
    assert "downloading" in capsys.readouterr().out
    kept = load_data("auto", data_dir, None, CPU)
    assert "downloading" not in capsys.readouterr().out
    there = load_data("mnist", mnist_dir, None, CPU)
    for data in (downloaded, kept):
        assert data[0] == "mnist"
        assert all(torch.equal(a, b) for a, b in zip(data[1:], there[1:]))


def test_damaged_file_is_named_when_the_others_are_downloaded(tmp_path, monkeypatch):
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    names = [name.removesuffix(".gz") for name, _ in datasets.MNIST.resources]
    (raw / names[0]).write_bytes(b"damaged")

    def download(dataset):
        for name in names[1:]:
            (raw / name).touch()

    monkeypatch.setattr(datasets.MNIST, "download", download)
    with pytest.raises(SystemExit) as stop:
        load_data("auto", tmp_path, None, CPU)
    assert str(raw / names[0]) in stop.value.code and "delete" in stop.value.code


def cut_short(file):
    file.write_bytes(file.read_bytes()[:-100])


def empty(file):
    file.write_bytes(b"")


def text(file):
    file.write_text("<html>404 Not Found</html>" * 100)


def header_only(file):
    file.write_bytes(file.read_bytes()[:16])


@pytest.mark.parametrize("choice", ["auto", "mnist"])
@pytest.mark.parametrize("damage", [cut_short, empty, text, header_only])
@pytest.mark.parametrize("name", ["train-images-idx3-ubyte", "t10k-labels-idx1-ubyte"])
def test_damaged_file_is_named(choice, damage, name, mnist_dir, tmp_path):
    shutil.copytree(mnist_dir, tmp_path, dirs_exist_ok=True)
    file = tmp_path / "MNIST" / "raw" / name
    damage(file)
    with pytest.raises(SystemExit) as stop:
        load_data(choice, tmp_path, None, CPU)
    assert stop.value.code.startswith("error: ") and "\n" not in stop.value.code
    assert str(file) in stop.value.code and "delete" in stop.value.code


@pytest.mark.parametrize(
    ("target", "source"),
    [
        ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
        ("t10k-labels-idx1-ubyte", "t10k-images-idx3-ubyte"),
        ("train-labels-idx1-ubyte", "t10k-labels-idx1-ubyte"),
        ("t10k-images-idx3-ubyte", "train-images-idx3-ubyte"),
    ],
)
def test_file_of_the_wrong_kind_is_named(target, source, mnist_dir, tmp_path):
    shutil.copytree(mnist_dir, tmp_path, dirs_exist_ok=True)
    raw = tmp_path / "MNIST" / "raw"
    shutil.copy(raw / source, raw / target)
    with pytest.raises(SystemExit) as stop:
        load_data("auto", tmp_path, None, CPU)
    assert target in stop.value.code and "delete" in stop.value.code


def test_labels_beyond_9_and_other_picture_sizes_are_refused(mnist_dir, tmp_path):
    shutil.copytree(mnist_dir, tmp_path, dirs_exist_ok=True)
    raw = tmp_path / "MNIST" / "raw"
    labels = raw / "train-labels-idx1-ubyte"
    content = labels.read_bytes()
    labels.write_bytes(content[:-1] + b"\x0a")
    with pytest.raises(SystemExit, match="train-labels-idx1-ubyte"):
        load_data("auto", tmp_path, None, CPU)
    labels.write_bytes(content)
    images = raw / "train-images-idx3-ubyte"
    content = images.read_bytes()
    images.write_bytes(content[:8] + b"\0\0\0\x0e\0\0\0\x38" + content[16:])  # 14x56 for 28x28
    with pytest.raises(SystemExit, match="train-images-idx3-ubyte"):
        load_data("auto", tmp_path, None, CPU)


def test_resnet_refuses_batches_that_leave_one_image_alone(mnist_dir, tmp_path, capsys):
    flags = ["--model", "resnet", "--data-dir", str(mnist_dir), "--out-dir", str(tmp_path)]
    for bad in (["--limit", "101"], ["--batch-size", "1"], ["--limit", "1"]):
        with pytest.raises(SystemExit) as stop:
            cnn_mnist.main([*flags, *bad])
        assert stop.value.code == 2
        assert "BatchNorm" in capsys.readouterr().err.splitlines()[-1]

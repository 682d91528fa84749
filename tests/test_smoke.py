"""Each script's `main` once, on tiny data: does it learn, and find, what it should? For any CI."""

import math

import pytest
import torch

import cnn_mnist
import cv2_tensor
import linear_regression
import logistic_regression
import nn_demo
import pytorch_basic
import unet_doubleconv


@pytest.fixture
def run(tmp_path, capsys):
    """run(script, flag, ...) returns what main returns, and what was printed."""

    def run(script, *flags):
        found = script.main([*flags, "--out-dir", str(tmp_path / "out")])
        printed = capsys.readouterr().out
        for file in found.get("files", {}).values():
            assert file.stat().st_size > 0
            assert f"  {file}" in printed.partition("Written:")[2].splitlines()
        return found, printed

    return run


def test_A3_logistic_regression_learns(run, mnist_dir, device):
    flags = ["--data-dir", str(mnist_dir), "--lr", "0.1", "--epochs", "30", "--device", device]
    found, printed = run(logistic_regression, *flags)
    assert found["dataset"] == "mnist"
    assert f", on {device}\n" in printed
    assert found["test_accuracy"] >= 0.9 and found["train_loss"] < 1
    assert printed.splitlines()[0] == "逻辑回归 · Logistic regression"


def test_A4_neural_network_learns_and_is_checked_before(run, mnist_dir, device):
    found, printed = run(nn_demo, "--data-dir", str(mnist_dir), "--epochs", "8", "--device", device)
    assert f", on {device}\n" in printed
    assert found["test_accuracy"][-1] >= 0.95
    assert found["first_loss"] == pytest.approx(math.log(10), abs=0.15)
    assert found["overfit_loss"] < 0.1


def test_A5_convnet_learns_the_digits_without_a_network(run, device):
    found, printed = run(cnn_mnist, "--dataset", "digits", "--epochs", "3", "--device", device)
    assert found["dataset"] == "digits" and "(1, 32, 7, 7)" in printed
    assert found["test_accuracy"][-1] >= 0.9
    assert found["train_accuracy"][-1] >= 0.9


def test_A2_linear_regression_approaches_the_exact_line(run):
    found, _ = run(linear_regression)
    assert len(found["train_loss"]) == 60
    assert found["exact"]["slope"] == pytest.approx(0.25999, abs=1e-5)
    assert 0.16892 < found["mse"] < found["train_loss"][0]
    assert found["mse"] == pytest.approx(0.16892, abs=0.01)


def test_B_unet_finds_the_layer_and_learns(run, device, monkeypatch):
    monkeypatch.setattr(unet_doubleconv, "HELD_OUT_IMAGES", 8)
    flags = ["--train-images", "16", "--epochs", "2", "--device", device]
    found, printed = run(unet_doubleconv, *flags)
    assert "to have 3 channels, but got 64 channels instead" in printed
    assert found["train_loss"][-1] < found["train_loss"][0]
    assert all(0 <= iou <= 1 for iou in found["iou"])


def test_C_cv2_picture_to_tensor_and_back(run):
    found, printed = run(cv2_tensor)
    tensor = found["grayscale"]["image_tensor"]
    assert tensor.shape == (1, 512, 512) and (tensor.min(), tensor.max()) == (0, 1)
    assert found["back_to_a_file"]["same"]
    assert ">>> print(image_tensor.shape)\ntorch.Size([1, 512, 512])\n" in printed


def test_D_A1_every_section_of_pytorch_basic_runs(basics):
    found, _ = basics
    assert list(found) == list(pytorch_basic.SECTIONS)
    assert (found["autograd"]["x"].grad == 4.5).all()
    last = found["save_and_load"]
    assert torch.equal(last["resumed"](last["inputs"]), last["net"](last["inputs"]))
    assert found["pretrained"]["outputs"].shape == torch.Size([64, 100])

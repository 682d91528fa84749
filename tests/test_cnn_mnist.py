"""The three networks of cnn_mnist.py layer by layer, and digits in photos."""

import os

import cv2
import numpy as np
import pytest
import torch
from conftest import draw_digit, write_too_large_png
from torch import nn

import cnn_mnist


def test_A5_convnet_shapes():
    shapes = cnn_mnist.show_shapes(cnn_mnist.ConvNet(), torch.zeros(2, 1, 28, 28))
    assert shapes["layer1.0"] == (2, 16, 28, 28)  # 5x5 with padding 2 keeps the size
    assert shapes["layer1.3"] == (2, 16, 14, 14)
    assert shapes["layer2.0"] == (2, 32, 14, 14)
    assert shapes["layer2.3"] == (2, 32, 7, 7)
    assert shapes["fc"] == (2, 10)


def test_A5_train_and_eval_differ_by_batchnorm_and_dropout():
    model = cnn_mnist.ConvNet()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    modes = cnn_mnist.show_train_and_eval(model, torch.rand(100, 1, 28, 28))
    assert modes["train_against_eval"] > 0.1
    assert modes["alone_in_train"] > 0.01
    assert modes["alone_in_eval"] < 1e-5
    assert set(modes["dropout_train"]) <= {0.0, 2.0}
    assert set(modes["dropout_eval"]) == {1.0}
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_A5_dropout_drops_about_half(capsys):
    torch.manual_seed(0)
    runs = [
        cnn_mnist.show_train_and_eval(cnn_mnist.LeNet(), torch.rand(2, 1, 28, 28))["dropout_train"]
        for _ in range(30)
    ]
    assert 0.8 < np.mean(runs) < 1.2


def test_A7_lenet_is_printed_as_in_the_notebook_and_does_not_mind_modes(capsys):
    model = cnn_mnist.LeNet()
    assert str(model).splitlines() == [
        "LeNet(",
        "  (conv): Sequential(",
        "    (0): Conv2d(1, 6, kernel_size=(5, 5), stride=(1, 1))",
        "    (1): Sigmoid()",
        "    (2): MaxPool2d(kernel_size=2, stride=2, padding=0, dilation=1, ceil_mode=False)",
        "    (3): Conv2d(6, 16, kernel_size=(5, 5), stride=(1, 1))",
        "    (4): Sigmoid()",
        "    (5): MaxPool2d(kernel_size=2, stride=2, padding=0, dilation=1, ceil_mode=False)",
        "  )",
        "  (fc): Sequential(",
        "    (0): Linear(in_features=256, out_features=120, bias=True)",
        "    (1): Sigmoid()",
        "    (2): Linear(in_features=120, out_features=84, bias=True)",
        "    (3): Sigmoid()",
        "    (4): Linear(in_features=84, out_features=10, bias=True)",
        "  )",
        ")",
    ]
    shapes = cnn_mnist.show_shapes(model, torch.zeros(1, 1, 28, 28))
    assert shapes["conv.0"] == (1, 6, 24, 24) and shapes["conv.5"] == (1, 16, 4, 4)
    assert [shapes[f"fc.{layer}"][1] for layer in (0, 2, 4)] == [120, 84, 10]
    modes = cnn_mnist.show_train_and_eval(model, torch.rand(100, 1, 28, 28))
    assert modes["train_against_eval"] == 0
    assert "no BatchNorm" in capsys.readouterr().out


def test_A7_view_fails_on_channels_last_where_flatten_does_not():
    features = torch.rand(2, 16, 4, 4).to(memory_format=torch.channels_last)
    with pytest.raises(RuntimeError, match="view size is not compatible"):
        features.view(2, -1)
    assert torch.equal(torch.flatten(features, 1), features.contiguous().view(2, -1))


def test_A8_resnet_shapes_stage_by_stage():
    shapes = cnn_mnist.show_shapes(cnn_mnist.ResNet(), torch.zeros(1, 1, 224, 224))
    assert shapes["stem.0"] == (1, 64, 112, 112)
    assert shapes["stem.3"] == (1, 64, 56, 56)
    assert shapes["stage1.1"] == (1, 64, 56, 56)
    assert shapes["stage2.1"] == (1, 128, 28, 28)
    assert shapes["stage3.1"] == (1, 256, 14, 14)
    assert shapes["stage4.1"] == (1, 512, 7, 7)
    assert shapes["pool"] == (1, 512, 1, 1)
    assert shapes["fc.1"] == (1, 10)


def test_A8_residual_block_adds_its_input():
    block = cnn_mnist.Residual(3, 3).eval()
    x = torch.rand(4, 3, 6, 6)
    for parameter in block.parameters():
        nn.init.zeros_(parameter)  # now both convolutions give 0, and the way around is left
    assert torch.equal(block(x), x)
    halving = cnn_mnist.Residual(3, 6, use_1x1conv=True, stride=2).eval()
    nn.init.zeros_(halving.bn2.weight)
    assert torch.equal(halving(x), halving.conv3(x).relu())
    y = nn.Sequential(block.conv1, block.bn1, nn.ReLU(), block.conv2, block.bn2)
    for parameter in block.parameters():
        nn.init.normal_(parameter)
    torch.testing.assert_close(block(x), (y(x) + x).relu())


def test_A8_what_the_notebook_shows_of_resnet():
    shown = cnn_mnist.show_resnet(cnn_mnist.ResNet())
    assert shown == {
        "kept": (4, 3, 6, 6),
        "halved": (4, 6, 3, 3),
        "same_layers": True,
        "layers": 18,
    }
    convolutions = [m for m in cnn_mnist.ResNet().modules() if isinstance(m, nn.Conv2d)]
    assert len(convolutions) == 20
    assert sum(conv.kernel_size == (1, 1) for conv in convolutions) == 3


def test_learning_rate_decays_to_zero_but_for_lenet(mnist_dir, tmp_path, monkeypatch):
    rates = []
    train_one_epoch = cnn_mnist.train_one_epoch

    def spy(model, loader, criterion, optimizer, scheduler=None):
        rates.append(optimizer.param_groups[0]["lr"])
        loss = train_one_epoch(model, loader, criterion, optimizer, scheduler)
        rates.append(optimizer.param_groups[0]["lr"])
        return loss

    monkeypatch.setattr(cnn_mnist, "train_one_epoch", spy)
    flags = ["--data-dir", str(mnist_dir), "--limit", "4", "--batch-size", "2", "--epochs", "2"]
    flags += ["--device", "cpu", "--out-dir", str(tmp_path)]
    for model in ("resnet", "convnet"):
        cnn_mnist.main([*flags, "--model", model])
        assert rates == pytest.approx([0.001, 0.0005, 0.0005, 0], abs=1e-9)
        rates.clear()
    cnn_mnist.main([*flags, "--model", "lenet"])
    assert rates == [0.001] * 4


def test_E36_these_blocks_do_not_make_resnet_152():
    assert cnn_mnist.count_layers(cnn_mnist.ResNet(blocks=[3, 8, 36, 3])) == 102


def test_E37_a_bias_before_batchnorm_has_no_gradient():
    for model, size in ((cnn_mnist.ConvNet(), 28), (cnn_mnist.ResNet(), 64)):
        labels = torch.arange(8)
        nn.functional.cross_entropy(model(torch.rand(8, 1, size, size)), labels).backward()
        conv = next(layer for layer in model.modules() if isinstance(layer, nn.Conv2d))
        assert conv.bias.grad.abs().max() < 1e-5 < conv.weight.grad.abs().max()


def test_E35_batchnorm_keeps_an_exponential_average():
    norm = nn.BatchNorm2d(1)
    for value in (10.0, 20.0):
        norm(torch.full((2, 1, 2, 2), value))
    assert norm.running_mean.item() == pytest.approx(0.9 * (0.1 * 10) + 0.1 * 20)  # 2.9, not 15


def test_E33_logits_are_not_probabilities():
    logits = cnn_mnist.ConvNet()(torch.rand(5, 1, 28, 28))
    assert not torch.allclose(logits.sum(dim=1), torch.ones(5))
    torch.testing.assert_close(logits.softmax(dim=1).sum(dim=1), torch.ones(5))


# ---- --predict ----


@pytest.fixture(scope="module")
def trained(mnist_dir, tmp_path_factory):
    """An --out-dir with a ConvNet that has learned the drawn digits."""
    out_dir = tmp_path_factory.mktemp("trained")
    flags = ["--data-dir", str(mnist_dir), "--epochs", "6", "--batch-size", "25", "--device", "cpu"]
    cnn_mnist.main([*flags, "--out-dir", str(out_dir)])
    return out_dir


def photograph(digit: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A photo of it: larger, off-centre, either polarity, lit from one side, noisy, in colour."""
    size = int(rng.integers(100, 400))
    ink = cv2.resize(digit, (size, size), interpolation=cv2.INTER_CUBIC) / 255
    height, width = (int(size * rng.uniform(1, 2)) for _ in range(2))
    page = np.zeros((height, width))
    top, left = (int(rng.integers(0, side - size + 1)) for side in (height, width))
    page[top : top + size, left : left + size] = ink
    dark, light = rng.uniform(10, 80), rng.uniform(170, 240)
    page = dark + (light - dark) * (page if rng.random() < 0.5 else 1 - page)
    page *= np.linspace(1, rng.uniform(0.5, 1), width)
    page = page[..., None] * np.array([0.9, 1, 0.95]) + rng.normal(0, 8, (height, width, 3))
    return page.clip(0, 255).astype(np.uint8)


def test_predict_reads_photos(trained, tmp_path, device, capsys):
    rng = np.random.default_rng(5)
    photos, truth = [], [digit for digit in range(10) for _ in range(2)]
    for number, digit in enumerate(truth):
        photos.append(str(tmp_path / f"photo {number}.png"))
        cv2.imwrite(photos[-1], photograph(draw_digit(digit, rng), rng))
    flags = ["--out-dir", str(trained), "--device", device, "--predict"]
    results = cnn_mnist.main([*flags, *photos])
    predictions = results["predictions"]
    assert [prediction["image"] for prediction in predictions] == photos
    assert sum(p["digit"] == digit for p, digit in zip(predictions, truth)) >= 17
    assert all(0.1 < prediction["probability"] <= 1 for prediction in predictions)
    picture = cv2.imread(str(results["files"]["predictions"]))
    assert picture.shape[0] > 2000  # a row for each photo
    assert capsys.readouterr().out.count("%") == 20
    # In eval mode it does not matter which other photos are read with it.
    (alone,) = cnn_mnist.main([*flags, photos[3]])["predictions"]
    assert alone["digit"] == predictions[3]["digit"]
    assert alone["probability"] == pytest.approx(predictions[3]["probability"], abs=1e-3)


def test_photo_is_prepared_as_mnist_was(tmp_path):
    page = np.full((300, 500), 230, np.uint8)
    page[40:140, 60:100] = 20  # a bar of 40x100, dark on light, far from the middle
    page[200, 400] = 0  # a speck
    photo = tmp_path / "1.png"
    cv2.imwrite(str(photo), page)
    image = cnn_mnist.prepare_photo(str(photo))
    assert image.shape == (1, 28, 28) and image.dtype == torch.float32
    assert image.min() == 0 and image.max() == 1
    rows, columns = (image[0] > 0.5).nonzero(as_tuple=True)
    assert rows.max() - rows.min() + 1 in (19, 20, 21)  # 20 high
    assert columns.max() - columns.min() + 1 in (7, 8, 9)  # 8 wide
    mass = image[0] / image.sum()
    pixel = torch.arange(28.0)
    assert (mass.sum(dim=1) @ pixel).item() == pytest.approx(14, abs=0.1)  # in the middle
    assert (mass.sum(dim=0) @ pixel).item() == pytest.approx(14, abs=0.1)
    cv2.imwrite(str(photo), 255 - page)
    torch.testing.assert_close(cnn_mnist.prepare_photo(str(photo)), image)


@pytest.mark.parametrize("shape", [(28, 28), (1000, 1400), (9, 300)])
def test_photo_of_any_size(shape, tmp_path):
    page = np.zeros(shape, np.uint8)
    page[shape[0] // 4 : -(shape[0] // 4), shape[1] // 4 : shape[1] // 2] = 255
    photo = str(tmp_path / "图片 1.png")
    cv2.imencode(".png", page)[1].tofile(photo)
    image = cnn_mnist.prepare_photo(photo)
    assert image.shape == (1, 28, 28) and image.max() == 1


def blank(path):
    cv2.imwrite(str(path), np.full((200, 200), 200, np.uint8))


def noisy_blank(path):
    noise = np.random.default_rng(0).normal(150, 15, (300, 300))
    cv2.imwrite(str(path), noise.astype(np.uint8))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: None, "cannot be read"),
        (lambda path: path.mkdir(), "cannot be read"),
        (lambda path: path.write_bytes(b""), "not a picture"),
        (lambda path: path.write_text("hello"), "not a picture"),
        (write_too_large_png, "not a picture"),
        (blank, "no ink"),
        (noisy_blank, "no ink"),
    ],
)
def test_bad_photo_is_one_error_line(make, words, trained, tmp_path):
    photo = tmp_path / "photo.png"
    make(photo)
    with pytest.raises(SystemExit) as stop:
        cnn_mnist.main(["--predict", str(photo), "--out-dir", str(trained)])
    assert words in stop.value.code and str(photo) in stop.value.code
    assert "\n" not in stop.value.code


class Code:
    def __reduce__(self):
        return os.mkdir, ("executed",)


@pytest.mark.parametrize(
    "make",
    [
        lambda path: None,
        lambda path: path.write_bytes(b""),
        lambda path: path.write_text("no weights"),
        lambda path: torch.save(cnn_mnist.LeNet().state_dict(), path),
        lambda path: torch.save(torch.zeros(3), path),
        lambda path: torch.save({"weights": Code()}, path),
        lambda path: torch.save(cnn_mnist.ConvNet(), path),
    ],
)
def test_bad_weights_are_one_error_line_and_never_run(make, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    blank(tmp_path / "photo.png")
    weights = tmp_path / "weights.pt"
    make(weights)
    with pytest.raises(SystemExit) as stop:
        cnn_mnist.main(["--predict", "photo.png", "--weights", str(weights)])
    assert stop.value.code.startswith("error: ") and str(weights) in stop.value.code
    assert "\n" not in stop.value.code
    assert not (tmp_path / "executed").exists()


def test_predict_takes_the_newest_weights_of_the_model(tmp_path):
    with pytest.raises(SystemExit, match="train --model lenet first"):
        cnn_mnist.newest_weights(tmp_path, "lenet", "auto")
    for age, name in enumerate(["lenet-digits.pt", "lenet-mnist.pt", "convnet-digits.pt"]):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (1000 - age, 1000 - age))
    assert cnn_mnist.newest_weights(tmp_path, "lenet", "auto").name == "lenet-digits.pt"
    assert cnn_mnist.newest_weights(tmp_path, "lenet", "mnist").name == "lenet-mnist.pt"
    assert cnn_mnist.newest_weights(tmp_path, "convnet", "auto").name == "convnet-digits.pt"

"""The three networks of cnn_mnist.py layer by layer, and digits in photos."""

import copy
import os
import re
import shutil
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from conftest import draw_digit, write_too_large_png
from PIL import Image
from torch import nn

import cnn_mnist


def shapes(model, size, capsys) -> list[str]:
    """The lines that show_shapes prints below its first."""
    cnn_mnist.show_shapes(model, torch.zeros(1, 1, size, size))
    return [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()[1:]]


def test_A5_convnet_shapes(capsys):
    printed = shapes(cnn_mnist.ConvNet(), 28, capsys)
    assert printed[0] == "Conv2d (1, 1, 28, 28) -> (1, 16, 28, 28)"  # 5x5 with padding 2
    assert printed[3] == "MaxPool2d (1, 16, 28, 28) -> (1, 16, 14, 14)"
    assert printed[4] == "Conv2d (1, 16, 14, 14) -> (1, 32, 14, 14)"
    assert printed[7:] == [
        "MaxPool2d (1, 32, 14, 14) -> (1, 32, 7, 7)",
        "Linear (1, 1568) -> (1, 10)",
    ]


def test_A5_train_and_eval_differ_by_batchnorm_and_dropout(capsys):
    torch.manual_seed(0)
    model, images = cnn_mnist.ConvNet(), torch.rand(100, 1, 28, 28)
    before = copy.deepcopy(model.state_dict())
    cnn_mnist.show_train_and_eval(model, images)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    printed = capsys.readouterr().out
    in_eval, alone = model.eval()(images), model(images[:1])
    in_train, alone_in_train = model.train()(images), model(images[:1])
    differences = [in_train - in_eval, alone - in_eval[0], alone_in_train - in_train[0]]
    differences = [difference.abs().max().item() for difference in differences]
    shown = [float(number) for number in re.findall(r"(?m)^  (\d\.\d{4})  ", printed)]
    assert shown == pytest.approx(differences, abs=1e-4)
    assert shown[0] > 0.1 and shown[1] < 1e-4 and shown[2] > 0.01
    changed = (in_train.argmax(dim=1) != in_eval.argmax(dim=1)).sum().item()
    assert f"\n{changed} of the 100 predicted digits" in printed
    train, evaluation = re.findall(r"in (?:train|eval)\(\): \[(.*)\]", printed)
    assert set(train.split(", ")) == {"0.0", "2.0"} and set(evaluation.split(", ")) == {"1.0"}


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
    printed = shapes(model, 28, capsys)
    assert printed[0].endswith("-> (1, 6, 24, 24)") and printed[5].endswith("-> (1, 16, 4, 4)")
    assert [line.split(" -> ")[1] for line in printed[6::2]] == ["(1, 120)", "(1, 84)", "(1, 10)"]
    cnn_mnist.show_train_and_eval(model, torch.rand(100, 1, 28, 28))
    printed = capsys.readouterr().out
    assert "0.0000  between train() and eval()" in printed  # it has no BatchNorm
    assert "\n0 of the 100 predicted digits" in printed


def test_A7_view_fails_on_channels_last_where_flatten_does_not():
    features = torch.rand(2, 16, 4, 4).to(memory_format=torch.channels_last)
    with pytest.raises(RuntimeError, match="view size is not compatible"):
        features.view(2, -1)
    assert torch.equal(torch.flatten(features, 1), features.contiguous().view(2, -1))


def test_A8_resnet_shapes_stage_by_stage(capsys):
    printed = [line.split(" -> ") for line in shapes(cnn_mnist.ResNet(), 224, capsys)]
    after = [shape for _, shape in printed]
    assert after[0] == "(1, 64, 112, 112)" and after[3] == "(1, 64, 56, 56)"
    stages = ["(1, 64, 56, 56)", "(1, 128, 28, 28)", "(1, 256, 14, 14)", "(1, 512, 7, 7)"]
    assert after[4:12:2] == after[5:12:2] == stages
    assert after[12:] == ["(1, 512, 1, 1)", "(1, 512)", "(1, 10)"]


def test_A8_residual_block_adds_its_input():
    block = cnn_mnist.Residual(3, 3).eval()
    x = torch.rand(4, 3, 6, 6)
    for parameter in block.parameters():
        nn.init.zeros_(parameter)  # now both convolutions give 0, and the shortcut is left
    assert torch.equal(block(x), x)
    halving = cnn_mnist.Residual(3, 6, use_1x1conv=True, stride=2).eval()
    nn.init.zeros_(halving.bn2.weight)
    assert torch.equal(halving(x), halving.conv3(x).relu())
    y = nn.Sequential(block.conv1, block.bn1, nn.ReLU(), block.conv2, block.bn2)
    for parameter in block.parameters():
        nn.init.normal_(parameter)
    torch.testing.assert_close(block(x), (y(x) + x).relu())


def test_A8_what_the_notebook_shows_of_resnet():
    X = torch.rand((4, 3, 6, 6))
    assert cnn_mnist.Residual(3, 3)(X).shape == (4, 3, 6, 6)
    assert cnn_mnist.Residual(3, 6, use_1x1conv=True, stride=2)(X).shape == (4, 6, 3, 3)
    pooled = nn.functional.avg_pool2d(X, kernel_size=X.size()[2:])  # its GlobalAvgPool2d
    torch.testing.assert_close(pooled, nn.AdaptiveAvgPool2d(1)(X))
    assert torch.equal(pooled.view(4, -1), nn.Flatten()(pooled))  # its FlattenLayer


@pytest.mark.parametrize(("blocks", "layers"), [((2, 2, 2, 2), 18), ((3, 8, 36, 3), 102)])
def test_A8_E36_18_layers_and_why_these_blocks_do_not_make_resnet_152(blocks, layers):
    modules = list(cnn_mnist.ResNet(blocks).modules())
    convolutions = [m for m in modules if isinstance(m, nn.Conv2d) and m.kernel_size != (1, 1)]
    assert len(convolutions) + sum(isinstance(m, nn.Linear) for m in modules) == layers


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


def prepare(photo: Path) -> torch.Tensor:
    return cnn_mnist.prepare_photo(cnn_mnist.read_photo(photo), photo)


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


def test_predict_reads_photos(trained, tmp_path, device, capsys, monkeypatch):
    monkeypatch.setattr(cnn_mnist.plt, "close", lambda figure: None)
    rng = np.random.default_rng(5)
    photos, truth = [], [digit for digit in range(10) for _ in range(2)]
    for number, digit in enumerate(truth):
        photos.append(str(tmp_path / f"photo {number}.png"))
        cv2.imwrite(photos[-1], photograph(draw_digit(digit, rng), rng))
    flags = ["--out-dir", str(trained), "--device", device, "--predict"]
    results = cnn_mnist.main([*flags, *photos])
    predictions = results["predictions"]
    assert [str(prediction["image"]) for prediction in predictions] == photos
    assert sum(p["digit"] == digit for p, digit in zip(predictions, truth)) >= 17
    assert all(0.1 < prediction["probability"] <= 1 for prediction in predictions)
    picture = cv2.imread(str(results["files"]["predictions"]))
    assert picture.shape[0] > 2000  # a row for each photo, with the photo and what is made of it
    left, right = (ax.images[0].get_array() for ax in cnn_mnist.plt.gcf().axes[:2])
    np.testing.assert_array_equal(left, cv2.imread(photos[0], cv2.IMREAD_GRAYSCALE))
    np.testing.assert_array_equal(right, prepare(Path(photos[0]))[0])
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
    image = prepare(photo)
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
    torch.testing.assert_close(prepare(photo), image)


@pytest.mark.parametrize("shape", [(28, 28), (1000, 1400), (9, 300)])
def test_photo_of_any_size(shape, tmp_path):
    page = np.zeros(shape, np.uint8)
    page[shape[0] // 4 : -(shape[0] // 4), shape[1] // 4 : shape[1] // 2] = 255
    photo = tmp_path / "图片 1.png"
    cv2.imencode(".png", page)[1].tofile(photo)
    image = prepare(photo)
    assert image.shape == (1, 28, 28) and image.max() == 1


def bar(height=200, width=150) -> np.ndarray:
    """A dark bar on light paper, off-center: something like a 1."""
    page = np.full((height, width), 230, np.uint8)
    page[30:130, 30:60] = 20
    return page


@pytest.mark.parametrize("hidden", [0, 255])
def test_photo_with_transparent_paper(hidden, tmp_path):
    """A drawing program's PNG: the ink is opaque, the paper is not there, whatever its color."""
    gray = bar()
    alpha = np.where(gray < 100, 255, 0).astype(np.uint8)
    color = np.where(alpha > 0, 20, hidden).astype(np.uint8)
    rgba, photo = tmp_path / "rgba.png", tmp_path / "photo.png"
    cv2.imwrite(str(rgba), np.dstack([color, color, color, alpha]))
    cv2.imwrite(str(photo), np.where(gray < 100, 20, 255).astype(np.uint8))
    expected = prepare(photo)
    assert torch.equal(prepare(rgba), expected)
    Image.fromarray(np.dstack([color, alpha])).save(tmp_path / "la.png")
    assert torch.equal(prepare(tmp_path / "la.png"), expected)


def test_photo_that_a_phone_has_rotated(tmp_path):
    """EXIF says how the phone was held; the pixels lie on their side."""
    upright, sideways = tmp_path / "upright.jpg", tmp_path / "sideways.jpg"
    Image.fromarray(bar()).save(upright, quality=100)
    exif = Image.Exif()
    exif[0x0112] = 6  # Orientation: turn it to the right by 90 degrees to see it
    turned = np.ascontiguousarray(np.rot90(bar()))
    Image.fromarray(turned).save(sideways, quality=100, exif=exif)
    image = prepare(sideways)
    torch.testing.assert_close(image, prepare(upright), atol=0.1, rtol=0)


def blank(path):
    cv2.imwrite(str(path), np.full((200, 200), 200, np.uint8))


def noisy_blank(path):
    noise = np.random.default_rng(0).normal(150, 15, (300, 300))
    cv2.imwrite(str(path), noise.astype(np.uint8))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: None, "cannot be read: No such file"),
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
    assert "None" not in stop.value.code and "\n" not in stop.value.code


@pytest.mark.skipif(sys.platform != "linux", reason="a pipe has a path only there")
@pytest.mark.parametrize("digits", [0, 1])
def test_photo_from_a_pipe(digits, trained):
    """As `--predict <(convert photo.heic png:-)` gives it; an empty one is an error."""
    reader, writer = os.pipe()
    os.write(writer, cv2.imencode(".png", bar())[1].tobytes() * digits)
    os.close(writer)
    flags = ["--predict", f"/dev/fd/{reader}", "--out-dir", str(trained)]
    if digits:
        assert len(cnn_mnist.main(flags)["predictions"]) == 1
    else:
        with pytest.raises(SystemExit, match="is not a picture"):
            cnn_mnist.main(flags)


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


def test_predict_takes_the_newest_weights_of_the_model(trained, tmp_path, capsys):
    cv2.imwrite(str(tmp_path / "photo.png"), bar())

    def weights(*flags):
        common = ["--predict", str(tmp_path / "photo.png"), "--out-dir", str(tmp_path)]
        cnn_mnist.main([*common, *flags])
        return capsys.readouterr().out.split("weights ")[1].split(", on")[0]

    with pytest.raises(SystemExit, match=r"error: no convnet-\*.pt in .*: train first"):
        weights()
    for age, name in enumerate(["convnet-digits.pt", "convnet-mnist.pt", "lenet-digits.pt"]):
        shutil.copy(trained / "convnet-mnist.pt", tmp_path / name)
        os.utime(tmp_path / name, (1000 - age, 1000 - age))
    assert weights() == str(tmp_path / "convnet-digits.pt")
    with pytest.raises(SystemExit, match="does not hold the weights of a LeNet"):
        weights("--model", "lenet")


def test_bad_words(capsys):
    for flags in (["--model", "vgg"], ["--weights", "x.pt"]):
        with pytest.raises(SystemExit) as stop:
            cnn_mnist.main(flags)
        assert stop.value.code == 2 and flags[0] in capsys.readouterr().err.splitlines()[-1]

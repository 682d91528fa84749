"""The three networks of cnn_mnist.py layer by layer, and digits in photos."""

import copy
import re
from pathlib import Path

import matplotlib.pyplot as plt
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

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
    assert f"{model}\n" == (Path(__file__).parent / "lenet.txt").read_text()
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


def test_bad_words(capsys):
    for flags in (["--model", "vgg"], ["--weights", "x.pt"]):
        with pytest.raises(SystemExit) as stop:
            cnn_mnist.main(flags)
        assert stop.value.code == 2 and flags[0] in capsys.readouterr().err.splitlines()[-1]


class SaysTheMean(nn.Module):
    """Predicts for each image the digit that all its pixels hold."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 3)

    def forward(self, images):
        return nn.functional.one_hot(images.mean(dim=(1, 2, 3)).round().long(), 10).float()


def test_pictures_show_what_they_say(tmp_path, monkeypatch):
    monkeypatch.setattr(cnn_mnist.plt, "close", lambda figure: None)
    results = {"train_loss": [3, 2], "train_accuracy": [0.4, 0.5], "test_accuracy": [0.6, 0.7]}
    cnn_mnist.plot_curves(results, tmp_path / "curves.png")
    lines = {line.get_label(): line for ax in plt.gcf().axes for line in ax.get_lines()}
    for (name, values), (label, line) in zip(results.items(), lines.items(), strict=True):
        assert label.startswith(name.replace("train_", "training ").replace("_", " "))
        assert (list(line.get_xdata()), list(line.get_ydata())) == ([1, 2], values)

    model, digits, labels = SaysTheMean(), torch.arange(30) % 10, torch.arange(30) % 10
    labels[[3, 15]] = 7  # where the model says 3 and 5
    images = digits.float().view(-1, 1, 1, 1).expand(-1, 1, 28, 28)
    loader = DataLoader(TensorDataset(images, labels), batch_size=20)
    cnn_mnist.plot_mistakes(model, loader, torch.device("cpu"), tmp_path / "mistakes.png")
    assert plt.gcf().get_suptitle().startswith("2 of 30 test images are wrong")
    assert [ax.get_title() for ax in plt.gcf().axes] == ["7 → 3", "7 → 5"]
    assert [ax.images[0].get_array().max() for ax in plt.gcf().axes] == [3, 5]

    with torch.no_grad():
        model.conv.weight[0], model.conv.weight[1] = 1, -0.5
    cnn_mnist.plot_filters(model, tmp_path / "filters.png")
    height, width = plt.imread(tmp_path / "filters.png").shape[:2]
    picture = plt.imread(tmp_path / "filters.png")[height // 2, [width // 4, 3 * width // 4], :3]
    (red, _, blue), (red_of_minus, _, blue_of_minus) = picture
    assert blue > 1.5 * red and red_of_minus > 1.5 * blue_of_minus

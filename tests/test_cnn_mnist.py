"""The three networks of cnn_mnist.py, layer by layer, and its pictures."""

import re
from pathlib import Path

import pytest
import torch
from matplotlib.figure import Figure
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import cnn_mnist


def shapes(model, size) -> list[list[int]]:
    """The shapes after each layer that holds no others, in their order."""
    found = []
    for layer in model.modules():
        if not any(layer.children()):
            layer.register_forward_hook(lambda layer, inputs, output: found.append(list(output.shape)))
    model.eval()(torch.zeros(1, 1, size, size))
    return found


def test_A5_convnet_shapes_and_what_is_printed_of_them(capsys):
    model = cnn_mnist.ConvNet()
    after = shapes(model, 28)
    assert after[0] == [1, 16, 28, 28] and after[3] == [1, 16, 14, 14]  # 5x5 with padding 2
    assert after[4] == [1, 32, 14, 14] and after[7:] == [[1, 32, 7, 7], [1, 10]]
    cnn_mnist.print_shapes(model, torch.zeros(1, 1, 28, 28))
    printed = [line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines()[1:4]]
    assert printed == [["layer1", "(1, 16, 14, 14)"], ["layer2", "(1, 32, 7, 7)"], ["fc", "(1, 10)"]]


class Remembers(nn.Module):
    """Normalizes as BatchNorm, with the average 0.5 from its training, and predicts 1 for what is dark then."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(1, affine=False)
        self.norm.running_mean += 0.5

    def forward(self, images):
        mean = self.norm(images).mean(dim=(1, 2, 3))
        return torch.stack([mean, -mean], dim=1)


def test_A5_forgetting_eval_shows(capsys):
    """Ten images of a 1, all dark, from 0 to 0.1: by the average of their own batch only half of them are dark."""
    images = torch.linspace(0, 0.1, 10).view(-1, 1, 1, 1).expand(-1, 1, 28, 28)
    test_set = TensorDataset(torch.cat([images, images + 1]), torch.tensor([1] * 10 + [0] * 10))
    model = Remembers()
    cnn_mnist.compare_train_and_eval(model, test_set)
    printed = capsys.readouterr().out
    assert "eval(): 10 of 10 " in printed and "train(): 5 of 10 " in printed
    alone, together = re.findall(r"change by up to (\d+\.\d+)", printed)
    assert float(alone) == 0 and float(together) > 0.1
    assert model.norm.running_mean == 0.5  # the model itself is as before


def test_A7_lenet_is_printed_as_in_the_notebook_and_does_not_mind_modes(capsys):
    model = cnn_mnist.LeNet()
    assert f"{model}\n" == (Path(__file__).parent / "lenet.txt").read_text()
    after = shapes(model, 28)
    assert after[0] == [1, 6, 24, 24] and after[5] == [1, 16, 4, 4]
    assert after[6::2] == [[1, 120], [1, 84], [1, 10]]
    images = torch.rand(8, 1, 28, 28)
    assert torch.equal(model.train()(images), model.eval()(images))  # it has no BatchNorm


def test_A7_view_fails_on_channels_last_where_flatten_does_not():
    features = torch.rand(2, 16, 4, 4).to(memory_format=torch.channels_last)
    with pytest.raises(RuntimeError, match="view size is not compatible"):
        features.view(2, -1)
    assert torch.equal(torch.flatten(features, 1), features.contiguous().view(2, -1))


def test_A8_resnet_shapes_stage_by_stage():
    after = shapes(cnn_mnist.ResNet(), 224)
    assert after[0] == [1, 64, 112, 112] and after[3] == [1, 64, 56, 56]
    assert after[-3:] == [[1, 512, 1, 1], [1, 512], [1, 10]]
    for size, sides in ((224, (56, 28, 14, 7)), (28, (7, 4, 2, 1))):
        x, model = torch.zeros(1, 1, size, size), cnn_mnist.ResNet().eval()
        for name, layer in list(model.named_children())[:5]:
            x = layer(x)
            channels, side = {"stem": (64, sides[0])}.get(name) or (32 * 2 ** int(name[-1]), sides[int(name[-1]) - 1])
            assert x.shape == (1, channels, side, side), name


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


def test_batches_that_batchnorm_cannot_normalize_are_an_error(mnist_dir, tmp_path):
    flags = ["--model", "resnet", "--data-dir", str(mnist_dir), "--out-dir", str(tmp_path)]
    for bad in (["--batch-size", "1"], ["--batch-size", "601"], ["--limit", "99"]):
        with pytest.raises(SystemExit, match=r"^error: --batch-size must be at least 2, and at most"):
            cnn_mnist.main([*flags, *bad])


class SaysTheMean(nn.Module):
    """Predicts for each image the digit that all its pixels hold."""

    def forward(self, images):
        return nn.functional.one_hot(images.mean(dim=(1, 2, 3)).round().long(), 10).float()


def test_pictures_show_what_they_say(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, file: drawn.append(figure))
    results = {"train_loss": [3, 2], "train_accuracy": [0.4, 0.5], "test_accuracy": [0.6, 0.7]}
    cnn_mnist.plot_curves(results, tmp_path / "curves.png")
    lines = {line.get_label(): line for ax in drawn[0].axes for line in ax.get_lines()}
    for (name, values), (label, line) in zip(results.items(), lines.items(), strict=True):
        assert label.startswith(name.replace("train_", "training ").replace("_", " "))
        assert (list(line.get_xdata()), list(line.get_ydata())) == ([1, 2], values)

    model, digits, labels = SaysTheMean(), torch.arange(30) % 10, torch.arange(30) % 10
    labels[[3, 15]] = 7  # where the model says 3 and 5
    images = digits.float().view(-1, 1, 1, 1).expand(-1, 1, 28, 28)
    loader = DataLoader(TensorDataset(images, labels), batch_size=20)
    cnn_mnist.plot_mistakes(model, loader, torch.device("cpu"), tmp_path / "mistakes.png")
    assert drawn[1].get_suptitle().startswith("2 of 30 predictions are wrong")
    assert [ax.get_title() for ax in drawn[1].axes] == ["7 → 3", "7 → 5"]
    assert [ax.images[0].get_array().max() for ax in drawn[1].axes] == [3, 5]

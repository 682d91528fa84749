import re

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torchvision.transforms import v2

import unet_doubleconv
from unet_doubleconv import UNet, WrongDoubleConv, class_iou, trace_shapes

CPU = torch.device("cpu")
TODAY = (
    "Given groups=1, weight of size [64, 3, 3, 3], expected input[4, 64, 158, 158] "
    "to have 3 channels, but got 64 channels instead"
)


@pytest.fixture
def run(tmp_path, monkeypatch):
    """run(flag, ...) calls main on a tenth of the pixels, with 16 held-out images."""
    monkeypatch.setattr(unet_doubleconv, "SIZE", 48)
    monkeypatch.setattr(unet_doubleconv, "HELD_OUT_IMAGES", 16)

    def run(*flags, device="cpu"):
        common = ["--device", device, "--out-dir", tmp_path / "out"]
        return unet_doubleconv.main([str(flag) for flag in (*flags, *common)])

    return run


# ---- B1 to B3: the error, the layer, the corrected block ----


def test_B1_B2_B3_E16_the_script_prints_the_trace_the_error_and_the_corrected_shapes(capsys):
    unet_doubleconv.find_the_layer()
    printed = capsys.readouterr().out
    texts = "3: Conv2d gets", f"RuntimeError: {TODAY}", "(4, 64, 156, 156)", "(4, 64, 160, 160)"
    places = [printed.index(text) for text in texts]
    assert places == sorted(places)


def test_B2_trace_ends_with_the_layer_that_raises_and_leaves_no_hook(device, capsys):
    block = WrongDoubleConv(3, 64).to(device)
    with pytest.raises(RuntimeError, match=re.escape(TODAY)):
        trace_shapes(block.double_conv, torch.rand(4, 3, 160, 160, device=device))
    lines = re.findall(r"(\d): (\w+) gets (.*)", capsys.readouterr().out)
    assert [name for name, _, _ in lines] == list("0123")
    assert [shape for _, _, shape in lines] == ["(4, 3, 160, 160)"] + 3 * ["(4, 64, 158, 158)"]
    assert lines[-1][1] == "Conv2d"
    assert not any(layer._forward_pre_hooks for layer in block.modules())

    # A network that raises nothing is traced to its end. A layer that is called twice is printed twice.
    relu = nn.ReLU()
    trace_shapes(nn.Sequential(relu, nn.Linear(2, 3), relu).to(device), torch.rand(1, 2, device=device))
    assert re.findall(r"\w+ gets .*", capsys.readouterr().out) == [
        "ReLU gets (1, 2)",
        "Linear gets (1, 2)",
        "ReLU gets (1, 3)",
    ]


# ---- B4: the drawings, the network, the training ----


def test_B4_drawings_show_one_bag_each_and_more_drawings_begin_with_the_same(monkeypatch):
    images, masks = unet_doubleconv.draw_bags(12, 0)
    assert images.shape == (12, 3, 160, 160) and masks.shape == (12, 160, 160)
    assert images.dtype == masks.dtype == torch.uint8 and masks.unique().tolist() == [0, 1]
    assert all(0.07 < mask.float().mean() < 0.45 for mask in masks)
    again = unet_doubleconv.draw_bags(14, 0)
    assert torch.equal(images, again[0][:12]) and torch.equal(masks, again[1][:12])


def test_B4_no_threshold_on_brightness_finds_the_bags():
    images, masks = unet_doubleconv.draw_bags(16, 1)
    brightness = images.float().mean(dim=1)
    best = max(class_iou(brightness > level, masks, True) for level in range(0, 256, 5))
    assert best < 0.4


def test_B4_iou_by_hand():
    masks = torch.tensor([[[1, 1, 0, 0]], [[1, 1, 0, 0]], [[0, 0, 0, 0]]])
    predicted = torch.tensor([[[1, 0, 1, 0]], [[1, 1, 1, 1]], [[0, 0, 0, 0]]])
    assert [class_iou(predicted, masks, value) for value in (1, 0)] == pytest.approx([3 / 7, 5 / 9])
    assert np.isnan(class_iou(predicted[2:], masks[2:], 1))  # There is nothing to find.


def test_B4_each_skip_connection_reaches_the_output():
    torch.manual_seed(0)
    model, images = UNet().eval(), torch.rand(1, 3, 32, 32)
    whole = model(images)
    for up in (model.up1, model.up2, model.up3, model.up4):
        hook = up.register_forward_pre_hook(lambda _, args: (args[0], torch.zeros_like(args[1])))
        assert not torch.equal(model(images), whole)
        hook.remove()


def test_B4_segment_does_not_train_and_batches_do_not_matter():
    torch.manual_seed(0)
    model, images = UNet(classes=3).train(), torch.randint(256, (5, 3, 32, 32), dtype=torch.uint8)
    with torch.no_grad():
        model.outc.bias -= model.eval()(images / 255).mean(dim=(0, 2, 3))  # All classes are predicted.
    together = unet_doubleconv.segment(model.train(), images, CPU, batch_size=5)
    assert torch.equal(unet_doubleconv.segment(model.train(), images, CPU, batch_size=2), together)
    assert together.shape == (5, 32, 32) and together.dtype == torch.uint8
    assert together.unique().tolist() == [0, 1, 2]
    assert model.inc.double_conv[1].running_mean.abs().max() == 0


def test_B4_flips_take_image_and_mask_together_and_brightness_the_image_alone():
    torch.manual_seed(0)
    masks = torch.zeros(1, 8, 8, dtype=torch.uint8)
    masks[0, :3, :2] = 1  # It lies in one corner, which shows the flips.
    images = 100 * masks.unsqueeze(1).expand(-1, 3, -1, -1) + 50
    flips = [v2.RandomHorizontalFlip(), v2.RandomVerticalFlip()]
    places, levels = set(), set()
    for _ in range(60):
        image, mask = unet_doubleconv.Augmented(images, masks, flips)[0]
        assert image.dtype == torch.float32 and mask.dtype == torch.int64
        assert mask.sum() == 6 and torch.equal(image[0] > image.mean(), mask == 1)
        places.add(tuple(mask.nonzero()[0].tolist()))
        levels.add(round(image.max().item(), 3))
    assert places == {(0, 0), (0, 6), (5, 0), (5, 6)} and len(levels) > 30
    assert 0.4 < min(levels) < 0.5 and 0.7 < max(levels) < 0.8  # 150 / 255, times 0.7 to 1.3


def test_B4_unet_learns_what_a_threshold_cannot(run, device, capsys):
    results = run("--train-images", 60, "--epochs", 4, device=device)
    bag, loss = results["iou"], results["train_loss"]
    assert bag[-1] >= 0.7 and results["iou_background"][-1] >= 0.9 and loss[-1] < 0.5 * loss[0]
    printed = capsys.readouterr().out
    assert "!!!" not in printed and len(re.findall("^epoch", printed, re.MULTILINE)) == 4
    stages = re.findall(r"^  \w+: \w+ gets \(1, (\d+), (\d+), \2\)(?: \(1, (\d+),)?", printed, re.MULTILINE)
    channels, sizes, skips = zip(*stages)
    assert " ".join(channels) == "3 16 32 64 128 256 128 64 32 16"
    assert " ".join(sizes) == "48 48 24 12 6 3 6 12 24 48" and "".join(skips) == "128643216"

    # The saved file alone gives the same masks again.
    files = results["files"]
    assert {file.suffix for file in files.values()} == {".pt", ".png"}
    assert all(f"\n  {file}\n" in printed for file in files.values())
    model = UNet()
    model.load_state_dict(torch.load(files["weights"], weights_only=True))
    images, masks = unet_doubleconv.draw_bags(16, 1)
    again = class_iou(unet_doubleconv.segment(model, images, CPU), masks, 1)
    assert again == pytest.approx(bag[-1], abs=0.01 if device == "cuda" else 1e-4)


def test_B4_picture_shows_the_three_worst_and_the_three_best(tmp_path):
    images = torch.zeros(9, 3, 20, 20, dtype=torch.uint8)
    for index in range(9):
        images[index, 0] = 25 * index + 20  # Each image has a red of its own.
    masks = torch.zeros(9, 20, 20, dtype=torch.uint8)
    masks[:, 5:15, 5:15] = 1
    predicted = masks.clone()
    for index, rows in enumerate((0, 10, 0, 7, 12, 0, 8, 6, 9)):  # The worst are 4, 1 and 8.
        predicted[index, :rows] = 0
    unet_doubleconv.plot_masks(images, masks, predicted, tmp_path / "masks.png")
    sheet = np.array(Image.open(tmp_path / "masks.png").convert("RGB"))
    shades, pixels = np.unique(sheet[(sheet[:, :, 1] == 0) & (sheet[:, :, 2] == 0)][:, 0], return_counts=True)
    assert set(shades[pixels > 10_000]) - {0} == {25 * index + 20 for index in (4, 1, 8, 0, 2, 5)}


def test_B4_same_seed_same_numbers_and_the_rate_rises_and_falls(run, monkeypatch):
    rates, step = [], torch.optim.Adam.step

    def remember(optimizer, *given):
        rates.append(optimizer.param_groups[0]["lr"])
        return step(optimizer, *given)

    monkeypatch.setattr(torch.optim.Adam, "step", remember)
    flags = ["--train-images", 10, "--epochs", 2, "--lr", 0.001, "--seed"]
    first, again, other = (run(*flags, seed)["train_loss"] for seed in (3, 3, 4))
    assert first == again != other
    assert len(rates) == 3 * 6 and max(rates) <= 0.001  # The batches have 4, 4 and 2 images.
    assert rates[0] < rates[2] > rates[5] and rates[5] < 1e-6


def test_B4_a_class_that_is_never_predicted_is_told(run, monkeypatch, capsys):
    def train_one_epoch(model, *others):  # It leaves a model that answers "background" everywhere.
        model.outc.weight.data.zero_()
        model.outc.bias.data = torch.tensor([1.0, 0.0])
        return 0.5

    monkeypatch.setattr(unet_doubleconv, "train_one_epoch", train_one_epoch)
    assert run("--train-images", 4)["iou"] == 5 * [0]
    warnings = re.findall("!!!.*", capsys.readouterr().out)
    assert len(warnings) == 2 and "手提包" in warnings[0] and "bag" in warnings[1]


def test_C5_a_loss_that_is_not_finite_stops_before_anything_is_saved(run, tmp_path):
    with pytest.raises(SystemExit, match=r"^error: the training loss is (nan|inf).*--lr"):
        run("--train-images", 5, "--epochs", 1, "--lr", 1e30)
    assert not any((tmp_path / "out").iterdir())


# ---- These prove what docs/notes.md says of PyTorch itself, not of this script ----


def test_E1_super_without_brackets_is_a_type_error():
    class NotesDoubleConv(nn.Module):
        def __init__(self):
            super.__init__()

    with pytest.raises(TypeError, match="super"):
        NotesDoubleConv()


def test_B4_one_hot_masks_give_the_same_loss():
    logits, masks = torch.randn(2, 2, 8, 8), torch.randint(2, (2, 8, 8))
    one_hot = nn.functional.one_hot(masks, 2).permute(0, 3, 1, 2).float()
    criterion = nn.CrossEntropyLoss()
    torch.testing.assert_close(criterion(logits, one_hot), criterion(logits, masks))

import copy

import cv2
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from torch import nn

import unet_doubleconv
from unet_doubleconv import DoubleConv, UNet, WrongDoubleConv, trace_shapes

CPU = torch.device("cpu")
TODAY = (
    "Given groups=1, weight of size [64, 3, 3, 3], expected input[4, 64, 158, 158] "
    "to have 3 channels, but got 64 channels instead"
)


def run(tmp_path, *arguments, device="cpu"):
    common = ["--device", device, "--out-dir", str(tmp_path / "out")]
    return unet_doubleconv.main([*arguments, *common])


def tiny(tmp_path, *arguments, device="cpu"):
    return run(tmp_path, "--train-images", "6", "--epochs", "1", *arguments, device=device)


@pytest.fixture
def small_pictures(monkeypatch):
    """A sixth of the pixels, a sixth of the time."""
    monkeypatch.setattr(unet_doubleconv, "SIZE", 64)
    monkeypatch.setattr(unet_doubleconv, "HELD_OUT_IMAGES", 32)


def outputs(records, layer="Conv2d"):
    return [record["output"] for record in records if record["layer"] == layer]


# ---- B1 to B3: the error, the layer, the mended block ----


def test_B1_wrong_block_raises_the_notes_error(device):
    block = WrongDoubleConv(3, 64).to(device)
    with pytest.raises(RuntimeError) as raised:
        block(torch.rand(4, 3, 160, 160, device=device))
    assert str(raised.value) == TODAY


def test_B1_script_catches_and_prints_the_error(device, capsys):
    found = unet_doubleconv.find_the_layer(torch.device(device))
    assert found["error"] == TODAY
    assert TODAY in capsys.readouterr().out


def test_B2_trace_stops_at_the_second_convolution(device):
    block = WrongDoubleConv(3, 64).to(device)
    records, error = trace_shapes(block, torch.rand(4, 3, 160, 160, device=device))
    made = (4, 64, 158, 158)
    assert [tuple(record.values()) for record in records] == [
        ("double_conv.0", "Conv2d", (4, 3, 160, 160), made),
        ("double_conv.1", "BatchNorm2d", made, made),
        ("double_conv.2", "ReLU", made, made),
        ("double_conv.3", "Conv2d", made, None),
    ]
    assert list(records[0]) == ["name", "layer", "input", "output"]
    # Which layer, what it wanted, what it got.
    assert error.startswith("double_conv.3, Conv2d(3, 64, kernel_size=(3, 3), stride=(1, 1)), ")
    assert f"was given {made}: RuntimeError: {TODAY}" in error


def test_B2_a_forward_hook_never_fires_for_the_layer_that_raises():
    block, fired = WrongDoubleConv(3, 64), []
    for name, module in block.double_conv.named_children():
        module.register_forward_hook(lambda *_, name=name: fired.append(name))
    with pytest.raises(RuntimeError):
        block(torch.rand(4, 3, 20, 20))
    assert fired == ["0", "1", "2"]


def test_B3_mended_block_and_what_padding_changes(device, capsys):
    found = unet_doubleconv.find_the_layer(torch.device(device))
    assert found["shapes"] == {
        0: [(4, 3, 160, 160), (4, 64, 158, 158), (4, 64, 156, 156)],
        1: [(4, 3, 160, 160), (4, 64, 160, 160), (4, 64, 160, 160)],
    }
    assert "(4, 3, 160, 160) -> (4, 64, 158, 158) -> (4, 64, 156, 156)" in capsys.readouterr().out
    assert DoubleConv(3, 64)(torch.rand(4, 3, 160, 160)).shape == (4, 64, 156, 156)


def test_B3_one_argument_of_the_second_convolution_is_the_whole_fix():
    wrong, mended = WrongDoubleConv(3, 64).double_conv, DoubleConv(3, 64).double_conv
    different = [place for place in range(6) if repr(wrong[place]) != repr(mended[place])]
    assert different == [3]
    assert (wrong[3].in_channels, mended[3].in_channels) == (3, 64)
    assert not WrongDoubleConv(3, 3)(torch.rand(1, 3, 9, 9)).isnan().any()  # 3 = 3: nothing shows


def test_E1_super_without_brackets_is_a_type_error():
    class NotesDoubleConv(nn.Module):
        def __init__(self):
            super.__init__()

    with pytest.raises(TypeError, match="super"):
        NotesDoubleConv()


def test_E12_a_single_picture_still_needs_a_batch_dimension():
    picture = torch.rand(3, 64, 64)
    assert nn.Conv2d(3, 8, 3)(picture).shape == (8, 62, 62)
    records, error = trace_shapes(UNet(), picture)
    assert records[-1]["layer"] == "BatchNorm2d" and "expected 4D input" in error
    assert UNet()(picture.unsqueeze(0)).shape == (1, 2, 64, 64)


def test_E16_the_message_has_brackets_today():
    with pytest.raises(RuntimeError) as raised:
        WrongDoubleConv(3, 64)(torch.rand(4, 3, 160, 160))
    assert "weight of size [64, 3, 3, 3]" in str(raised.value)
    assert "weight of size 64 3 3 3" not in str(raised.value)


def test_E37_a_bias_before_batchnorm_has_no_gradient():
    torch.manual_seed(0)
    block, x = DoubleConv(3, 8).double(), torch.rand(4, 3, 20, 20).double()
    (block(x) * torch.rand(4, 8, 16, 16)).sum().backward()
    for convolution in (block.double_conv[0], block.double_conv[3]):
        assert convolution.weight.grad.abs().max() > 0.1
        assert convolution.bias.grad.abs().max() < 1e-10
    outputs = block(x)
    with torch.no_grad():
        block.double_conv[0].bias += 5
    torch.testing.assert_close(block(x), outputs)


# ---- The trace, on other models than this script's ----


class Odd(nn.Module):
    """A layer called twice, one called never, a keyword, and tuples and a dict as outputs."""

    def __init__(self):
        super().__init__()
        self.never = nn.Linear(9, 9)
        self.twice = nn.Linear(4, 4)
        self.recurrent = nn.LSTM(4, 5)

    def forward(self, x, *, wanted=4):
        x = self.twice(self.twice(input=x))
        x, (hidden, _) = self.recurrent(x)
        return {"x": x.reshape(-1, wanted), "hidden": hidden}


def test_B2_trace_of_a_layer_called_twice_keywords_and_tuples():
    records, error = trace_shapes(Odd(), torch.rand(3, 2, 4), wanted=5)
    same = (3, 2, 4)
    recurrent = [(3, 2, 5), [(1, 2, 5), (1, 2, 5)]]
    assert [tuple(record.values()) for record in records] == [
        ("twice", "Linear", same, same),
        ("twice", "Linear", same, same),
        ("recurrent", "LSTM", same, recurrent),
    ]
    assert error is None


def test_B2_trace_names_the_module_that_breaks_between_its_layers():
    records, error = trace_shapes(nn.Sequential(nn.ReLU(), Odd()), torch.rand(3, 2, 4))
    assert [record["name"] for record in records] == ["0", "1.twice", "1.twice", "1.recurrent"]
    assert None not in outputs(records, "LSTM")
    assert error.startswith("1, Odd, was given (3, 2, 4): RuntimeError: shape '[-1, 4]'")

    model = UNet()
    model.up1.conv = DoubleConv(64, 32)  # the notes' padding: what comes up is too small
    _, error = trace_shapes(model, torch.rand(1, 3, 64, 64))
    assert error.startswith("up2, Up, was given [(1, 32, 12, 12), (1, 16, 32, 32)]: ")
    assert "Expected size 32 but got size 24" in error


def test_B2_trace_of_a_model_that_catches_a_layers_error_and_goes_on():
    class Fallback(nn.Module):
        def __init__(self):
            super().__init__()
            self.wrong, self.right = nn.Linear(5, 2), nn.Linear(4, 2)

        def forward(self, x):
            try:
                return self.wrong(x)
            except RuntimeError:
                return self.right(x)

    records, error = trace_shapes(Fallback(), torch.rand(3, 4))
    assert error is None
    assert [(record["name"], record["output"]) for record in records] == [
        ("wrong", None),
        ("right", (3, 2)),
    ]


def test_B2_trace_of_the_second_call_that_breaks():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(4, 3)

        def forward(self, x):
            return self.linear(self.linear(x))

    records, error = trace_shapes(Twice(), torch.rand(2, 4))
    assert [record["output"] for record in records] == [(2, 3), None]
    assert error.startswith("linear, Linear(in_features=4, out_features=3, bias=True), ")
    assert "was given (2, 3)" in error


def test_B2_trace_of_one_layer_alone_and_of_a_wrong_call():
    records, error = trace_shapes(nn.Linear(3, 2), torch.rand(4, 3))
    assert (
        records == [{"name": "the model", "layer": "Linear", "input": (4, 3), "output": (4, 2)}]
        and error is None
    )
    _, error = trace_shapes(nn.Linear(3, 2))
    assert "was given []: TypeError" in error
    _, error = trace_shapes(nn.Linear(3, 2), [1.0, 2.0, 3.0])
    assert "was given ['float', 'float', 'float']: TypeError" in error


def test_B2_trace_fails_in_training_mode_as_training_did():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    _, error = trace_shapes(model, torch.rand(1, 3, 3, 3))
    assert error.startswith("1, BatchNorm2d(4, ") and "more than 1 value per channel" in error
    assert trace_shapes(model.eval(), torch.rand(1, 3, 3, 3))[1] is None


def test_B2_trace_of_lazy_layers():
    model = nn.Sequential(nn.LazyConv2d(4, 3), nn.LazyBatchNorm2d())
    records, error = trace_shapes(model, torch.rand(2, 3, 8, 8))
    assert [record["output"] for record in records] == [(2, 4, 6, 6)] * 2 and error is None


class PressCtrlC(nn.Module):
    def forward(self, x):
        raise KeyboardInterrupt


@pytest.mark.parametrize("last", [nn.ReLU(), nn.Linear(9, 9), PressCtrlC()])
def test_B2_trace_leaves_the_model_as_it_was(last, device):
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.BatchNorm2d(4), last)
    model = model.to(device)
    model[2].eval()  # a frozen layer in a model that trains
    called = []
    model[0].register_forward_hook(lambda *_: called.append("mine"))
    before = copy.deepcopy(model.state_dict())
    ctrl_c = isinstance(last, PressCtrlC)
    with pytest.raises(KeyboardInterrupt) if ctrl_c else torch.enable_grad():
        trace_shapes(model, torch.rand(2, 3, 8, 8, device=device))
    after = model.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert [module.training for module in model] == [True, True, False, True]
    hooks = [[*m._forward_hooks, *m._forward_pre_hooks] for m in model.modules()]
    assert [len(each) for each in hooks] == [0, 1, 0, 0, 0]
    assert called == ["mine"]
    assert all(parameter.grad is None for parameter in model.parameters())


# ---- B4: the pictures, and what a threshold makes of them ----


def test_B4_pictures_and_masks(device):
    images, masks = unet_doubleconv.draw_bags(12, 0, torch.device(device))
    assert images.shape == (12, 3, 160, 160) and images.dtype == torch.float32
    assert masks.shape == (12, 160, 160) and masks.dtype == torch.int64
    assert images.device.type == masks.device.type == device
    assert images.is_contiguous()
    assert images.min() >= 0 and 0.9 < images.max() <= 1
    assert masks.unique().tolist() == [0, 1]
    for mask in masks.cpu().byte().numpy():
        assert 0.07 < mask.mean() < 0.45
        assert cv2.connectedComponents(mask)[0] == 2  # background and one bag
        assert mask[[0, -1]].mean() < 0.1 and mask[:, [0, -1]].mean() < 0.1  # all in the picture
        holes = cv2.connectedComponents(1 - mask, connectivity=4)[0] - 2
        assert holes <= 2  # below the handle


def test_B4_pictures_by_seed():
    images, masks = unet_doubleconv.draw_bags(4, 0, CPU)
    again = unet_doubleconv.draw_bags(6, 0, CPU)  # the first of more are the same
    assert torch.equal(images, again[0][:4]) and torch.equal(masks, again[1][:4])
    other = unet_doubleconv.draw_bags(4, 1, CPU)
    assert not torch.equal(images, other[0]) and not torch.equal(masks, other[1])


def test_B4_no_seed_draws_the_held_out_pictures():
    assert unet_doubleconv.whole_number(str(2**63 - 1)) < unet_doubleconv.HELD_OUT_SEED
    held_out, _ = unet_doubleconv.draw_bags(1, unet_doubleconv.HELD_OUT_SEED, CPU)
    for seed in (0, 1, 2**31, 2**32, 2**63 - 1):
        assert not torch.equal(unet_doubleconv.draw_bags(1, seed, CPU)[0], held_out)


@pytest.mark.parametrize("seed", [0, 1, 2, unet_doubleconv.HELD_OUT_SEED])
def test_B4_a_threshold_fails_on_the_pictures(seed):
    images, masks = unet_doubleconv.draw_bags(64, seed, CPU)
    assert unet_doubleconv.otsu_iou(images, masks) <= 0.3  # 0.5 is what is asked for
    for channel in range(3):
        one = images[:, [channel] * 3]
        assert unet_doubleconv.otsu_iou(one, masks) <= 0.4


def test_B4_otsu_finds_what_brightness_separates():
    masks = torch.zeros(2, 20, 20, dtype=torch.int64)
    masks[:, 5:12, 3:9] = 1
    images = (masks * 0.5 + 0.25).unsqueeze(1).repeat(1, 3, 1, 1)
    images[1] = 1 - images[1]  # a dark bag on bright ground
    assert unet_doubleconv.otsu_iou(images, masks) == 1


def test_B4_iou_by_hand():
    masks = torch.tensor([[[1, 1, 0, 0]], [[1, 1, 0, 0]], [[0, 0, 0, 1]]])
    predicted = torch.tensor([[[1, 0, 1, 0]], [[1, 1, 0, 0]], [[1, 1, 1, 0]]])
    assert unet_doubleconv.iou(predicted, masks).tolist() == pytest.approx([1 / 3, 1, 0])


# ---- B4: the U-Net ----


def test_B4_unet_shapes_and_parameters():
    model = UNet()
    assert sum(parameter.numel() for parameter in model.parameters()) == 121_538
    stages = unet_doubleconv.show_stages(model, torch.rand(1, 3, 160, 160))
    assert stages == {
        "inc": (1, 8, 160, 160),
        "down1": (1, 16, 80, 80),
        "down2": (1, 32, 40, 40),
        "down3": (1, 64, 20, 20),
        "up1": (1, 32, 40, 40),
        "up2": (1, 16, 80, 80),
        "up3": (1, 8, 160, 160),
        "outc": (1, 2, 160, 160),
    }
    assert model(torch.rand(2, 3, 64, 96)).shape == (2, 2, 64, 96)


def test_B4_each_skip_connection_reaches_the_output():
    torch.manual_seed(0)
    model, images = UNet().eval(), torch.rand(1, 3, 64, 64)
    whole = model(images)
    for number in range(1, 4):
        up = getattr(model, f"up{number}")
        hook = up.register_forward_pre_hook(lambda _, args: (args[0], torch.zeros_like(args[1])))
        assert not torch.equal(model(images), whole)
        hook.remove()


def test_B4_one_hot_masks_give_the_same_loss():
    logits, masks = torch.randn(2, 2, 8, 8), torch.randint(2, (2, 8, 8))
    one_hot = nn.functional.one_hot(masks, 2).permute(0, 3, 1, 2).float()
    criterion = nn.CrossEntropyLoss()
    torch.testing.assert_close(criterion(logits, one_hot), criterion(logits, masks))


def test_B4_unet_learns_what_a_threshold_cannot(tmp_path, device, small_pictures):
    results = run(tmp_path, "--train-images", "200", "--epochs", "3", device=device)
    assert results["device"] == device
    assert results["epochs"] == 3
    assert results["parameters"] == 121_538
    assert results["iou"][-1] >= 0.8 > 2 * results["otsu_iou"]
    assert all(len(results[name]) == 3 for name in ("iou", "train_loss", "train_seconds"))
    assert results["train_loss"][-1] < 0.5 * results["train_loss"][0]
    assert all(seconds > 0 for seconds in results["train_seconds"])

    # The saved file alone gives the same masks again.
    files = results["files"]
    assert files == {
        "weights": tmp_path / "out" / "unet.pt",
        "masks": tmp_path / "out" / "unet-masks.png",
    }
    assert set(files.values()) == set((tmp_path / "out").iterdir())
    model = UNet()
    model.load_state_dict(torch.load(files["weights"], weights_only=True))
    images, masks = unet_doubleconv.draw_bags(32, unet_doubleconv.HELD_OUT_SEED, CPU)
    again = unet_doubleconv.iou(unet_doubleconv.segment(model, images), masks).mean().item()
    assert again == pytest.approx(results["iou"][-1], abs=0.01 if device == "cuda" else 1e-4)
    height, width = plt.imread(files["masks"]).shape[:2]
    assert width >= 800 and height >= 400
    assert not plt.get_fignums()


def test_B4_picture_holds_image_mask_and_prediction(tmp_path, monkeypatch):
    images, masks = unet_doubleconv.draw_bags(7, 0, CPU)
    predicted = masks.clone()
    predicted[6, :80] = 0  # the worst
    shown = []
    monkeypatch.setattr(plt, "close", shown.append)
    unet_doubleconv.draw_masks(images, masks, predicted, tmp_path / "masks.png")
    monkeypatch.undo()
    (figure,) = shown
    axes = np.reshape(figure.axes, (3, 6))
    for column, index in zip(axes.T, [0, 1, 2, 3, 4, 6]):
        picture, mask, answer = (place.images[0].get_array() for place in column)
        np.testing.assert_array_equal(picture, images[index].permute(1, 2, 0))
        np.testing.assert_array_equal(mask, masks[index])
        np.testing.assert_array_equal(answer, predicted[index])
    plt.close(figure)


def test_segment_takes_the_larger_logit_and_leaves_training_alone():
    class BrightIsBag(nn.Module):
        def forward(self, images):
            assert not self.training and not torch.is_grad_enabled()
            return torch.cat([torch.full_like(images, 0.5), images], dim=1)

    images = torch.rand(40, 1, 8, 8)
    masks = unet_doubleconv.segment(BrightIsBag(), images)
    assert torch.equal(masks, (images[:, 0] > 0.5).long())


# ---- As a program ----


def test_defaults(tmp_path, monkeypatch):
    assert (unet_doubleconv.BATCH_SIZE, unet_doubleconv.SIZE) == (4, 160)
    monkeypatch.chdir(tmp_path)
    drawn = []
    monkeypatch.setattr(unet_doubleconv, "choose_device", lambda name: CPU)
    monkeypatch.setattr(unet_doubleconv, "find_the_layer", lambda device: {})
    monkeypatch.setattr(unet_doubleconv, "draw_bags", lambda *given: drawn.append(given) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        unet_doubleconv.main([])
    assert drawn == [(300, 0, CPU)]
    assert (tmp_path / "outputs" / "unet_doubleconv").is_dir()


def test_same_seed_same_numbers(tmp_path, small_pictures):
    first, again, other = (tiny(tmp_path / seed, "--seed", seed[0]) for seed in ("3", "3b", "4"))
    assert first["train_loss"] == again["train_loss"]
    assert first["iou"] == again["iou"]
    weights, weights_again = (torch.load(run["files"]["weights"]) for run in (first, again))
    assert all(torch.equal(weights[name], weights_again[name]) for name in weights)
    assert first["train_loss"] != other["train_loss"]
    assert first["otsu_iou"] == other["otsu_iou"]  # one held-out set for every seed


def test_ctrl_c_keeps_what_was_learned(tmp_path, monkeypatch, capsys, small_pictures):
    learned = {}

    def press_ctrl_c(model, images):
        learned.update(copy.deepcopy(model.state_dict()))
        raise KeyboardInterrupt  # not a real SIGINT: a shell's background jobs ignore that

    monkeypatch.setattr(unet_doubleconv, "segment", press_ctrl_c)
    with pytest.raises(SystemExit) as stop:
        tiny(tmp_path)
    assert stop.value.code == 130
    weights = tmp_path / "out" / "unet.pt"
    assert str(weights) in capsys.readouterr().out
    saved = torch.load(weights, weights_only=True)
    assert saved.keys() == learned.keys()
    assert all(torch.equal(saved[name], learned[name]) for name in saved)


def test_every_batch_moves_the_schedule_once(tmp_path, monkeypatch, small_pictures):
    rates, step = [], torch.optim.Adam.step

    def remember(optimizer, *given):
        rates.append(optimizer.param_groups[0]["lr"])
        return step(optimizer, *given)

    monkeypatch.setattr(torch.optim.Adam, "step", remember)
    tiny(tmp_path, "--train-images", "10", "--epochs", "4", "--lr", "0.001")
    assert len(rates) == 12  # batches of 4, 4 and 2
    assert max(rates) <= 0.001 and rates[0] < rates[2] > rates[-1] and rates[-1] < 1e-6


@pytest.mark.parametrize("flags", [["--batch-size", "1"], ["--batch-size", "100"]])
def test_smallest_and_largest_batches(tmp_path, flags, small_pictures):
    assert len(tiny(tmp_path, "--train-images", "2", *flags)["iou"]) == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ["--epochs", "0"],
        ["--epochs", "many"],
        ["--batch-size", "0"],
        ["--train-images", "-3"],
        ["--lr", "nan"],
        ["--lr", "0"],
        ["--seed", "-1"],
        ["--seed", str(2**63)],
        ["--unknown"],
    ],
)
def test_bad_input_is_one_line(tmp_path, capsys, arguments):
    with pytest.raises(SystemExit) as stop:
        run(tmp_path, *arguments)
    message = capsys.readouterr().err
    assert stop.value.code == 2
    assert len(message.splitlines()) == 1 and arguments[0] in message
    assert not any(tmp_path.iterdir())


def test_device_that_is_not_there(tmp_path):
    with pytest.raises(SystemExit, match=r"^error: --device gpu cannot be used here .*$"):
        run(tmp_path, device="gpu")


def test_out_dir_that_cannot_be_made(tmp_path):
    (tmp_path / "out").touch()
    with pytest.raises(SystemExit, match=r"^error: cannot write to --out-dir .*$"):
        run(tmp_path)

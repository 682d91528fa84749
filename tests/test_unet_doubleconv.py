import math
import os
import re

import cv2
import numpy as np
import pytest
import torch
from torch import nn
from torchvision.transforms import v2

import unet_doubleconv
from unet_doubleconv import DoubleConv, UNet, WrongDoubleConv, trace_shapes

TODAY = (
    "Given groups=1, weight of size [64, 3, 3, 3], expected input[4, 64, 158, 158] "
    "to have 3 channels, but got 64 channels instead"
)


def run(tmp_path, *arguments, device="cpu"):
    common = ["--device", device, "--out-dir", tmp_path / "out"]
    return unet_doubleconv.main([str(argument) for argument in (*arguments, *common)])


@pytest.fixture
def small_pictures(monkeypatch):
    """A tenth of the pixels, a tenth of the time."""
    monkeypatch.setattr(unet_doubleconv, "SIZE", 48)
    monkeypatch.setattr(unet_doubleconv, "HELD_OUT_IMAGES", 16)


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """Twelve drawn pairs on disk; in the masks, JPEG as the notes' are, the bag is black."""
    monkeypatch.setattr(unet_doubleconv, "SIZE", 32)
    images, masks = tmp_path / "images", tmp_path / "masks"
    images.mkdir()
    masks.mkdir()
    for number, (image, mask) in enumerate(zip(*unet_doubleconv.draw_bags(12, 0))):
        image = cv2.cvtColor(image.permute(1, 2, 0).numpy(), cv2.COLOR_RGB2BGR)
        cv2.imwrite(str(images / f"{number}.png"), cv2.resize(image, (120, 90)))
        mask = cv2.resize(255 * (1 - mask.numpy()), (120, 90))
        cv2.imwrite(str(masks / f"{number}.JPG"), mask)
    (images / "Thumbs.db").touch()
    return images, masks


# ---- B1 to B3: the error, the layer, the mended block ----


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
    # Which layer, what it wanted, what it got.
    assert error.startswith("double_conv.3, Conv2d(3, 64, kernel_size=(3, 3), stride=(1, 1)), ")
    assert f"was given {made}: RuntimeError: {TODAY}" in error


def test_B3_mended_block_and_what_padding_changes(device, capsys):
    found = unet_doubleconv.find_the_layer(torch.device(device))
    assert found["shapes"] == {
        0: [(4, 3, 160, 160), (4, 64, 158, 158), (4, 64, 156, 156)],
        1: [(4, 3, 160, 160), (4, 64, 160, 160), (4, 64, 160, 160)],
    }
    assert "(4, 3, 160, 160) -> (4, 64, 158, 158) -> (4, 64, 156, 156)" in capsys.readouterr().out


def test_E12_a_single_picture_still_needs_a_batch_dimension():
    picture = torch.rand(3, 64, 64)
    assert nn.Conv2d(3, 8, 3)(picture).shape == (8, 62, 62)
    records, error = trace_shapes(UNet(), picture)
    assert records[-1]["layer"] == "BatchNorm2d" and "expected 4D input" in error
    assert UNet()(picture.unsqueeze(0)).shape == (1, 2, 64, 64)


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
    model = UNet()
    model.up1.conv = DoubleConv(256, 128)  # the notes' padding: what comes up is too small
    _, error = trace_shapes(model, torch.rand(1, 3, 64, 64))
    assert error.startswith("up2, Up, was given [(1, 128, 4, 4), (1, 64, 16, 16)]: RuntimeError: ")
    assert "Expected size 16 but got size 8" in error


def test_B2_trace_of_one_layer_alone_and_of_a_wrong_call():
    records, error = trace_shapes(nn.Linear(3, 2), torch.rand(4, 3))
    assert (records[0]["name"], records[0]["output"], error) == ("the model", (4, 2), None)
    _, error = trace_shapes(nn.Linear(3, 2), [1.0, 2.0])
    assert "was given ['float', 'float']: TypeError" in error


def test_B2_trace_leaves_no_hook_and_the_readers_own(device):
    for last in (nn.ReLU(), nn.Linear(9, 9)):  # the second raises
        model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), last).to(device)
        called = []
        model[0].register_forward_hook(lambda *_, called=called: called.append("mine"))
        trace_shapes(model, torch.rand(2, 3, 8, 8, device=device))
        hooks = [[*m._forward_hooks, *m._forward_pre_hooks] for m in model.modules()]
        assert [len(each) for each in hooks] == [0, 1, 0, 0] and called == ["mine"]


# ---- B4: the pictures, and what a threshold makes of them ----


def test_B4_pictures_and_masks():
    images, masks = unet_doubleconv.draw_bags(12, 0)
    assert images.shape == (12, 3, 160, 160) and masks.shape == (12, 160, 160)
    assert images.dtype == masks.dtype == torch.uint8 and masks.unique().tolist() == [0, 1]
    for mask in masks.numpy():
        assert 0.07 < mask.mean() < 0.45
        assert cv2.connectedComponents(mask)[0] == 2  # background and one bag
    again = unet_doubleconv.draw_bags(14, 0)  # the first of more are the same
    assert torch.equal(images, again[0][:12]) and torch.equal(masks, again[1][:12])


def test_B4_no_seed_draws_the_held_out_pictures():
    held_out, _ = unet_doubleconv.draw_bags(1, unet_doubleconv.HELD_OUT_SEED)
    for number in (0, 1, 2**31, 2**32 - 1):
        drawn, _ = unet_doubleconv.draw_bags(1, unet_doubleconv.seed(str(number)))
        assert not torch.equal(drawn, held_out)
    with pytest.raises(ValueError):
        unet_doubleconv.seed(str(unet_doubleconv.HELD_OUT_SEED))


@pytest.mark.parametrize("seed", [0, unet_doubleconv.HELD_OUT_SEED])
def test_B4_a_threshold_fails_on_the_pictures(seed):
    images, masks = unet_doubleconv.draw_bags(16, seed)
    for one in (images, *(images[:, [channel] * 3] for channel in range(3))):
        split = unet_doubleconv.otsu_masks(one, masks)
        assert unet_doubleconv.pooled_iou(split, masks)[0] <= 0.4


def test_B4_otsu_finds_what_brightness_separates():
    masks = torch.zeros(2, 20, 20, dtype=torch.uint8)
    masks[:, 5:12, 3:9] = 1
    images = (masks * 100 + 50).unsqueeze(1).repeat(1, 3, 1, 1)
    images[1] = 200 - images[1]  # a dark bag on bright ground
    assert torch.equal(unet_doubleconv.otsu_masks(images, masks), masks)


def test_B4_iou_by_hand():
    masks = torch.tensor([[[1, 1, 0, 0]], [[1, 1, 0, 0]], [[0, 0, 0, 0]]])
    predicted = torch.tensor([[[1, 0, 1, 0]], [[1, 1, 1, 1]], [[0, 0, 0, 0]]])
    dark, bright = unet_doubleconv.class_iou(predicted, masks).T.tolist()
    assert dark == pytest.approx([1 / 3, 0, 1])
    assert bright[:2] == pytest.approx([1 / 3, 0.5]) and math.isnan(bright[2])
    # Pooled: the third picture has no bright pixel, and changes nothing for them.
    assert unet_doubleconv.pooled_iou(predicted, masks) == pytest.approx((3 / 7, 5 / 9))
    assert unet_doubleconv.pooled_iou(predicted[2:], masks[2:]) == (1, 1)


# ---- B4: the U-Net ----


def test_B4_each_skip_connection_reaches_the_output():
    torch.manual_seed(0)
    model, images = UNet().eval(), torch.rand(1, 3, 64, 64)
    whole = model(images)
    for number in range(1, 5):
        up = getattr(model, f"up{number}")
        hook = up.register_forward_pre_hook(lambda _, args: (args[0], torch.zeros_like(args[1])))
        assert not torch.equal(model(images), whole)
        hook.remove()


def test_B4_flips_take_image_and_mask_together_and_brightness_the_image_alone():
    torch.manual_seed(0)
    masks = torch.zeros(1, 8, 8, dtype=torch.uint8)
    masks[0, :3, :2] = 1  # in one corner: that shows the flips
    images = 100 * masks.unsqueeze(1).expand(-1, 3, -1, -1) + 50
    flips = [v2.RandomHorizontalFlip(), v2.RandomVerticalFlip()]
    pairs = [unet_doubleconv.Augmented(images, masks, flips)[0] for _ in range(60)]
    places, levels = set(), set()
    for image, mask in pairs:
        assert image.dtype == torch.float32 and mask.dtype == torch.int64
        assert mask.sum() == 6 and torch.equal(image[0] > image.mean(), mask == 1)
        places.add(tuple(mask.nonzero()[0].tolist()))
        levels.add(round(image.max().item(), 3))
    assert places == {(0, 0), (0, 6), (5, 0), (5, 6)} and len(levels) > 30
    assert 0.4 < min(levels) < 0.5 and 0.7 < max(levels) < 0.8  # 150 / 255, times 0.7 to 1.3


def test_B4_unet_learns_what_a_threshold_cannot(tmp_path, device, small_pictures):
    results = run(tmp_path, "--train-images", 60, "--epochs", 4, device=device)
    assert [results[key] for key in ("device", "epochs", "parameters")] == [device, 4, 1_944_066]
    sizes = [(16, 48), (32, 24), (64, 12), (128, 6), (256, 3)]
    sizes += [(128, 6), (64, 12), (32, 24), (16, 48), (2, 48)]
    assert list(results["stages"].values()) == [(1, number, size, size) for number, size in sizes]
    assert results["iou"][-1] >= 0.7 > 2 * results["otsu_iou"] > 0
    assert results["iou_dark"][-1] >= 0.9 > 1.5 * results["otsu_iou_dark"] > 0
    assert all(len(results[name]) == 4 for name in ("iou", "iou_dark", "train_loss"))
    assert results["train_loss"][-1] < 0.5 * results["train_loss"][0]

    # The saved file alone gives the same masks again.
    out, files = tmp_path / "out", results["files"]
    assert files == {"weights": out / "unet.pt", "masks": out / "unet-masks.png"}
    assert set(files.values()) == set(out.iterdir())
    model = UNet()
    unet_doubleconv.load_weights(model, files["weights"])
    images, masks = unet_doubleconv.draw_bags(16, unet_doubleconv.HELD_OUT_SEED)
    predicted = unet_doubleconv.segment(model, images, torch.device("cpu"))
    again = unet_doubleconv.pooled_iou(predicted, masks)[0]
    assert again == pytest.approx(results["iou"][-1], abs=0.01 if device == "cuda" else 1e-4)


def test_B4_picture_shows_the_three_worst(tmp_path, monkeypatch):
    images, masks = unet_doubleconv.draw_bags(9, 0)
    predicted = masks.clone()
    for index, rows in ((2, 90), (5, 110), (7, 70)):  # 5 is the worst, then 2, then 7
        predicted[index, :rows] = 0
    monkeypatch.setattr(unet_doubleconv.plt, "close", lambda figure: None)
    unet_doubleconv.plot_worst(images, masks, predicted, "the bag", tmp_path / "masks.png")
    for ax, index in zip(unet_doubleconv.plt.gcf().axes, (5, 2, 7)):
        pictures = ax.images[0].get_array()
        image, mask, answer = (pictures[top : top + 160, 2:162] for top in (2, 166, 330))
        np.testing.assert_array_equal(image, images[index].permute(1, 2, 0))
        np.testing.assert_array_equal(mask[:, :, 0], 255 * masks[index])
        np.testing.assert_array_equal(answer[:, :, 0], 255 * predicted[index])


def test_B4_same_seed_same_numbers(tmp_path, small_pictures):
    flags = ["--train-images", "6", "--epochs", "1", "--seed"]
    first, again, other = (run(tmp_path / name, *flags, name[0]) for name in ("3", "3b", "4"))
    assert first["train_loss"] == again["train_loss"] and first["iou"] == again["iou"]
    assert first["train_loss"] != other["train_loss"]
    assert first["otsu_iou"] == other["otsu_iou"]  # one held-out set for every seed


def test_B4_rate_rises_and_falls_once_in_the_run(tmp_path, monkeypatch, small_pictures):
    rates, step = [], torch.optim.Adam.step

    def remember(optimizer, *given):
        rates.append(optimizer.param_groups[0]["lr"])
        return step(optimizer, *given)

    monkeypatch.setattr(torch.optim.Adam, "step", remember)
    run(tmp_path, "--train-images", 10, "--epochs", 4, "--lr", 0.001)
    assert len(rates) == 12  # batches of 4, 4 and 2
    assert max(rates) <= 0.001 and rates[0] < rates[2] > rates[-1] and rates[-1] < 1e-6


# ---- Your own pictures ----


def test_B4_own_pictures_train_and_then_predict(tmp_path, folders, capsys):
    images, masks = folders
    results = run(tmp_path, "--images", images, "--masks", masks, "--epochs", 12)
    assert "11 pictures to train on, 1 held out" in capsys.readouterr().out
    assert results["iou_dark"][-1] >= 0.5 and results["iou"][-1] >= 0.8  # dark is the bag
    weights = results["files"]["weights"]
    assert weights.name == "unet-own.pt"

    # A wide picture and a high one get masks of their own sizes, by the newest weights.
    torch.save({}, weights.with_name("unet.pt"))
    os.utime(weights.with_name("unet.pt"), (0, 0))
    wide = cv2.imread(str(images / "0.png"))
    cv2.imwrite(str(tmp_path / "high.jpg"), cv2.rotate(wide, cv2.ROTATE_90_CLOCKWISE))
    found = run(tmp_path, "--predict", images / "0.png", tmp_path / "high.jpg")
    assert found["files"]["predictions"].name == "unet-own-predictions.png"
    made = [cv2.imread(str(file), cv2.IMREAD_UNCHANGED) for file in found["predictions"]]
    assert [mask.shape for mask in made] == [(90, 120), (120, 90)]
    assert set(np.unique(made[0])) == {0, 255}
    true = cv2.imread(str(masks / "0.JPG"), cv2.IMREAD_GRAYSCALE) < 128
    assert (true & (made[0] == 0)).sum() / (true | (made[0] == 0)).sum() >= 0.5


def test_B4_own_pictures_held_out_are_the_same_for_every_seed(folders):
    train, held_out = unet_doubleconv.read_pictures(*folders)
    torch.manual_seed(7)
    assert torch.equal(held_out[0], unet_doubleconv.read_pictures(*folders)[1][0])
    assert (len(train[0]), len(held_out[0])) == (11, 1)
    assert not any(torch.equal(image, held_out[0][0]) for image in train[0])
    assert 0.6 < train[1].float().mean() < 0.95  # the bag is 0


def test_E23_gray_edges_and_masks_of_0_and_1(tmp_path):
    mask = np.zeros((4, 6), np.uint8)
    mask[1:3] = 1
    image_file, mask_file = tmp_path / "image.png", tmp_path / "mask.png"
    cv2.imwrite(str(image_file), np.full((4, 6, 3), (255, 0, 0), np.uint8))  # blue, in BGR
    for values in (mask, 250 * mask, 240 * mask + 3):  # 3: a JPEG's black is not quite 0
        cv2.imwrite(str(mask_file), values)
        image, found = unet_doubleconv.read_pair(image_file, mask_file)
        np.testing.assert_array_equal(found, mask)
    assert image[0, 0].tolist() == [0, 0, 255]
    cv2.imwrite(str(mask_file), 3 * mask)  # noise is no object
    assert unet_doubleconv.read_pair(image_file, mask_file)[1].max() == 0


BAD_FOLDERS = {
    "for 0.png": lambda images, masks: masks.rename(masks.parent / "elsewhere"),
    "no folder ": lambda images, masks: images.rename(images.parent / "elsewhere"),
    "no pictures in ": lambda images, masks: [file.unlink() for file in images.iterdir()],
    "masks for 7.png": lambda images, masks: (masks / "7.JPG").unlink(),
    "7.png is not a picture": lambda images, masks: (images / "7.png").write_bytes(b"text"),
    "7.JPG is not a picture": lambda images, masks: (masks / "7.JPG").write_bytes(b""),
    "(90, 120) and (30, 90)": lambda images, masks: fill([masks / "7.JPG"], (30, 90)),
    "one pair in ": lambda images, masks: [file.unlink() for file in images.glob("[1-9]*.png")],
    "no object in the masks of ": lambda images, masks: fill(masks.iterdir(), (90, 120)),
}


def fill(files, shape):
    for file in files:
        cv2.imwrite(str(file), np.full(shape, 2, np.uint8))


@pytest.mark.parametrize("words", BAD_FOLDERS)
def test_B4_bad_folders_are_one_line(tmp_path, folders, words):
    BAD_FOLDERS[words](*folders)
    with pytest.raises(SystemExit) as stop:
        run(tmp_path, "--images", folders[0], "--masks", folders[1])
    message = stop.value.code
    assert message.startswith("error: ") and words in message and "\n" not in message


@pytest.mark.parametrize(
    "flags",
    [
        "--images a --masks b --train-images 5",
        "--images a --predict b",
        "--images a",
        "--weights a",
    ],
)
def test_B4_flags_that_do_not_go_together(tmp_path, capsys, flags):
    with pytest.raises(SystemExit) as stop:
        run(tmp_path, *flags.split())
    message = capsys.readouterr().err.splitlines()[-1]
    assert stop.value.code == 2 and re.search(r"not allowed with|go together", message)
    assert not any(tmp_path.iterdir())


def test_B4_predict_without_good_weights_or_with_one_name_twice(tmp_path):
    picture = tmp_path / "a.png"
    cv2.imwrite(str(picture), np.zeros((9, 9, 3), np.uint8))

    def message(*flags):
        with pytest.raises(SystemExit) as stop:
            run(tmp_path, "--predict", *flags)
        return stop.value.code

    assert message(picture).startswith("error: no unet*.pt in ")
    assert message(picture, "--weights", tmp_path / "none.pt").endswith("No such file or directory")
    torch.save(nn.Linear(2, 2).state_dict(), tmp_path / "other.pt")
    other = message(picture, "--weights", tmp_path / "other.pt")
    assert other.endswith("does not hold the weights of a UNet")
    torch.save(UNet().state_dict(), tmp_path / "unet.pt")
    weights = ["--weights", tmp_path / "unet.pt"]
    assert "one name" in message(picture, tmp_path / "a.jpg", *weights)
    assert "cannot be read" in message(tmp_path / "b.png", *weights)


# ---- These prove what docs/notes.md says of PyTorch itself, not of this script ----


def test_E1_super_without_brackets_is_a_type_error():
    class NotesDoubleConv(nn.Module):
        def __init__(self):
            super.__init__()

    with pytest.raises(TypeError, match="super"):
        NotesDoubleConv()


def test_E16_the_message_has_brackets_today():
    with pytest.raises(RuntimeError, match=r"weight of size \[64, 3, 3, 3\]"):
        WrongDoubleConv(3, 64)(torch.rand(4, 3, 160, 160))


def test_B4_one_hot_masks_give_the_same_loss():
    logits, masks = torch.randn(2, 2, 8, 8), torch.randint(2, (2, 8, 8))
    one_hot = nn.functional.one_hot(masks, 2).permute(0, 3, 1, 2).float()
    criterion = nn.CrossEntropyLoss()
    torch.testing.assert_close(criterion(logits, one_hot), criterion(logits, masks))

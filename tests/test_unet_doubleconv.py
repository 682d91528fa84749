import math
import re

import cv2
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torchvision.transforms import v2

import unet_doubleconv
from unet_doubleconv import DoubleConv, UNet, WrongDoubleConv, class_iou, trace_shapes

CPU = torch.device("cpu")
TODAY = (
    "Given groups=1, weight of size [64, 3, 3, 3], expected input[4, 64, 158, 158] "
    "to have 3 channels, but got 64 channels instead"
)


def run(tmp_path, *arguments, device="cpu"):
    common = ["--device", device, "--out-dir", tmp_path / "out"]
    return unet_doubleconv.main([str(argument) for argument in (*arguments, *common)])


def error_of(function, *arguments) -> str:
    with pytest.raises(SystemExit) as stop:
        function(*arguments)
    assert stop.value.code.startswith("error: ") and "\n" not in stop.value.code
    return stop.value.code


def put(folder, name: str, picture) -> None:
    """Write a picture, (H, W) or RGB (H, W, 3)."""
    folder.mkdir(exist_ok=True)
    picture = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR) if picture.ndim == 3 else picture
    cv2.imwrite(str(folder / name), picture)


@pytest.fixture
def small_pictures(monkeypatch):
    """A tenth of the pixels, a tenth of the time."""
    monkeypatch.setattr(unet_doubleconv, "SIZE", 48)
    monkeypatch.setattr(unet_doubleconv, "HELD_OUT_IMAGES", 16)


@pytest.fixture
def no_training(monkeypatch):
    """In place of an epoch: the white pixels of each mask in their order; then all is black."""
    epochs = []

    def train_one_epoch(model, loader, *others):
        epochs.append([mask.sum().item() for _, masks in loader for mask in masks])
        model.outc.weight.data.zero_()
        model.outc.bias.data = torch.tensor([1.0, 0.0])
        return 0.5

    monkeypatch.setattr(unet_doubleconv, "train_one_epoch", train_one_epoch)
    return epochs


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """Twelve drawn pairs on disk; in the masks, JPEG as the notes' are, the bag is black."""
    monkeypatch.setattr(unet_doubleconv, "SIZE", 32)
    images, masks = tmp_path / "i", tmp_path / "m"
    for number, (image, mask) in enumerate(zip(*unet_doubleconv.draw_bags(12, 0))):
        put(images, f"{number}.png", cv2.resize(image.permute(1, 2, 0).numpy(), (120, 90)))
        put(masks, f"{number}.JPG", cv2.resize(255 * (1 - mask.numpy()), (120, 90)))
    return images, masks


# ---- B1 to B3: the error, the layer, the fixed block ----


def test_B1_B3_E16_script_prints_the_error_and_the_fixed_shapes(capsys):
    unet_doubleconv.find_the_layer()
    printed = capsys.readouterr().out
    texts = "double_conv.3", TODAY, "(4, 64, 156, 156)", "(4, 64, 160, 160)"
    assert all(text in printed for text in texts)


def test_B2_trace_stops_at_the_second_convolution(device):
    block = WrongDoubleConv(3, 64).to(device)
    records, error = trace_shapes(block, torch.rand(4, 3, 160, 160, device=device))
    assert [name for name, _, _ in records] == [f"double_conv.{number}" for number in range(4)]
    assert [shapes for _, _, shapes in records] == [[(4, 3, 160, 160)]] + 3 * [[(4, 64, 158, 158)]]
    assert records[-1][1] is block.double_conv[3]
    assert isinstance(error, RuntimeError) and str(error) == TODAY


def test_B2_trace_of_another_model_leaves_no_hook():
    layer = nn.Bilinear(4, 4, 4)
    model = nn.ModuleDict({"never": nn.ReLU(), "twice": layer})
    model.forward = lambda x: layer(input1=layer(x, x), input2=x)
    records, output = trace_shapes(model, torch.rand(3, 4))
    assert records == [("twice", layer, [(3, 4), (3, 4)])] * 2 and output.shape == (3, 4)
    assert isinstance(trace_shapes(model, "text")[1], TypeError)
    assert not layer._forward_pre_hooks


def test_B2_trace_ends_before_the_line_between_two_layers_that_raises():
    model = UNet()
    model.up1.conv = DoubleConv(256, 128)  # the notes' padding: what comes up is too small
    records, error = trace_shapes(model, torch.rand(1, 3, 64, 64))
    assert records[-1][0] == "up2.up" and "Expected size 16 but got size 8" in str(error)


# ---- B4: the drawings, and what a threshold makes of them ----


def test_B4_pictures_and_masks():
    images, masks = unet_doubleconv.draw_bags(12, 0)
    assert images.shape == (12, 3, 160, 160) and masks.shape == (12, 160, 160)
    assert images.dtype == masks.dtype == torch.uint8 and masks.unique().tolist() == [0, 1]
    for mask in masks.numpy():
        assert 0.07 < mask.mean() < 0.45
        assert cv2.connectedComponents(mask)[0] == 2  # background and one bag
    again = unet_doubleconv.draw_bags(14, 0)  # the first of more are the same
    assert torch.equal(images, again[0][:12]) and torch.equal(masks, again[1][:12])


def test_B4_a_threshold_finds_what_brightness_separates_but_not_the_bags():
    images, masks = unet_doubleconv.draw_bags(16, 1)
    assert class_iou(unet_doubleconv.otsu_masks(images, masks), masks, 1) <= 0.4
    masks = torch.zeros(2, 20, 20, dtype=torch.uint8)
    masks[:, 5:12, 3:9] = 1
    images = (masks * 100 + 50).unsqueeze(1).repeat(1, 3, 1, 1)
    images[1] = 200 - images[1]  # a dark bag on bright ground
    assert torch.equal(unet_doubleconv.otsu_masks(images, masks), masks)


def test_B4_iou_by_hand():
    masks = torch.tensor([[[1, 1, 0, 0]], [[1, 1, 0, 0]], [[0, 0, 0, 0]]])
    predicted = torch.tensor([[[1, 0, 1, 0]], [[1, 1, 1, 1]], [[0, 0, 0, 0]]])
    iou = [class_iou(predicted, masks, value) for value in (1, 0)]
    assert iou == pytest.approx([3 / 7, 5 / 9])
    assert class_iou(predicted[2:], masks[2:], 1) == 1  # none, and none missed


# ---- B4: the U-Net ----


def test_B4_each_skip_connection_reaches_the_output():
    torch.manual_seed(0)
    model, images = UNet().eval(), torch.rand(1, 3, 32, 32)
    whole = model(images)
    for up in (model.up1, model.up2, model.up3, model.up4):
        hook = up.register_forward_pre_hook(lambda _, args: (args[0], torch.zeros_like(args[1])))
        assert not torch.equal(model(images), whole)
        hook.remove()


def test_B4_segment_does_not_train():
    torch.manual_seed(0)
    model, images = UNet().train(), torch.randint(256, (4, 3, 32, 32), dtype=torch.uint8)
    with torch.no_grad():
        model.outc.bias -= model.eval()(images / 255).mean(dim=(0, 2, 3))  # both classes
    together = unet_doubleconv.segment(model.train(), images, CPU)
    alone = [unet_doubleconv.segment(model.train(), one[None], CPU) for one in images]
    assert torch.equal(torch.cat(alone), together) and together.unique().tolist() == [0, 1]
    assert model.inc.double_conv[1].running_mean.abs().max() == 0


def test_B4_flips_take_image_and_mask_together_and_brightness_the_image_alone():
    torch.manual_seed(0)
    masks = torch.zeros(1, 8, 8, dtype=torch.uint8)
    masks[0, :3, :2] = 1  # in one corner: that shows the flips
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


def test_B4_unet_learns_what_a_threshold_cannot(tmp_path, device, small_pictures, capsys):
    results = run(tmp_path, "--train-images", 60, "--epochs", 4, device=device)
    white, loss = results["iou_white"], results["train_loss"]
    assert white[-1] >= 0.7 and results["iou_black"][-1] >= 0.9 and loss[-1] < 0.5 * loss[0]
    printed = capsys.readouterr().out
    assert "1,944,066 parameters" in printed and "!!!" not in printed
    stages = re.findall(r"^  \w+ +\(1, (\d+), (\d+), \2\)", printed, re.MULTILINE)
    numbers, sizes = zip(*(map(int, stage) for stage in stages))
    assert numbers == (16, 32, 64, 128, 256, 128, 64, 32, 16, 2)
    assert sizes == (48, 24, 12, 6, 3, 6, 12, 24, 48, 48)

    # The saved file alone gives the same masks again.
    files, out = results["files"], tmp_path / "out"
    names = {"weights": "unet.pt", "masks": "unet-masks.png", "curves": "unet-curves.png"}
    assert files == {key: out / name for key, name in names.items()}
    model = UNet()
    unet_doubleconv.load_weights(model, files["weights"])
    images, masks = unet_doubleconv.draw_bags(16, 1)
    again = class_iou(unet_doubleconv.segment(model, images, CPU), masks, 1)
    assert again == pytest.approx(white[-1], abs=0.01 if device == "cuda" else 1e-4)


def test_B4_picture_shows_the_three_worst(tmp_path, capsys):
    images = torch.randint(256, (9, 3, 20, 20), dtype=torch.uint8)
    masks = torch.zeros(9, 20, 20, dtype=torch.uint8)
    masks[:, 5:15, 5:15] = 1
    predicted = masks.clone()
    for index, rows in ((2, 10), (5, 12), (7, 7), (1, 6)):  # 5 is the worst, then 2, then 7
        predicted[index, :rows] = 0
    unet_doubleconv.plot_worst(images, masks, predicted, tmp_path / "masks.png")
    assert re.search(r"0\.300\D+0\.500\D+0\.800\D+1\.000", capsys.readouterr().out)
    sheet = np.array(Image.open(tmp_path / "masks.png"))
    for left, index in zip((4, 30, 56), (5, 2, 7)):  # a border of 2, a frame of 2
        image, mask, answer = (sheet[top : top + 20, left : left + 20] for top in (4, 28, 52))
        np.testing.assert_array_equal(image, images[index].permute(1, 2, 0))
        np.testing.assert_array_equal(mask[:, :, 0], 255 * masks[index])
        np.testing.assert_array_equal(answer[:, :, 0], 255 * predicted[index])


def test_B4_curves_are_of_what_they_say(tmp_path, monkeypatch):
    monkeypatch.setattr(plt, "close", lambda figure: None)
    results = {"train_loss": [3, 2], "iou_white": [0.4, 0.5], "iou_black": [0.6, 0.7]}
    unet_doubleconv.plot_history(results, tmp_path / "curves.png")
    lines = plt.gca().get_lines()
    assert [list(line.get_ydata()) for line in lines] == list(results.values())
    assert [line.get_label()[-5:] for line in lines] == [" loss", "white", "black"]


def test_B4_same_seed_same_numbers_and_the_rate_rises_and_falls(
    tmp_path, monkeypatch, small_pictures
):
    rates, step = [], torch.optim.Adam.step

    def remember(optimizer, *given):
        rates.append(optimizer.param_groups[0]["lr"])
        return step(optimizer, *given)

    monkeypatch.setattr(torch.optim.Adam, "step", remember)
    flags = ["--train-images", 10, "--epochs", 2, "--lr", 0.001, "--seed"]
    first, again, other = (run(tmp_path, *flags, seed)["train_loss"] for seed in (3, 3, 4))
    assert first == again != other
    assert len(rates) == 3 * 6 and max(rates) <= 0.001  # batches of 4, 4 and 2
    assert rates[0] < rates[2] > rates[5] and rates[5] < 1e-6


def test_B4_training_pictures_come_in_another_order_each_epoch(
    tmp_path, no_training, small_pictures
):
    run(tmp_path, "--train-images", 12)
    assert len(no_training) == 5 and no_training[0] != no_training[1]
    assert sorted(no_training[0]) == sorted(no_training[1])


def test_C5_a_loss_that_is_not_finite_stops_before_anything_is_saved(tmp_path, small_pictures):
    flags = ["--train-images", 5, "--epochs", 1, "--lr", 1e30]
    assert re.search("training loss is (nan|inf).*--lr", error_of(run, tmp_path, *flags))
    assert not any((tmp_path / "out").iterdir())


# ---- Your own pictures ----


def test_B4_own_pictures_train_and_then_predict(tmp_path, folders, capsys):
    images, masks = folders
    results = run(tmp_path, "--images", images, "--masks", masks, "--epochs", 12)
    assert results["iou_black"][-1] >= 0.4 and results["iou_white"][-1] >= 0.7  # black is the bag
    weights = results["files"]["weights"]
    assert weights.name == "unet-own.pt"
    assert Image.open(results["files"]["masks"]).width < 2 * 32  # one column: one is held out

    # A wide picture and a high one get masks of their own sizes, by the weights of own pictures;
    # one that cannot be read costs a line.
    torch.save({}, weights.with_name("unet.pt"))
    wide = np.array(Image.open(images / "0.png"))
    put(tmp_path, "high.jpg", np.rot90(wide).copy())
    with pytest.raises(SystemExit) as stop:
        run(tmp_path, "--predict", tmp_path / "bad.png", images / "0.png", tmp_path / "high.jpg")
    printed = "".join(capsys.readouterr())
    assert stop.value.code == 1 and "bad.png" in printed and str(weights) in printed
    made = [np.array(Image.open(tmp_path / "out" / f"{name}-mask.png")) for name in ("0", "high")]
    assert [mask.shape for mask in made] == [(90, 120), (120, 90)]
    true = torch.from_numpy(cv2.imread(str(masks / "0.JPG"), cv2.IMREAD_GRAYSCALE) // 128)
    assert class_iou(torch.from_numpy(made[0]) // 255, true, 0) >= 0.4


def test_C8_few_pictures_get_500_steps_and_a_class_never_predicted_is_told(
    tmp_path, folders, no_training, capsys
):
    run(tmp_path, "--images", folders[0], "--masks", folders[1])
    assert len(no_training) == math.ceil(500 / 3)  # 11 pictures in batches of 4
    printed = capsys.readouterr().out
    assert re.search("!!!.* white", printed) and not re.search("!!!.* black", printed)
    assert 10 <= len(re.findall("^epoch", printed, re.MULTILINE)) <= 13


def test_B4_own_pictures_held_out_are_the_same_for_every_seed(folders):
    train, held_out = unet_doubleconv.read_pictures(*folders)
    torch.manual_seed(7)
    assert torch.equal(held_out[0], unet_doubleconv.read_pictures(*folders)[1][0])
    assert (len(train[0]), len(held_out[0])) == (11, 1)
    assert not any(torch.equal(image, held_out[0][0]) for image in train[0])


def own(tmp_path, change, suffix=".png", image=None) -> tuple[torch.Tensor, torch.Tensor]:
    """read_pictures, of 4 images and masks, 32x32, the masks white from column 9, 14, 19, 24 on."""
    image = np.full((32, 32, 3), (200, 100, 0), np.uint8) if image is None else image
    for number in range(4):
        mask = np.zeros((32, 32), np.uint8)
        mask[:, 9 + 5 * number :] = 1
        put(tmp_path / "i", f"{number}.tif", image)
        put(tmp_path / "m", f"{number}{suffix}", change(number, mask))
    train, held_out = unet_doubleconv.read_pictures(tmp_path / "i", tmp_path / "m")
    return torch.cat([train[0], held_out[0]]), torch.cat([train[1], held_out[1]])


MASKS = {  # suffix, then what is made of 0 and 1
    "0 and 1": (".png", lambda _, mask: mask),
    "1 and 2": (".png", lambda _, mask: mask + 1),
    "16 bits": (".tif", lambda _, mask: mask.astype(np.uint16) * 60_000),
    "soft edges": (".png", lambda _, mask: cv2.blur(255 * mask, (5, 1))),
    "a JPEG": (".jpg", lambda _, mask: 255 * mask),
    "three channels": (".webp", lambda _, mask: np.dstack([255 * mask] * 3)),
}


@pytest.mark.parametrize("kind", MASKS)
def test_C1_E23_what_the_values_of_masks_mean(tmp_path, monkeypatch, kind):
    monkeypatch.setattr(unet_doubleconv, "SIZE", 32)
    suffix, change = MASKS[kind]
    images, masks = own(tmp_path, change, suffix)
    assert {mask[5].sum().item() for mask in masks} == {23, 18, 13, 8}
    assert all((mask == mask[0]).all() and mask[0, -1] == 1 for mask in masks)
    assert images[0, :, 9, 9].tolist() == [200, 100, 0]  # RGB


def third(number, mask, value):
    mask[20:, 20:] = value if number == 2 else mask[20:, 20:]
    return mask


def noise(number, *shape):
    return np.random.default_rng(number).integers(0, 256, shape, np.uint8)


BAD_MASKS = {  # the message names these values or this file
    "0 1 2": (["2", "2.png"], lambda number, mask: third(number, mask, 2)),
    "0 127 255": (["127", "255"], lambda number, mask: third(number, 255 * mask, 127)),
    "0 1 255": (["1", "255"], lambda number, mask: mask * (255 if number else 1)),
    "all 255": (["255"], lambda _, mask: 0 * mask + 255),
    "colors": ([".png"], lambda _, mask: np.dstack([mask * 128, 90 - 90 * mask.T, 0 * mask])),
    "a photo": ([".png"], lambda number, _: noise(number, 32, 32, 3)),
    "a gray photo": ([".png"], lambda number, _: noise(number, 32, 32)),
}


@pytest.mark.parametrize("kind", BAD_MASKS)
def test_C1_masks_that_are_none_are_an_error_that_names_them(tmp_path, kind):
    named, change = BAD_MASKS[kind]
    message = error_of(own, tmp_path, change)
    assert all(re.search(rf"(?<![\w.]){text}\b|\d{text}", message) for text in named), message


def test_C3_more_than_8_bits_are_scaled_and_the_script_says_so(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(unet_doubleconv, "SIZE", 32)
    ct_slice = np.tile(np.linspace(-1000, 1000, 32).astype(np.int16), (32, 1))
    images, _ = own(tmp_path, MASKS["0 and 1"][1], image=ct_slice)
    assert len(images[0].unique()) == 32 and [images.min(), images.max()] == [0, 255]
    assert "minimum and maximum" in capsys.readouterr().out
    own(tmp_path, MASKS["0 and 1"][1])
    assert "minimum and maximum" not in capsys.readouterr().out


def test_C3_image_and_mask_lie_alike_and_a_new_photo_is_turned_as_one_sees_it(tmp_path):
    turned = Image.Exif()
    turned[0x0112] = 6  # by a quarter
    red = np.full((40, 90, 3), (255, 0, 0), np.uint8)
    for name in "ab":
        put(tmp_path / "m", f"{name}.png", red[:, :, 0] * np.uint8([0] * 45 + [1] * 45))
        put(tmp_path / "i", f"{name}.jpg", red)
        Image.fromarray(red).save(tmp_path / "i" / f"{name}.jpg", exif=turned)
    (_, masks), _ = unet_doubleconv.read_pictures(tmp_path / "i", tmp_path / "m")
    assert masks[0][:, 120].all() and not masks[0][:, 40].any()

    torch.save(UNet().state_dict(), tmp_path / "unet.pt")
    photo = ["--predict", tmp_path / "i" / "a.jpg"]
    files = run(tmp_path, *photo, "--weights", tmp_path / "unet.pt")
    assert Image.open(files["predictions"][0]).size == (40, 90)
    sheet = np.array(Image.open(files["files"]["predictions"]))
    assert sheet[40, 40, 0] > 250 and sheet[40, 40, 2] < 5  # red: the network is given RGB


NAMES = {  # images, masks, the first image's mask or what the error names
    "the same": ("1.png 10.png 2.png", "1.gif 10.gif 2.gif", "1.gif"),
    "a tail": ("1.png 10.png 2.png", "10_mask.png 1_mask.png 2_mask.png", "1_mask.png"),
    "two tails": ("1_training.tif 2_training.tif", "1_manual1.gif 2_manual1.gif", "1_manual1.gif"),
    "one folder": ("a.tif a_mask.tif b.tif b_mask.tif", None, "a_mask.tif"),
    "no mask": ("1.png 2.png 3.png", "1.png 3.png", "error: .*2.png"),
    "no mask by a tail": ("1.png 2.png 3.png", "1_m.png 3_m.png", "error: .*2.png"),
    "two of one stem": ("1.jpg 1.png", "1.png", "error: .*1.jpg.*1.png"),
    "one folder, no mask": ("1.png 10.png", None, "error: "),
    "no pictures": ("1.txt", "1.png", "error: no pictures in .*i"),
    "no masks": ("1.png", "", "error: no pictures in .*m"),
    "no folder": ("1.png", "none", "error: no folder .*m"),
}  # fmt: skip


@pytest.mark.parametrize("kind", NAMES)
def test_C2_pairs_by_names(tmp_path, kind, capsys):
    images, masks, result = NAMES[kind]
    for folder, names in (("i", images), ("m", masks)):
        (tmp_path / folder).mkdir() if names != "none" else None
        for name in (names or "").replace("none", "").split():
            (tmp_path / folder / name).touch()
    folders = tmp_path / "i", tmp_path / ("i" if masks is None else "m")
    if result.startswith("error"):
        assert re.search(result, error_of(unet_doubleconv.find_pairs, *folders))
    else:
        pairs = unet_doubleconv.find_pairs(*folders)
        assert len(pairs) == len(images.split()) / (2 if masks is None else 1)
        assert (pairs[0][0].name, pairs[0][1].name) == (images.split()[0], result)
        assert (result in capsys.readouterr().out) == (kind != "the same")  # another rule is told


def test_C2_what_is_not_read_is_told(folders, capsys):
    for name in ("2.xcf", ".hidden.xcf"):
        (folders[0] / name).touch()
    assert len(unet_doubleconv.find_pairs(*folders)) == 12
    printed = capsys.readouterr().out
    assert re.search(r"!!!.*2\.xcf", printed) and "hidden" not in printed


def test_B4_a_mask_of_another_size_and_one_pair_alone_are_one_line(folders):
    put(folders[1], "7.JPG", np.eye(30, 90))
    message = error_of(unet_doubleconv.read_pictures, *folders)
    assert all(text in message for text in ("7.png", "7.JPG", "(90, 120)", "(30, 90)"))
    for file in folders[0].glob("[1-9]*.png"):
        file.unlink()
    assert "two" in error_of(unet_doubleconv.read_pictures, *folders)


@pytest.mark.parametrize("flags", ["--images a --predict b", "--images a", "--weights a"])
def test_B4_flags_that_do_not_go_together(tmp_path, capsys, flags):
    with pytest.raises(SystemExit) as stop:
        run(tmp_path, *flags.split())
    message = capsys.readouterr().err.splitlines()[-1]
    assert stop.value.code == 2 and re.search(r"not allowed with|go together", message)
    assert not any(tmp_path.iterdir())


def test_B4_predict_without_good_weights_or_with_one_name_twice(tmp_path):
    flags = ["--predict", tmp_path / "a.png"]
    assert "unet.pt" in error_of(run, tmp_path, *flags)
    torch.save(nn.Linear(2, 2).state_dict(), tmp_path / "out" / "unet.pt")
    assert error_of(run, tmp_path, *flags).endswith("does not hold the weights of a UNet")
    torch.save(UNet().state_dict(), tmp_path / "out" / "unet.pt")
    assert "one name" in error_of(run, tmp_path, *flags, tmp_path / "a.jpg")


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

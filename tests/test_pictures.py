import re

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from own_data import pictures
from unet_doubleconv import UNet

PALETTE = [0, 0, 0, 128, 0, 0, 0, 128, 0] + 246 * [9, 9, 9] + 9 * [224]


def run(out, *arguments):
    """Call main as the command line would, on the CPU."""
    return pictures.main([str(argument) for argument in (*arguments, "--device", "cpu", "--out-dir", out)])


def error_of(*arguments) -> str:
    with pytest.raises(SystemExit) as stop:
        run(*arguments)
    assert str(stop.value.code).startswith("error: ") and "\n" not in stop.value.code
    return stop.value.code


def put(file, picture, palette=None, **options) -> None:
    file.parent.mkdir(exist_ok=True)
    picture = Image.fromarray(picture)
    if palette:
        picture.putpalette(palette)
    picture.save(file, **options)


def draw(folder, count=12, second=3) -> tuple:
    """Draw pictures, 90x120, of a red bar; the masks have 0, 50 for the bar, and 200 for a blue disc.

    Every third picture (or other: `second`) has a disc.
    """
    for number in range(count):
        image, mask = np.full((90, 120, 3), 120, np.uint8), np.zeros((90, 120), np.uint8)
        mask[:, 10 + 2 * number : 40 + 2 * number] = 50
        if number % second == 1:
            cv2.circle(mask, (95, 20 + 4 * number), 18, 200, -1)
        image[mask == 50], image[mask == 200] = (220, 30, 30), (30, 30, 220)
        put(folder / "i" / f"{number}.png", image)
        put(folder / "m" / f"{number}.png", mask)
    return "--images", folder / "i", "--masks", folder / "m", "--size", 32


@pytest.fixture
def no_training(monkeypatch):
    monkeypatch.setattr(pictures.lesson, "train_one_epoch", lambda *others: 0.5)


def columns(folder, change, suffix=".png", palette=None, image=None):
    """Write four masks, 32x32, that change from 0 to 1 at column 9, 14, 19, 24. Read them, as they are for size 32."""
    image = np.full((32, 32, 3), (200, 100, 0), np.uint8) if image is None else image
    for number in range(4):
        mask = np.zeros((32, 32), np.uint8)
        mask[:, 9 + 5 * number :] = 1
        put(folder / "i" / f"{number}.tif", image)
        put(folder / "m" / f"{number}{suffix}", change(number, mask), palette)
    return pictures.read_pictures(folder / "i", folder / "m", 32)


def test_three_classes_are_learned_and_predicted(tmp_path, capsys):
    flags = draw(tmp_path)
    results = run(tmp_path / "out", *flags, "--epochs", 14)
    assert list(results["iou"]) == ["0", "50", "200"] and len(results["train_loss"]) == 14
    best = results["best_epoch"] - 1
    assert all(ious[best] >= 0.6 for ious in results["iou"].values())
    printed = capsys.readouterr().out
    assert "32x32 squares" in printed and "!!!" not in printed and "best on these held-out images" in printed

    # A folder, a pattern and a file that cannot be read: one line, and the others are used.
    put(tmp_path / "new" / "high.jfif", np.rot90(np.array(Image.open(tmp_path / "i" / "4.png"))), format="JPEG")
    put(tmp_path / "wide.png", np.array(Image.open(tmp_path / "i" / "1.png")))
    (tmp_path / "bad.png").write_text("no picture")
    with pytest.raises(SystemExit) as stop:
        run(tmp_path / "out", "--predict", tmp_path / "new", tmp_path / "bad.png", tmp_path / "*ide.png")
    errors = capsys.readouterr().err.splitlines()
    assert stop.value.code == 1 and len(errors) == 1 and re.match("error: .*bad.png: this cannot be read", errors[0])
    high, wide = (np.array(Image.open(tmp_path / "out" / f"{name}-mask.png")) for name in ("high", "wide"))
    assert high.shape == (120, 90) and set(np.unique(wide)) == {0, 50, 200}
    true = np.array(Image.open(tmp_path / "m" / "1.png"))
    assert (wide == true).mean() > 0.85


def test_a_rare_class_counts_in_the_loss_and_a_border_does_not():
    masks = torch.zeros(1, 32, 32, dtype=torch.long)
    masks[:, :2, :2] = 1  # four pixels of 1024
    right = 20 * torch.nn.functional.one_hot(masks, 2).permute(0, 3, 1, 2).float()
    missed = right.clone()
    missed[:, 0], missed[:, 1] = 20, 0
    assert pictures.find_loss(right, masks) < 0.01 and pictures.find_loss(missed, masks) > 0.4
    masks[:, :2, :2] = 255
    assert pictures.find_loss(missed, masks) < 0.01


def test_resumed_training_equals_the_uninterrupted_one(tmp_path, monkeypatch):
    flags = [*draw(tmp_path, 5), "--epochs", 3]
    whole = run(tmp_path / "whole", *flags)
    train, epochs = pictures.lesson.train_one_epoch, []

    def stop_in_second_epoch(*arguments):
        epochs.append(1)
        if len(epochs) == 2:
            raise KeyboardInterrupt
        return train(*arguments)

    monkeypatch.setattr(pictures.lesson, "train_one_epoch", stop_in_second_epoch)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "parts", *flags)
    assert "something is different" in error_of(tmp_path / "parts", *flags, "--resume", "--lr", 0.1)
    resumed = run(tmp_path / "parts", *flags, "--resume")
    assert len(epochs) == 4 and resumed["train_loss"] == whole["train_loss"] and resumed["iou"] == whole["iou"]


def test_the_best_epoch_is_kept_and_a_loss_that_is_not_finite_stops(tmp_path, monkeypatch, capsys):
    losses = iter([0.5, 0.4, float("nan")])

    def spoil(model, *others):  # After the first epoch all is background, after the second all is the bar.
        loss = next(losses)
        model.outc.weight.data.zero_()
        model.outc.bias.data = torch.tensor([[1.0, 0, 0], [0, 1.0, 0]][loss != 0.5])
        return loss

    monkeypatch.setattr(pictures.lesson, "train_one_epoch", spoil)
    flags = draw(tmp_path)
    message = error_of(tmp_path, *flags, "--epochs", 3)
    assert "loss is nan in epoch 3" in message and "--lr" in message
    assert torch.load(tmp_path / "pictures.pt")["model"]["outc.bias"].argmax() == 0

    losses = iter([0.5, 0.4])
    results = run(tmp_path, *flags, "--epochs", 2)
    printed = capsys.readouterr().out
    assert results["best_epoch"] == 1 and re.findall("!!! No pixel is predicted as (.*?)\\.", printed) == ["50", "200"]


MASKS = {  # suffix and palette, what is made of 0 and 1, what the classes are called
    "0 and 1": (".png", None, lambda _, mask: mask, ["0", "1"]),
    "16 bits": (".tif", None, lambda _, mask: mask * np.uint16(65535), ["0", "255"]),
    "soft edges": (".png", None, lambda _, mask: cv2.blur(255 * mask, (5, 1)), ["0", "255"]),
    "a JPEG": (".jpg", None, lambda _, mask: 255 * mask, None),
    "red": (".webp", None, lambda _, mask: np.dstack([255 * mask, 0 * mask, 0 * mask]), None),
    "two colors of one gray": (".png", None, lambda _, mask: np.uint8([(0, 130, 0), (255, 0, 0)])[mask], None),
    "alpha": (".png", None, lambda _, mask: np.uint8([(7, 7, 7, 0), (7, 7, 7, 255)])[mask], None),
    "soft alpha": (".png", None, lambda _, mask: np.dstack([mask * 0] * 3 + [cv2.blur(255 * mask, (5, 1))]), None),
    "a palette": (".png", PALETTE, lambda _, mask: 2 - mask, ["1", "2"]),
}


@pytest.mark.parametrize("kind", MASKS)
def test_what_the_values_of_two_classes_mean(tmp_path, kind):
    suffix, palette, change, names = MASKS[kind]
    images, masks, classes = columns(tmp_path, change, suffix, palette)
    assert {(mask[5] == mask[5, -1]).sum().item() for mask in masks} == {23, 18, 13, 8}
    assert all((mask == mask[0]).all() for mask in masks) and masks.unique().tolist() == [0, 1]
    assert images[0, :, 9, 9].tolist() == [200, 100, 0]  # RGB
    assert names in (None, pictures.name_values(classes["values"]))


def third(number, mask):
    mask[20:, 20:] = 2
    return mask


def with_border(number, mask):
    third(number, mask)[:2] = 255
    return mask


CLASSES = {
    "gray": (None, lambda number, mask: np.uint8([0, 127, 255])[third(number, mask)], [0, 1, 2]),
    "colors": (None, lambda number, mask: np.uint8([(9, 0, 0), (0, 9, 0), (0, 0, 9)])[third(number, mask)], [0, 1, 2]),
    "palette and border": (PALETTE, with_border, [0, 1, 2, 255]),
    "numbers and border": (None, with_border, [0, 1, 2, 255]),
    "twenty": (None, lambda *_: np.uint8(12 * (np.arange(32)[:, None] // 8 * 5 + np.arange(32) // 7)), list(range(20))),
}


@pytest.mark.parametrize("kind", CLASSES)
def test_more_classes_and_their_masks_are_written_as_they_were(tmp_path, capsys, kind):
    palette, change, numbers = CLASSES[kind]
    _, masks, classes = columns(tmp_path, change, palette=palette)
    assert masks.unique().tolist() == numbers
    assert ("255 is a border" in capsys.readouterr().out) == kind.endswith("border")
    mask = pictures.to_numbers(Image.open(tmp_path / "m" / "0.png"), classes)
    pictures.save_mask(np.where(mask == 255, 0, mask), classes, tmp_path / "new.png")
    old, new = Image.open(tmp_path / "m" / "0.png"), Image.open(tmp_path / "new.png")
    assert (old.mode, old.getpalette()) == (new.mode, new.getpalette())
    np.testing.assert_array_equal(np.array(old)[2:], np.array(new)[2:])


BAD_MASKS = {  # the message names these values or the folder
    "all 255": (["255"], lambda _, mask: 0 * mask + 255),
    "0 1 255": (["255"], lambda number, mask: mask * (255 if number else 1)),
    "a photo": (["4096"], lambda number, _: np.random.default_rng(number).integers(0, 256, (32, 32, 3), np.uint8)),
    "soft edges of three": (["/m "], lambda number, mask: cv2.blur(120 * third(number, mask), (5, 5))),
}


@pytest.mark.parametrize("kind", BAD_MASKS)
def test_masks_that_are_none_are_an_error_that_names_them(tmp_path, kind):
    named, change = BAD_MASKS[kind]
    with pytest.raises(ValueError) as error:
        columns(tmp_path, change)
    assert all(text in str(error.value) for text in named), error.value


def test_each_class_is_held_out_if_it_can_and_the_rest_is_told(tmp_path, capsys, no_training):
    flags = draw(tmp_path, 40, second=15)  # discs in pictures 1, 16 and 31 only
    _, masks, _ = pictures.read_pictures(tmp_path / "i", tmp_path / "m", 32)
    training, held_out = pictures.split(masks, ["0", "50", "200"])
    torch.manual_seed(7)
    assert (training, held_out) == pictures.split(masks, ["0", "50", "200"])
    assert sorted(training + held_out) == list(range(40)) and 4 <= len(held_out) <= 5
    assert 2 in masks[held_out] and 2 in masks[training] and "!!!" not in capsys.readouterr().out

    for file in ("16", "31"):
        for folder in "im":
            (tmp_path / folder / f"{file}.png").unlink()
    results = run(tmp_path / "out", *flags, "--epochs", 1)
    assert "These classes are in no held-out image: 200" in capsys.readouterr().out
    assert np.isnan(results["iou"]["200"][0])


def test_objects_that_vanish_are_counted(tmp_path, capsys):
    mask = np.zeros((320, 320), np.uint8)
    mask[150:200, 150:200] = 255
    mask[3:300:30, 3] = 255  # ten single pixels
    for number in range(2):
        put(tmp_path / "i" / f"{number}.png", np.full((320, 320), 99, np.uint8))
        put(tmp_path / "m" / f"{number}.png", mask)
    pictures.read_pictures(tmp_path / "i", tmp_path / "m", 32)
    assert "20 of the 24 areas" in capsys.readouterr().out
    pictures.read_pictures(tmp_path / "i", tmp_path / "m", 320)
    assert "!!!" not in capsys.readouterr().out


def test_a_picture_of_several_pages_is_an_error(tmp_path):
    flags = draw(tmp_path, 3)
    pages = [Image.fromarray(np.full((90, 120), 50 * number, np.uint8)) for number in range(4)]
    (tmp_path / "i" / "1.png").unlink()
    pages[0].save(tmp_path / "i" / "1.tif", save_all=True, append_images=pages[1:])
    assert re.search(r"i/1\.tif.* 4 pages", error_of(tmp_path, *flags))


def test_photos_are_turned_upright_and_the_script_says_so(tmp_path, capsys):
    turned = Image.Exif()
    turned[0x0112] = 6  # by a quarter
    photo = np.zeros((40, 40, 3), np.uint8)
    photo[:20] = 255
    for name in "ab":
        put(tmp_path / "i" / f"{name}.jpg", photo, exif=turned)
        put(tmp_path / "m" / f"{name}.png", np.rot90(photo, -1)[:, :, 0].copy())
    images, masks, _ = pictures.read_pictures(tmp_path / "i", tmp_path / "m", 32)
    assert torch.equal(images[0, 0] > 128, masks[0] == 1)
    assert "images are turned upright" in capsys.readouterr().out
    put(tmp_path / "i" / "a.jpg", np.zeros((40, 90, 3), np.uint8), exif=turned)
    put(tmp_path / "m" / "a.png", np.zeros((40, 90), np.uint8))
    with pytest.raises(ValueError, match=r"a\.jpg, seen upright, .*\(40, 90\).*a\.png has \(90, 40\)"):
        pictures.read_pictures(tmp_path / "i", tmp_path / "m", 32)


def test_more_than_8_bits_are_scaled(tmp_path):
    ct_slice = np.tile(np.linspace(0, 3000, 32).astype(np.uint16), (32, 1))
    images, _, _ = columns(tmp_path, lambda _, mask: mask, image=ct_slice)
    assert len(images[0].unique()) == 32 and [images.min(), images.max()] == [0, 255]


NAMES = {  # images, masks, the first image's mask or what the error names
    "the same": ("1.png 10.png 2.png", "1.gif 10.gif 2.gif", "1.gif"),
    "a tail": ("1.png 10.png 2.png", "10_mask.png 1_mask.png 2_mask.png", "1_mask.png"),
    "two tails": ("1_training.tif 2_training.tif", "1_manual1.gif 2_manual1.gif", "1_manual1.gif"),
    "one folder": ("a.tif a_mask.tif b.tif b_mask.tif", None, "a_mask.tif"),
    "no mask": ("1.png 2.png 3.png", "1.png 3.png", "error: .*2.png"),
    "two of one stem": ("1.jpg 1.png", "1.png", "error: .*i has no pictures, or two"),
    "one folder, no mask": ("1.png 10.png", None, "error: .*1.png"),
    "no pictures": ("1.txt", "1.png", "error: .*i has no pictures"),
    "no folder": ("1.png", "none", "error: .*m has no pictures"),
}  # fmt: skip


@pytest.mark.parametrize("kind", NAMES)
def test_pairs_by_names(tmp_path, kind, capsys):
    images, masks, result = NAMES[kind]
    for folder, names in (("i", images), ("m", masks)):
        (tmp_path / folder).mkdir() if names != "none" else None
        for name in (names or "").replace("none", "").split():
            (tmp_path / folder / name).touch()
    folders = tmp_path / "i", tmp_path / ("i" if masks is None else "m")
    if result.startswith("error"):
        with pytest.raises(ValueError, match=result.removeprefix("error: ")):
            pictures.find_pairs(*folders)
    else:
        pairs = pictures.find_pairs(*folders)
        assert len(pairs) == len(images.split()) / (2 if masks is None else 1)
        assert (pairs[0][0].name, pairs[0][1].name) == (images.split()[0], result)
        assert f"{pairs[0][0].name}, {pairs[0][1].name}" in capsys.readouterr().out


def test_what_does_not_fit_is_one_line(tmp_path, capsys):
    flags = draw(tmp_path, 3)
    put(tmp_path / "m" / "1.png", np.zeros((30, 90), np.uint8))
    assert re.search(r"i/1\.png.*\(120, 90\).*m/1\.png.*\(90, 30\)", error_of(tmp_path, *flags))
    put(tmp_path / "m" / "1.png", np.zeros((90, 120), np.uint8))
    (tmp_path / "i" / "2.png").write_bytes((tmp_path / "i" / "2.png").read_bytes()[:90])
    assert re.search("2.png: this cannot be read .*truncated", error_of(tmp_path, *flags))
    for name in ("1", "2"):
        (tmp_path / "i" / f"{name}.png").unlink()
    (tmp_path / "i" / "photo.xcf").touch()
    assert "at least two" in error_of(tmp_path, *flags)
    assert re.search("!!!.*skipped.*photo.xcf", capsys.readouterr().out)


@pytest.mark.parametrize("flags", ["--images a --predict b", "--images a", "--images a --masks b --size 100", ""])
def test_flags_that_do_not_go_together(tmp_path, capsys, flags):
    with pytest.raises(SystemExit) as stop:
        run(tmp_path / "out", *flags.split())
    message = capsys.readouterr().err.splitlines()[-1]
    assert stop.value.code == 2 and re.search("not allowed with|given together|multiple of 16|is required", message)


def test_weights_are_named_for_what_they_are(tmp_path, no_training):
    weights, photo = tmp_path / "pictures.pt", ["--predict", tmp_path / "a.png"]
    assert "no such file" in error_of(tmp_path, *photo)
    torch.save(UNet().state_dict(), weights)
    assert "another model" in error_of(tmp_path, *photo)
    run(tmp_path, *draw(tmp_path), "--epochs", 1)
    weights.write_bytes(weights.read_bytes()[:5000])
    assert "incomplete" in error_of(tmp_path, *photo)

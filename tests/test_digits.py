"""own_data/digits.py: digits in photos, and photos that cannot be used or trusted."""

import os
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from conftest import draw_digit
from PIL import Image

import cnn_mnist
from own_data import digits

NOISE = np.random.default_rng(0).integers(0, 256, (20, 20), np.uint8)
DIGIT = (60, 200, 80, 100)  # like a 1
FRAME = [(30, 36, 40, 150), (230, 236, 40, 150), (30, 236, 40, 46), (30, 236, 144, 150)]
BOX = [(0, 300, 370, 376), (290, 294, 0, 400), (0, 300, 0, 4)]  # printed, and cut off


@pytest.fixture(scope="module")
def trained(mnist_dir, tmp_path_factory):
    """A folder with a ConvNet that has learned the drawn digits, where cnn_mnist.py saves it."""
    folder = tmp_path_factory.mktemp("trained")
    flags = ["--data-dir", str(mnist_dir), "--epochs", "6", "--batch-size", "25", "--device", "cpu"]
    cnn_mnist.main([*flags, "--out-dir", str(folder / cnn_mnist.OUT_DIR)])
    return folder


@pytest.fixture
def here(trained, tmp_path, monkeypatch):
    """The current folder, with these weights."""
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def page(*bars, width=400) -> np.ndarray:
    """Draw dark bars, each (top, bottom, left, right), on light paper."""
    gray = np.full((300, width), 230, np.uint8)
    for top, bottom, left, right in bars:
        gray[top:bottom, left:right] = 20
    return gray


def write(gray: np.ndarray, file, **options) -> None:
    Image.fromarray(gray).save(file, **options)


def test_photos_of_a_folder_are_read(here, device, capsys):
    rng = np.random.default_rng(5)
    Path("照片").mkdir()
    Path("照片/notes.txt").write_text("not a photo")
    for number in range(20):
        ink = cv2.resize(draw_digit(number // 2, rng), (200, 200)) // 2
        write(np.pad(ink + 40 if number % 2 else 200 - ink, 60, mode="edge"), f"照片/{number:02}.png")
    results = digits.main(["照片", "--device", device])
    out = capsys.readouterr().out
    assert sum(digit == number // 2 for number, (_, digit, *_) in enumerate(results["predictions"])) >= 17
    for photo, digit, probability, _ in results["predictions"]:
        assert f"{photo}: {digit} ({probability:.1%})\n" in out
    assert results["files"]["predictions"].stat().st_size > 0


def test_photo_is_prepared_as_mnist_was():
    gray = page((40, 140, 60, 100), width=500)  # 100 high, 40 wide
    gray[200:206, 400:406] = 0  # a speck
    image, warnings = digits.prepare(gray)
    assert image.shape == (1, 28, 28) and image.dtype == torch.float32 and warnings == []
    left, top, wide, high = cv2.boundingRect(np.uint8(image[0] > 0.5))
    assert high in (19, 20, 21) and wide in (7, 8, 9)
    assert left + wide / 2 == pytest.approx(14, abs=1) and top + high / 2 == pytest.approx(14, abs=1)
    torch.testing.assert_close(digits.prepare(255 - gray)[0], image)  # light on dark


@pytest.mark.parametrize("width", [1, 2, 20])
def test_thin_stroke_becomes_as_thick_as_those_of_mnist(width):
    image, _ = digits.prepare(page((40, 240, 80, 80 + width), (40, 40 + width, 80, 180)))
    assert 2 <= image[0, 16].sum() <= 4


OTHERS = {
    "box": page(DIGIT, *BOX),
    "frame": page(DIGIT, *FRAME),
    "frame with a gap": page(DIGIT, *FRAME[1:], (30, 36, 40, 120)),
    "circle": cv2.ellipse(page(DIGIT), (90, 130), (80, 90), 0, 0, 360, 20, 6),
    "shadow": np.uint8(page(DIGIT) * np.linspace(1, 0.3, 400)),
}


@pytest.mark.parametrize("gray", OTHERS.values(), ids=OTHERS)
def test_only_the_digit_is_read(gray):
    image, warnings = digits.prepare(gray)
    assert warnings == []
    torch.testing.assert_close(image, digits.prepare(page(DIGIT))[0], atol=0.2, rtol=0)


def test_a_digit_may_come_in_pieces():
    """The upper bar of a 5 is often a stroke of its own."""
    assert digits.prepare(page((100, 104, 80, 160), (100, 200, 80, 84), (60, 90, 120, 160)))[1] == []


@pytest.mark.parametrize(
    ("words", "gray"),
    [
        ("too thick", page((60, 220, 90, 270))),
        ("smaller than a tenth", page((60, 85, 80, 84))),
        ("too many strokes", page((60, 200, 80, 90), (60, 200, 120, 130), (60, 200, 160, 170), (130, 140, 80, 170))),
        ("in pieces", page(DIGIT, (70, 190, 200, 220))),  # side by side
        ("in pieces", page((30, 120, 80, 95), (160, 260, 80, 95))),  # one above the other
        ("in pieces", page(DIGIT, (125, 133, 20, 66))),  # a minus sign
        ("a line under", page(DIGIT, (215, 223, 20, 200))),
        ("not plain paper", cv2.resize(NOISE, (300, 300))),
    ],
)
def test_what_can_hardly_be_one_digit_is_said(words, gray, here, capsys):
    write(gray, "photo.png")
    ((*_, warnings),) = digits.main(["photo.png", "--device", "cpu"])["predictions"]
    printed = [line for line in capsys.readouterr().out.splitlines() if line.startswith("!!!")]
    assert printed == [f"!!! {warning}" for warning in warnings] and words in " ".join(warnings)


def test_file_is_read_as_it_is_seen(tmp_path):
    """Turned upright (EXIF), on paper where it is transparent, both at once, in color, of 16 bits."""
    exif = Image.Exif()
    exif[0x0112] = 6  # Orientation: turn it to the right by 90 degrees to see it
    gray = page(DIGIT)
    lying = np.ascontiguousarray(np.rot90(gray))
    alpha = np.uint8(255 * (lying < 100))
    for stored, seen in [
        (np.dstack([lying, alpha]), np.where(gray < 100, 20, 255)),
        (np.dstack([np.full_like(lying, 240), alpha]), np.where(gray < 100, 240, 0)),  # light strokes
        (np.dstack([lying, lying, 255 - alpha, alpha]), np.where(gray < 100, 18, 255)),
        (lying.astype(np.uint16) * 9, (gray - 20.0) * 255 / 210),
    ]:
        write(stored, tmp_path / "photo", format="png", exif=exif)
        np.testing.assert_allclose(digits.flatten(digits.read_picture(tmp_path / "photo")), seen, atol=1)


def test_bad_photos_cost_a_line_each_and_the_others_are_read(here, capsys):
    write(np.random.default_rng(0).normal(150, 15, (300, 300)).astype(np.uint8), "a.png")
    (here / "b.png").write_bytes((here / "a.png").read_bytes()[:20_000])
    for name, format in (("good.jfif", "jpeg"), ("good.gif", "gif")):
        write(page(DIGIT), name, format=format)
    with pytest.raises(SystemExit) as stop:
        digits.main(["[a-b].png", "missing.png", "good.*", "--device", "cpu"])
    out, err = capsys.readouterr()
    assert stop.value.code == 1 and "good.jfif: " in out and "good.gif: " in out
    expected = ["a.png: no ink", "b.png: this cannot", "missing.png: this cannot"]
    for line, words in zip(err.splitlines(), expected, strict=True):
        assert line.startswith(f"error: {words}")


class Code:
    def __reduce__(self):
        return os.mkdir, ("executed",)


LENET, BROKEN = cnn_mnist.LeNet().state_dict(), cnn_mnist.ConvNet().state_dict()
BROKEN["fc.bias"][3] = torch.nan


@pytest.mark.parametrize(
    ("weights", "reason"),
    [
        (b"PK" + bytes(99), "incomplete"),
        (torch.zeros(3), "something other than weights"),
        (Code(), "something other"),
        (LENET, "weights of another network"),
        (BROKEN, "contain nan"),
    ],
)
def test_bad_weights_are_one_error_line_and_never_run(weights, reason, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if isinstance(weights, bytes):
        (tmp_path / "weights.pt").write_bytes(weights)
    else:
        torch.save(weights, "weights.pt")
    with pytest.raises(SystemExit, match=rf"^error: weights\.pt: .*{reason}"):
        digits.main(["photo.png", "--weights", "weights.pt"])
    assert not (tmp_path / "executed").exists()


def test_weights_are_those_of_mnist_or_else_of_the_digits(here, capsys):
    write(page(DIGIT), "1.png")
    digits.main(["1.png"])
    assert "!!!" not in capsys.readouterr().out.partition("1.png")[0]
    Path("outputs/cnn_mnist/convnet-mnist.pt").rename("outputs/cnn_mnist/convnet-digits.pt")
    assert digits.main(["1.png"])["files"]["predictions"].name == "convnet-digits-predictions.png"
    assert "convnet-mnist.pt is missing" in capsys.readouterr().out
    with pytest.raises(SystemExit, match=r"lenet-mnist\.pt: there is no such file"):
        digits.main(["1.png", "--model", "lenet"])

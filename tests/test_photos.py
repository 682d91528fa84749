"""cnn_mnist.py --predict: digits in photos, and photos that cannot be used or trusted."""

import os
import shutil
import sys

import cv2
import numpy as np
import pytest
import torch
from conftest import draw_digit
from PIL import Image

import cnn_mnist

DIGIT = (60, 200, 80, 100)  # like a 1
BOX = [(0, 300, 370, 376), (290, 294, 0, 400), (0, 300, 0, 4)]  # printed, and cut off
FRAME = [(0, 4, 0, 400), (296, 300, 0, 400), (0, 300, 0, 4), (0, 300, 396, 400)]


@pytest.fixture(scope="module")
def trained(mnist_dir, tmp_path_factory):
    """An --out-dir with a ConvNet that has learned the drawn digits."""
    out_dir = tmp_path_factory.mktemp("trained")
    flags = ["--data-dir", str(mnist_dir), "--epochs", "6", "--batch-size", "25", "--device", "cpu"]
    cnn_mnist.main([*flags, "--out-dir", str(out_dir)])
    return out_dir


def predict(out_dir, *photos, device="cpu") -> dict:
    flags = ["--out-dir", str(out_dir), "--device", device]
    return cnn_mnist.main([*flags, "--predict", *map(str, photos)])


def page(*bars, width=400) -> np.ndarray:
    """Dark bars, each (top, bottom, left, right), on light paper."""
    gray = np.full((300, width), 230, np.uint8)
    for top, bottom, left, right in bars:
        gray[top:bottom, left:right] = 20
    return gray


def table(gray: np.ndarray) -> np.ndarray:
    return np.pad(gray[40:-40, 40:-40], 40, constant_values=150)


def write(gray: np.ndarray, file) -> None:
    Image.fromarray(gray).save(file, "png")


def photograph(digit: int, rng: np.random.Generator) -> np.ndarray:
    """A photo of it: larger, off-center, either polarity, lit from one side, noisy."""
    ink = np.zeros((320, 400))
    top, left = rng.integers(0, 120), rng.integers(0, 200)
    ink[top : top + 200, left : left + 200] = cv2.resize(draw_digit(digit, rng), (200, 200)) / 255
    ink = ink if rng.random() < 0.5 else 1 - ink
    light = np.linspace(1, rng.uniform(0.5, 1), 400)
    return ((60 + 150 * ink) * light + rng.normal(0, 8, ink.shape)).clip(0, 255).astype(np.uint8)


def test_predict_reads_photos(trained, tmp_path, device, capsys, monkeypatch):
    monkeypatch.setattr(cnn_mnist.plt, "close", lambda figure: None)
    rng = np.random.default_rng(5)
    photos = [tmp_path / f"照片 {number}.png" for number in range(20)]
    grays = [photograph(number // 2, rng) for number in range(20)]
    for gray, photo in zip(grays, photos):
        write(gray, photo)
    results = predict(trained, *photos, device=device)
    predictions, lines = results["predictions"], capsys.readouterr().out.splitlines()
    assert sum(digit == number // 2 for number, (_, digit, *_) in enumerate(predictions)) >= 17
    for number, (photo, digit, probability, _) in enumerate(predictions, start=1):
        assert photo == photos[number - 1]
        assert f"{number} {photo}: {digit} ({probability:.1%})" in lines
    assert results["files"]["predictions"].stat().st_size > 0
    left, right = cnn_mnist.plt.gcf().axes[38:40]  # the last photo, and what is made of it
    assert left.get_title() == "photo 20"  # matplotlib's font may lack its name
    assert right.get_title().startswith(f"input: {predictions[-1][1]} (")
    np.testing.assert_array_equal(left.images[0].get_array(), grays[-1])
    assert left.images[0].get_clim() == (0, 255)
    image, _ = cnn_mnist.prepare_photo(grays[-1])
    np.testing.assert_array_equal(right.images[0].get_array(), image[0])
    model = cnn_mnist.ConvNet().eval()
    model.load_state_dict(torch.load(trained / "convnet-mnist.pt"))
    probability = model(image.unsqueeze(0)).softmax(dim=1).max().item()
    assert predictions[-1][2] == pytest.approx(probability, abs=1e-3)


def test_photo_is_prepared_as_mnist_was():
    gray = page((40, 140, 60, 100), width=500)  # 100 high, 40 wide
    gray[200:206, 400:406] = 0  # a speck
    image, reason = cnn_mnist.prepare_photo(gray)
    assert image.shape == (1, 28, 28) and image.dtype == torch.float32 and reason == ""
    assert image.min() == 0 and image.max() == pytest.approx(1)
    rows, columns = (image[0] > 0.5).nonzero(as_tuple=True)
    assert rows.max() - rows.min() + 1 in (19, 20, 21)
    assert columns.max() - columns.min() + 1 in (7, 8, 9)
    pixel, mass = torch.arange(28.0), image[0] / image.sum()
    assert (mass.sum(dim=1) @ pixel).item() == pytest.approx(14, abs=0.1)  # in the middle
    assert (mass.sum(dim=0) @ pixel).item() == pytest.approx(14, abs=0.1)
    torch.testing.assert_close(cnn_mnist.prepare_photo(255 - gray)[0], image)  # light on dark


@pytest.mark.parametrize("width", [1, 2, 20])
def test_thin_stroke_becomes_as_thick_as_those_of_mnist(width):
    image, _ = cnn_mnist.prepare_photo(page((40, 240, 80, 80 + width), (40, 40 + width, 80, 180)))
    assert 1.5 <= image[0, 16].sum() <= 3


@pytest.mark.parametrize(
    "gray",
    [page(DIGIT, *BOX), table(page(DIGIT)), page(DIGIT) * np.linspace(1, 0.3, 400)],
    ids=["box", "table", "shadow"],
)
def test_only_the_digit_is_read(gray):
    image, _ = cnn_mnist.prepare_photo(gray.astype(np.uint8))
    torch.testing.assert_close(image, cnn_mnist.prepare_photo(page(DIGIT))[0], atol=0.1, rtol=0)


def test_digit_may_reach_the_border_or_come_in_pieces():
    image, _ = cnn_mnist.prepare_photo(page((0, 140, 80, 100)))
    assert image.max() == pytest.approx(1)
    assert cnn_mnist.prepare_photo(page(DIGIT, (60, 90, 120, 160)))[1] == ""


@pytest.mark.parametrize("shape", [(28, 28), (1000, 1400), (9, 300)])
def test_photo_of_any_size(shape):
    gray = np.zeros(shape, np.uint8)
    gray[shape[0] // 4 : -(shape[0] // 4), shape[1] // 4 : shape[1] // 2] = 255
    image, _ = cnn_mnist.prepare_photo(gray)
    assert image.shape == (1, 28, 28) and image.max() == pytest.approx(1)


@pytest.mark.parametrize(
    ("words", "bars"),
    [
        ("too thick for strokes", [(60, 220, 90, 270)]),
        ("smaller than a tenth", [(60, 85, 80, 84)]),
        ("as long as the photo", [(150, 154, 0, 400)]),
        ("two pieces of like size", [(60, 200, 80, 100), (70, 190, 200, 220)]),  # side by side
        ("two pieces of like size", [(30, 120, 80, 95), (160, 260, 80, 95)]),  # one above the other
        ("all round the border", FRAME),
    ],
)
def test_what_can_hardly_be_one_digit_is_said(words, bars, trained, tmp_path, capsys):
    write(page(*bars), tmp_path / "1.png")
    (prediction,) = predict(trained, tmp_path / "1.png")["predictions"]
    (line,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("!!! 1"))
    assert words in line and prediction[3] in line


def test_file_is_read_as_it_is_seen(tmp_path):
    """Turned upright (EXIF), white where it is transparent, both at once, in color, of 16 bits."""
    exif = Image.Exif()
    exif[0x0112] = 6  # Orientation: turn it to the right by 90 degrees to see it
    gray = page(DIGIT)
    lying = np.ascontiguousarray(np.rot90(gray))
    alpha = np.uint8(255 * (lying < 100))
    paper = np.where(gray < 100, 20, 255)
    for stored, seen in [
        (lying, gray),
        (np.dstack([lying, alpha]), paper),
        (np.dstack([lying, lying, 255 - alpha, alpha]), np.where(gray < 100, 18, 255)),
        (lying.astype(np.uint16) * 9, (gray - 20.0) * 255 / 210),
    ]:
        Image.fromarray(stored).save(tmp_path / "photo", "png", exif=exif)
        read = cnn_mnist.read_photo(tmp_path / "photo")
        assert read.dtype == np.uint8
        np.testing.assert_allclose(read, seen, atol=1)


def noise(path):
    write(np.random.default_rng(0).normal(150, 15, (300, 300)).astype(np.uint8), path)


def half(path):
    noise(path)
    path.write_bytes(path.read_bytes()[:20_000])


BAD = [
    (lambda path: None, "cannot be read: No such file"),
    (lambda path: path.mkdir(), "cannot be read"),
    (lambda path: path.write_bytes(b""), "cannot be read"),
    (half, "cannot be read"),
    (lambda path: write(np.full((200, 200), 200, np.uint8), path), "no ink"),
    (noise, "no ink"),
]


def test_bad_photos_cost_a_line_each_and_the_others_are_read(trained, tmp_path, capsys):
    photos = [tmp_path / f"{number}.png" for number in range(len(BAD))]
    for (make, _), photo in zip(BAD, photos):
        make(photo)
    write(page(DIGIT), tmp_path / "good.png")
    with pytest.raises(SystemExit) as stop:
        predict(trained, *photos, tmp_path / "good.png")
    out, err = capsys.readouterr()
    assert stop.value.code == 1 and f"{len(photos) + 1} {tmp_path / 'good.png'}: " in out
    for line, photo, (_, words) in zip(err.splitlines(), photos, BAD, strict=True):
        assert line.startswith("error: ") and str(photo) in line and words in line
    with pytest.raises(SystemExit) as stop:
        predict(trained, *photos)
    assert stop.value.code == 1


@pytest.mark.skipif(sys.platform != "linux", reason="a pipe has a path only there")
def test_photo_from_a_pipe(trained):
    """As `--predict <(convert photo.heic png:-)` gives it: it can be read only once."""
    reader, writer = os.pipe()
    os.write(writer, cv2.imencode(".png", page(DIGIT))[1].tobytes())
    os.close(writer)
    assert len(predict(trained, f"/dev/fd/{reader}")["predictions"]) == 1


class Code:
    def __reduce__(self):
        return os.mkdir, ("executed",)


@pytest.mark.parametrize("weights", [None, torch.zeros(3), cnn_mnist.LeNet().state_dict(), Code()])
def test_bad_weights_are_one_error_line_and_never_run(weights, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if weights is not None:
        torch.save(weights, "weights.pt")
    with pytest.raises(SystemExit, match=r"^error: weights\.pt cannot be loaded: .+$"):
        cnn_mnist.main(["--predict", "photo.png", "--weights", "weights.pt"])
    assert not (tmp_path / "executed").exists()


def test_weights_are_those_of_mnist_or_else_of_the_digits(trained, tmp_path, capsys):
    write(page(DIGIT), tmp_path / "1.png")
    mnist, digits = tmp_path / "convnet-mnist.pt", tmp_path / "convnet-digits.pt"
    with pytest.raises(SystemExit, match=r"^error: .*convnet-digits\.pt cannot"):
        predict(tmp_path, tmp_path / "1.png")
    for weights, warned in ((digits, True), (mnist, False)):
        shutil.copy(trained / "convnet-mnist.pt", weights)
        os.utime(weights, (1000, 1000 * warned))  # the later one is the older
        predict(tmp_path, tmp_path / "1.png")
        out = capsys.readouterr().out
        assert f"with the weights {weights}" in out and warned == (f"!!! No {mnist}" in out)

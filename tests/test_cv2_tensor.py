import contextlib
import io
import os
import re
import sys
import tempfile

import cv2
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image

import cv2_tensor

# The value of 0 in the channel with the largest mean / std, and of 255 in the channel with the smallest.
IMAGENET = (-0.485 / 0.229, (1 - 0.406) / 0.225)


def ask(*flags):
    """Return what main returns, and what each section prints as found["printed"][section]."""
    console = io.TextIOWrapper(io.BytesIO(), encoding="cp1252")  # a console without Chinese
    with contextlib.redirect_stdout(console):
        found = cv2_tensor.main([*map(str, flags)])
    console.seek(0)
    start, *rest = re.split(r"(?m)^=+ .*\((\w+)\)$", console.read())
    return found | {"printed": {"start": start, **dict(zip(rest[::2], rest[1::2]))}}


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    return ask("--out-dir", tmp_path_factory.mktemp("default") / "out")


@pytest.fixture
def no_sheet(monkeypatch):
    """Do not draw the contact sheet, which takes half of the time."""
    monkeypatch.setattr(Figure, "savefig", lambda figure, file: file.touch())


@pytest.fixture(scope="module")
def table(found):
    """Return for each kind of input the dtype, minimum and maximum from ToTensor, and from v2."""
    output = r"((?:u?int|float)\d+) +(\S+)(?: \.\.)? +(\S+)"
    lines = re.findall(r"(?m)^(\S+)(?<!>) +(.*)", found["printed"]["to_tensor"])
    return {kind: re.findall(output, outputs) for kind, outputs in lines}


def is_image(value, shape, dtype, low, high):
    array = np.asarray(value)
    same = (array.shape, str(value.dtype)) == (shape, dtype)
    return same and (array.min(), array.max()) == pytest.approx((low, high))


def test_C1_C2_grayscale_imread_and_to_tensor(found):
    gray = found["grayscale"]
    assert is_image(gray["image"], (512, 512), "uint8", 0, 255)
    assert is_image(gray["image_tensor"], (1, 512, 512), "torch.float32", 0, 1)
    assert gray["color"].shape == (512, 512, 3)  # the default flag, of a gray file


def test_C3_E18_resize_reshape_float_tensor_does_not_scale(found):
    steps = found["brute_force"]
    low, high = steps["image"].min(), steps["image"].max()
    assert 200 < high <= 255
    assert is_image(steps["image_new"], (1, 160, 160), "uint8", low, high)
    assert is_image(steps["image_tensor"], (1, 160, 160), "torch.float32", low, high)
    assert ".float(), image_tensor))\nTrue\n" in found["printed"]["brute_force"]


def test_C4_resize_takes_width_then_height(found):
    assert found["width_first"]["resized"].shape == (120, 160, 3)
    assert found["width_first"]["wrong"].shape == (160, 120, 3)


def test_C6_normalize_is_minus_mean_over_std(found):
    printed = found["printed"]["normalize"]
    assert is_image(found["normalize"]["normalized"], (1, 512, 512), "torch.float32", -2, 2)
    assert "(image - 0.5) / 0.25))\nTrue\n" in printed
    assert re.search(r"\nRuntimeError: .*\[1, 512, 512\].*\[3, 512, 512\]", printed)
    assert is_image(found["back_to_a_file"]["tensor"], (3, 240, 320), "torch.float32", *IMAGENET)


def test_C7_imread_gives_blue_green_red_or_none_but_half_a_jpeg_is_full_size(found):
    image, rgb, half = (found["blue_green_red"][name] for name in ("image", "rgb", "half"))
    assert type(image) is np.ndarray and image[90, 80].tolist() == [0, 0, 255]
    assert rgb[90, 80].tolist() == [255, 0, 0]
    ends = re.findall(r"(?m)^(?:\.\w+ )?None$|^\.jpg .*", found["printed"]["blue_green_red"])
    assert ends == ["None", ".png None", ".tif None", ".jpg (240, 320, 3)"]
    assert abs(image.astype(int) - half)[:60].mean() < 3 and half[200:].std() == 0


def test_bits_of_a_slice_flag_0_and_min_max(found):
    image, sixteen, scaled = (found["bits"][name] for name in ("image", "sixteen", "scaled"))
    assert is_image(sixteen, (512, 512), "int16", -1000, 1000)
    assert len(np.unique(image)) < 10 and len(np.unique(scaled)) > 100
    air, bone = sixteen.argmin(), sixteen.argmax()
    assert image.flat[air] > 200 and image.flat[bone] < 10  # wrong
    assert (scaled.flat[air], scaled.flat[bone]) == (0, 255)


@pytest.mark.parametrize(("dtype", "shape"), [("uint16", (27, 37)), ("uint8", (1, 1))])
def test_image_of_16_bits_is_told_and_shown(dtype, shape, tmp_path, no_sheet):
    values = np.linspace(0, np.iinfo(dtype).max / 5, np.prod(shape)).reshape(shape).astype(dtype)
    cv2.imwrite(str(tmp_path / "mine.tif"), values)
    found = ask(tmp_path / "mine.tif", "--out-dir", tmp_path)
    assert ("!!!" in found["printed"]["start"]) == (dtype == "uint16")
    if dtype == "uint16":
        np.testing.assert_array_equal(found["bits"]["sixteen"], values)
        assert len(np.unique(found["bits"]["scaled"])) == 256


def test_E20_today_agrees_on_uint8_and_differs_on_uint16_and_float64(found, table):
    (difference,) = re.findall(r"(?m)^tensor\((.*)\)$", found["printed"]["to_tensor"])
    assert float(difference) <= 6e-8
    assert table["uint16"][1] == table["I;16"][1] == ("float32", "0", "1")
    assert table["float64"] == [("float64", "0", "255"), ("float32", "0", "255")]


def test_C5_E21_to_tensor_scales_nothing_but_uint8(table):
    assert table["uint8"] == table["L"] == [("float32", "0", "1")] * 2
    assert table["uint16"][0] == ("uint16", "0", "65535")
    assert table["float32"] == table["F"] == [("float32", "0", "255")] * 2
    assert table["I"][0] == ("int32", "0", "65535")
    assert table["I;16"][0] == ("int16", "-32640", "32639")


def test_E22_bgr_with_the_rgb_mean_and_std(found):
    bgr, rgb = "[-2.1179, -2.0357,  2.6400]", "[ 2.2489, -2.0357, -1.8044]"
    assert f"\ntensor({bgr})\ntensor({rgb})\n" in found["printed"]["blue_green_red"]


def ascii_only(function, failed):
    return lambda file, *rest: function(file, *rest) if file.isascii() else failed


def test_C4_any_size_any_path_and_exactly_back(found, tmp_path, monkeypatch, no_sheet):
    """As on Windows, where OpenCV opens no path with Chinese characters in it."""
    assert found["back_to_a_file"]["same"] is True
    folder = tmp_path / "我的 图片"
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "照 片.png")
    monkeypatch.setattr(cv2, "imread", ascii_only(cv2.imread, None))
    monkeypatch.setattr(cv2, "imwrite", ascii_only(cv2.imwrite, False))
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    mkdtemp = tempfile.mkdtemp  # since Python 3.12 it returns the whole path
    monkeypatch.setattr(tempfile, "mkdtemp", lambda *given: os.path.abspath(mkdtemp(*given)))
    monkeypatch.chdir(folder)
    results = ask("照 片.png", "--size", 32, 16, "--out-dir", "../输出")
    assert results["width_first"]["resized"].shape == (16, 32, 3)
    assert results["blue_green_red"]["half"].shape == (60, 90, 3)
    np.testing.assert_array_equal(Image.open(results["files"]["from-a-tensor.png"]), pixels)
    assert sorted(os.listdir("../输出")) == ["cv2-tensor-steps.png", "from-a-tensor.png"]
    assert list(folder.iterdir()) == [folder / "照 片.png"]  # nothing else is left there


def test_contact_sheet_marks_the_wrong_step_and_squashes_nothing(found, tmp_path, monkeypatch):
    with Image.open(found["files"]["cv2-tensor-steps.png"]) as sheet:
        assert min(sheet.size) >= 800
    drawn = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, file: drawn.append(figure))
    narrow = torch.linspace(0, 7, 30).view(1, 10, 3)  # Three columns are not three channels.
    variables = {"wide": np.zeros((500, 800), np.uint8), "wrong": narrow, "number": 3}
    cv2_tensor.draw_contact_sheet({"section": variables}, tmp_path / "sheet.png")
    wide, wrong = drawn[0].axes
    assert "wide" in wide.get_title() and "black 0, white 7" in wrong.get_xlabel()
    assert wrong.title.get_color() == "red" != wide.title.get_color()
    shapes = [ax.images[0].get_array().shape for ax in (wide, wrong)]
    assert shapes[0][1] / shapes[0][0] == pytest.approx(800 / 500, rel=0.02)
    assert shapes[1][:2] == (10, 3)


def test_under_a_debugger_it_runs_to_the_end(tmp_path):
    trace = sys.gettrace()
    sys.settrace(lambda *_: None)
    try:
        files = ask("--out-dir", tmp_path)["files"]
    finally:
        sys.settrace(trace)
    assert all(file.stat().st_size for file in files.values())


def test_image_that_cannot_be_used_is_one_line(tmp_path, capsys):
    cv2.imwrite(str(tmp_path / "float.tif"), np.ones((9, 9), np.float32))
    (tmp_path / "empty.png").touch()
    for name, reason in (("none.png", "No such file"), ("float.tif", "float32"), ("empty.png", "not a picture")):
        with pytest.raises(SystemExit) as stop:
            cv2_tensor.main([str(tmp_path / name), "--out-dir", str(tmp_path / "out")])
        assert re.match(f"error: .*{reason}", stop.value.code) and name in stop.value.code
        assert capsys.readouterr().out == "" and "\n" not in stop.value.code


@pytest.mark.parametrize("flags", ["--size 5 5000", "--size 0 5", "--size 5 x", f"--seed {2**64}"])
def test_numbers_that_are_refused(flags, tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        cv2_tensor.main([*flags.split(), "--out-dir", str(tmp_path / "out")])
    assert "must be a whole number" in capsys.readouterr().err

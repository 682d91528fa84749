import contextlib
import io
import os
import sys
from pathlib import Path

import cv2
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from PIL import Image

import cv2_tensor


@pytest.fixture(scope="module")
def default(tmp_path_factory):
    """What the script finds when it is run with no picture, on a console without Chinese."""
    console = io.TextIOWrapper(io.BytesIO(), encoding="cp1252")
    with contextlib.redirect_stdout(console):
        results = cv2_tensor.main(["--out-dir", str(tmp_path_factory.mktemp("default") / "out")])
    console.seek(0)
    return results | {"printed": console.read()}


@pytest.fixture
def photo(tmp_path):
    """A color picture that is not square, in a path with Chinese characters and a space."""
    folder = tmp_path / "我的 图片"
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "照 片.png")
    return folder / "照 片.png", pixels


def step(results, name):
    found = results["steps"][name]
    return tuple(found["shape"]), found["dtype"], found["min"], found["max"]


def test_C1_C2_grayscale_imread_and_to_tensor(default):
    assert step(default, "imread(image_name, 0)")[:2] == ((512, 512), "uint8")
    assert default["files"]["gray"].suffix == ".tif"
    # The default flag reads three channels, even of this gray file.
    assert step(default, "imread with 1, the default")[0] == (512, 512, 3)
    assert cv2.imread(str(default["files"]["gray"])).shape == (512, 512, 3)
    assert step(default, "ToTensor") == ((1, 512, 512), "torch.float32", 0, 1)


def test_C3_resize_reshape_float_tensor_does_not_scale(default):
    low, high = step(default, "resize")[2:]
    assert step(default, "resize")[:2] == ((160, 160), "uint8")
    assert step(default, "reshape") == ((1, 160, 160), "uint8", low, high)
    assert step(default, "FloatTensor") == ((1, 160, 160), "torch.float32", low, high)
    assert 200 < high <= 255


def test_C4_resize_takes_width_then_height(default, capsys):
    assert step(default, "resize(image, (160, 120))")[0] == (120, 160, 3)
    assert step(default, "wrong: resize(image, (120, 160))")[0] == (160, 120, 3)
    assert "distorted" in default["printed"]
    # On a square picture there is no wrong order, so none is shown.
    square = {}
    cv2_tensor.width_first(np.zeros((100, 100, 3), np.uint8), square)
    assert list(square) == ["resize(image, (50, 50))"]
    assert "distorted" not in capsys.readouterr().out


def test_C5_to_tensor_scales_8_bit_arrays_and_pil_images(default):
    for name in ("uint8 array", "PIL L"):
        old, _ = default["scaling"][name]
        assert old == {"shape": (1, 512, 512), "dtype": "torch.float32", "min": 0, "max": 1}
    # Three channels go first, too: (H, W, C) to [C, H, W].
    assert step(default, "Normalize: RGB")[0] == (3, 240, 320)
    # 16 bits need IMREAD_UNCHANGED.
    assert step(default, "imread(file, 0)") == ((512, 512), "uint8", 0, 255)
    assert step(default, "imread(file, IMREAD_UNCHANGED)") == ((512, 512), "uint16", 0, 65535)


def test_C6_normalize_is_minus_mean_over_std(default):
    assert default["by_hand"] is True
    assert step(default, "Normalize([0.5], [0.25])")[2:] == (-2, 2)  # (0 - 0.5) / 0.25 and of 1
    high = max((1 - m) / s for m, s in zip(cv2_tensor.MEAN, cv2_tensor.STD))
    assert step(default, "Normalize: RGB")[3] == pytest.approx(high)
    assert "mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225]" in default["printed"]


def test_C6_three_means_on_one_channel(default, monkeypatch):
    assert "[1, 512, 512]" in default["channel_error"]
    assert "[3, 512, 512]" in default["channel_error"]
    assert step(default, "expand to 3 channels, Normalize")[0] == (3, 512, 512)
    assert default["v2_shape"] == (3, 512, 512)
    # Another release of v2 might be as strict as v1 is.
    monkeypatch.setattr(cv2_tensor.v2, "Normalize", cv2_tensor.Normalize)
    found = cv2_tensor.normalize(np.zeros((5, 5), np.uint8), {})
    assert "[1, 5, 5]" in found["v2_shape"]


def test_C7_imread_gives_an_array_of_blue_green_red(default):
    assert default["type"] is np.ndarray
    assert step(default, "imread(img, 1): BGR")[:2] == ((240, 320, 3), "uint8")
    assert cv2.imread(str(default["files"]["color"]), 1)[90, 80].tolist() == [0, 0, 255]
    assert Image.open(default["files"]["color"]).getpixel((80, 90)) == (255, 0, 0)


def test_C7_what_cannot_be_read_is_none_but_half_a_jpeg_is_full_size(default, tmp_path):
    lines = [line.split() for line in default["printed"].splitlines() if line.endswith(" None")]
    assert lines == [["missing.png", "None"], ["half.png", "None"], ["half.tif", "None"]]
    assert step(default, "half.jpg")[0] == (240, 320, 3)
    whole = cv2.imencode(".jpg", cv2.imread(str(default["files"]["color"]), 1))[1]
    whole[: len(whole) // 2].tofile(tmp_path / "half.jpg")
    same = cv2.imread(str(tmp_path / "half.jpg"), 1) == cv2.imdecode(whole, 1)
    assert same[:60].all() and not same[200:].all(axis=(1, 2)).any()


def test_E18_E20_today_agrees_on_uint8_and_differs_on_uint16_and_float64(default):
    assert default["from_numpy_equals_float_tensor"] is True
    assert default["v2_difference"] <= 6e-8
    scaling = default["scaling"]
    assert {new["dtype"] for _, new in scaling.values()} == {"torch.float32"}
    assert scaling["uint16 array"][1]["max"] == scaling["PIL I;16"][1]["max"] == 1
    assert scaling["float64 array"][0]["dtype"] == "torch.float64"
    assert scaling["float64 array"][1]["max"] == 255


def test_E21_to_tensor_scales_nothing_but_uint8(default):
    found = {name: (old["dtype"], old["max"]) for name, (old, _) in default["scaling"].items()}
    assert found["uint16 array"] == ("torch.uint16", 65535)
    assert found["float32 array"] == found["PIL F"] == ("torch.float32", 255)
    assert found["PIL I"] == ("torch.int32", 65535)
    assert default["scaling"]["PIL I;16"][0]["min"] < 0


def test_E22_bgr_with_the_rgb_mean_and_std(default):
    assert default["red_pixel"]["BGR"] == pytest.approx([-2.12, -2.04, 2.64], abs=0.005)
    assert default["red_pixel"]["RGB"] == pytest.approx([2.25, -2.04, -1.80], abs=0.005)


def test_C4_any_size_any_path_and_exactly_back(default, photo, tmp_path, monkeypatch):
    assert default["round_trip"] is True
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))  # Windows
    flags = ["--size", "32", "16", "--out-dir", "~/输出"]
    results = cv2_tensor.main(["~/我的 图片/照 片.png", *flags])
    assert step(results, "FloatTensor")[0] == (1, 16, 32)
    np.testing.assert_array_equal(Image.open(results["files"]["back"]), photo[1])
    assert set((tmp_path / "输出").iterdir()) == set(results["files"].values())
    # A file system may hold ASCII names only.
    assert all(file.name.isascii() for file in default["files"].values())


def test_reads_a_path_that_imread_cannot_open(photo, monkeypatch):
    """As on Windows, where it cannot open one with Chinese characters."""
    monkeypatch.setattr(cv2, "imread", lambda *_: None)
    steps = {}
    cv2_tensor.grayscale(photo[0], steps)
    gray = cv2.cvtColor(photo[1], cv2.COLOR_RGB2GRAY).astype(int)
    assert abs(gray - steps["imread(image_name, 0)"]).max() <= 1  # libpng rounds another way


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such a name")
def test_a_picture_of_one_pixel_in_a_path_that_is_not_utf_8(tmp_path):
    """Where file names are ASCII, every Chinese path is such a one; cv2.imread crashes on it."""
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xe7"))
    folder.mkdir()
    Image.new("L", (1, 1)).save(folder / "pixel.png")
    results = cv2_tensor.main([str(folder / "pixel.png"), "--out-dir", str(folder)])
    assert step(results, "ToTensor") == ((1, 1, 1), "torch.float32", 0, 0)


def test_runs_pasted_into_a_notebook():
    cell = {"__name__": "cell", "__doc__": cv2_tensor.__doc__}
    exec(Path(cv2_tensor.__file__).read_text(encoding="utf-8"), cell)
    with pytest.raises(SystemExit):
        cell["main"](["--help"])


def test_contact_sheet_marks_the_wrong_step_and_squashes_nothing(default, tmp_path, monkeypatch):
    assert min(plt.imread(default["files"]["sheet"]).shape[:2]) >= 800
    monkeypatch.setattr(plt, "close", lambda figure: None)
    narrow = torch.linspace(0, 7, 30).view(1, 10, 3)  # three columns are not three channels
    steps = {"wide": np.zeros((500, 800), np.uint8), "wrong: narrow": narrow}
    cv2_tensor.draw_contact_sheet({"part": steps}, tmp_path / "sheet.png")
    wide, wrong = plt.gcf().axes
    assert "wide" in wide.get_title() and "black 0, white 7" in wrong.get_xlabel()
    assert wrong.title.get_color() == "red" != wide.title.get_color()
    shapes = [ax.images[0].get_array().shape for ax in (wide, wrong)]
    assert shapes[0][1] / shapes[0][0] == pytest.approx(800 / 500, rel=0.02)
    assert shapes[1][:2] == (10, 3)


def test_same_seed_same_pictures(default, tmp_path):
    gray, _ = cv2_tensor.draw_pictures(tmp_path, seed=0)
    assert gray.read_bytes() == default["files"]["gray"].read_bytes()
    cv2_tensor.draw_pictures(tmp_path, seed=1)
    assert gray.read_bytes() != default["files"]["gray"].read_bytes()


@pytest.mark.parametrize("kind", ["missing", "empty", "half", "folder", "pipe"])
def test_image_that_cannot_be_read_is_one_line(tmp_path, photo, kind, capsys):
    image = tmp_path / "bad.png"
    if kind == "folder":
        image.mkdir()
    elif kind == "pipe" and sys.platform == "linux":
        reader, writer = os.pipe()
        os.close(writer)  # or reading would wait for what is still to come
        image = Path(f"/dev/fd/{reader}")
    elif kind != "missing":
        image.write_bytes(photo[0].read_bytes()[: 3000 if kind == "half" else 0])
    with pytest.raises(SystemExit) as stop:
        cv2_tensor.main([str(image), "--out-dir", str(tmp_path / "out")])
    assert stop.value.code.startswith("error: ") and str(image) in stop.value.code
    assert len(stop.value.code.splitlines()) == 1 and "None" not in stop.value.code
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("size", [["0", "5"], ["5"], ["5", "5000"]])
def test_sizes_that_are_refused(tmp_path, capsys, size):
    with pytest.raises(SystemExit, match="2"):
        cv2_tensor.main(["--size", *size, "--out-dir", str(tmp_path / "out")])
    assert "error: argument --size: " in capsys.readouterr().err.splitlines()[-1]

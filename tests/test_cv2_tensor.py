import cv2
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import Normalize

import cv2_tensor


@pytest.fixture(scope="module")
def default(tmp_path_factory):
    """What the script finds when it is run with no picture."""
    return cv2_tensor.main(["--out-dir", str(tmp_path_factory.mktemp("default") / "out")])


@pytest.fixture
def photo(tmp_path):
    """A color picture that is not square, in a path with Chinese characters and a space."""
    folder = tmp_path / "我的 图片"
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8)
    Image.fromarray(pixels[..., ::-1]).save(folder / "照 片.png")
    return folder / "照 片.png", pixels


def step(results, name):
    found = results["steps"][name]
    return tuple(found["shape"]), found["dtype"], found["min"], found["max"]


def test_C1_grayscale_imread_gives_height_and_width(default):
    assert step(default, "imread(file, 0)")[:2] == ((512, 512), "uint8")
    assert default["default_flag_shape"] == (512, 512, 3)
    assert default["files"]["gray"].suffix == ".tif"
    assert cv2.imread(str(default["files"]["gray"]), 0).shape == (512, 512)
    assert Image.open(default["files"]["gray"]).mode == "L"


def test_C2_to_tensor_adds_the_channel_and_scales(default):
    assert step(default, "ToTensor") == ((1, 512, 512), "torch.float32", 0, 1)


def test_C3_resize_reshape_float_tensor_does_not_scale(default):
    low, high = step(default, "resize")[2:]
    assert step(default, "resize")[:2] == ((160, 160), "uint8")
    assert step(default, "reshape") == ((1, 160, 160), "uint8", low, high)
    assert step(default, "FloatTensor") == ((1, 160, 160), "torch.float32", low, high)
    assert 200 < high <= 255


def test_C4_resize_takes_width_then_height(default, photo, tmp_path):
    assert step(default, "(width/2, height/2)")[0] == (120, 160, 3)
    assert step(default, "(height/2, width/2)")[0] == (160, 120, 3)
    arguments = [str(photo[0]), "--size", "32", "16", "--out-dir", str(tmp_path / "out")]
    results = cv2_tensor.main(arguments)
    assert step(results, "resize")[0] == (16, 32)
    assert step(results, "FloatTensor")[0] == (1, 16, 32)


def test_C5_to_tensor_scales_8_bit_arrays_and_pil_images(default):
    for name in ("uint8 array", "PIL L"):
        found = default["scaling"][name]["ToTensor"]
        assert found == {"shape": (1, 512, 512), "dtype": "torch.float32", "min": 0, "max": 1}
    # Three channels go first, too: (H, W, C) to [C, H, W].
    assert step(default, "Normalize, RGB")[0] == (3, 240, 320)


def test_C5_sixteen_bits_need_imread_unchanged(default):
    assert step(default, "16 bits, imread 0") == ((512, 512), "uint8", 0, 255)
    assert step(default, "IMREAD_UNCHANGED") == ((512, 512), "uint16", 0, 65535)


def test_C6_normalize_is_minus_mean_over_std(default):
    assert default["by_hand"] is True
    assert step(default, "Normalize, 1 channel")[2:] == (-2, 2)  # (0 - 0.5) / 0.25 and of 1
    high = max((1 - m) / s for m, s in zip(cv2_tensor.MEAN, cv2_tensor.STD, strict=True))
    assert step(default, "Normalize, RGB")[3] == pytest.approx(high)


def test_C6_three_means_on_one_channel_and_the_ways_out(default):
    assert "[1, 512, 512]" in default["channel_error"]
    assert "[3, 512, 512]" in default["channel_error"]
    assert step(default, "Normalize, 1 channel")[0] == (1, 512, 512)
    assert step(default, "expand, Normalize")[0] == (3, 512, 512)
    assert default["v2_normalize_shape"] == (3, 512, 512)


def test_C7_imread_gives_an_array_of_blue_green_red(default):
    assert default["type"] is np.ndarray
    assert step(default, "imread(file, 1): BGR")[:2] == ((240, 320, 3), "uint8")
    red_disc = cv2.imread(str(default["files"]["color"]), 1)[90, 80]
    assert red_disc.tolist() == [0, 0, 255]
    assert Image.open(default["files"]["color"]).getpixel((80, 90)) == (255, 0, 0)


def test_C7_what_cannot_be_read_is_none_but_half_a_jpeg_is_full_size(default, tmp_path):
    unreadable = {
        "missing.png": None,
        "half.png": None,
        "half.tif": None,
        "half.jpg": (240, 320, 3),
    }
    assert default["unreadable"] == unreadable
    whole = cv2.imencode(".jpg", cv2.imread(str(default["files"]["color"]), 1))[1]
    whole[: len(whole) // 2].tofile(tmp_path / "half.jpg")
    same = cv2.imread(str(tmp_path / "half.jpg"), 1) == cv2.imdecode(whole, 1)
    assert same[:80].all() and not same[200:].all(axis=(1, 2)).any()


def test_E18_float_tensor_is_a_legacy_constructor(default):
    assert default["from_numpy_equals_float_tensor"] is True
    assert torch.FloatTensor(3).shape == torch.Tensor(3).shape == (3,)
    assert torch.tensor(3.0).shape == ()


def test_E20_v2_agrees_on_uint8_and_differs_on_uint16_and_float64(default):
    assert default["v2_difference"] <= 6e-8
    dtypes = {name: found["v2"]["dtype"] for name, found in default["scaling"].items()}
    assert set(dtypes.values()) == {"torch.float32"}
    assert default["scaling"]["uint16 array"]["v2"]["max"] == 1
    assert default["scaling"]["float64 array"]["ToTensor"]["dtype"] == "torch.float64"
    assert default["scaling"]["float64 array"]["v2"]["max"] == 255


def test_E21_to_tensor_scales_nothing_but_uint8(default):
    found = {name: entry["ToTensor"] for name, entry in default["scaling"].items()}
    assert (found["uint16 array"]["dtype"], found["uint16 array"]["max"]) == ("torch.uint16", 65535)
    assert (found["float32 array"]["dtype"], found["float32 array"]["max"]) == (
        "torch.float32",
        255,
    )
    assert (found["PIL I"]["dtype"], found["PIL I"]["max"]) == ("torch.int32", 65535)
    assert (found["PIL F"]["dtype"], found["PIL F"]["max"]) == ("torch.float32", 255)
    assert found["PIL I;16"]["dtype"] == "torch.int16" and found["PIL I;16"]["min"] < 0


def test_E22_bgr_with_the_rgb_mean_and_std(default):
    assert default["red_pixel"]["BGR"] == pytest.approx([-2.12, -2.04, 2.64], abs=0.005)
    assert default["red_pixel"]["RGB"] == pytest.approx([2.25, -2.04, -1.80], abs=0.005)


def test_E22_normalize_takes_the_standard_deviation_not_the_variance():
    image = torch.rand(1, 50, 50)
    normalized = Normalize([image.mean().item()], [image.std().item()])(image)
    assert normalized.std().item() == pytest.approx(1, abs=1e-4)
    by_variance = Normalize([image.mean().item()], [image.var().item()])(image)
    assert by_variance.std().item() > 3


def test_the_way_back_is_exact(default, photo, tmp_path):
    assert default["round_trip"] is True
    assert 0 < default["cut_off"] < 0.1
    results = cv2_tensor.main([str(photo[0]), "--out-dir", str(tmp_path / "输出 文件夹")])
    assert results["round_trip"] is True
    written = np.asarray(Image.open(results["files"]["back"]))[..., ::-1]
    np.testing.assert_array_equal(written, photo[1])
    assert {file.name for file in (tmp_path / "输出 文件夹").iterdir()} == {
        "cv2-tensor-steps.png",
        "图片 from a tensor.png",
    }


def test_reads_any_path_where_imread_cannot_open_it(photo, monkeypatch):
    for flag in (0, 1, cv2.IMREAD_UNCHANGED):
        expected = cv2.imread(str(photo[0]), flag)
        np.testing.assert_array_equal(cv2_tensor.read_image(photo[0], flag), expected)
        with monkeypatch.context() as windows:
            windows.setattr(cv2, "imread", lambda *_: None)
            np.testing.assert_array_equal(cv2_tensor.read_image(photo[0], flag), expected)


def test_contact_sheet_shows_every_step_with_its_facts(default, tmp_path, monkeypatch):
    height, width = plt.imread(default["files"]["sheet"]).shape[:2]
    assert width >= 800 and height >= 800
    assert len(default["steps"]) == 16  # as many as there are places
    figures = []
    monkeypatch.setattr(plt, "close", figures.append)
    bgr = cv2.imread(str(default["files"]["color"]), 1)
    narrow = torch.linspace(0, 7, 30).view(1, 10, 3)  # three columns are not three channels
    wide = np.zeros((500, 800), np.uint8)
    steps = {"blue": bgr, "red": bgr[..., ::-1], "wide": wide, "narrow": narrow}
    cv2_tensor.draw_contact_sheet(steps, tmp_path / "s")
    monkeypatch.undo()
    blue, red, middle, last = figures[0].axes
    height, width = middle.images[0].get_array().shape[:2]
    assert width / height == pytest.approx(800 / 500, rel=0.02)  # fewer pixels, not squashed
    assert blue.images[0].get_array()[90, 80].tolist() == [0, 0, 1]
    assert red.images[0].get_array()[90, 80].tolist() == [1, 0, 0]
    assert (blue.get_title(), last.get_title()) == ("blue", "narrow")
    assert blue.get_xlabel() == "(240, 320, 3)\nuint8 0 .. 255"
    assert last.get_xlabel() == "(1, 10, 3)\ntorch.float32 0 .. 7"
    assert last.images[0].get_array().shape[:2] == (10, 3)
    plt.close(figures[0])


def test_a_picture_of_one_pixel(tmp_path):
    Image.new("L", (1, 1)).save(tmp_path / "pixel.png")
    results = cv2_tensor.main([str(tmp_path / "pixel.png"), "--out-dir", str(tmp_path / "out")])
    assert step(results, "ToTensor") == ((1, 1, 1), "torch.float32", 0, 0)
    assert results["round_trip"] is True


def test_same_seed_same_pictures(default, tmp_path):
    drawn = []
    for name, seed in (("first", 0), ("other", 1)):
        cv2_tensor.draw_pictures(tmp_path / f"{name}.tif", tmp_path / f"{name}.png", seed)
        drawn.append((tmp_path / f"{name}.tif").read_bytes())
    assert drawn[0] == default["files"]["gray"].read_bytes() != drawn[1]


@pytest.mark.parametrize("content", [None, b"", b"no picture", "half", "folder"])
def test_image_that_cannot_be_read_is_one_line(tmp_path, photo, content, capsys):
    image = tmp_path / "bad.png"
    if content == "folder":
        image.mkdir()
    elif content == "half":
        image.write_bytes(photo[0].read_bytes()[:3000])
    elif content is not None:
        image.write_bytes(content)
    with pytest.raises(SystemExit) as stop:
        cv2_tensor.main([str(image), "--out-dir", str(tmp_path / "out")])
    assert stop.value.code.startswith("error: ") and str(image) in stop.value.code
    assert len(stop.value.code.splitlines()) == 1
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    "arguments",
    [
        ["--size", "0", "5"],
        ["--size", "5"],
        ["--size", "5", "5000"],
        ["--seed", "-1"],
        ["--unknown"],
    ],
)
def test_bad_flags_are_one_line(tmp_path, capsys, arguments):
    with pytest.raises(SystemExit) as stop:
        cv2_tensor.main([*arguments, "--out-dir", str(tmp_path / "out")])
    message = capsys.readouterr().err
    assert stop.value.code == 2
    assert len(message.splitlines()) == 1 and arguments[0] in message


def test_out_dir_that_cannot_be_made(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit, match="error: cannot write to --out-dir"):
        cv2_tensor.main(["--out-dir", str(tmp_path / "file" / "out")])

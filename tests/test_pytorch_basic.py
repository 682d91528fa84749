"""pytorch_basic.py: what each section finds, against the notes, and what is different today.

A test's name begins with its row: A (the notes' scripts), D (the 60-minute tour), E (what has aged
or was wrong).
"""

import contextlib
import io
import pickle
import re
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
import torchvision
from torch import nn
from torch.utils.data import DataLoader, Dataset
from torchvision import datasets

import pytorch_basic
from pytorch_basic import BagDataset, Net

HEADINGS = (  # as in the notes, or in the file that they link to
    "张量 | 运算 | 桥接Numpy | pytorch有关cuda的基本操作与概念 | 自动求导 · 张量 | 梯度 | "
    "神经网络 · 定义网络 | 损失函数 | 反向传播 | 更新权重 | "
    "自动求导例子 1, 自动求导例子 2, Loading data from numpy | 使用官方的datasets方法 | "
    "使用自己的数据 | 预训练模型的使用 | 保存和载入模型的使用方法"
)


@pytest.fixture(scope="module", params=["cpu", *(["cuda"] if torch.cuda.is_available() else [])])
def run(request, tmp_path_factory):
    """One run of the script with no section named: what it returns, what it prints."""
    folder, printed = tmp_path_factory.mktemp("out"), io.StringIO()
    with contextlib.redirect_stdout(printed):
        found = pytorch_basic.main(["--device", request.param, "--out-dir", str(folder)])
    return SimpleNamespace(found=found, printed=printed.getvalue(), device=request.param)


@pytest.fixture
def run_section(tmp_path):
    """run_section("tensors", "--seed", "1") gives what that section returns."""
    out_dir = ["--out-dir", str(tmp_path)]
    return lambda name, *flags: pytorch_basic.main(["--section", name, *flags, *out_dir])[name]


@pytest.fixture
def error_of(run_section):
    """error_of("own_dataset", "--images", ...) gives the one line that the script ends with."""

    def error_of(*arguments):
        with pytest.raises(SystemExit, match=r"^error: ") as stop:
            run_section(*arguments)
        assert "\n" not in stop.value.code
        return stop.value.code

    return error_of


@pytest.fixture
def home(tmp_path, monkeypatch):
    """The folder that ~ stands for."""
    for name in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(name, str(tmp_path))
    return tmp_path


# ---- Sections, headings, consoles ----


def test_all_sections_run_by_default_in_the_order_of_the_notes(run, capsys):
    assert pytorch_basic.main(["--list"]) == {}
    lines = capsys.readouterr().out.rstrip().splitlines()
    listed = [line.split(maxsplit=1) for line in lines[::2]]
    assert [name for name, _ in listed] == list(run.found)
    assert " | ".join(heading.rpartition(" · ")[0] for _, heading in listed) == HEADINGS
    for (name, heading), chinese in zip(listed, lines[1::2], strict=True):
        assert f"\n======== {heading} ({name})\n{chinese.strip()}\n" in run.printed


def test_a_section_alone_prints_what_it_prints_among_others(run, run_section):
    assert torch.equal(run_section("network")["out"], run.found["network"]["out"])
    assert not torch.equal(
        run_section("network", "--seed", "1")["out"], run.found["network"]["out"]
    )


def test_main_on_a_console_without_chinese(monkeypatch, run_section):
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding="cp1252"))
    pytorch_basic.main(["--list"])
    run_section("operations")


def test_pasted_into_a_notebook_cell(tmp_path):
    cell = {"__name__": "cell"}  # a cell has no __file__
    exec(Path(pytorch_basic.__file__).read_text(encoding="utf-8"), cell)
    assert list(cell["main"](["--section", "gradients", "--out-dir", str(tmp_path)])) == [
        "gradients"
    ]


def test_flags_that_do_not_fit(capsys):
    for flags in (["--section", "tensor"], ["--images", "."]):
        with pytest.raises(SystemExit):
            pytorch_basic.main(flags)
    errors = capsys.readouterr().err
    assert "argument --section: invalid choice: 'tensor'" in errors
    assert "--images and --masks go together" in errors


# ---- D: the 60-minute tour ----


def test_D1_tensors(run):
    found = run.found["tensors"]
    assert found["empty"].shape == found["rand"].shape == found["zeros"].shape == (5, 3)
    assert ((found["rand"] >= 0) & (found["rand"] < 1)).all()
    assert found["zeros"].dtype == torch.long and not found["zeros"].any()
    assert found["data"].tolist() == [5.5, 3] and found["data"].dtype == torch.float32
    assert "x.new_ones(2).dtype = torch.float32" in run.printed
    assert found["new_ones"].dtype == torch.double and (found["new_ones"] == 1).all()
    assert found["randn_like"].dtype == torch.float and found["randn_like"].shape == (5, 3)
    assert "x.size() = torch.Size([5, 3])" in run.printed


def test_D2_E28_E31_operations(run):
    found = run.found["operations"]
    torch.manual_seed(0)
    expected = torch.randn(5, 3) + torch.rand(5, 3)
    assert [torch.equal(expected, other) for other in found["sums"]] == [True] * 4
    assert found["views"] == [(4, 4), (16,), (2, 8)]
    assert f"x.item() = {found['tensor'].item()}" in run.printed
    assert "step must be greater than zero" in found["step_error"]
    assert "negative" in found["array_error"]
    assert "view size is not compatible" in found["view_error"]


def test_D3_E15_E29_numpy_bridge(run):
    found = run.found["numpy_bridge"]
    assert [list(values) for values in found["to_numpy"]] == [[2] * 5] * 2
    array, tensor = found["from_numpy"]
    assert array.tolist() == tensor.tolist() == [100, 2, 2, 2, 2] and tensor.dtype == torch.float64
    assert found["copy"].tolist() == [2, 2, 2, 2, 2]
    assert found["char"].dtype == np.int8
    assert found["bfloat16"].startswith("TypeError")
    assert "requires grad" in found["tracked"]


def test_D4_A6_E39_devices(run):
    found = run.found["devices"]
    there = "meta" if run.device == "cpu" else run.device
    assert f"torch.cuda.device_count() = {torch.cuda.device_count()}" in run.printed
    if torch.cuda.is_available():
        assert [str(moved.device) for moved in found["moved"]] == ["cuda:0"] * 4
    else:
        assert "Error: " in found["moved"]
    torch.manual_seed(0)
    assert found["z"].device.type == run.device and found["z"].item() == torch.randn(1).item() + 1
    assert found["back"].dtype == torch.double and found["back"].device.type == "cpu"
    assert found["y"].device.type == found["scalar"].device.type == there
    before, after, output = found["module"]
    assert before.type == "cpu" and after.type == output.type == there
    for error in (found["two_devices"], found["wrong_input"]):
        assert error.startswith("RuntimeError") and "device" in error


def test_D5_E27_autograd(run):
    found = run.found["autograd"]
    assert found["x"].grad_fn is None and found["x"].is_leaf
    assert (found["y"] == 3).all() and type(found["y"].grad_fn).__name__ == "AddBackward0"
    assert (found["z"] == 27).all() and type(found["z"].grad_fn).__name__ == "MulBackward0"
    assert found["out"] == 27 and type(found["out"].grad_fn).__name__ == "MeanBackward0"
    assert found["graphs"] == ["SubBackward0", "MulBackward0"]  # define-by-run
    assert found["flags"] == [False, True]
    assert found["untracked"] == [False, False]
    assert "only for scalar outputs" in found["not_scalar"]
    assert "Mismatch in shape" in found["wrong_shape"]
    assert "x.grad = [[1.0, 2.0], [3.0, 4.0]]" in run.printed
    assert found["x"].grad.tolist() == [[2, 4], [6, 8]]
    assert "a leaf Variable that requires grad" in found["in_place"]


def test_D6_E26_gradients(run):
    found = run.found["gradients"]
    assert (found["grad"] == 4.5).all()
    assert torch.equal(found["grad"], found["same"])
    assert "backward through the graph a second time" in found["again"]


def test_D7_network_is_printed_line_for_line_and_has_ten_parameters(run):
    found = run.found["network"]
    printed = """Net(
  (conv1): Conv2d(1, 6, kernel_size=(5, 5), stride=(1, 1))
  (conv2): Conv2d(6, 16, kernel_size=(5, 5), stride=(1, 1))
  (fc1): Linear(in_features=400, out_features=120, bias=True)
  (fc2): Linear(in_features=120, out_features=84, bias=True)
  (fc3): Linear(in_features=84, out_features=10, bias=True)
)
"""
    assert printed in run.printed
    assert len(found["params"]) == 10 and found["params"][0].size() == (6, 1, 5, 5)


def test_D7_E7_forward_is_what_the_notes_write():
    net, x = Net(), torch.randn(2, 1, 32, 32)
    y = nn.functional.max_pool2d(net.conv1(x).relu(), 2)
    y = nn.functional.max_pool2d(net.conv2(y).relu(), (2, 2))
    y = net.fc1(y.view(-1, 400)).relu()
    torch.testing.assert_close(net(x), net.fc3(net.fc2(y).relu()))


def test_D8_D9_E12_E33_a_random_image_a_random_gradient_and_single_samples(run):
    found = run.found["network"]
    assert found["out"].shape == (1, 10)
    assert found["filled"] == 10 and found["params"][0].grad.abs().sum() > 0
    assert found["out"].sum().item() != pytest.approx(1, abs=1e-3)  # logits
    assert "out.softmax(dim=1).sum() = 1.000" in run.printed
    assert found["single"].shape == (6, 28, 28)
    assert nn.Linear(3, 2)(torch.rand(3)).shape == (2,)
    assert nn.functional.max_pool2d(torch.rand(1, 4, 4), 2).shape == (1, 2, 2)
    assert torch.equal(found["unsqueezed"], found["out"])
    assert "16x25 and 400x120" in found["net_error"]
    assert "expected 4D input" in found["batch_norm_error"]


def test_D10_E14_loss_and_the_graph_behind_it(run):
    found = run.found["loss"]
    torch.testing.assert_close(found["loss"], found["by_hand"])
    layers = ["Conv", "Relu", "MaxPool", "Conv", "Relu", "MaxPool", ""]  # "": view or reshape
    layers += ["Addmm", "Relu", "Addmm", "Relu", "Addmm", "MseLoss"]
    for layer, name in zip(layers, found["names"], strict=True):
        assert layer in name and name.endswith("Backward0")


def test_D11_E13_gradients_before_and_after_backward(run):
    found = run.found["backpropagation"]
    assert found["before"] is None  # zeros in the notes, of a net that has seen a backward, too
    assert found["after"].shape == (6,) and found["after"].any()


def test_D6a_D12_E11_update_by_hand_by_optim_and_in_the_training_loop(run):
    found = run.found["update_weights"]
    assert found["same"] and found["literal"].startswith("TypeError: cannot assign")
    assert list(found["steps"]) == ["SGD", "Nesterov-SGD", "Adam", "RMSprop"]
    for name, count in found["steps"].items():
        (loss,) = re.findall(rf"^{name} .* {count} steps  loss (\S+)$", run.printed, re.MULTILINE)
        assert float(loss) <= 0.001 and 0 < count < 500


# ---- A1: Pytorch_Basic.py ----


def test_A1_1_A1_2_A1_3_first_examples(run):
    found = run.found["first_examples"]
    assert found["gradients"] == [2, 1, 1]
    assert 0 < found["losses"][1] < found["losses"][0]
    array, tensor, back = found["arrays"]
    assert array.tolist() == tensor.tolist() == back.tolist() == [[1, 2], [3, 4]]
    assert np.shares_memory(array, back)


def test_A1_4_official_dataset_without_network(run):
    found = run.found["official_dataset"]
    assert "FakeData: 1,000 pictures" in run.printed and "with --download" in run.printed
    assert found["image"].shape == (3, 32, 32) and 0 <= int(found["label"]) < 10
    assert found["batch"] == (64, 3, 32, 32)
    assert isinstance(found["labels"], torch.Tensor) and found["labels"].dtype == torch.long  # E39
    assert found["sizes"] == [16, 1000, 40]  # batches, pictures, those in the last batch


def test_A1_4_real_cifar10_when_it_is_there(run_section, home, monkeypatch, capsys):
    """CIFAR-10's own file format, with 70 pictures instead of 50,000."""
    folder = home / "data" / datasets.CIFAR10.base_folder
    folder.mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(0, 256, (5, 14, 3072), dtype=np.uint8)
    for number, batch in enumerate(pixels, start=1):
        content = {"data": batch, "labels": [number] * 14}
        (folder / f"data_batch_{number}").write_bytes(pickle.dumps(content))
    (folder / "test_batch").touch()
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": list("0123456789")}))
    timeouts = []

    def check(file, md5):  # the files of this test have other checksums
        timeouts.append(socket.getdefaulttimeout())
        return Path(file).exists()

    monkeypatch.setattr(datasets.cifar, "check_integrity", check)
    found = run_section("official_dataset", "--download", "--data-dir=~/data")
    assert found["label"] == 1 and found["sizes"] == [2, 70, 6]
    assert torch.equal(found["image"], torch.from_numpy(pixels[0, 0]).view(3, 32, 32) / 255)
    assert "CIFAR10: 70 pictures" in capsys.readouterr().out
    assert None not in timeouts and socket.getdefaulttimeout() is None


@pytest.mark.parametrize("section", ["official_dataset", "pretrained"])
def test_A1_4_A1_6_download_without_network(section, error_of, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    assert "cannot be downloaded" in error_of(section, "--download", "--data-dir", str(tmp_path))
    assert socket.getdefaulttimeout() is None


def test_A1_5_own_dataset_that_the_script_draws(run):
    found = run.found["own_dataset"]
    assert found["sizes"] == [20, 18, 2]
    assert found["batches"] == [(4, 3, 160, 160)] * 4 + [(2, 3, 160, 160)]
    assert found["image"].shape == (3, 160, 160) and found["image"].dtype == torch.float32
    assert found["mask"].shape == (2, 160, 160) and found["mask"].dtype == torch.float32
    assert torch.equal(found["mask"].sum(dim=0), torch.ones(160, 160))
    assert 0.03 < found["mask"][1].mean() < 0.3 and 0.03 < found["share"] < 0.3


OWN = ["own_dataset", "--images=~/图片 images", "--masks=~/masks"]


@pytest.fixture
def folders(home):
    """A folder for images and one for masks."""
    folders = home / "图片 images", home / "masks"
    for folder in folders:
        folder.mkdir()
    return folders


def write(file, picture):
    cv2.imencode(file.suffix, picture)[1].tofile(file)


def add_pair(folders, name, color, mask):
    write(folders[0] / f"{name}.png", np.full((20, 30, 3), color, np.uint8))
    write(folders[1] / f"{name}.png", mask)


def test_A1_5_E22_E23_own_files_rgb_order_and_masks(run_section, folders):
    half = np.zeros((20, 30), np.uint8)
    half[:, 15:] = 255
    half[0, 0], half[0, -1] = 110, 145  # gray, as at a soft edge: the nearer class
    add_pair(folders, "b", (0, 0, 255), half)  # red, in OpenCV's order
    add_pair(folders, "a", (0, 0, 0), (half > 128).astype(np.uint8))  # 0 and 1 count too
    noise = np.random.default_rng(0).integers(0, 4, (20, 30), dtype=np.uint8)
    add_pair(folders, "c", (0, 0, 0), noise)  # a JPEG's black: no object
    (folders[0] / "Thumbs.db").touch()  # Windows leaves it in a folder, a Mac .DS_Store
    (folders[1] / ".DS_Store").touch()
    dataset = BagDataset(*folders)
    image, mask = dataset[1]  # sorted: b
    red = torch.tensor([2.2489, -2.0357, -1.8044])
    torch.testing.assert_close(image[:, 80, 80], red, atol=1e-3, rtol=0)
    expected = torch.zeros(160, 160)
    expected[:, 80:] = 1
    assert torch.equal(mask[1], expected) and torch.equal(mask[0], 1 - expected)
    assert torch.equal(dataset[0][1], mask)
    assert dataset[2][1][1].sum() == 0
    found = run_section(*OWN)
    assert found["sizes"] == [3, 2, 1]
    assert found["share"] == pytest.approx(1 / 3)


def test_A1_5_bad_folders(error_of, folders):
    images, masks = folders
    half = np.repeat(np.uint8([[0, 255]] * 20), 15, axis=1)
    for name in ("Thumbs.db", ".DS_Store", "._a.png"):  # what Windows and macOS leave in folders
        (images / name).touch()
    assert "no pictures in" in error_of(*OWN)
    add_pair(folders, "a", 0, half)
    assert "only one picture in" in error_of(*OWN)
    write(images / "b.png", np.zeros((30, 20, 3), np.uint8))  # lies on its side
    assert re.search("no mask in .* for b.png", error_of(*OWN))
    write(masks / "b.jpg", half)
    assert re.search("b.png and .*b.jpg differ in height and width", error_of(*OWN))
    for content in (b"", b"no picture"):
        (images / "b.png").write_bytes(content)
        assert "b.png is not a picture" in error_of(*OWN)
    for name in ("a", "b"):
        add_pair(folders, name, 0, half // 255 * 2)  # 0 and 2: which is the object?
    (masks / "b.jpg").unlink()
    assert "has an object" in error_of(*OWN)
    masks.rename(masks.with_name("moved"))
    assert "no mask in" in error_of(*OWN)


def test_A1_6_E34_pretrained(run):
    found = run.found["pretrained"]
    assert found["learned"] == ["fc.weight", "fc.bias"]
    assert found["outputs"].shape == (64, 100)
    # Frozen parameters, and yet BatchNorm's statistics move in train mode.
    assert found["moved"]["eval"] == 0 and found["moved"]["train"] > 0.001
    assert "ResNet-18 with random weights" in run.printed


def test_A1_6_pretrained_weights_when_they_are_there(run_section, tmp_path, monkeypatch, capsys):
    """torch.hub takes a file that an earlier run has left."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    url = torchvision.models.ResNet18_Weights.DEFAULT.url
    file = tmp_path / "hub" / "checkpoints" / url.rpartition("/")[2]
    file.parent.mkdir(parents=True)
    state = torchvision.models.resnet18().state_dict()
    torch.save(state, file)
    # In place of a slow forward pass: in eval mode, as it must be, the weights themselves
    resnet = "torchvision.models.ResNet.forward"
    monkeypatch.setattr(resnet, lambda net, images: None if net.training else net.conv1.weight)
    found = run_section("pretrained", "--device", "cpu", "--download")
    assert torch.equal(found["outputs"], state["conv1.weight"])
    assert "random" not in capsys.readouterr().out


def test_A1_7_E3_save_and_load(run):
    found = run.found["save_and_load"]
    assert found["same"] and found["whole_same"] and found["resumed_same"]
    assert found["refusal"] == "UnpicklingError: Weights only load failed"
    state = torch.load(found["files"]["checkpoint"], weights_only=True)
    assert set(state) == {"epoch", "model", "optimizer"} and state["epoch"] == 3
    assert state["optimizer"]["state"][0]["step"] == 3  # Adam counts: it has learned


# ---- E: these test PyTorch, torchvision and Python, not the script. They prove the "today" side of
# rows of the table in docs/notes.md. ----


def test_E2_next_is_a_function():
    iterator = iter(DataLoader(range(8), batch_size=4))
    assert not hasattr(iterator, "next")
    assert next(iterator).tolist() == [0, 1, 2, 3]


def test_E4_a_bound_method_is_saved_and_refused(tmp_path):
    model = nn.Linear(2, 1)
    torch.save(model.state_dict, tmp_path / "model.ckpt")  # the notes: no brackets
    with pytest.raises(pickle.UnpicklingError, match="Weights only load failed"):
        torch.load(tmp_path / "model.ckpt")
    with pytest.raises(TypeError, match="dict-like"):
        model.load_state_dict(torch.load(tmp_path / "model.ckpt", weights_only=False))
    with pytest.raises(RuntimeError, match="device type"):
        torch.device("gpu")


def test_E8_spellings_of_the_notes():
    for module, name in ((torchvision, "ToTensor"), (torch, "view"), (torch.optim, "RMSProp")):
        assert not hasattr(module, name)


class CustomDataset(Dataset):
    """The notes' skeleton, `pass` and all."""

    length = 0

    def __getitem__(self, index):
        pass

    def __len__(self):
        return self.length


def test_E9_E38_the_skeleton_dataset_does_not_load_and_is_no_iterator():
    dataset = CustomDataset()
    with pytest.raises(ValueError, match="num_samples"):
        DataLoader(dataset, shuffle=True)
    dataset.length = 3
    with pytest.raises(TypeError, match="NoneType"):
        next(iter(DataLoader(dataset)))
    with pytest.raises(TypeError, match="not an iterator"):
        next(dataset)


def test_E10_processes_need_the_main_guard_where_they_are_spawned(tmp_path):
    """A DataLoader's workers are such processes; without importing torch it takes no time."""
    start = "multiprocessing.get_context('spawn').Process(target=print, args=('worked',)).start()"
    for guard, worked in (("True", False), ("__name__ == '__main__'", True)):
        script = tmp_path / "script.py"
        script.write_text(f"import multiprocessing\nif {guard}:\n    {start}\n")
        done = subprocess.run([sys.executable, script], capture_output=True, text=True)
        assert done.stdout == "worked\n" * worked
        assert ("if __name__ == '__main__':" in done.stderr) != worked


def test_E11_a_bare_name_takes_the_rule_but_is_no_leaf_any_more():
    weight = nn.Linear(2, 1).weight
    weight.sum().backward()
    weight = weight - 0.01 * weight.grad
    assert weight.requires_grad and not weight.is_leaf


def test_E17_pretrained_true_is_deprecated():
    with pytest.warns(UserWarning, match="deprecated"):
        torchvision.models.resnet18(pretrained=False)


def test_E18_legacy_constructors():
    assert torch.Tensor(3).shape == (3,) and torch.tensor(3).shape == ()
    assert torch.Tensor([1, 2, 3]).dtype == torch.float
    assert torch.tensor([1, 2, 3]).dtype == torch.long


def test_E19_argmax_is_the_index_that_max_returns():
    outputs = torch.rand(5, 10)
    assert torch.equal(torch.max(outputs.data, 1)[1], outputs.argmax(dim=1))


def test_E24_E25_requires_grad_in_place_sets_true_and_only_leaves_keep_a_gradient():
    x = torch.ones(2).requires_grad_()
    y = x * 2
    y.sum().backward()
    assert x.grad.tolist() == [2, 2]
    with pytest.warns(UserWarning, match="not a leaf"):
        assert y.grad is None


def test_E26_D5_backward_of_one_element_and_where_nothing_was_saved():
    out = torch.ones(1, 1, requires_grad=True) + 2
    out.backward()  # one element needs no gradient, whatever its shape
    out.backward()  # nothing was saved for an addition, so nothing was freed


def test_E27_in_place_without_an_underscore():
    x = alias = torch.zeros(2)
    x += 1
    x[0] = 5
    assert alias.tolist() == [5, 1]


def test_E28_E29_E31_what_to_write_instead():
    assert torch.arange(3).flip(0).tolist() == [2, 1, 0]
    assert torch.ones(1, requires_grad=True).detach().numpy() == 1
    assert torch.ones(2, 3).t().reshape(-1).shape == (6,)


def test_E30_argmax_ends_the_graph_and_round_has_gradient_zero():
    x = torch.rand(3, requires_grad=True)
    assert not x.argmax().requires_grad
    x.round().sum().backward()
    assert x.grad.tolist() == [0, 0, 0]


def test_E32_a_target_of_another_shape():
    outputs, targets = torch.arange(4.0).view(-1, 1), torch.arange(4.0)
    with pytest.warns(UserWarning, match="target size"):
        assert nn.functional.mse_loss(outputs, targets) > 1  # all against all
    assert nn.functional.mse_loss(outputs, targets.view(-1, 1)) == 0
    with pytest.warns(UserWarning, match="target size"):
        nn.functional.mse_loss(torch.zeros(1, 10), torch.zeros(10))

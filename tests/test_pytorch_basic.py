"""pytorch_basic.py: each section's values against the notes, and what is different today.

A test's name begins with its row: A (the notes' scripts), D (the 60-minute tour), E (what has aged
or was wrong).
"""

import argparse
import pickle
import subprocess
import sys
import warnings
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import torchvision
from conftest import write_too_large_png
from torch import nn
from torch.utils.data import DataLoader, Dataset
from torchvision import datasets

import pytorch_basic
from pytorch_basic import Net


@pytest.fixture
def run(tmp_path, device):
    """run("tensors") gives what the section of that name returns."""

    def run(section, *flags):
        flags = ["--section", section, "--device", device, *flags]
        results = pytorch_basic.main([*flags, "--out-dir", str(tmp_path / "out")])
        assert list(results) == [section]
        return results[section]

    return run


def test_sections_are_in_the_order_of_the_notes(capsys):
    assert pytorch_basic.main(["--list"]) == {}
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(pytorch_basic.SECTIONS)
    chinese = ["张量", "运算", "桥接Numpy", "CUDA", "自动求导", "梯度", "定义网络", "损失函数"]
    chinese += [
        "反向传播",
        "更新权重",
        "自动求导",
        "数据集",
        "自定义数据集",
        "预训练模型",
        "模型保存及载入",
    ]
    assert len(lines) == len(chinese)
    assert all(heading in line for heading, line in zip(chinese, lines))


def test_all_sections_run_by_default(tmp_path, capsys, monkeypatch):
    ran = []
    for name, section in list(pytorch_basic.SECTIONS.items()):
        replacement = argparse.Namespace(__doc__=section.__doc__)
        monkeypatch.setitem(pytorch_basic.SECTIONS, name, replacement)
        monkeypatch.setattr(argparse.Namespace, "__call__", lambda self, args: ran, raising=False)
    assert list(pytorch_basic.main(["--out-dir", str(tmp_path)])) == list(pytorch_basic.SECTIONS)


def test_a_section_alone_prints_what_it_prints_among_others(tmp_path):
    flags = ["--device", "cpu", "--out-dir", str(tmp_path), "--section"]
    both = pytorch_basic.main([*flags, "tensors", "network"])
    alone = pytorch_basic.main([*flags, "network"])
    assert torch.equal(both["network"]["out"], alone["network"]["out"])


# ---- D: the 60-minute tour ----


def test_D1_tensors(run):
    found = run("tensors")
    assert found["empty"].shape == found["rand"].shape == found["zeros"].shape == (5, 3)
    assert ((found["rand"] >= 0) & (found["rand"] < 1)).all()
    assert found["rand"].unique().numel() == 15
    assert torch.equal(found["zeros"], torch.zeros(5, 3, dtype=torch.long))
    assert found["zeros"].dtype == torch.long
    assert found["data"].tolist() == [5.5, 3] and found["data"].dtype == torch.float32
    assert found["new_ones"].dtype == torch.double and (found["new_ones"] == 1).all()
    assert found["randn_like"].dtype == torch.float and found["randn_like"].shape == (5, 3)
    assert (found["randn_like"] < 0).any()
    assert found["size"] == (5, 3)
    assert found["inherited"].dtype == torch.float32


def test_D2_operations(run):
    found = run("operations")
    assert len(found["sums"]) == 4
    assert all(torch.equal(found["sums"][0], other) for other in found["sums"])
    assert torch.equal(found["sums"][0], found["x"] + found["y"])
    assert torch.equal(found["column"], torch.stack([row[1] for row in found["x"]]))
    assert found["views"] == [(4, 4), (16,), (2, 8)]
    assert isinstance(found["item"], float) and found["item"] == found["tensor"][0]


def test_D3_numpy_bridge(run):
    found = run("numpy_bridge")
    assert found["a"].tolist() == found["b"].tolist() == [2, 2, 2, 2, 2]
    assert found["d"].tolist() == [100, 2, 2, 2, 2] and found["d"].dtype == torch.float64
    assert found["copy"].tolist() == [2, 2, 2, 2, 2]


def test_D4_A6_devices(run, device):
    found = run("devices")
    assert found["available"] == torch.cuda.is_available()
    assert found["count"] == torch.cuda.device_count()
    assert found["z"].device.type == device
    assert torch.equal(found["z"], found["x"] + 1)
    assert found["back"].dtype == torch.double and found["back"].device.type == "cpu"
    assert found["square"].tolist() == [1, 4, 9] and found["square"].device.type == device
    assert len(found["moves"]) == 4
    expected = "cuda:0" if torch.cuda.is_available() else "Error: "
    assert all(expected in moved for moved in found["moves"].values())
    assert found["two_devices"].startswith("RuntimeError") and "device" in found["two_devices"]
    before, after, output = found["module"]
    assert before.type == "cpu" and after.type == output.type == device
    assert found["wrong_input"].startswith("RuntimeError") and "device" in found["wrong_input"]


def test_E39_a_tensor_without_dimensions_may_be_on_another_device(run):
    assert run("devices")["scalar"].tolist() == [2, 5, 10]


def test_D5_autograd(run):
    found = run("autograd")
    assert found["x"].grad_fn is None and found["x"].is_leaf
    assert (found["y"] == 3).all() and type(found["y"].grad_fn).__name__ == "AddBackward0"
    assert (found["z"] == 27).all() and type(found["z"].grad_fn).__name__ == "MulBackward0"
    assert found["out"] == 27 and type(found["out"].grad_fn).__name__ == "MeanBackward0"
    assert found["graphs"] == ["SubBackward0", "MulBackward0"]  # define-by-run
    assert found["flags"] == [False, True]
    assert found["untracked"] == [False, False]
    assert "only for scalar outputs" in found["not_scalar"]
    assert "Mismatch in shape" in found["wrong_shape"]
    assert found["once"].tolist() == [[1, 2], [3, 4]]
    assert found["twice"].tolist() == [[2, 4], [6, 8]]
    torch.ones(1, 1, requires_grad=True).mul(2).backward()  # one element needs no gradient


def test_D6_gradients(run):
    found = run("gradients")
    assert (found["grad"] == 4.5).all()
    assert torch.equal(found["grad"], found["same"])


def test_D7_network_is_printed_line_for_line_and_has_ten_parameters(run):
    found = run("network")
    assert found["printed"].splitlines() == [
        "Net(",
        "  (conv1): Conv2d(1, 6, kernel_size=(5, 5), stride=(1, 1))",
        "  (conv2): Conv2d(6, 16, kernel_size=(5, 5), stride=(1, 1))",
        "  (fc1): Linear(in_features=400, out_features=120, bias=True)",
        "  (fc2): Linear(in_features=120, out_features=84, bias=True)",
        "  (fc3): Linear(in_features=84, out_features=10, bias=True)",
        ")",
    ]
    assert len(found["params"]) == 10 and found["params"][0].size() == (6, 1, 5, 5)


def test_D7_forward_is_what_the_notes_write():
    net, x = Net(), torch.randn(2, 1, 32, 32)
    y = nn.functional.max_pool2d(net.conv1(x).relu(), 2)
    y = nn.functional.max_pool2d(net.conv2(y).relu(), (2, 2))
    y = net.fc1(y.view(-1, 400)).relu()
    torch.testing.assert_close(net(x), net.fc3(net.fc2(y).relu()))


def test_D8_a_random_image_and_a_random_gradient(run):
    found = run("network")
    assert found["out"].shape == (1, 10)
    assert found["conv1_grad"].abs().sum() > 0


def test_D9_E12_single_samples(run):
    found = run("network")
    assert found["single"] == (6, 28, 28)
    assert found["unsqueezed"].shape == (1, 10)
    assert found["net_error"].startswith("RuntimeError")
    assert "expected 4D input" in found["batch_norm_error"]
    assert nn.Linear(3, 2)(torch.rand(3)).shape == (2,)
    assert nn.functional.max_pool2d(torch.rand(1, 4, 4), 2).shape == (1, 2, 2)


def test_D10_E14_loss_and_the_graph_behind_it(run):
    found = run("loss")
    torch.testing.assert_close(found["loss"], found["by_hand"])
    names = [name.removesuffix("0") for name in found["names"]]
    assert all(name.endswith("Backward0") for name in found["names"])
    layers = ["MseLoss", "Addmm", "Relu", "Addmm", "Relu", "Addmm", None]
    layers += ["MaxPool", "Relu", "Conv", "MaxPool", "Relu", "Conv"]  # None: view or reshape
    assert len(names) == len(layers)
    assert all(layer is None or layer in name for layer, name in zip(layers, names))


def test_D11_E13_gradients_before_and_after_backward(run):
    found = run("backpropagation")
    assert found["before"] is None and found["cleared"] is None  # zeros in the notes
    assert found["after"].shape == (6,) and found["after"].abs().sum() > 0


def test_D12_the_loss_printed_is_the_loss_after_so_many_steps(run, device, capsys):
    final = run("update_weights")["final"]["SGD"]
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("SGD")]
    torch.manual_seed(0)
    images, target = torch.randn(1, 1, 32, 32), torch.randn(1, 10)
    torch.manual_seed(0)
    net = Net()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
    for _ in range(int(line.split()[-2])):
        optimizer.zero_grad()
        nn.functional.mse_loss(net(images), target).backward()
        optimizer.step()
    assert nn.functional.mse_loss(net(images), target).item() == pytest.approx(final, rel=1e-4)


def test_D12_E11_update_by_hand_and_by_optim(run):
    found = run("update_weights")
    assert found["same"]
    assert found["literal"].startswith("TypeError: cannot assign")
    assert list(found["final"]) == ["SGD", "Nesterov", "Adam", "RMSprop"]
    assert all(loss <= 1e-3 for loss in found["final"].values())


# ---- A1: Pytorch_Basic.py ----


def test_A1_1_A1_2_A1_3_first_examples(run):
    found = run("first_examples")
    assert found["gradients"] == [2, 1, 1]
    assert found["shapes"] == [(2, 3), (2,)]
    before, after = found["losses"]
    assert 0 < after < before
    array, tensor, back = found["arrays"]
    assert array.tolist() == tensor.tolist() == back.tolist() == [[1, 2], [3, 4]]
    array[0, 0] = 9
    assert tensor[0, 0] == 9 and back[0, 0] == 9


def test_A1_4_official_dataset_without_network(run, capsys):
    found = run("official_dataset")
    assert found["dataset"] == "FakeData"
    assert found["image"].shape == (3, 32, 32) and 0 <= int(found["label"]) < 10
    assert found["batch"] == (64, 3, 32, 32)
    assert isinstance(found["labels"], torch.Tensor) and found["labels"].dtype == torch.long  # E39
    assert found["sizes"] == [16, 1000, 40]  # batches, pictures, those in the last batch
    printed = capsys.readouterr().out
    assert "FakeData" in printed and "--download" in printed  # it says what it is instead of
    assert "16 batches, 1,000 pictures, the last batch of 40" in printed


def test_A1_4_real_cifar10_when_it_is_there(run, tmp_path, monkeypatch, capsys):
    """CIFAR-10's own file format, with 70 pictures instead of 50,000."""
    folder = tmp_path / "data" / datasets.CIFAR10.base_folder
    folder.mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(0, 256, (5, 14, 3072), dtype=np.uint8)
    for number, batch in enumerate(pixels, start=1):
        content = {"data": batch, "labels": [number] * 14}
        (folder / f"data_batch_{number}").write_bytes(pickle.dumps(content))
    (folder / "test_batch").touch()
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": list("0123456789")}))
    # The files of this test have other checksums.
    monkeypatch.setattr(datasets.cifar, "check_integrity", lambda file, md5: Path(file).exists())
    found = run("official_dataset", "--download", "--data-dir", str(tmp_path / "data"))
    assert found["dataset"] == "CIFAR10" and found["label"] == 1
    assert torch.equal(found["image"], torch.from_numpy(pixels[0, 0]).view(3, 32, 32) / 255)
    assert found["sizes"] == [2, 70, 6]
    assert "CIFAR-10: 70 pictures" in capsys.readouterr().out


@pytest.mark.parametrize("section", ["official_dataset", "pretrained"])
def test_A1_4_A1_6_download_without_network_is_one_line(section, run, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    with pytest.raises(SystemExit, match=r"error: .* cannot be downloaded") as stop:
        run(section, "--download", "--data-dir", str(tmp_path / "data"))
    assert "\n" not in stop.value.code


def test_A1_5_own_dataset_that_the_script_draws(run):
    found = run("own_dataset")
    assert found["sizes"] == [20, 18, 2]
    assert found["batches"] == [(4, 3, 160, 160)] * 4 + [(2, 3, 160, 160)]
    assert found["image"].shape == (3, 160, 160) and found["image"].dtype == torch.float32
    assert found["mask"].shape == (2, 160, 160) and found["mask"].dtype == torch.float32
    assert torch.equal(found["mask"].sum(dim=0), torch.ones(160, 160))
    assert 0.03 < found["mask"][1].mean() < 0.3


@pytest.fixture
def folders(tmp_path):
    images, masks = tmp_path / "图片 images", tmp_path / "masks"
    images.mkdir()
    masks.mkdir()
    return images, masks


def add_pair(folders, name, color, mask):
    cv2.imencode(".png", np.full((20, 30, 3), color, np.uint8))[1].tofile(
        folders[0] / f"{name}.png"
    )
    cv2.imencode(".png", mask)[1].tofile(folders[1] / f"{name}.png")


def test_A1_5_E22_E23_own_files_rgb_order_and_masks(run, folders):
    half = np.zeros((20, 30), np.uint8)
    half[:, 15:] = 255
    half[0, 0], half[0, -1] = 110, 145  # gray, as at a soft edge: the nearer class
    add_pair(folders, "b", (0, 0, 255), half)  # red, in OpenCV's order
    add_pair(folders, "a", (0, 0, 0), (half > 128).astype(np.uint8))  # 0 and 1 count too
    add_pair(folders, "c", (0, 0, 0), half * 0)
    images, masks = folders
    dataset = pytorch_basic.ImageMaskDataset(images, masks)
    assert [pair[0].stem for pair in dataset.pairs] == ["a", "b", "c"]  # sorted
    image, mask = dataset[1]
    torch.testing.assert_close(
        image[:, 80, 80], torch.tensor([2.2489, -2.0357, -1.8044]), atol=1e-3, rtol=0
    )
    expected = torch.zeros(160, 160)
    expected[:, 80:] = 1
    assert torch.equal(mask[1], expected) and torch.equal(mask[0], 1 - expected)
    assert torch.equal(dataset[0][1], mask)
    assert dataset[2][1][1].sum() == 0
    found = run("own_dataset", "--images", str(images), "--masks", str(masks))
    assert found["sizes"] == [3, 3, 0]


def test_A1_5_bad_folders_are_one_line_each(run, folders, tmp_path):
    images, masks = folders

    def error():
        with pytest.raises(SystemExit) as stop:
            run("own_dataset", "--images", str(images), "--masks", str(masks))
        assert stop.value.code.startswith("error: ") and "\n" not in stop.value.code
        return stop.value.code

    assert "no images in" in error()
    add_pair(folders, "a", 0, np.zeros((20, 30), np.uint8))
    (images / "b.png").write_text("no picture")
    assert "no mask" in error() and "b.png" in error()
    (masks / "b.png").write_bytes(b"")
    assert "b.png is not a picture" in error()
    (images / ".DS_Store").touch()  # a Mac leaves it in every folder
    assert "b.png is not a picture" in error()
    write_too_large_png(images / "a.png")
    assert "a.png is not a picture" in error()


def test_A1_5_images_and_masks_are_two_folders(capsys, tmp_path):
    def error(*flags):
        with pytest.raises(SystemExit) as stop:
            pytorch_basic.main([*flags, "--out-dir", str(tmp_path)])
        message = capsys.readouterr().err if stop.value.code == 2 else stop.value.code
        (line,) = message.splitlines()
        return line

    assert error("--images", str(tmp_path)).endswith("--images and --masks go together")
    missing, file = tmp_path / "missing", tmp_path / "file"
    file.touch()
    for images, masks, wrong in ((missing, tmp_path, missing), (tmp_path, file, file)):
        assert error("--images", str(images), "--masks", str(masks)).endswith(
            f"{wrong} is not a folder"
        )


def test_A1_6_pretrained_weights_when_they_are_there(run, tmp_path, monkeypatch, capsys):
    """torch.hub takes a file that an earlier run has left; this one's weights are easy to know."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    url = torchvision.models.ResNet18_Weights.DEFAULT.url
    file = tmp_path / "hub" / "checkpoints" / url.rpartition("/")[2]
    file.parent.mkdir(parents=True)
    state = torchvision.models.resnet18().state_dict()
    for name in ("layer4.1.bn2.weight", "layer4.1.bn2.bias", "layer4.0.bn2.weight"):
        state[name].zero_()
    for name in ("layer4.0.downsample.1.weight", "layer4.0.bn2.bias", "layer4.0.downsample.1.bias"):
        state[name].zero_()
    torch.save(state, file)
    found = run("pretrained", "--download")  # now every picture has the same features: zeros
    assert (found["outputs"] == found["outputs"][0]).all()
    assert "random" not in capsys.readouterr().out


def test_A1_6_E34_pretrained(run):
    found = run("pretrained")
    assert found["learned"] == ["fc.weight", "fc.bias"]
    assert found["outputs"].shape == (64, 100)
    assert found["moved"] > 0.01  # frozen parameters, train mode: BatchNorm moved all the same
    assert found["still"]


def test_A1_7_E3_save_and_load(run):
    found = run("save_and_load")
    assert found["same"] and found["whole_same"]
    assert found["refusal"].startswith("UnpicklingError: Weights only load failed")
    state = torch.load(found["files"]["checkpoint"], weights_only=True)
    assert set(state) == {"epoch", "model", "optimizer"} and state["epoch"] == 3
    assert state["optimizer"]["state"][0]["step"] == 3  # Adam counts: it has learned
    assert len({file.name for file in found["files"].values()}) == 3


def test_A1_7_resumed_run_equals_the_uninterrupted_one_weight_for_weight(run):
    assert run("save_and_load")["resumed_same"]
    # It would not, had the optimizer's memory been left behind.
    inputs, targets = torch.randn(20, 3), torch.randn(20, 2)
    model, optimizer = pytorch_basic.new_model()
    pytorch_basic.learn(model, optimizer, inputs, targets, epochs=3)
    forgetful, fresh = pytorch_basic.new_model()
    forgetful.load_state_dict(model.state_dict())
    pytorch_basic.learn(model, optimizer, inputs, targets, epochs=2)
    pytorch_basic.learn(forgetful, fresh, inputs, targets, epochs=2)
    assert not torch.equal(forgetful[0].weight, model[0].weight)


# ---- E: what has aged or was wrong, the "today" side ----


def test_E2_next_is_a_function():
    loader = DataLoader(range(8), batch_size=4)
    iterator = iter(loader)
    assert not hasattr(iterator, "next")
    assert next(iterator).tolist() == [0, 1, 2, 3]


def test_E4_a_bound_method_is_saved_and_refused(tmp_path):
    model = nn.Linear(2, 1)
    torch.save(model.state_dict, tmp_path / "model.ckpt")  # the notes: no brackets
    with pytest.raises(Exception, match="Weights only load failed"):
        torch.load(tmp_path / "model.ckpt")
    method = torch.load(tmp_path / "model.ckpt", weights_only=False)
    with pytest.raises(TypeError, match="dict-like"):
        model.load_state_dict(method)
    with pytest.raises(RuntimeError, match="device type"):
        torch.device("gpu")


def test_E8_spellings_of_the_notes():
    for module, name in ((torchvision, "ToTensor"), (torch, "view"), (torch.optim, "RMSProp")):
        assert not hasattr(module, name)
    assert torchvision.transforms.ToTensor and torch.Tensor.view and torch.optim.RMSprop


class Skeleton(Dataset):
    """The notes' CustomDataset, `pass` and all."""

    def __init__(self, length):
        self.length = length

    def __getitem__(self, index):
        pass

    def __len__(self):
        return self.length


def test_E9_the_skeleton_dataset_does_not_load():
    with pytest.raises(ValueError, match="num_samples"):
        DataLoader(Skeleton(0), shuffle=True)
    with pytest.raises(TypeError, match="NoneType"):
        next(iter(DataLoader(Skeleton(3))))


def test_E38_a_dataset_is_no_iterator():
    with pytest.raises(TypeError, match="not an iterator"):
        next(Skeleton(3))


@pytest.mark.parametrize("guard", [False, True])
def test_E10_workers_need_the_main_guard_where_processes_are_spawned(guard, tmp_path):
    body = "print(len(list(DataLoader(range(4), num_workers=1, multiprocessing_context='spawn'))))"
    guarded = f"if __name__ == '__main__':\n    {body}" if guard else body
    script = tmp_path / "script.py"
    script.write_text(f"from torch.utils.data import DataLoader\n{guarded}\n")
    run = subprocess.run([sys.executable, script], capture_output=True, text=True)
    assert (run.returncode == 0) == guard
    assert run.stdout.strip() == "4" if guard else "__name__ == '__main__'" in run.stderr


def test_E15_char_converts_and_bfloat16_does_not(run):
    found = run("numpy_bridge")
    assert found["char"].dtype == np.int8
    assert found["bfloat16"].startswith("TypeError")


def test_E17_pretrained_true_is_deprecated():
    with pytest.warns(UserWarning, match="deprecated"):
        torchvision.models.resnet18(pretrained=False)


def test_E18_legacy_constructors():
    assert torch.Tensor(3).shape == (3,) and torch.tensor(3).shape == ()
    assert (
        torch.Tensor([1, 2, 3]).dtype == torch.float and torch.tensor([1, 2, 3]).dtype == torch.long
    )


def test_E19_argmax_is_the_index_that_max_returns():
    outputs = torch.rand(5, 10)
    assert torch.equal(torch.max(outputs.data, 1)[1], outputs.argmax(dim=1))


def test_E24_requires_grad_in_place_sets_true():
    assert not torch.ones(1).requires_grad
    assert torch.ones(1).requires_grad_().requires_grad


def test_E25_only_leaves_keep_a_gradient():
    x = torch.ones(2, requires_grad=True)
    y = x * 2
    y.sum().backward()
    assert x.grad is not None
    with pytest.warns(UserWarning, match="not a leaf"):
        assert y.grad is None


def test_E26_a_second_backward(run):
    assert "backward through the graph a second time" in run("gradients")["again"]
    out = (torch.ones(2, requires_grad=True) + 2).sum()
    out.backward()
    out.backward()  # nothing was saved for an addition, so nothing was freed


def test_E27_in_place_without_an_underscore(run):
    x = torch.zeros(2)
    alias = x
    x += 1
    x[0] = 5
    assert alias.tolist() == [5, 1]
    assert "a leaf Variable that requires grad" in run("autograd")["in_place"]


def test_E28_no_negative_steps(run):
    assert run("operations")["step_error"].startswith("ValueError")
    assert torch.arange(3).flip(0).tolist() == [2, 1, 0]


def test_E29_tensor_copies_and_tracked_tensors_do_not_convert(run):
    assert "detach" in run("numpy_bridge")["tracked"]
    assert torch.ones(1, requires_grad=True).detach().numpy() == 1


def test_E30_argmax_ends_the_graph_and_round_has_gradient_zero():
    x = torch.rand(3, requires_grad=True)
    assert not x.argmax().requires_grad
    x.round().sum().backward()
    assert x.grad.tolist() == [0, 0, 0]


def test_E31_view_needs_compatible_strides(run):
    assert "view size is not compatible" in run("operations")["view_error"]
    assert torch.ones(2, 3).t().reshape(-1).shape == (6,)


def test_E32_a_target_of_another_shape():
    with pytest.warns(UserWarning, match="target size"):
        nn.functional.mse_loss(torch.zeros(1, 10), torch.zeros(10))
    outputs, targets = torch.arange(4.0).view(-1, 1), torch.arange(4.0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert nn.functional.mse_loss(outputs, targets) > 1  # all against all
    assert nn.functional.mse_loss(outputs, targets.view(-1, 1)) == 0


def test_E33_logits_are_not_probabilities(run):
    found = run("network")
    assert found["out"].sum().item() != pytest.approx(1, abs=1e-3)
    assert found["probabilities"].sum().item() == pytest.approx(1, abs=1e-5)


def test_E40_every_script_saves_under_a_name_of_its_own():
    root = Path(pytorch_basic.__file__).parent
    assert not any('model.ckpt"' in file.read_text(encoding="utf-8") for file in root.glob("*.py"))


def test_bad_section_and_seed_are_one_line(capsys):
    for flags in (["--section", "tensor"], ["--seed", "-1"], ["--device", "gpu"]):
        with pytest.raises(SystemExit) as stop:
            pytorch_basic.main(flags)
        error = capsys.readouterr().err if stop.value.code == 2 else stop.value.code
        assert len(error.splitlines()) == 1 and flags[0] in error

"""Test what the sections of pytorch_basic.py print and return, and what is different in PyTorch today.

test_notes.py compares with what the notes print. The name of a test begins with its row: A for the
notes' scripts, D for the 60-minute tour, E for what has aged or was wrong.
"""

import inspect
import linecache
import pickle
import re
import runpy
import socket
import textwrap
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
import torchvision
from torch import nn
from torch.nn.functional import mse_loss
from torch.utils.data import DataLoader, RandomSampler
from torchvision import datasets

import pytorch_basic
from pytorch_basic import BagDataset, CustomDataset, Net, refused

TESTS = Path(__file__).parent


@pytest.fixture
def run(basics):
    """`found` is what all sections return, and below("autograd", line) is what is printed below the lines of that
    section that begin so."""
    found, printed = basics
    printed = re.sub(r" object at 0x\w+", "", printed)
    sessions = dict(re.findall(r"(?s)\((\w+)\)\n(.*?)(?=\n=====|$)", printed))

    def below(section: str, line: str) -> str:
        results = re.findall(rf"(?m)^{re.escape(line)}.*\n((?:(?!>>> ).+\n?)*)", sessions[section])
        return "".join(results).rstrip()

    return SimpleNamespace(found=found, printed=printed, below=below)


@pytest.fixture
def run_section(tmp_path):
    """run_section("tensors", "--seed", "1") gives what that section returns."""
    out_dir = ["--out-dir", str(tmp_path)]
    return lambda name, *flags: pytorch_basic.main(["--section", name, *flags, *out_dir])[name]


def test_all_sections_run_by_default_and_are_in_the_help(run, capsys):
    with pytest.raises(SystemExit):
        pytorch_basic.main(["--help"])
    listed = re.search(r"from these: (.*?) \(", re.sub(r"\s+", " ", capsys.readouterr().out))[1].split(", ")
    assert listed == list(run.found) == re.findall(r"(?m)^=.*\((\w+)\)$", run.printed)


def test_a_section_alone_prints_what_it_prints_among_others(run, run_section):
    out = run.found["neural_network"]["out"]
    assert torch.equal(run_section("neural_network")["out"], out)
    assert not torch.equal(run_section("neural_network", "--seed", "1")["out"], out)


def test_refused_fails_where_no_error_or_another_one_comes():
    with pytest.raises(AssertionError), refused(ValueError):
        pass
    with pytest.raises(KeyError), refused(ValueError):
        raise KeyError


def test_a_session_has_all_lines_of_its_section_and_each_class_once(run):
    printed = "\n".join(re.findall(r"(?m)^>>> (.*)", run.printed))
    for section in pytorch_basic.SECTIONS.values():
        code = inspect.getsource(section).split('"""', 2)[2]
        assert re.sub(r"\n+", "\n", textwrap.dedent(code)) in f"\n{printed}\n"
    assert re.findall(r"(?m)^class (\w+)\(", printed) == ["Net", "CustomDataset", "BagDataset"]


def test_pasted_into_a_notebook_cell_and_without_docstrings(tmp_path, capsys):
    source = Path(pytorch_basic.__file__).read_text(encoding="utf-8")
    linecache.cache["<cell>"] = (len(source), None, source.splitlines(True), "<cell>")
    cell = {"__name__": "cell"}  # A cell has no __file__.
    exec(compile(source, "<cell>", "exec", optimize=2), cell)  # as python -OO does
    sections = ["--section", "autograd", "neural_network", "--out-dir", str(tmp_path)]
    assert list(cell["main"](sections)) == ["autograd", "neural_network"]
    session = capsys.readouterr().out.partition("(neural_network)")[2]
    assert session.index("\n>>> class Net(nn.Module):\n") < session.index("\n>>> net = Net()\n")


# ---- D: the 60-minute tour ----


def test_E3_E14_E31_E34_lines_of_ours_and_what_they_print(run):
    results = (TESTS / "basic_results.txt").read_text(encoding="utf-8")
    for section, lines in re.findall(r"(?ms)^==== (\w+)$(.*?)(?=^====|\Z)", results):
        for line, result in re.findall(r"(?m)^(>>> .*)\n((?:(?!>>>).+\n)*)", lines):
            below = run.below(section, line)
            assert result.strip() in below, f"{section}: {line}\n{below}"


def test_D2_four_ways_to_add(run):
    torch.manual_seed(0)
    total = str(torch.randn(5, 3) + torch.rand(5, 3))
    for term in ("x + y", "torch.add(x, y)", "result", "y"):
        assert run.below("operations", f">>> print({term})") == total


def test_D3_E29_an_array_and_its_tensor_share_memory(run):
    found = run.found["numpy_bridge"]
    assert found["a"].tolist() == found["b"].tolist() == [100, 2, 2, 2, 2]


def test_D4_A6_E39_devices(run):
    found, device = run.found["devices"], run.found["devices"]["device"].type
    there = "meta" if device == "cpu" else device
    assert found["z"].device.type == device and found["z"].shape == (1,)
    for tensor in (found["y"], found["net"].weight, found["x"]):
        assert tensor.device.type == there
    assert (found["y"] + torch.tensor(1)).device.type == there
    for line in ("z = y + torch.tensor([1, 2, 3])", "net(torch.rand(2, 3))"):
        assert re.match("RuntimeError: .* device", run.below("devices", f">>>     {line}"))


def test_D7_E7_num_flat_features_is_flatten():
    x = torch.rand(2, 16, 5, 5)
    assert torch.equal(x.view(-1, Net().num_flat_features(x)), torch.flatten(x, 1))


def test_D8_D9_E33_a_random_image_and_a_random_gradient(run):
    out = run.found["neural_network"]["out"]
    logits, softmax = map(float, run.below("neural_network", ">>> print(out.sum()").split())
    assert abs(logits - 1) > 1e-3 and softmax == pytest.approx(1)
    assert run.below("neural_network", ">>> print(net(input[0].unsqueeze(0)))") == str(out)


def test_D10_D11_E13_the_loss_by_hand_and_gradients_before_and_after_backward(run):
    """The gradient is that of the loss alone: it was not added to the random gradient that out.backward() left."""
    torch.manual_seed(0)
    net, image, _, target = Net(), torch.randn(1, 1, 32, 32), torch.randn(1, 10), torch.randn(1, 10)
    loss = mse_loss(net(image), target)
    loss.backward()
    for line in ("print(loss)", "print(((output - target) ** 2).mean())"):
        assert run.below("neural_network", f">>> {line}").startswith(f"tensor({loss.item():.4f}, grad_fn=<")
    assert run.below("neural_network", ">>> print(net.conv1.bias.grad)") == f"None\n{net.conv1.bias.grad}"


def test_D6a_D12_the_training_loop_learns(run):
    found = run.found["neural_network"]
    assert mse_loss(found["net"](found["input"]), found["target"]) < found["loss"] < 0.001


def test_D6a_the_loop_over_real_digits_recognizes_new_ones(run):
    found = run.found["training_loop"]
    train, test = found["train_set"].indices, found["test_set"].indices
    assert sorted(train + test) == list(range(1797))  # No image is in both.
    images, labels = found["dataset"][test]
    right = (found["model"](images).argmax(dim=1) == labels).sum().item()
    assert found["accuracy"] == pytest.approx(right / 360) and right > 338


# ---- A1: Pytorch_Basic.py ----


def test_A1_2_A1_3_first_examples(run):
    found = run.found["first_examples"]
    before, after = (run.below("first_examples", f'>>> print("loss{s}') for s in (":", " after"))
    assert 0 < float(after.split()[-1]) < float(before.split()[-1])
    assert np.shares_memory(found["x"], found["z"])


def test_A1_4_E39_official_dataset_without_network(run):
    found = run.found["official_dataset"]
    assert type(found["train_dataset"]) is datasets.FakeData and 0 <= int(found["label"]) < 10
    assert isinstance(found["train_loader"].sampler, RandomSampler)
    assert found["labels"].dtype == torch.long


def test_A1_4_real_cifar10_when_it_is_there(run_section, tmp_path, monkeypatch):
    """CIFAR-10's own file format, with 70 pictures instead of 50,000."""
    folder = tmp_path / datasets.CIFAR10.base_folder
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (5, 14, 3072), dtype=np.uint8)
    for number, batch in enumerate(pixels, start=1):
        content = {"data": batch, "labels": [number] * 14}
        (folder / f"data_batch_{number}").write_bytes(pickle.dumps(content))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": list("0123456789")}))
    # The files of this test have other checksums.
    monkeypatch.setattr(datasets.CIFAR10, "_check_integrity", lambda dataset: True)
    monkeypatch.setattr(datasets.cifar, "check_integrity", lambda file, md5: True)
    found = run_section("official_dataset", "--download", f"--data-dir={tmp_path}")
    assert found["label"] == 1 and len(found["images"]) == 6
    assert torch.equal(found["image"], torch.from_numpy(pixels[0, 0]).view(3, 32, 32) / 255)


@pytest.mark.parametrize("section", ["official_dataset", "pretrained"])
def test_A1_4_A1_6_download_without_network(section, run_section, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    with pytest.raises(SystemExit, match=r"\Aerror: .* cannot be downloaded \(.*--download\.\Z"):
        run_section(section, "--download", "--data-dir", str(tmp_path))
    assert socket.getdefaulttimeout() is None


def test_A1_5_own_dataset_that_the_script_draws(run):
    masks = run.found["own_dataset"]["imgB"]
    assert torch.equal(masks.sum(dim=1), torch.ones(2, 160, 160))
    assert 0.03 < masks[:, 1].mean() < 0.3  # the discs


@pytest.mark.parametrize("white", [1, 255])  # The notes' `/255` and `astype` would turn a mask of 0 and 1 into zeros.
def test_A1_5_E22_E23_order_of_files_and_colors_and_masks(white, tmp_path):
    pictures = {folder: tmp_path / f"图片 {folder}" for folder in ("images", "masks")}
    mask = np.zeros((20, 30), np.uint8)
    mask[:, 15:] = white
    for folder in pictures.values():
        folder.mkdir()
    for name, color in (("b", (0, 0, 255)), ("a", (255, 0, 0))):  # red and blue, as OpenCV orders them
        for folder, picture in (("images", np.full((20, 30, 3), color, np.uint8)), ("masks", mask)):
            cv2.imencode(".png", picture)[1].tofile(pictures[folder] / f"{name}.png")
    bag = BagDataset(*pictures.values())
    assert len(bag) == 2 and bag[0][0][80, 80].tolist() == [0, 0, 255]  # a.png, in RGB order
    assert BagDataset(*pictures.values(), np.mean)[1][0] == 85  # b.png, with a transform
    mask = bag[1][1]
    assert mask[1].sum() == mask[1, :, 80:].sum() == mask[0, :, :80].sum() == mask[0].sum() == 12800


def test_A1_6_pretrained_weights_when_they_are_there(run_section, monkeypatch):
    state = torchvision.models.resnet18().state_dict()
    there = "torchvision.models.ResNet18_Weights.get_state_dict"
    monkeypatch.setattr(there, lambda *args, **kwargs: state)
    # A slow forward pass is replaced. In eval mode, as it must be, it returns the weights themselves.
    resnet = "torchvision.models.ResNet.forward"
    monkeypatch.setattr(resnet, lambda net, images: None if net.training else net.conv1.weight)
    found = run_section("pretrained", "--device", "cpu", "--download")
    assert torch.equal(found["outputs"], state["conv1.weight"])


def test_A1_6_dropout_in_both_modes(run):
    twos, ones = (run.below("pretrained", f">>> print(dropout.{mode}()") for mode in ("train", "eval"))
    assert set(re.findall(r"\d", twos)) == {"0", "2"} and set(re.findall(r"\d", ones)) == {"1"}


def test_A1_7_a_checkpoint_has_all_of_the_run(run):
    found = run.found["save_and_load"]
    state = torch.load(found["checkpoint"], weights_only=True)
    assert state["epoch"] == state["optimizer"]["state"][0]["step"] == 3  # Adam counts
    files = [str(found[file]) for file in ("whole", "weights", "checkpoint")]
    assert [line.strip() for line in run.printed.splitlines()[-4:]] == ["Written:", *files]


# ---- E: these test PyTorch, torchvision and Python, not the script. They prove the column "today" of the
# table in docs/notes.md. ----


def test_E2_E8_E4_names_that_are_not_there():
    names = {iter(DataLoader([1])): "next", torchvision: "ToTensor", torch: "view"}
    for thing, name in (names | {torch.optim: "RMSProp"}).items():
        assert not hasattr(thing, name)
    with pytest.raises(RuntimeError, match="device type"):
        torch.device("gpu")


def test_E4_a_bound_method_is_saved_and_refused(tmp_path):
    torch.save(nn.Linear(2, 1).state_dict, tmp_path / "model.ckpt")  # the notes: no brackets
    with pytest.raises(pickle.UnpicklingError, match="Weights only load failed"):
        torch.load(tmp_path / "model.ckpt")


def test_E9_E38_the_skeleton_dataset_does_not_load_and_is_no_iterator():
    with pytest.raises(TypeError, match="NoneType"):
        next(iter(DataLoader(CustomDataset(), sampler=[0])))
    with pytest.raises(TypeError, match="not an iterator"):
        next(CustomDataset())


def test_E10_workers_need_the_main_guard_where_they_are_spawned(tmp_path, capfd):
    """As on Windows and macOS: each worker imports the script."""
    script = tmp_path / "script.py"
    loader = "DataLoader([1], num_workers=1, multiprocessing_context='spawn')"
    script.write_text(f"from torch.utils.data import DataLoader\nprint([*{loader}])")
    with pytest.raises(RuntimeError, match=r"worker .* exited unexpectedly"):
        runpy.run_path(str(script), run_name="__main__")
    assert "if __name__ == '__main__':" in capfd.readouterr().err


def test_E11_a_bare_name_takes_the_rule_but_is_no_leaf_any_more():
    weight = nn.Linear(2, 1).weight
    assert not (weight - 0.01 * torch.ones(1, 2)).is_leaf


def test_E12_batchnorm_takes_no_single_sample_and_other_layers_do():
    image = torch.rand(1, 32, 32)
    assert nn.Conv2d(1, 6, 5)(image).shape == (6, 28, 28)
    with pytest.raises(ValueError, match="expected 4D input"):
        nn.BatchNorm2d(1)(image)


def test_E15_int8_converts_to_numpy():
    assert torch.ones(3, dtype=torch.int8).numpy().tolist() == [1, 1, 1]


def test_E17_pretrained_true_is_deprecated():
    with pytest.warns(UserWarning, match="deprecated"):
        torchvision.models.resnet18(pretrained=False)


def test_E18_legacy_constructors():
    assert torch.Tensor(3).shape == (3,) and torch.tensor(3).shape == ()
    assert (torch.Tensor([1]).dtype, torch.tensor([1]).dtype) == (torch.float, torch.long)


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


def test_E27_a_leaf_that_requires_grad_is_changed_in_place_only_under_no_grad():
    x = torch.ones(2, requires_grad=True)
    with pytest.raises(RuntimeError, match="a leaf Variable that requires grad"):
        x += 1
    with torch.no_grad():
        x += 1
    assert x.tolist() == [2, 2]


def test_E26_D5_D6_backward_of_one_element_and_where_nothing_was_saved():
    out = torch.ones(1, 1, requires_grad=True) + 2
    out.backward()  # one element needs no gradient, whatever its shape
    out.backward()  # nothing was saved for an addition, so nothing was freed


def test_E28_E29_negative_steps_and_tensors_that_require_grad():
    with pytest.raises(ValueError, match="greater than zero"):
        torch.arange(3)[::-1]
    with pytest.raises(ValueError, match="negative"):
        torch.from_numpy(np.arange(3)[::-1])
    with pytest.raises(RuntimeError, match="requires grad"):
        torch.ones(1, requires_grad=True).numpy()


def test_E30_argmax_ends_the_graph_and_round_has_gradient_zero():
    x = torch.rand(3, requires_grad=True)
    assert not x.argmax().requires_grad
    x.round().sum().backward()
    assert x.grad.tolist() == [0, 0, 0]


def test_E32_a_target_of_another_shape():
    x = torch.arange(4.0)
    with pytest.warns(UserWarning, match="target size"):
        assert mse_loss(x.view(-1, 1), x) > 1  # all against all

"""Every script as a program: alone in a folder, and with mistakes on its command line."""

import io
import os
import runpy
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

import cnn_mnist
import logistic_regression
import nn_demo

ROOT = Path(__file__).parents[1]
MNIST_SCRIPTS = [logistic_regression, nn_demo, cnn_mnist]
PROGRAMS = {  # script -> flags for a short run, and a file that it writes
    "logistic_regression.py": (["--epochs", "1"], "logistic-digits.pt"),
    "nn_demo.py": (["--epochs", "1", "--limit", "200"], "mlp-digits.pt"),
    "cnn_mnist.py": (["--epochs", "1", "--limit", "200"], "convnet-digits.pt"),
    "linear_regression.py": ([], "linear-fit.png"),
    "cv2_tensor.py": ([], "cv2-tensor-steps.png"),
    "unet_doubleconv.py": (["--train-images", "4", "--epochs", "1"], "unet-masks.png"),
    "pytorch_basic.py": (["--section", "tensors", "save_and_load"], "checkpoint.pt"),
}


def test_each_runs_alone_in_an_empty_folder_on_an_ascii_console(tmp_path):
    environment = os.environ | {
        "PYTHONIOENCODING": "ascii",
        "PYTHONPATH": "",
        "OMP_NUM_THREADS": "1",  # two programs at a time, a core each
    }

    def run_alone(name):
        folder = tmp_path / Path(name).stem
        folder.mkdir()
        shutil.copy(ROOT / name, folder)
        command = [sys.executable, name, *PROGRAMS[name][0]]
        return subprocess.run(command, cwd=folder, env=environment, capture_output=True)

    with ThreadPoolExecutor(2) as pool:
        runs = dict(zip(PROGRAMS, pool.map(run_alone, PROGRAMS)))
    for name, run in runs.items():
        assert run.returncode == 0, (name, run.stderr.decode())
        assert b"Traceback" not in run.stderr
        script, written = Path(name).stem, PROGRAMS[name][1]
        assert (tmp_path / script / "outputs" / script / written).stat().st_size > 0
        assert written.encode() in run.stdout.splitlines()[-1]


@pytest.mark.parametrize("name", PROGRAMS)
def test_runs_where_stdout_cannot_be_reconfigured(name, monkeypatch):
    """As a notebook's `%run` and IDLE do it."""
    monkeypatch.setattr(sys, "argv", [name, "--help"])
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(str(ROOT / name), run_name="__main__")
    assert stop.value.code == 0 and "--seed" in sys.stdout.getvalue()


def assert_one_line(script, flags, capsys, words=""):
    with pytest.raises(SystemExit) as stop:
        script.main(flags)
    # argparse prints before it exits with 2; sys.exit(message) leaves the printing to Python.
    message = capsys.readouterr().err if stop.value.code == 2 else stop.value.code
    assert len(message.splitlines()) == 1
    assert "error: " in message and words in message and len(message) < 250


@pytest.mark.parametrize("script", MNIST_SCRIPTS)
@pytest.mark.parametrize("flag", ["--epochs", "--batch-size", "--limit", "--lr", "--seed"])
@pytest.mark.parametrize("value", ["-1", "nan", "inf", "two", "", "1e3x"])
def test_bad_numbers(script, flag, value, capsys):
    assert_one_line(script, [f"{flag}={value}"], capsys, flag)


@pytest.mark.parametrize("script", MNIST_SCRIPTS)
@pytest.mark.parametrize("flag", ["--epochs", "--batch-size", "--limit", "--lr"])
def test_zero(script, flag, capsys):
    assert_one_line(script, [flag, "0"], capsys, flag)


@pytest.mark.parametrize("script", MNIST_SCRIPTS)
@pytest.mark.parametrize(
    "flags",
    [["--dataset", "cifar"], ["--seed", str(2**64)], ["--epochs", "1.5"], ["--unknown"], ["extra"]],
)
def test_bad_words(script, flags, capsys):
    assert_one_line(script, flags, capsys, flags[0])


def test_cnn_mnist_bad_words(capsys):
    assert_one_line(cnn_mnist, ["--model", "vgg"], capsys, "--model")
    assert_one_line(cnn_mnist, ["--weights", "x.pt"], capsys, "--predict")


@pytest.mark.parametrize("script", MNIST_SCRIPTS)
@pytest.mark.parametrize("device", ["gpu", "meta", "cuda:99", "xpu", "mps:7", "", "cpu:x"])
def test_device_that_is_not_there(script, device, capsys, tmp_path):
    assert_one_line(script, ["--device", device, "--out-dir", str(tmp_path)], capsys, "--device")


def test_auto_device_is_the_accelerator_if_there_is_one(monkeypatch):
    there = torch.accelerator.is_available()
    assert (logistic_regression.choose_device("auto").type != "cpu") == there
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    assert logistic_regression.choose_device("auto") == torch.device("cpu")
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device("mps"))
    assert logistic_regression.choose_device("auto") == torch.device("mps")


@pytest.mark.parametrize("script", MNIST_SCRIPTS)
def test_out_dir_that_cannot_be_written_is_found_before_training(script, capsys, tmp_path):
    file = tmp_path / "file"
    file.touch()
    for folder in (file, file / "below"):
        assert_one_line(script, ["--out-dir", str(folder)], capsys, f"--out-dir {folder}")


def test_out_dir_that_is_there_but_read_only(capsys, tmp_path, monkeypatch):
    def refuse(dir):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    message = f"cannot write to --out-dir {tmp_path}: Permission denied"
    assert_one_line(logistic_regression, ["--out-dir", str(tmp_path)], capsys, message)


@pytest.mark.parametrize("name", PROGRAMS)
def test_help_names_every_flag_and_importing_does_nothing(name, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    module = __import__(Path(name).stem)
    with pytest.raises(SystemExit) as stop:
        module.main(["--help"])
    assert stop.value.code == 0
    assert "--out-dir" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []

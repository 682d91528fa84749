"""Every script as a program: alone in a folder, and with mistakes on its command line."""

import importlib
import io
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import torch

import logistic_regression
import nn_demo
from logistic_regression import choose_device

ROOT = Path(__file__).parents[1]
SCRIPTS = sorted(path.stem for path in ROOT.glob("*.py"))


def stop(script, *flags, capsys=None):
    """The text on stderr and the exit code of a main that refuses its flags."""
    with pytest.raises(SystemExit) as stopped:
        script.main(list(flags))
    # argparse prints before it exits with 2; sys.exit(message) leaves the printing to Python.
    if stopped.value.code == 2:
        return capsys.readouterr().err.splitlines()[-1], 2
    assert len(stopped.value.code.splitlines()) == 1 and stopped.value.code.startswith("error: ")
    return stopped.value.code, 1


def test_runs_alone_in_an_empty_folder_on_a_console_without_chinese(tmp_path):
    environment = os.environ | {"PYTHONIOENCODING": "ascii", "PYTHONPATH": ""}
    shutil.copy(ROOT / "nn_demo.py", tmp_path)
    command = [sys.executable, "nn_demo.py", "--dataset", "digits", "--epochs", "1"]
    run = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert "? " in run.stdout  # for each character that it lacks
    assert str(Path("outputs", "nn_demo")) in run.stdout.splitlines()[-1]
    assert {file.name for file in tmp_path.iterdir()} == {"nn_demo.py", "outputs"}


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_where_stdout_is_a_notebooks_and_importing_does_nothing(script, monkeypatch, tmp_path):
    """Pasted into a cell, a script has no __file__; %run has no stdout.reconfigure."""
    monkeypatch.chdir(tmp_path)
    importlib.import_module(script)
    monkeypatch.setattr(sys, "argv", [script, "--help"])
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    source = (ROOT / f"{script}.py").read_text(encoding="utf-8")
    with pytest.raises(SystemExit) as stopped:
        exec(compile(source, "<cell>", "exec"), {"__name__": "__main__", "__doc__": "In a cell."})
    assert stopped.value.code == 0
    assert sys.stdout.getvalue().startswith("usage: ") and "--out-dir" in sys.stdout.getvalue()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("flag", ["--epochs", "--batch-size", "--limit", "--lr", "--seed"])
@pytest.mark.parametrize("value", ["-1", "nan", "two", "", "0", str(2**32), "inf", "1e31"])
def test_bad_numbers(flag, value, capsys):
    good = {"--seed": ["-1", "0", str(2**32)]}.get(flag, [str(2**32)])
    if value in good:
        assert vars(nn_demo.make_parser().parse_args([flag, value]))
    else:
        message, code = stop(nn_demo, f"{flag}={value}", capsys=capsys)
        assert code == 2 and f"argument {flag}: invalid" in message


@pytest.mark.parametrize("script", SCRIPTS)
def test_bad_words_seeds_and_folders_in_every_script(script, capsys, tmp_path):
    module = importlib.import_module(script)
    for flags in (["--unknown"], ["--seed", "one"]):
        message, code = stop(module, *flags, capsys=capsys)
        assert code == 2 and flags[0] in message
    file = tmp_path / "file"
    file.touch()
    for folder in (file, file / "below"):
        message, _ = stop(module, "--out-dir", str(folder), capsys=capsys)
        assert f"cannot write to --out-dir {folder}" in message


def test_out_dir_that_is_there_but_read_only(monkeypatch, tmp_path):
    def refuse(dir):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    message, _ = stop(logistic_regression, "--out-dir", str(tmp_path))
    assert message == f"error: cannot write to --out-dir {tmp_path}: Permission denied"


def test_tilde_is_the_home_folder(monkeypatch, mnist_dir, tmp_path):
    """In --data-dir=~/data the shell leaves it to the program."""
    monkeypatch.setenv("HOME", str(mnist_dir))
    monkeypatch.setenv("USERPROFILE", str(mnist_dir))  # Windows
    flags = ["--dataset", "mnist", "--data-dir=~", "--epochs", "1", "--limit", "9"]
    assert nn_demo.main([*flags, "--out-dir", str(tmp_path)])["dataset"] == "mnist"


@pytest.mark.parametrize("device", ["gpu", "meta", "cuda:99", "xpu", "", "cpu:x"])
def test_device_that_is_not_there(device):
    with pytest.raises(SystemExit) as stopped:
        choose_device(device)
    message = stopped.value.code
    assert message.startswith(f"error: {device} cannot be used here (") and "\n" not in message
    assert "--device cpu" in message and len(message) < 250


def test_auto_is_the_accelerator_if_it_works_and_says_so_if_not(monkeypatch, capsys):
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    assert choose_device("auto") == torch.device("cpu")
    assert capsys.readouterr().out == ""
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    # One that is "available" and fails at its first tensor, such as a GPU too old for this PyTorch.
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device("meta"))
    assert choose_device("auto") == torch.device("cpu")
    assert capsys.readouterr().out.startswith("!!! meta cannot be used here (")
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device("cpu", 0))
    assert choose_device("auto") == torch.device("cpu", 0)


def test_E40_every_run_writes_files_of_its_own():
    """The notes' five scripts all write model.ckpt, each over the last one's."""
    written = []
    for transcript in (ROOT / "docs" / "output").iterdir():
        last = transcript.read_text(encoding="utf-8").splitlines()[-1]
        written += last.partition("Written: ")[2].split(", ")
    assert len(written) > 20 and len(set(written)) == len(written)

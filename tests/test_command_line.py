"""Every script as a program: alone in a folder, and with mistakes on its command line."""

import importlib
import io
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

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
def test_help_is_a_page_also_in_a_notebook_and_without_docstrings(script, monkeypatch, tmp_path):
    """Pasted into a cell, a script has no __file__; %run has no stdout.reconfigure; python -OO strips docstrings."""
    monkeypatch.chdir(tmp_path)
    importlib.import_module(script)
    monkeypatch.setattr(sys, "argv", [script, "--help"])
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    source = (ROOT / f"{script}.py").read_text(encoding="utf-8")
    with pytest.raises(SystemExit) as stopped:
        exec(compile(source, "<cell>", "exec", optimize=2), {"__name__": "__main__", "__doc__": None})
    page = sys.stdout.getvalue()
    assert stopped.value.code == 0 and page.startswith("usage: ") and "%(" not in page
    assert "--out-dir" in page and "example" in page and "(default: " in page
    assert list(tmp_path.iterdir()) == []  # Importing did nothing.


@pytest.mark.parametrize("flag", ["--epochs", "--batch-size", "--limit", "--seed"])
@pytest.mark.parametrize("value", ["-1", "nan", "two", "", "0", "1.5", str(2**63), str(2**32)])
def test_numbers_on_the_command_line(flag, value, capsys):
    if value == str(2**32) or (flag, value) == ("--seed", "0"):
        assert vars(nn_demo.make_parser(epochs="5").parse_args([flag, value]))
    else:
        message, code = stop(nn_demo, f"{flag}={value}", capsys=capsys)
        assert code == 2 and f"argument {flag}: " in message and "whole number" in message


@pytest.mark.parametrize("script", SCRIPTS)
def test_bad_words_and_seeds_in_every_script(script, capsys):
    module = importlib.import_module(script)
    for flags in (["--unknown"], ["--seed", "one"], ["--out", "x"]):  # flags are not guessed from their beginnings
        message, code = stop(module, *flags, capsys=capsys)
        assert code == 2 and flags[0] in message


@pytest.mark.parametrize("device", ["gpu", "meta", "cuda:99", "xpu", "", "cpu:x"])
def test_device_that_is_not_there(device):
    with pytest.raises(SystemExit) as stopped:
        choose_device(device)
    message = stopped.value.code
    assert message.startswith(f"error: --device {device} cannot be used here: ") and "\n" not in message


def test_auto_is_the_accelerator_if_it_works_and_says_so_if_not(monkeypatch, capsys):
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    assert choose_device("auto") == torch.device("cpu")
    assert capsys.readouterr().out == ""
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    # One that is "available" and fails at its first tensor, such as a GPU too old for this PyTorch.
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device("meta"))
    assert choose_device("auto") == torch.device("cpu")
    assert capsys.readouterr().out.startswith("!!! meta ")
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device("cpu", 0))
    assert choose_device("auto") == torch.device("cpu", 0)


def test_a_cuda_build_beside_a_driver_that_it_cannot_use_says_why_it_is_the_cpu(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    program = tmp_path / ("nvidia-smi.exe" if os.name == "nt" else "nvidia-smi")
    program.touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert choose_device("auto") == torch.device("cpu")
    printed = capsys.readouterr().out
    assert "!!! This runs on the CPU." in printed and "CUDA 13.0" in printed and "驱动" in printed
    assert choose_device("cpu") == torch.device("cpu") and capsys.readouterr().out == ""


def test_E40_every_run_writes_files_of_its_own():
    """The notes' five scripts all write model.ckpt, each over the last one's."""
    written = []
    for transcript in (ROOT / "docs" / "output").iterdir():
        _, _, files = transcript.read_text(encoding="utf-8").partition("\nWritten:\n")
        written += files.split()
    assert len(written) > 20 and len(set(written)) == len(written)

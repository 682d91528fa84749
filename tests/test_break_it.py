"""docs/break-it.md: the changes of tests/break_it.py, made on little data, and the pages that show them."""

import re
from functools import cache
from unittest import mock

import matplotlib.figure
import pytest
import torch
from break_it import EDITS, FASTER, PAGES, ROOT, code, fill, run, source

# Options for the test, which learn a little in a short time. The page has other ones.
TINY = {
    "logistic_regression": "--dataset mnist --data-dir {mnist} --epochs 20",
    "nn_demo": "--dataset mnist --data-dir {mnist} --epochs 4",
    "cnn_mnist": "--dataset digits --limit 600 --epochs 3 --lr 0.02",
    "linear_regression": "--epochs 60",
    "unet_doubleconv": "--train-images 16 --epochs 4",
    "cv2_tensor": "{picture}",
}
ENGLISH, CHINESE = (page.read_text(encoding="utf-8") for page in PAGES)


@pytest.fixture(scope="module")
def tried(mnist_dir, tmp_path_factory):
    """tried(script, flags, edit) runs a script once for all tests, unchanged or with one line changed."""
    folder = tmp_path_factory.mktemp("out")
    picture = ROOT / "docs/images/linear-fit.png"

    @cache
    def tried(script, flags, edit=None):
        flags = flags.format(mnist=mnist_dir, picture=picture)
        flags += f" --out-dir {folder}" + (" --device cpu" if "--device" in source(script) else "")
        return run(source(script, edit), flags, HELD_OUT_IMAGES=8, SIZE=32)

    with mock.patch.object(matplotlib.figure.Figure, "savefig"):  # Nobody looks at the pictures.
        yield tried


@pytest.mark.parametrize("edit", EDITS, ids=lambda edit: edit.name)
def test_what_the_exercise_claims(edit, tried):
    """A silent change gives no error and no warning. A change for speed gives the same losses."""
    flags = edit.tiny or TINY.get(edit.script, edit.flags)
    with mock.patch.object(torch.nn.Module, "compile") as compiled:  # It would take half a minute.
        found, right = tried(edit.script, flags, edit), tried(edit.script, flags)
    assert found["message"].startswith(edit.loud) if edit.loud else not found["message"]
    assert not right["message"] and (edit.loud or edit.claim(right, found))
    assert compiled.called == (edit.name == "compile")
    if not edit.loud:
        head = ENGLISH.partition(code(edit))[2].partition("\n|---")[0]
        assert head.count("|") - 2 == len(edit.see(found)) + (edit in FASTER)
    if edit in FASTER:
        close = 0.03 if edit.name == "bfloat16" else 1e-3
        assert found["train_loss"] == pytest.approx(right["train_loss"], rel=close)
        assert found["test_accuracy"] == pytest.approx(right["test_accuracy"], abs=0.02)


@pytest.mark.parametrize("page", [ENGLISH, CHINESE], ids=["English", "Chinese"])
def test_page_has_every_change_once_and_room_for_what_is_measured(page):
    assert re.findall(r"(?ms)^`\w+\.py[^\n]*`\n\n```diff\n.*?^```", page) == [code(edit) for edit in EDITS]
    for edit in EDITS:
        measured = f"{edit.loud} HERE" if edit.loud else [["BEFORE"], ["AFTER"]]
        filled = fill(page, code(edit), measured)
        exercise = filled.partition(code(edit))[2].partition("\n#")[0]
        question, answer = exercise.split("<details>")
        if edit.loud:
            assert f"```text\n{edit.loud}" in page.partition(code(edit))[2] and "HERE\n" in answer
        else:
            assert "BEFORE" in question and "| ? |" in question and "AFTER" in answer
        assert len(filled.splitlines()) == len(page.splitlines())


def test_pages_have_the_same_numbers():
    def cells(page):
        return [row.split(" | ")[1:] for row in re.findall(r"(?m)^\| .*$(?!\n\|---)", page)]

    assert cells(ENGLISH) == cells(CHINESE)

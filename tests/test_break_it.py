"""docs/break-it.md: the edits of tests/break_it.py, made on little data."""

from functools import cache
from unittest import mock

import matplotlib.figure
import pytest
import torch
from break_it import EDITS, FASTER, ROOT, code, run, source

# Flags instead of those of the page: little to learn, for few epochs.
TINY = {
    "logistic_regression": "--dataset mnist --data-dir {mnist} --epochs 20",
    "nn_demo": "--dataset mnist --data-dir {mnist} --epochs 4",
    "cnn_mnist": "--dataset digits --limit 600 --epochs 3 --lr 0.02",
    "linear_regression": "--epochs 60",
    "unet_doubleconv": "--train-images 80 --epochs 2",
    "cv2_tensor": "{picture}",
}
PAGES = ROOT / "docs/break-it.md", ROOT / "docs/break-it.zh.md"
each_edit = pytest.mark.parametrize("edit", EDITS, ids=lambda edit: edit.name)


@pytest.fixture(scope="module")
def tried(mnist_dir, tmp_path_factory):
    """tried(script, flags, edit) is what `main` returned; without an edit one run serves all."""
    folder = tmp_path_factory.mktemp("out")
    picture = ROOT / "docs/images/linear-fit.png"

    @cache
    def tried(script, flags, edit=None):
        flags = flags.format(mnist=mnist_dir, picture=picture)
        flags += f" --out-dir {folder}" + (" --device cpu" if "--device" in source(script) else "")
        return run(source(script, edit), flags, HELD_OUT_IMAGES=8, SIZE=32)

    with mock.patch.object(matplotlib.figure.Figure, "savefig"):  # no picture is looked at
        yield tried


@each_edit
def test_what_the_row_claims(edit, tried):
    """A silent change gives no error and no warning; a faster one the same losses."""
    flags = edit.tiny or TINY.get(edit.script, edit.flags)
    with mock.patch.object(torch.nn.Module, "compile") as compiled:  # it would take half a minute
        found, right = tried(edit.script, flags, edit), tried(edit.script, flags)
    assert found["message"].startswith(edit.loud) if edit.loud else not found["message"]
    assert not right["message"] and (edit.loud or edit.claim(right, found))
    assert compiled.called == (edit.name == "compile")
    if edit in FASTER:
        close = 0.03 if edit.name == "bfloat16" else 1e-3
        assert found["train_loss"] == pytest.approx(right["train_loss"], rel=close)
        assert found["test_accuracy"] == pytest.approx(right["test_accuracy"], abs=0.02)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_page_has_every_row_once(page):
    text = page.read_text(encoding="utf-8")
    assert [edit.name for edit in EDITS if text.count(code(edit)) != 1] == []

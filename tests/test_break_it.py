"""docs/break-it.md: the edits of tests/break_it.py, made on little data."""

from functools import cache
from unittest import mock

import matplotlib.figure
import pytest
from break_it import BETTER, MISTAKES, ROOT, code, run, source

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
each_edit = pytest.mark.parametrize("edit", MISTAKES + BETTER, ids=lambda edit: edit.name)


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
def test_one_line_differs(edit):
    pairs = zip(source(edit.script).splitlines(), source(edit.script, edit).splitlines())
    assert len([line for line, edited in pairs if line != edited]) == 1


@each_edit
def test_what_the_row_claims(edit, tried):
    flags = edit.tiny or TINY.get(edit.script, edit.flags)
    found, right = tried(edit.script, flags, edit), tried(edit.script, flags)
    assert found["message"].startswith(edit.loud) if edit.loud else not found["message"]
    assert not right["message"] and (edit.loud or edit.claim(right, found))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_page_has_every_row_once_and_says_it_is_silent(page):
    text = page.read_text(encoding="utf-8")
    assert [text.count(code(edit)) for edit in MISTAKES + BETTER] == [1] * len(MISTAKES + BETTER)

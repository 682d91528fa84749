"""The scripts stand alone, so they repeat what they share: word for word, which is held here."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SCRIPTS = sorted(path.name for path in ROOT.glob("*.py"))


def test_the_seven_scripts():
    assert SCRIPTS == [
        "cnn_mnist.py",
        "cv2_tensor.py",
        "linear_regression.py",
        "logistic_regression.py",
        "nn_demo.py",
        "pytorch_basic.py",
        "unet_doubleconv.py",
    ]


def test_mnist_scripts_end_alike():
    banner = re.compile(r"^# -+ From here on .* alike -+$", re.MULTILINE)
    tails = []
    for name in ("logistic_regression.py", "nn_demo.py", "cnn_mnist.py"):
        text = (ROOT / name).read_text(encoding="utf-8")
        (match,) = banner.finditer(text)
        tails.append(text[match.start() :])
    assert len(tails[0].splitlines()) > 90
    assert tails[0] == tails[1] == tails[2]


def test_functions_of_one_name_are_one_text():
    texts = {}
    for name in SCRIPTS:
        source = (ROOT / name).read_text(encoding="utf-8")
        for node in ast.parse(source).body:
            if isinstance(node, ast.FunctionDef) and node.name not in ("main", "make_parser"):
                texts.setdefault(node.name, set()).add(ast.get_source_segment(source, node))
    assert [name for name, versions in texts.items() if len(versions) > 1] == []


@pytest.mark.parametrize("name", SCRIPTS)
def test_no_script_imports_another(name):
    stems = {Path(script).stem for script in SCRIPTS}
    for node in ast.walk(ast.parse((ROOT / name).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            assert not stems & {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module not in stems


@pytest.mark.parametrize("name", SCRIPTS)
def test_reading_order(name):
    """Docstring with the notes' Chinese heading and Try; constants; main above what it calls."""
    source = (ROOT / name).read_text(encoding="utf-8")
    tree = ast.parse(source)
    docstring = ast.get_docstring(tree)
    assert re.search(r"[\u4e00-\u9fff]", docstring)
    assert f"python {name}" in docstring
    assert "**Try**" in docstring
    functions = [node.name for node in tree.body if isinstance(node, ast.FunctionDef)]
    assert functions[0] == "main"
    assert source.rstrip().endswith("main()")

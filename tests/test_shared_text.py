"""The scripts stand alone, so they repeat what they share: word for word, which is held here."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SCRIPTS = sorted(path.name for path in ROOT.glob("*.py"))
MNIST_SCRIPTS = ("logistic_regression.py", "nn_demo.py", "cnn_mnist.py")
LINE = re.compile(r"^# -+ Below: .* -+$", re.MULTILINE)


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def functions(name: str) -> dict[str, str]:
    source = read(name)
    nodes = [node for node in ast.parse(source).body if isinstance(node, ast.FunctionDef)]
    return {node.name: ast.get_source_segment(source, node) for node in nodes}


def test_mnist_scripts_are_alike_below_the_line():
    ends = {read(name)[LINE.search(read(name)).start() :] for name in MNIST_SCRIPTS}
    assert len(ends) == 1
    assert len(ends.pop().splitlines()) > 80


def test_functions_of_one_name_are_one_text():
    """But for main and make_parser; the loops differ by what the script adds: cnn_mnist's steps a scheduler,
    the first one of all measures no accuracy, and the U-Net's has masks."""
    texts = {}
    for name in SCRIPTS:
        for function, text in functions(name).items():
            if function == "train_one_epoch" and name == "cnn_mnist.py":
                function += " with a scheduler"
            own_loop = function == "train_one_epoch" and name.startswith(("logistic", "unet"))
            if function not in ("main", "make_parser") and not own_loop:
                texts.setdefault(function, set()).add(text)
    assert [name for name, versions in texts.items() if len(versions) > 1] == []
    plain, stepping = (texts[f"train_one_epoch{end}"] for end in ("", " with a scheduler"))
    assert plain.pop() == stepping.pop().replace("        scheduler.step()\n", "").replace(", scheduler)", ")")


@pytest.mark.parametrize("name", SCRIPTS)
def test_no_script_imports_another(name):
    stems = {Path(script).stem for script in SCRIPTS}
    for node in ast.walk(ast.parse(read(name))):
        if isinstance(node, ast.Import):
            assert not stems & {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module not in stems


@pytest.mark.parametrize("name", SCRIPTS)
def test_reading_order(name):
    """Docstring with the notes' words and Try; what teaches, main; the line, and what carries."""
    docstring = ast.get_docstring(ast.parse(read(name)))
    assert re.search(r"[\u4e00-\u9fff]|Pytorch_", docstring)
    assert f"python {name}" in docstring
    assert "**Try**" in docstring
    above, _ = LINE.split(read(name))
    assert "def main(" in above
    for carried in ("def make_parser", "def choose_device", "def whole_number"):
        assert carried not in above
    assert read(name).endswith('\n\nif __name__ == "__main__":\n    main()\n')

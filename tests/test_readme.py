"""README.md and docs/README.zh.md say what is so."""

import argparse
import importlib
import re
import shlex
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
CHINESE = (ROOT / "docs" / "README.zh.md").read_text(encoding="utf-8")
SCRIPTS = sorted(path.stem for path in ROOT.glob("*.py"))


class Parsed(Exception):
    """Raised when a command line has been parsed, with the parser and what it found."""


@pytest.fixture
def parse(monkeypatch):
    """parse("nn_demo", ["--seed", "1"]) gives the script's parser and its arguments."""
    parse_args = argparse.ArgumentParser.parse_args

    def stop(parser, argv=None):
        raise Parsed(parser, parse_args(parser, argv))

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", stop)

    def parse(script, argv):
        with pytest.raises(Parsed) as parsed:
            importlib.import_module(script).main(argv)
        return parsed.value.args

    return parse


def section(text: str, heading: str) -> str:
    return re.split(r"^##+ ", text.split(heading, 1)[1], flags=re.MULTILINE)[0]


def table_rows(text: str) -> list[list[str]]:
    rows = [line.strip("|").split("|") for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row] for row in rows]


def commands(text: str) -> list[str]:
    """Every `python SCRIPT.py ...` in code blocks and in backticks."""
    blocks = re.findall(r"^```bash\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()]
    lines += re.findall(r"`(python [^`]+)`", text)
    return [line.split("#")[0].strip() for line in lines if line.startswith("python ")]


@pytest.mark.parametrize("text", [README, CHINESE], ids=["README.md", "README.zh.md"])
def test_every_command_parses(text, parse):
    found = [shlex.split(command)[1:] for command in commands(text)]
    assert len(found) > 25
    for script, *flags in found:
        if script in ("-m", "-c"):
            continue
        assert (ROOT / script).is_file()
        if (ROOT / script).parent == ROOT:
            parse(Path(script).stem, flags)
        else:  # tests/benchmark.py, docs/make.py
            assert all(
                f'"{flag}"' in (ROOT / script).read_text() for flag in flags if flag[0] == "-"
            )


def test_flag_table_is_the_parsers_flags(parse):
    documented = {script: set() for script in SCRIPTS}
    for flags, where, _ in table_rows(section(README, "## Command line"))[2:]:
        scripts = [name.removesuffix(".py") for name in re.findall(r"`(\w+\.py)`", where)]
        if where == "all":
            scripts = SCRIPTS
        elif where.startswith("all but"):
            scripts = [name for name in SCRIPTS if name not in scripts]
        elif where == "all that train":
            scripts = [name for name in SCRIPTS if name not in ("pytorch_basic", "cv2_tensor")]
        for script in scripts:
            documented[script] |= set(re.findall(r"`(--[\w-]+)`", flags))
    for script in SCRIPTS:
        parser, _ = parse(script, [])
        flags = {flag for action in parser._actions for flag in action.option_strings}
        assert documented[script] == flags - {"-h", "--help"}, script


def test_every_script_function_test_and_picture_exists():
    for text, folder in ((README, ROOT), (CHINESE, ROOT / "docs")):
        for link in re.findall(r"\]\(([^)#:]+)\)", text):
            assert (folder / link).exists(), link
    tests = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").glob("*.py"))
    named = re.findall(r"`(test_[A-Z]\w+)`", README)
    assert len(named) > 35
    for name in named:
        assert f"def {name}(" in tests, name
    for row in table_rows(section(README, "## Notes → script"))[2:]:
        heading, script, functions, command, _ = row
        (script,) = re.findall(r"`(\w+)\.py`", script)
        assert heading in (ROOT / f"{script}.py").read_text(encoding="utf-8"), heading
        module = importlib.import_module(script)
        assert command.startswith(f"`python {script}.py")
        for function in re.findall(r"`(\w+)`", functions):
            assert callable(getattr(module, function)), function


def test_pictures_are_small_and_all_made_by_docs_make():
    made = (ROOT / "docs" / "make.py").read_text()
    for picture in (ROOT / "docs" / "images").iterdir():
        assert picture.stat().st_size <= 200_000
        assert f"/{picture.name}" in made and picture.name in README
    for transcript in (ROOT / "docs" / "output").iterdir():
        assert "\x1b" not in transcript.read_text(encoding="utf-8")  # no colors, no progress bar
    transcripts = {path.stem for path in (ROOT / "docs" / "output").iterdir()}
    assert transcripts == set(re.findall(r'"([\w-]+)": \("\w+\.py"', made))
    assert {name.split("-")[0] for name in transcripts} == set(SCRIPTS)


def test_transcripts_are_what_the_scripts_print_today(tmp_path, monkeypatch, capsys):
    """But for the numbers, of a script that prints alike everywhere; and all of the headings."""
    monkeypatch.chdir(tmp_path)
    importlib.import_module("linear_regression").main(["--device", "cpu"])
    printed = capsys.readouterr().out.replace("\\", "/")  # Windows' paths
    _, _, kept = (ROOT / "docs/output/linear_regression.txt").read_text().partition("\n")
    assert re.sub(r"[\d.-]+ *", "#", printed) == re.sub(r"[\d.-]+ *", "#", kept)
    sections = importlib.import_module("pytorch_basic").SECTIONS
    kept = (ROOT / "docs/output/pytorch_basic.txt").read_text(encoding="utf-8")
    assert re.findall(r"^=+ (.*)$", kept, flags=re.MULTILINE) == [
        f"{section.__doc__.splitlines()[0]} ({name})" for name, section in sections.items()
    ]


@pytest.mark.parametrize(
    ("script", "row"), [("logistic_regression", "logistic"), ("nn_demo", "MLP")]
)
def test_digits_accuracy_that_readme_states(script, row, tmp_path):
    (stated,) = (
        cells[4]
        for cells in table_rows(section(README, "## Results"))
        if cells[0] == row and cells[2] == "digits"
    )
    flags = ["--dataset", "digits", "--device", "cpu", "--out-dir", str(tmp_path)]
    accuracy = importlib.import_module(script).main(flags)["test_accuracy"][-1]
    # Another processor or version may round otherwise: 4 of the 360 pictures.
    assert 100 * accuracy == pytest.approx(float(stated.split("/")[0]), abs=1.2)


def test_chinese_readme_keeps_step():
    assert commands(CHINESE) == commands(README)
    code = r"^```\w*\n.*?^```"
    blocks = [re.findall(code, text, flags=re.MULTILINE | re.DOTALL) for text in (README, CHINESE)]
    assert blocks[0] == blocks[1]
    rows, chinese_rows = table_rows(README), table_rows(CHINESE)
    assert len(rows) == len(chinese_rows)
    for row, chinese_row in zip(rows, chinese_rows):
        assert len(row) == len(chinese_row)
        for cell, chinese_cell in zip(row, chinese_row):  # code, numbers and tests word for word
            assert set(re.findall(r"`(?:python|test_|--)[^`]*`", cell)) == set(
                re.findall(r"`(?:python|test_|--)[^`]*`", chinese_cell)
            )
            if re.fullmatch(r"[\d .,/<>%x×−-]+", cell):
                assert cell == chinese_cell
    headings = [re.findall(r"^(##+) ", text, flags=re.MULTILINE) for text in (README, CHINESE)]
    assert headings[0] == headings[1]

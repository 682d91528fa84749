"""README.md and the pages in docs/ say what is so, in English and in Chinese."""

import argparse
import importlib
import re
import runpy
import shlex
from pathlib import Path

import pytest
from PIL import Image

import cnn_mnist
import linear_regression
import logistic_regression
import nn_demo
import unet_doubleconv

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
SCRIPTS = sorted(path.stem for path in ROOT.glob("*.py"))
PAGES = ("notes", "reference", "break-it", "contributing", "installing")
CHINESE = {DOCS / f"{name}.md": DOCS / f"{name}.zh.md" for name in PAGES}  # page: in Chinese
CHINESE[ROOT / "README.md"] = DOCS / "README.zh.md"
# What the notes link to, and every heading of theirs, in their order.
HEADINGS = """
Pytorch_Basic.py Pytorch_linearRegression.py Pytorch_logisticRegression.py Pytorch_NNdemo.py
Pytorch_CNN pytorch_cuda.ipynb LeNet.ipynb ResNet.ipynb Pytorch_已解决问题_1 Pytorch_cv2_Tensor相关
60分钟熟悉Pytorch 张量 运算 桥接Numpy 自动求导 张量 梯度 神经网络 定义网络
损失函数 反向传播 更新权重
"""
each_page = pytest.mark.parametrize("page", [*CHINESE, *CHINESE.values()], ids=lambda p: p.name)


class Parsed(Exception):
    """Raised when a command line has been parsed, with the parser."""


@pytest.fixture
def parse(monkeypatch):
    """parse("nn_demo", ["--seed", "1"]) gives the script's parser, or fails as it does."""
    parse_args = argparse.ArgumentParser.parse_args

    def stop(parser, argv=None):
        parse_args(parser, argv)
        raise Parsed(parser)

    def parse(script, argv):
        with pytest.raises(Parsed) as parsed:
            importlib.import_module(script).main(argv)
        return parsed.value.args[0]

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", stop)
    return parse


def read(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def tables(text: str) -> list[list[list[str]]]:
    """Each table as rows of cells, without the line under its head."""
    blocks = re.findall(r"(?m)^\|.*(?:\n\|.*)*", text)
    rows = [[re.split(r"(?<!\\)\|", row)[1:-1] for row in block.split("\n")] for block in blocks]
    return [[[cell.strip() for cell in row] for row in (t[0], *t[2:])] for t in rows]


def all_rows(page: Path) -> list[list[str]]:
    return [row for table in tables(read(page)) for row in table]


def links(text: str) -> list[tuple[str, str]]:
    """Return (text, address) of each link and picture that is not on the web."""
    return re.findall(r"\[(`[^`]+`|(?:[^\[\]`]|`[^`]*`)*)\]\((?!http)([^)\s]+)\)", text)


def commands(text: str) -> list[str]:
    """Every `python SCRIPT.py ...` in code blocks and in backticks."""
    lines = re.findall(r"(?m)^python .*|(?<=`)python [^`]+(?=`)", text)
    return [line.split(" #")[0].strip() for line in lines]


def squeeze(text: str) -> str:
    """Remove the spaces and the backslashes before |, and use one kind of quotes."""
    return re.sub(r"\s", "", text).replace("'", '"').replace(r"\|", "|")


def anchors(text: str) -> list[str]:
    """The ids in a page, and what GitHub makes of its headings."""
    headings = re.findall(r"(?m)^#+ (.*)", text)
    slugs = [re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings]
    return slugs + re.findall(r'<a id="([^"]+)">', text)


@each_page
def test_every_command_parses(page, parse):
    for command in commands(read(page)):
        script, *flags = shlex.split(command)[1:]
        if script == "-m" and flags[0].startswith("own_data."):
            parse(flags[0], flags[1:])
        elif script in ("-m", "-c"):
            assert all((ROOT / name).is_file() for name in flags if name.endswith(".py"))
        elif "/" in script:  # tests/benchmark.py, docs/make.py
            assert all(f'"{flag}"' in read(ROOT / script) for flag in flags if flag[:2] == "--")
        else:
            parse(script.removesuffix(".py"), flags)


def test_flag_table_is_the_parsers_flags(parse):
    documented = {name: {"-h", "--help"} for name in SCRIPTS}
    for flags, where, _ in tables(read(DOCS / "reference.md"))[0][1:]:
        named = re.findall(r"`(\w+)\.py`", where)
        if where.startswith("all but"):
            named = set(SCRIPTS) - set(named)
        for name in SCRIPTS if where == "all" else named:
            documented[name] |= set(re.findall(r"`(--[\w-]+)`", flags))
    for name, flags in documented.items():
        actions = parse(name, [])._actions
        assert flags == {flag for action in actions for flag in action.option_strings}, name


@pytest.mark.parametrize("page", [*CHINESE, *CHINESE.values(), DOCS / "notes-lines.md"], ids=lambda p: p.name)
def test_links_lead_somewhere(page):
    """A link to a line leads to a line that contains the text of the link, or to the line of this number."""
    for text, address in links(read(page)):
        name, _, anchor = address.partition("#")
        target = page.parent / name if name else page
        assert target.exists(), address
        if re.fullmatch(r"L\d+", anchor):
            line = read(target).splitlines()[int(anchor[1:]) - 1]
            right = squeeze(text.strip("`")) in squeeze(line) or (text == anchor[1:] and line.startswith(">>> "))
            assert right, f"{text} {address}: run python docs/make.py --links-only"
        elif anchor:
            assert anchors(read(target)).count(anchor) == 1, address


def test_links_to_lines_are_those_that_docs_make_finds():
    make = runpy.run_path(str(DOCS / "make.py"))
    for page in make["PAGES"]:
        assert make["correct_links"](read(DOCS / page)) == (read(DOCS / page), [])


def test_every_line_of_code_of_the_notes_is_in_the_list_of_lines():
    page = squeeze(read(DOCS / "notes-lines.md"))
    for line in re.findall(r"(?m)^>>> (.*)", read(ROOT / "tests" / "notes_results.txt")):
        assert squeeze(line.partition("#")[0]) in page, line


@pytest.mark.parametrize("page", ["notes.md", "notes.zh.md"])
def test_every_section_of_the_notes_has_a_row(page):
    """The rows are in the order of the notes. Each has a link to its lines at the pinned commit, and all else."""
    rows = tables(read(DOCS / page))[0][1:]
    pinned = "](https://github.com/yearing1017/PyTorch_Note/blob/70b0cb2142f1bf2ab11ae4926e458c75b7"
    at = 0
    for heading in HEADINGS.split():
        at = next((i for i in range(at, len(rows)) if heading in rows[i][0]), None)
        assert at is not None, heading
    for section, function, command, transcript, changed in rows:
        script = re.match(r"`(\w+\.py)`: \[`", function)[1]
        assert pinned in section and command.startswith(f"`python {script}")
        assert f"](output/{script[:-3]}" in transcript
        assert "](#row-" in changed or changed in ("unchanged", "没有变化"), section


@pytest.mark.parametrize("page", ["notes.md", "notes.zh.md"])
def test_every_row_has_its_test(page):
    text = read(DOCS / page)
    aged = dict(re.findall(r'(?m)^\| <a id="row-(\d+)"></a>\1 \|.*\| (.*) \|$', text))
    tests = "".join(read(file) for file in (ROOT / "tests").glob("test_*.py"))
    for row in map(str, range(1, 41)):
        assert aged[row] in ("a slip", "笔误") or re.search(rf"def test_(\w+_)?E{row}_", tests), row


@pytest.mark.parametrize("page", [DOCS / "reference.md", DOCS / "reference.zh.md"], ids=lambda p: p.name)
def test_every_warning_on_the_page_is_printed_by_a_script(page):
    """What changes from run to run is left out: the class, the version of CUDA, the device, the numbers."""
    scripts = "".join(map(read, [*ROOT.glob("*.py"), *ROOT.glob("own_data/*.py")])).casefold()
    warnings = re.findall(r"\*\*(.+?)\*\*", re.split(r"(?m)^## ", read(page).split("`!!!`")[-1])[0], re.DOTALL)
    parts = [part for text in warnings for part in re.split(r"…|手提包|bag$|13\.2|cuda |\.pt", " ".join(text.split()))]
    assert len(warnings) > 14
    assert not [part for part in parts if part.strip(" .").casefold() not in scripts]


@pytest.mark.parametrize("page", CHINESE, ids=lambda p: p.name)
def test_chinese_page_keeps_step(page):
    """Only the tables of README and of installing.md: their Chinese pages are written for their own readers."""
    english, chinese = read(page), read(CHINESE[page]).split("\n## 术语表")[0]
    if page.name not in ("README.md", "installing.md"):
        assert sorted(commands(chinese)) == sorted(commands(english))
        for part in (r"(?m)^#+ ", r"(?ms)^```.*?^```"):
            assert re.findall(part, chinese) == re.findall(part, english)
    assert [len(table) for table in tables(chinese)] == [len(table) for table in tables(english)]
    for table, chinese_table in zip(tables(english), tables(chinese)):
        for row, chinese_row in zip(table[1:], chinese_table[1:]):
            assert len(row) == len(chinese_row)
            for cells in zip(row, chinese_row):  # code, numbers and links word for word
                word = r"`[^`]+`|@@.+?@@|\((?:http|output|\.\./\w+\.py|#row)[^)]+\)|\d(?:[\d.,]*\d)?"
                found, chinese_found = (set(re.findall(word, cell)) for cell in cells)
                assert found == chinese_found, row


def test_results_are_of_these_models_and_the_same_everywhere():
    models = {
        "logistic": logistic_regression.LogisticRegression,
        "MLP": nn_demo.NeuralNet,
        "LeNet": cnn_mnist.LeNet,
        "ConvNet": cnn_mnist.ConvNet,
        "ResNet-18": cnn_mnist.ResNet,
        "U-Net": unet_doubleconv.UNet,
    }
    results = [row for row in all_rows(DOCS / "reference.md") if row[0] in models and len(row) == 8]
    assert {row[0] for row in results} == set(models)
    for name, parameters, *_ in results:
        count = sum(parameter.numel() for parameter in models[name]().parameters())
        assert parameters == f"{count:,}", name
    stated = {(row[0], row[2].split(",")[0]): (row[1], row[4], row[6]) for row in results}
    for row in all_rows(ROOT / "README.md"):
        if row[0] in models:
            result = row[3].removeprefix("IoU ").rstrip(" %")
            assert (row[1], result, row[4]) == stated[row[0], row[2].split()[0]]


def test_pictures_are_small_wide_shown_and_made_by_docs_make():
    made, pages = read(DOCS / "make.py"), "".join(map(read, CHINESE))
    for picture in (DOCS / "images").iterdir():
        assert picture.stat().st_size <= 200_000 and Image.open(picture).width >= 400, picture
        assert f"/{picture.name}" in made and f"images/{picture.name})" in pages
    transcripts = {path.stem: read(path) for path in (DOCS / "output").iterdir()}
    assert set(transcripts) == set(re.findall(r'"([\w-]+)": \("', made))
    assert "\x1b" not in "".join(transcripts.values())  # no colors, no progress bar


def test_transcripts_are_what_the_scripts_print_today(tmp_path, monkeypatch, capsys):
    """But for the numbers, of a script that prints alike everywhere."""
    monkeypatch.chdir(tmp_path)
    found = linear_regression.main(["--device", "cpu"])
    printed = capsys.readouterr().out.replace("\\", "/")  # Windows' paths
    _, _, kept = read(DOCS / "output/linear_regression.txt").partition("\n")
    assert re.sub(r"[\d.-]+ *", "#", printed) == re.sub(r"[\d.-]+ *", "#", kept)
    (keys,) = (row[1] for row in all_rows(DOCS / "reference.md") if "`linear_" in row[0])
    assert re.findall(r"`(\w+)`", keys) == list(found)


def test_no_figure_is_missing():
    for page in [*CHINESE, *CHINESE.values(), *ROOT.glob("*.py"), *ROOT.glob("own_data/*.py")]:
        assert re.findall(r"@@|TODO", read(page)) == [], page.name

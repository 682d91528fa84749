"""Test that pytorch_basic.py and cv2_tensor.py run the lines of the notes and print their results."""

import contextlib
import io
import re
from pathlib import Path

import pytest

import cv2_tensor

TESTS = Path(__file__).parent
# Maps "script section" to the notes' lines, each after >>>, with their results.
NOTES = (TESTS / "notes_results.txt").read_text(encoding="utf-8").split("\n==== ")[1:]
NOTES = dict(part.split("\n", 1) for part in NOTES)


@pytest.fixture(scope="module")
def printed(basics, tmp_path_factory):
    """Run both scripts. Return their sessions, by the same names as in NOTES."""
    with contextlib.redirect_stdout(io.StringIO()) as output:
        cv2_tensor.main(["--out-dir", str(tmp_path_factory.mktemp("out"))])
    sessions = {}
    for script, text in (("cv2_tensor", output.getvalue()), ("pytorch_basic", basics[1])):
        for name, session in re.findall(r"(?ms)^=+ [^\n]*\((\w+)\)\n(.*?)(?=^=+ |\Z)", text):
            sessions[f"{script} {name}"] = session
    return sessions


def squeeze(text: str) -> str:
    """Remove the spaces, and use one kind of quotes."""
    return re.sub(r"\s", "", text).replace("'", '"')


def statements(session: str) -> list[tuple[str, str]]:
    """Return each line of code, without its comment, and what is printed below it."""
    lines = re.findall(r"(?m)^>>> (.*)\n((?:(?!>>> ).*\n?)*)", session)
    return [(squeeze(re.sub("#.*", "", code)), result.strip()) for code, result in lines]


def test_lines_of_the_notes_are_found_by_pasting_them(printed):
    """Search in what is printed, which is the text of the scripts. Python 3 needs two of the lines in another form or
    not at all, and the formatter removes brackets from the third."""
    shown = squeeze("".join(re.findall("(?m)^>>> (.*)", "\n".join(printed.values()))))
    lines = {line for session in NOTES.values() for line, _ in statements(session)}
    missing = {line for line in lines if line not in shown}
    changed = ["from __future__ import print_function", "super(Net,self).__init__()", "a = ((a * 3) / (a - 1))"]
    assert len(lines) > 100 and missing == set(map(squeeze, changed))


@pytest.mark.parametrize("name", NOTES)
def test_results_of_the_notes_are_found_below_their_lines(name, printed):
    """Compare in the notes' order. A result that is listed as different today must be different."""
    rows = (TESTS.parent / "docs" / "notes.md").read_text(encoding="utf-8")
    session = iter(statements(printed[name]))
    for code, expected in statements(NOTES[name]):
        if not expected:
            continue
        result = next((result for line, result in session if line == code), None)
        assert result is not None, f"{code} is missing, or not in the notes' order"
        mark = expected.partition("\n")[0] if expected[0] == "#" else ""
        both = [expected.removeprefix(mark), result]
        both = [re.sub(r" at 0x\w+|, device='[\w:]+'", "", text) for text in both]
        if "random" in mark:
            both = [re.sub(r"-?(\d+\.\d*(e[+-]\d+)?|inf|nan)", "0.", text) for text in both]
        row = re.search(r"row (\d+)", mark)
        assert (squeeze(both[0]) == squeeze(both[1])) == (row is None), (code, result)
        assert row is None or f'<a id="row-{row[1]}"></a>' in rows

"""CSV for spreadsheets: no formulas, numbers as numbers, and every text comes back."""

import csv
import io
import re
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pneumo.serving.contracts.csv_text import escape_formula, format_csv, unescape_formula

SOURCE = Path(__file__).parents[3]
TEXTS = st.text(st.characters(exclude_categories=["Cs"]))


def read(text: str) -> list[list[str]]:
    return list(csv.reader(io.StringIO(text, newline="")))


@given(st.lists(TEXTS, min_size=2, max_size=2))
@example(["=1", "'=1"])
@example(["''-a.png", "\r"])
@example(["\r\n", "a\rb"])
def test_every_text_is_read_back(row):
    (cells,) = read(format_csv([row]))
    assert [unescape_formula(cell) for cell in cells] == row


@given(st.sampled_from("=+-@\uff1d\uff0b\uff0d\uff20"), st.sampled_from(["", " ", "\t", "\xa0 "]), TEXTS)
def test_no_text_begins_as_a_formula(sign, blanks, rest):
    text = f"{blanks}{sign}{rest}"
    is_number = bool(re.fullmatch(r"[+-](\d+\.?\d*|\.\d+)(e[+-]?\d+)?", text, re.IGNORECASE | re.ASCII))
    assert escape_formula(text).startswith("'") is not is_number


@given(st.sampled_from("\t\r\n"), TEXTS)
def test_no_text_begins_with_a_tab_or_a_line_end(sign, rest):
    assert escape_formula(sign + rest) == f"'{sign}{rest}"


@pytest.mark.parametrize("text", ["-0.5", "+1", "-1e-05", "-.5", "-1.", "NORMAL", "a=b", "", "'", "it's", "12-3"])
def test_numbers_and_other_texts_stay(text):
    assert escape_formula(text) == unescape_formula(text) == text


@pytest.mark.parametrize("text", ["-1+1", "-0.5=", "-", "+", "-inf", "=0.5", "-\u0661", "--1", "-1\n"])
def test_what_only_looks_like_a_number_is_escaped(text):
    assert escape_formula(text) == f"'{text}"


def test_numbers_are_written_as_python_writes_them_and_nothing_as_an_empty_cell():
    assert format_csv([["a", "b"], [-0.5, None], [float("nan"), 3], [True, 1e-9]]) == ("a,b\n-0.5,\n,3\nTrue,1e-09\n")


def test_no_module_writes_csv_around_the_escaping():
    writers = re.compile(r"csv\.(?:writer|DictWriter)\(|\.to_csv\(")
    found = {
        path.relative_to(SOURCE).as_posix()
        for room in ("pipeline", "serving")
        for path in (SOURCE / room).rglob("*.py")
        if writers.search(path.read_text(encoding="utf-8"))
    }
    assert found == set()

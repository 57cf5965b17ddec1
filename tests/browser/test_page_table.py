"""The table that the page gives: every result, and nothing a spreadsheet would run."""

import csv
import io
from collections.abc import Callable, Iterator

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pneumo.serving.contracts.csv_text import escape_formula, unescape_formula
from pneumo.serving.model.predictor import Predictor

expect = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (extra dev)").expect
pytestmark = pytest.mark.browser


def test_the_table_holds_every_answer_and_every_error(screen, bundle, film):
    names = ['Röntgen, "links".png', "=HYPERLINK(1).png", "bad.png"]
    screen.choose(*((name, film(3) if name != "bad.png" else b"?") for name in names))
    screen.settled(3)
    first, second, bad = screen.downloaded()
    said = Predictor(bundle).predict_bytes(film(3))
    assert (first["image"], second["image"]) == (names[0], f"'{names[1]}")
    assert first["label"] == said.label
    assert float(first["probability"]) == pytest.approx(said.probability, abs=1e-6)
    assert float(first["p_NORMAL"]) + float(first["p_PNEUMONIA"]) == pytest.approx(1)
    assert first["threshold"] == "0.4"
    assert first["certainty"] == said.certainty
    assert first["in_distribution"] == str(said.in_distribution).lower()
    assert (first["model"], first["version"], first["error"]) == ("tiny", "1", "")
    assert first["request_id"]
    assert (bad["image"], bad["label"], bad["probability"]) == ("bad.png", "", "")
    assert bad["error"].startswith("Not an image: ")
    notice = "research software, not a medical device; trained on images of a population that is not stated"
    assert {row["notice"] for row in (first, second)} == {notice}
    assert "not a medical device" in bad["notice"]


@pytest.fixture(scope="module")
def as_csv(browser, site) -> Iterator[Callable[[list], str]]:
    """The page's own function from rows of cells to a table."""
    page = browser.new_page()
    page.goto(site.address)
    yield lambda rows: page.evaluate("rows => import('/static/csv.js').then(module => module.csv(rows))", rows)
    page.close()


@settings(deadline=None, max_examples=150)
@example(texts=["=1+1", "+1", "-1", "-1a", "'=1", " =1", "@a", "\t=1", "\uff1d1", '"', ",", "\r\n", " a ", ""])
@given(texts=st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")), min_size=1))
def test_no_text_becomes_a_formula_and_every_text_can_be_read_back(as_csv, texts):
    content = as_csv([texts])
    assert content.startswith("\ufeff")
    assert content.endswith("\r\n")
    row = next(csv.reader(io.StringIO(content.removeprefix("\ufeff"), newline="")), []) or [""]
    for cell, text in zip(row, texts, strict=True):
        assert cell == escape_formula(text)
        assert unescape_formula(cell) == text


def test_numbers_in_the_table_stay_numbers(as_csv):
    assert as_csv([[-0.25, 1e-9, True, None]]) == "\ufeff-0.25,1e-9,true,\r\n"

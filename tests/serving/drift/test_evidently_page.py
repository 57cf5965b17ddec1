import json
import re
import threading
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest

from pneumo.serving.drift.check import DriftResult, check_drift
from pneumo.serving.drift.column_tests import ColumnTests
from pneumo.serving.drift.evidently_page import compose_page
from pneumo.serving.drift.verdict import DriftCheck, Verdict
from pneumo.serving.drift.wording import write_summary
from tests.support import references


def checked(reference, window) -> DriftResult:
    verdict, columns = ColumnTests(reference, positive_class="PNEUMONIA").compare(window)
    top = [column for column in columns if column.words][:3]
    made = DriftCheck(
        time=datetime(2026, 11, 24, 12, tzinfo=UTC),
        model="tiny",
        version="1",
        window="the last <b>100</b> images",
        first=None,
        last=None,
        images=len(window),
        reference_images=len(reference),
        verdict=verdict,
        top=[column.name for column in top],
        summary=write_summary(verdict, top, len(window)),
        columns=columns,
    )
    return DriftResult(made, reference, window)


last = threading.local()


@pytest.fixture(autouse=True, scope="module")
def listen():
    """Keep what Evidently found in each thread, of which a page shows a part."""
    from evidently import Report

    run = Report.run

    def spy(*arguments, **options):
        snapshot = run(*arguments, **options)
        last.record = snapshot.dumps()
        return snapshot

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Report, "run", spy)
        yield


def draw(found: DriftResult) -> tuple[str, str]:
    """Draw the page of a check; return it with Evidently's record of it."""
    page = compose_page(found.check, found.reference, found.window).decode()
    return page, last.record


def drifted(record: str) -> dict[str, bool]:
    """Columns as Evidently judged them, by its own tests."""
    tests = [
        test
        for result in json.loads(record)["metric_results"].values()
        for test in result.get("tests", [])
        if "Value Drift" in test["name"]
    ]
    return {test["name"].removeprefix("Value Drift for column "): test["status"] == "FAIL" for test in tests}


@pytest.fixture(scope="module")
def unchanged(listen, reference, drawn) -> tuple[DriftCheck, str, str]:
    """A check of images like the reference, its page, and Evidently's record."""
    found = checked(reference, drawn(100, 7))
    return found.check, *draw(found)


def agree(check: DriftCheck, page: str, record: str) -> int:
    """See that Evidently says of every column and of the whole what a check says; return how many columns drifted."""
    expected = {column.name: column.verdict is not Verdict.OK for column in check.columns}
    count = sum(expected.values())
    assert drifted(record) == expected
    assert ("Dataset Drift is detected" in page) == (count > 0)
    assert f"({count} out of {len(expected)})" in page
    return count


def test_evidently_says_of_every_column_and_of_the_whole_what_is_said_here(reference, drawn, unchanged):
    assert agree(*unchanged) == 0
    moves = {"mean": -12.0, "contrast": -6.0, "probability": 0.3, "outlier_score": 3.0, "noise": 4.0, "width": 1.0}
    window = drawn(100, 7)
    numbers = {name: values + moves.get(name, 0.0) for name, values in window.numbers.items()}
    shares = {**window.shares, "uncertain": np.arange(100) < 60}
    found = checked(reference, replace(window, numbers=numbers, shares=shares, embedding=window.embedding + 0.6))
    page, record = draw(found)
    assert 0 < agree(found.check, page, record) < len(found.check.columns)
    assert {"embedding", "uncertain", "mean"} <= {name for name, fails in drifted(record).items() if fails}


def test_the_page_is_whole_without_a_network_and_quotes_what_it_is_told(unchanged):
    page = unchanged[1]
    assert not re.search(r"<(script|img|iframe)[^>]+src=[\"']?(https?:)?//|<link[^>]+href=[\"']?(https?:)?//", page)
    assert "the last &lt;b&gt;100&lt;/b&gt; images" in page
    assert "Research software, not a medical device" in page
    assert re.search(r"<body[^>]*>\s*<div[^>]*>\s*<b[^>]*>OK</b> the 100 images look like the reference", page)


@pytest.mark.slow
def test_pages_of_two_checks_at_once_are_those_of_each(reference, drawn):
    from concurrent.futures import ThreadPoolExecutor

    dark = drawn(100, 7)
    dark = replace(dark, numbers={**dark.numbers, "mean": dark.numbers["mean"] - 12})
    both = [checked(reference, dark), checked(reference, drawn(100, 7))]
    with ThreadPoolExecutor(2) as pool:
        records = list(pool.map(lambda found: draw(found)[1], both))
    assert [drifted(record)["mean"] for record in records] == [True, False]


def test_of_too_few_images_nothing_is_drawn(reference, drawn):
    found = checked(reference, drawn(5, 7))
    with pytest.raises(ValueError, match="nothing to draw"):
        compose_page(found.check, found.reference, found.window)


def test_the_page_of_a_bundle_with_more_classes_has_no_decision(tmp_path):
    bundle = references.make_judged(tmp_path / "three", classes=["A", "B", "C"], positive_class=None, thresholds={})
    found = check_drift(bundle, references.columns_of(bundle, range(500, 560), darker=40), window="all")
    assert found.check.verdict is Verdict.DRIFT
    assert "decision" not in {column.name for column in found.check.columns}
    assert "Data Drift Summary" in draw(found)[0]

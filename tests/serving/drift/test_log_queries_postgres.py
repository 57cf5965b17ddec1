"""PostgreSQL answers the dashboard as SQLite does."""

from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from pneumo.serving.contracts.sites import MOST_SITES
from pneumo.serving.drift.log_queries import (
    count_by_site,
    count_over_time,
    list_versions,
    read_labelled_answers,
    read_sample,
)
from pneumo.serving.drift.stored_checks import add_check, count_verdicts_by_day, list_checks, read_page
from pneumo.serving.predictions.store import LogStore
from pneumo.serving.predictions.windows import Window
from tests.support import prediction_logs as simulated
from tests.support.drift_checks import check

pytestmark = pytest.mark.slow

DAY = timedelta(days=1)
START = datetime(2026, 11, 1, 7, 30, tzinfo=UTC)
CLASSES = ["NORMAL", "PNEUMONIA"]
SELECTED = Window("tiny", "1", lane=None, since=START, until=START + 30 * DAY)


@pytest.fixture
def stores(postgres, tmp_path):
    found = [LogStore(postgres.url), LogStore(f"sqlite:///{tmp_path / 'log.sqlite3'}")]
    for store in found:
        store.prepare()
    yield found
    found[0].engine.dispose()


def test_both_databases_say_the_same(stores):
    for store in stores:
        simulated.fill(store, 1000, START, START + 10 * DAY, labelled=0.4)
        simulated.fill(store, 40, START + 40 * DAY, START + 41 * DAY, seed=5)
        for number in range(MOST_SITES + 2):
            days = START + 40 * DAY, START + 41 * DAY
            simulated.fill(store, 9 + number, *days, seed=50 + number, site=f"ward-{number}")
        for hours, verdict in enumerate(["ok", "ok", "drift"]):
            add_check(store, check(30 * hours, verdict=verdict), b"page")
    one, other = stores
    assert list_versions(one) == list_versions(other)
    for step in (DAY, timedelta(hours=1)):
        spans = [count_over_time(store, SELECTED, step, "PNEUMONIA") for store in stores]
        for here, there in zip(*spans, strict=True):
            assert asdict(here) | {"sums": 0} == asdict(there) | {"sums": 0}
            assert vars(here.sums) == pytest.approx(vars(there.sums))
    counts = [count_by_site(store, replace(SELECTED, since=None, until=None)) for store in stores]
    assert counts[0] == counts[1]
    assert len(counts[0]) == MOST_SITES + 2
    samples = [read_sample(store, SELECTED, 1000, most=300) for store in stores]
    assert all(sorted(samples[0][name]) == sorted(samples[1][name]) for name in samples[0])
    found = [read_labelled_answers(store, SELECTED, 1000, CLASSES) for store in stores]
    assert np.array_equal(found[0].probability, found[1].probability)
    assert found[0].truth.tolist() == found[1].truth.tolist()
    for store in stores:
        assert [each.check.verdict.value for each in list_checks(store)] == ["drift", "ok", "ok"]
        assert read_page(store, list_checks(store)[0].id)
    assert count_verdicts_by_day(one, SELECTED) == count_verdicts_by_day(other, SELECTED) != []

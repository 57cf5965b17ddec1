"""What the dashboard asks of the log, held against the same computed from all rows in Python."""

from collections import Counter
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
import sqlalchemy as sa
from scipy.stats import ks_2samp

from pneumo.serving.contracts.sites import MOST_SITES, NO_SITE, OTHER_SITES
from pneumo.serving.drift.log_queries import (
    count_by_site,
    count_over_time,
    list_versions,
    read_labelled_answers,
    read_sample,
)
from pneumo.serving.drift.performance import ProbabilitySums
from pneumo.serving.drift.samples import NUMBERS
from pneumo.serving.predictions.log_tables import feedback, predictions
from pneumo.serving.predictions.store import LogStore
from pneumo.serving.predictions.windows import Window
from tests.support import prediction_logs as simulated
from tests.support.drift_samples import sum_probabilities

DAY = timedelta(days=1)
START = datetime(2026, 11, 1, 7, 30, tzinfo=UTC)
CLASSES = ["NORMAL", "PNEUMONIA"]


@pytest.fixture(scope="module")
def rows():
    """Ten days of one version, and another that came in between."""
    old, old_labels = simulated.rows(900, START, START + 10 * DAY, seed=1, labelled=0.4)
    new, new_labels = simulated.rows(300, START + 5 * DAY, START + 8 * DAY, seed=2, version="2", labelled=0.4)
    return old, new, [*old_labels, *new_labels]


@pytest.fixture(scope="module")
def store(rows, tmp_path_factory):
    store = LogStore(f"sqlite:///{tmp_path_factory.mktemp('statistics') / 'log.sqlite3'}")
    store.prepare()
    old, new, labels = rows
    store.add(old + new)
    store.add_feedback([*labels, ("nowhere", 0, "NORMAL"), (old[0]["request_id"], 0, "COLD")], START)
    return store


def selected(version: str = "1", first: datetime = START, until: datetime = START + 30 * DAY) -> Window:
    return Window("tiny", version, lane=None, since=first, until=until)


def test_every_version_is_told_with_its_first_and_last_image(store, rows):
    found = list_versions(store)
    assert [(each.version, each.images) for each in found] == [("1", 900), ("2", 300)]
    times = [row["time"] for row in rows[0]]
    assert (found[0].first, found[0].last) == (min(times), max(times))


@pytest.mark.parametrize("step", [DAY, timedelta(hours=1)])
def test_counts_over_time_are_those_of_the_rows(store, rows, step):
    found = count_over_time(store, selected(), step, "PNEUMONIA")
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    wanted = Counter(epoch + (row["time"] - epoch) // step * step for row in rows[0])
    assert {span.start: span.images for span in found} == wanted
    assert [span.start for span in found] == sorted(wanted)
    assert sum(span.uncertain for span in found) == sum(not row["certain"] for row in rows[0])
    assert sum(span.out_of_distribution for span in found) == sum(not row["in_distribution"] for row in rows[0])
    probability = np.array([row["probability"] for row in rows[0]])
    said = np.array([row["label"] == "PNEUMONIA" for row in rows[0]])
    total = ProbabilitySums.total([span.sums for span in found])
    assert vars(total) == pytest.approx(vars(sum_probabilities(probability, said)))


def test_with_several_classes_every_answer_is_a_claim(store):
    found = count_over_time(store, selected(), DAY, None)
    assert all(span.sums.positive == span.images and span.sums.negative == 0 for span in found)


def test_sites_are_counted_up_to_a_number_and_the_others_together(tmp_path):
    store = LogStore(f"sqlite:///{tmp_path / 'log.sqlite3'}")
    store.prepare()
    rows, _ = simulated.rows(400, START, START + DAY)
    sizes = {None: 30, **{f"site {number:02}": 34 - number for number in range(MOST_SITES + 3)}}
    names = [name for name, size in sizes.items() for _ in range(size)][:400]
    rows = [row | {"site": name} for row, name in zip(rows, names, strict=False)]
    store.add(rows)
    found = count_by_site(store, selected())
    assert sum(each.images for each in found) == len(rows)
    assert {each.site for each in found} >= {NO_SITE, "site 00"}
    assert len(found) <= MOST_SITES + 2
    assert [each.images for each in found] == sorted((each.images for each in found), reverse=True)
    for each in found:
        if each.site != OTHER_SITES:
            own = [row for row in rows if (row["site"] or NO_SITE) == each.site]
            assert (each.images, each.uncertain) == (len(own), sum(not row["certain"] for row in own))
    assert count_by_site(store, selected("2")) == []


def test_a_range_holds_its_first_moment_and_not_its_last(store, rows):
    times = sorted(row["time"] for row in rows[0])
    found = count_over_time(store, selected(first=times[10], until=times[20]), DAY, "PNEUMONIA")
    assert sum(span.images for span in found) == 10


def test_all_numbers_are_read_where_they_are_few(store, rows):
    found = read_sample(store, selected("2"), 300)
    assert list(found) == list(NUMBERS)
    for name, values in found.items():
        assert sorted(values) == sorted(row[name] for row in rows[1])


def test_of_many_images_a_fair_sample_is_read(store, rows):
    found = read_sample(store, selected(), 900, most=300)
    assert 230 <= len(found["mean"]) <= 370
    everything = [row["mean"] for row in rows[0]]
    assert ks_2samp(found["mean"], everything).pvalue > 0.001


def test_nothing_selected_is_nothing_and_no_error(store):
    nothing = selected(first=START - 9 * DAY, until=START - 8 * DAY)
    assert count_over_time(store, nothing, DAY, "PNEUMONIA") == []
    assert len(read_sample(store, nothing, 0)["mean"]) == 0
    assert len(read_labelled_answers(store, nothing, 0, CLASSES)) == 0


def test_labels_meet_their_images_and_those_that_are_no_class_are_left_out(store, rows):
    found = read_labelled_answers(store, selected(), 900, CLASSES)
    answers = {row["request_id"]: row for row in rows[0]}
    known = {key: label for key, _, label in rows[2] if key in answers and key != rows[0][0]["request_id"]}
    assert len(found) == len(known)
    wanted = sorted((answers[key]["probability"], answers[key]["label"], label) for key, label in known.items())
    assert sorted(zip(found.probability, found.predicted, found.truth, strict=True)) == wanted
    assert (np.diff(found.day) >= 0).all()
    assert found.day[0] == (rows[0][0]["time"] - datetime(1970, 1, 1, tzinfo=UTC)).days


def test_a_label_is_of_one_image_of_a_request_alone(tmp_path):
    store = LogStore(f"sqlite:///{tmp_path / 'log.sqlite3'}")
    store.prepare()
    rows, _ = simulated.rows(3, START, START + DAY)
    store.add([row | {"request_id": "one", "image_index": number} for number, row in enumerate(rows)])
    store.add_feedback([("one", 1, "NORMAL"), ("one", 2, "PNEUMONIA")], START)
    found = read_labelled_answers(store, selected(), 3, CLASSES)
    assert found.truth.tolist() == ["NORMAL", "PNEUMONIA"]
    assert found.probability.tolist() == [row["probability"] for row in rows[1:]]


def test_of_many_labels_a_fair_sample_is_read(store):
    everything = len(read_labelled_answers(store, selected(), 900, CLASSES))
    some = len(read_labelled_answers(store, selected(), 900, CLASSES, most=100))
    assert 40 < some < everything / 2


def test_a_version_is_found_by_an_index(store):
    query = (
        sa.select(sa.func.count())
        .where(selected().match())
        .compile(store.engine, compile_kwargs={"literal_binds": True})
    )
    with store.engine.connect() as connection:
        plan = " ".join(str(row) for row in connection.execute(sa.text(f"explain query plan {query}")))
    assert "predictions_by_version" in plan
    assert {index.name for index in predictions.indexes} >= {"predictions_by_version"}
    assert feedback.primary_key.columns.keys() == ["request_id", "image_index"]

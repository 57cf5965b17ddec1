import io
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pneumo.pipeline.drift.changed_images import PredictedImages, Scene
from pneumo.pipeline.drift.grades import Grade
from pneumo.pipeline.drift.plot import draw_simulation
from pneumo.pipeline.drift.simulation import measure_grade
from pneumo.pipeline.drift.simulation_result import Point, Simulation, find_sure_alarm
from pneumo.pipeline.evaluation.stress.shifts import Shift
from pneumo.serving.drift.column_tests import ColumnTests
from tests.support.drift_samples import draw

DARK = Shift("darker", "much", lambda gray, _, __: gray, 1)
ALL, TENTH = Grade("darker", "much", DARK), Grade("darker", "a tenth", DARK, share=0.1)
ODD, MIX = Grade("odd", "a tenth", photographs=0.1), Grade("mix", "nine tenths", positive=0.9)


@pytest.fixture(scope="module")
def scene() -> Scene:
    """Images whose numbers tell where they come from: 0 plain, 1 changed, 2 a photograph; a changed one is guessed."""
    count = 200

    def marked(value: float, seed: int, size: int = count):
        sample = draw(size, seed)
        return replace(sample, numbers={**sample.numbers, "noise": np.full(size, value)})

    positive = np.arange(count) % 2 == 0
    plain, changed = marked(0, 1), marked(1, 2)
    plain.numbers["probability"][:] = positive * 0.9 + 0.05
    return Scene(
        plain=PredictedImages(plain, np.ones(count, dtype=bool)),
        changed={DARK.title: PredictedImages(changed, np.arange(count) % 4 < 2)},
        photographs=marked(2, 3, 30),
        patients=np.arange(count).astype(str),
        positive=positive,
    )


@settings(max_examples=30)
@given(st.sampled_from([None, ALL, TENTH, ODD, MIX]), st.integers(20, 100), st.integers(0, 999))
def test_a_window_has_its_size_whatever_is_drawn(scene, grade, size, seed):
    window = scene.draw_window(grade, size, np.random.default_rng(seed))
    assert len(window) == size
    assert {len(values) for values in (*window.numbers.values(), *window.shares.values())} == {size}


def test_windows_hold_the_share_that_their_grade_says(scene):
    def kinds(grade):
        windows = [scene.draw_window(grade, 100, np.random.default_rng(seed)) for seed in range(40)]
        return [float(np.mean([window.numbers["noise"] == kind for window in windows])) for kind in (0, 1, 2)]

    assert kinds(None) == [1, 0, 0]
    assert kinds(ALL) == [0, 1, 0]
    assert kinds(TENTH) == pytest.approx([0.9, 0.1, 0], abs=0.02)
    assert kinds(ODD) == pytest.approx([0.9, 0, 0.1], abs=0.02)
    positives = [
        (scene.draw_window(MIX, 100, np.random.default_rng(s)).numbers["probability"] > 0.5).mean() for s in range(40)
    ]
    assert np.mean(positives) == pytest.approx(0.9, abs=0.02)


def test_no_radiograph_is_in_a_window_twice(scene):
    window = scene.draw_window(MIX, 100, np.random.default_rng(0))
    assert len(np.unique(window.embedding[:, 0])) == 100


def test_a_grade_that_takes_more_images_than_there_are_is_left_out(scene):
    assert scene.has_enough(MIX, 100)
    assert not scene.has_enough(MIX, 190)
    assert not replace(scene, photographs=None).has_enough(ODD, 50)
    assert not replace(scene, positive=None).has_enough(MIX, 50)


def test_accuracy_and_auroc_are_those_of_the_mixture_of_changed_and_plain_images(scene):
    judge = ColumnTests(draw(300, 0), positive_class="PNEUMONIA", draws=200)

    def found(grade):
        return measure_grade(scene, judge, grade, 1, 30, 0)

    assert (found(None).auroc, found(None).accuracy) == (1, 1)
    assert found(ALL).accuracy == pytest.approx(0.5)
    assert found(ALL).auroc == pytest.approx(0.5, abs=0.1)
    assert found(TENTH).accuracy == pytest.approx(0.95)
    assert found(ALL).auroc < found(TENTH).auroc < 1
    assert (found(MIX).auroc, found(MIX).accuracy) == (1, 1)
    assert measure_grade(replace(scene, positive=None), judge, ALL, 1, 30, 0).auroc is None


def test_alarms_are_the_share_of_windows_that_raise_one(scene):
    judge = ColumnTests(replace(scene.plain.sample), positive_class="PNEUMONIA")
    assert measure_grade(scene, judge, ALL, 10, 50, 0).alarms == 1
    assert measure_grade(scene, judge, ALL, 10, 50, 0).columns[0] == "noise"
    assert measure_grade(scene, judge, None, 10, 50, 0).alarms <= 0.2


def point(label: str, auroc: float | None, alarms: float, kind: str = "blur") -> Point:
    return Point(kind=kind, label=label, auroc=auroc, accuracy=0.9, alarms=alarms, drifts=0.0, columns=[])


def simulation(*points: Point, unchanged: float | None = 0.99) -> Simulation:
    return Simulation(
        model="tiny",
        version="1",
        data="data",
        data_fingerprint="0" * 64,
        split="test",
        images=100,
        patients=90,
        windows=10,
        size=50,
        unchanged=point("", unchanged, 0.02, "unchanged"),
        points=list(points),
    )


def test_harm_and_a_sure_alarm_are_the_mildest_grades_that_reach_them():
    points = [point("1", 0.985, 0.5), point("2", 0.97, 0.96), point("3", 0.9, 1.0)]
    assert simulation(*points).find_harm(points) is points[1]
    assert find_sure_alarm(points) is points[1]
    assert simulation(*points[:1]).find_harm(points[:1]) is None
    assert find_sure_alarm(points[:1]) is None
    assert simulation(unchanged=None).find_harm(points) is None


def test_the_picture_has_a_panel_for_each_kind_and_one_for_what_they_mean():
    one = simulation(*(point(str(number), 0.9, 0.5) for number in range(3)))
    five = simulation(*(point("1", None, 0.5, kind) for kind in "abcde"), unchanged=None)
    sizes = [Image.open(io.BytesIO(draw_simulation(each))).size for each in (one, five)]
    assert sizes[0][0] == sizes[1][0]
    assert sizes[0][1] < sizes[1][1]

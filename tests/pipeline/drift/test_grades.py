import itertools

import numpy as np
import pytest

from pneumo.pipeline.data import phantom
from pneumo.pipeline.drift.grades import list_grades, load_photographs

KINDS = {kind: list(grades) for kind, grades in itertools.groupby(list_grades(), key=lambda grade: grade.kind)}
PIXELS = [kind for kind, grades in KINDS.items() if grades[0].change is not None and grades[0].share == 1]


@pytest.fixture(scope="module")
def xray() -> np.ndarray:
    return phantom.draw_radiograph("PNEUMONIA", np.random.default_rng(5), size=96)


def test_there_is_a_change_of_everything_that_a_ward_may_meet():
    assert {"darker", "flatter", "gamma, darker", "blur", "noise", "low resolution", "rotation"} <= set(KINDS)
    assert {"cropped borders", "inverted", "more positives", "another scanner", "no radiographs"} <= set(KINDS)
    assert len({grade.title for grade in list_grades()}) == len(list_grades())


@pytest.mark.parametrize("kind", PIXELS)
def test_a_stronger_grade_changes_an_image_more(kind, xray):
    changed = [grade.change.apply(xray, "key") for grade in KINDS[kind]]
    assert all(image.shape == xray.shape and image.dtype == np.uint8 for image in changed)
    differences = [np.abs(image.astype(float) - xray).mean() for image in changed]
    assert differences == sorted(differences)
    assert differences[0] > 0


@pytest.mark.parametrize("kind", ["noise", "rotation", "another scanner"])
def test_the_same_image_is_changed_the_same_again(kind, xray):
    change = KINDS[kind][2].change
    assert np.array_equal(change.apply(xray, "a"), change.apply(xray, "a"))
    assert not np.array_equal(change.apply(xray, "a"), change.apply(xray, "c"))


def test_photographs_are_as_large_as_radiographs_and_differ():
    found = load_photographs(48)
    assert {image.shape for image in found} == {(48, 48)}
    assert {image.dtype for image in found} == {np.dtype(np.uint8)}
    assert len({image.tobytes() for image in found}) == len(found) >= 80

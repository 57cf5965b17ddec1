"""Pooled predictions of folds that were not trained: their logits are drawn from known distributions."""

from pathlib import Path

import numpy as np
import pytest

from pneumo.pipeline import decisions
from pneumo.pipeline.crossval.pooling import decide_cases, join_predictions, measure_spread
from pneumo.pipeline.crossval.record import Crossval
from pneumo.pipeline.runs.run import Fold, Run
from tests.pipeline.conftest import build_run

CLASSES = ("NORMAL", "PNEUMONIA", "COVID")
LIMITS = {"NORMAL": 0.3, "PNEUMONIA": 0.6, "COVID": 0.9}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[Fold, Run]:
    """Two folds of two repeats, whose networks name the classes in another order each, and have other decisions."""
    made = {}
    for seed in range(4):
        fold = Fold(number=seed % 2 + 1, folds=2, repeat=seed // 2 + 1, seed=seed // 2)
        classes = np.roll(CLASSES, seed).tolist()
        run = build_run(tmp_path_factory.mktemp("fold"), tuple(classes), images=90, shift=3, seed=seed, fold=fold)
        decided = decisions.Decisions(
            temperature=1.0 + seed,
            threshold=None,
            policy="",
            conformal_level=0.9,
            conformal_limit=[LIMITS[name] for name in classes],
            fitted_on="validation",
            images=30,
        )
        decisions.save_decisions(run, decided)
        made[fold] = run
    return made


def make_record() -> Crossval:
    return Crossval.model_validate(
        {"name": "x", "command": [], "config": "c.yaml", "data": "d", "data_fingerprint": "f", "classes": CLASSES}
        | {"positive": None, "folds": 2, "repeats": 2, "seed": 0, "started": "2026-01-02T00:00:00Z"}
    )


def test_pooled_predictions_are_those_for_the_held_out_images_in_one_order_of_classes(runs: dict[Fold, Run]) -> None:
    frame = join_predictions(runs, CLASSES)
    assert set(frame["split"]) == {"test"}
    assert frame.groupby(["repeat", "fold"]).ngroups == 4
    right = [CLASSES[np.argmax(logits)] == label for logits, label in zip(frame["logits"], frame["label"], strict=True)]
    assert np.mean(right) > 0.9  # 1/3 of the images, had the columns stayed as they were


def test_each_image_is_judged_by_the_decisions_of_its_own_fold(runs: dict[Fold, Run], tmp_path: Path) -> None:
    frame = join_predictions(runs, CLASSES)
    cases = decide_cases(frame, runs, make_record(), place="x")
    for (fold, _), temperature in zip(runs.items(), (1.0, 2.0, 3.0, 4.0), strict=True):
        own = ((frame["fold"] == fold.number) & (frame["repeat"] == fold.repeat)).to_numpy()
        scaled = np.exp(np.stack(list(frame["logits"]))[own] / temperature)
        expected = scaled / scaled.sum(axis=1, keepdims=True)
        assert cases.probabilities[own] == pytest.approx(expected)
        assert (cases.sets[own] == (1 - expected <= list(LIMITS.values()))).all()


def test_a_patient_is_one_patient_in_every_repeat(runs: dict[Fold, Run]) -> None:
    frame = join_predictions(runs, CLASSES)
    cases = decide_cases(frame, runs, make_record(), place="x")
    assert cases.patients == frame["patient"].nunique() < len(frame["patient"].unique()) * 2


def test_spread_leaves_out_what_a_fold_cannot_tell() -> None:
    spread = measure_spread([{"auroc": 0.9, "ppv": 0.5}, {"auroc": 0.8}, {"auroc": 0.7, "ppv": 0.4}])
    assert list(spread) == ["auroc"]
    assert (spread["auroc"].mean, spread["auroc"].low, spread["auroc"].high) == pytest.approx((0.8, 0.7, 0.9))
    assert spread["auroc"].deviation == pytest.approx(0.1)

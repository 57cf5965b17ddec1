import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from pneumo.pipeline.evaluation import evaluate_run, read_metrics
from pneumo.pipeline.evaluation.cases import Cases, Scores
from pneumo.pipeline.evaluation.results import Bootstrap
from pneumo.pipeline.evaluation.subgroups import FEWEST, FEWEST_OF_CLASS, measure_subgroups
from pneumo.pipeline.ludwig.inference import make_predictions_frame
from pneumo.pipeline.runs.run import Run
from tests.support.cases import make_decisions

NAMES = ["NORMAL", "PNEUMONIA"]
SETTINGS = Bootstrap(resamples=100)


def cases(logit: np.ndarray, truth: np.ndarray, positive: int | None = 1, **groups: list[str]) -> Cases:
    """Make one image per patient, threshold 0.5, temperature 1."""
    names = [f"{number}.png" for number in range(len(truth))]
    decisions = make_decisions(threshold=0.5 if positive is not None else None)
    logits = np.stack([np.zeros(len(truth)), logit], axis=1) if logit.ndim == 1 else logit
    held = {name: np.asarray(values, dtype=np.str_) for name, values in groups.items()}
    scores = Scores(names, np.full(len(truth), "test"), np.asarray(names, np.str_), truth, logits, held)
    return Cases.make(scores, decisions, positive)


def two_sources(images: int = 200, *, seed: int = 0) -> tuple[np.ndarray, np.ndarray, list[str], list[str]]:
    """Logits, truths and groups: viruses are harder than bacteria, the second source is harder than the first."""
    random = np.random.default_rng(seed)
    truth = np.arange(images) % 2
    second = np.arange(images) // 2 % 2
    mean = np.where(truth == 1, np.where(second, 1.0, 3.0), np.where(second, -0.5, -3.0))
    kind = [("virus" if late else "bacteria") if yes else "" for yes, late in zip(truth, second, strict=True)]
    source = ["" if yes else ("NORMAL2-IM" if late else "IM") for yes, late in zip(truth, second, strict=True)]
    return random.normal(mean, 1.0), truth, kind, source


def test_a_subgroup_of_one_class_has_its_rate_and_auroc_against_all_of_the_other() -> None:
    logit, truth, kind, source = two_sources()
    found, _ = measure_subgroups(cases(logit, truth, kind=kind, source=source), NAMES, SETTINGS)
    parts = {f"{part.group} {part.value}": part for part in found}
    assert set(parts) == {"kind bacteria", "kind virus", "source IM", "source NORMAL2-IM"}
    virus = np.array([value == "virus" for value in kind])
    assert parts["kind virus"].counts == {"NORMAL": 0, "PNEUMONIA": 50}
    assert parts["kind virus"].metrics["sensitivity"].value == pytest.approx((logit[virus] >= 0).mean())
    against = virus | (truth == 0)
    assert parts["kind virus"].metrics["auroc"].value == pytest.approx(roc_auc_score(truth[against], logit[against]))
    assert "specificity" not in parts["kind virus"].metrics
    first = np.array([value == "IM" for value in source])
    assert parts["source IM"].metrics["specificity"].value == pytest.approx((logit[first] < 0).mean())
    for part in found:
        for estimate in part.metrics.values():
            assert estimate.low <= estimate.value <= estimate.high


def test_the_worst_group_is_the_worst_pair_of_kind_and_source() -> None:
    logit, truth, kind, source = two_sources()
    _, worst = measure_subgroups(cases(logit, truth, kind=kind, source=source), NAMES, SETTINGS)
    assert worst is not None
    assert worst.name == "virus against NORMAL2-IM"
    pair = np.isin(kind, ["virus"]) | np.isin(source, ["NORMAL2-IM"])
    assert worst.auroc.value == pytest.approx(roc_auc_score(truth[pair], logit[pair]))
    assert worst.auroc.low <= worst.auroc.value <= worst.auroc.high
    assert worst.auroc.low < worst.auroc.high


def test_a_subgroup_of_both_classes_has_all_figures_of_its_own_images() -> None:
    logit, truth, _, _ = two_sources()
    sex = ["f" if number // 4 % 2 else "m" for number in range(len(truth))]
    found, worst = measure_subgroups(cases(logit, truth, sex=sex), NAMES, SETTINGS)
    own = np.array([value == "f" for value in sex])
    (women,) = [part for part in found if part.value == "f"]
    assert women.metrics["auroc"].value == pytest.approx(roc_auc_score(truth[own], logit[own]))
    assert {"sensitivity", "specificity", "ppv", "npv", "ece", "coverage"} <= set(women.metrics)
    assert worst is not None
    assert worst.auroc.value == min(part.metrics["auroc"].value for part in found)


def test_a_subgroup_of_a_few_images_is_shown_but_is_never_the_worst() -> None:
    logit, truth, _, _ = two_sources()
    view = ["rare" if number < FEWEST - 2 else "common" for number in range(len(truth))]
    logit[: FEWEST - 2] = np.where(truth[: FEWEST - 2] == 1, -5, 5)
    found, worst = measure_subgroups(cases(logit, truth, view=view), NAMES, SETTINGS)
    assert [part.value for part in found] == ["common", "rare"]
    assert found[1].metrics["auroc"].value == 0.0
    assert worst is not None
    assert worst.name == "view common"


def test_a_subgroup_with_a_few_images_of_one_class_is_never_the_worst() -> None:
    logit, truth, _, _ = two_sources()
    few = np.flatnonzero(truth == 0)[: FEWEST_OF_CLASS - 1]
    rare = {*few.tolist(), *np.flatnonzero(truth == 1)[:FEWEST].tolist()}
    view = ["rare" if number in rare else "common" for number in range(len(truth))]
    logit[few] = 9
    found, worst = measure_subgroups(cases(logit, truth, view=view), NAMES, SETTINGS)
    assert found[1].images > FEWEST
    assert found[1].metrics["auroc"].value == pytest.approx(0)
    assert worst is not None
    assert worst.name == "view common"


def test_two_groups_with_the_same_values_are_told_apart() -> None:
    logit, truth, kind, source = two_sources()
    ward = ["virus" if yes and number % 8 == 1 else "" for number, yes in enumerate(truth)]
    logit[[number for number, value in enumerate(ward) if value]] = -4
    _, worst = measure_subgroups(cases(logit, truth, kind=kind, source=source, ward=ward), NAMES, SETTINGS)
    assert worst is not None
    assert worst.name == "ward virus against NORMAL2-IM"
    pair = np.isin(ward, ["virus"]) | np.isin(source, ["NORMAL2-IM"])
    assert worst.auroc.value == pytest.approx(roc_auc_score(truth[pair], logit[pair]))
    _, other = measure_subgroups(cases(logit, truth, ward=ward, source=source, kind2=kind), NAMES, SETTINGS)
    assert other == worst


def test_a_subgroup_of_one_patient_has_values_without_intervals() -> None:
    logit, truth, _, _ = two_sources()
    view = ["rare" if number == 0 else "common" for number in range(len(truth))]
    found, _ = measure_subgroups(cases(logit, truth, view=view), NAMES, SETTINGS)
    assert (found[1].value, found[1].patients) == ("rare", 1)
    for estimate in found[1].metrics.values():
        assert estimate.value is not None
        assert estimate.low is None
        assert estimate.reason == "one patient only, or no resamples: no interval"


def test_images_without_a_group_are_in_no_subgroup() -> None:
    logit, truth, _, _ = two_sources(60)
    found, worst = measure_subgroups(cases(logit, truth, sex=[""] * 60), NAMES, SETTINGS)
    assert (found, worst) == ([], None)
    assert measure_subgroups(cases(logit, truth), NAMES, SETTINGS) == ([], None)


def test_without_images_of_the_other_class_the_figures_say_why_they_are_missing() -> None:
    logit = np.linspace(-1, 3, 40)
    found, worst = measure_subgroups(cases(logit, np.ones(40, dtype=np.int64), kind=["virus"] * 40), NAMES, SETTINGS)
    assert found[0].metrics["auroc"].value is None
    assert found[0].metrics["auroc"].reason == "images of one class only"
    assert worst is not None
    assert worst.auroc.value is None
    assert worst.auroc.reason


def test_more_than_two_classes_have_accuracy_by_subgroup_and_no_worst_auroc() -> None:
    random = np.random.default_rng(0)
    truth = random.integers(0, 3, 90)
    logits = random.normal(0, 1, (90, 3)) + 2 * np.eye(3)[truth]
    sex = ["f" if number % 3 else "m" for number in range(90)]
    found, worst = measure_subgroups(cases(logits, truth, None, sex=sex), ["a", "b", "c"], SETTINGS)
    assert worst is None
    assert set(found[0].metrics) == {"accuracy", "coverage", "uncertain"}


def test_without_resamples_there_are_values_and_a_reason_instead_of_intervals() -> None:
    logit, truth, kind, source = two_sources()
    found, worst = measure_subgroups(cases(logit, truth, kind=kind, source=source), NAMES, Bootstrap(resamples=0))
    assert worst is not None
    for estimate in [worst.auroc, *(each for part in found for each in part.metrics.values())]:
        assert estimate.value is not None
        assert estimate.low is None
        assert estimate.reason


def test_groups_of_the_manifest_are_reported_of_a_run_that_kept_none(synthesise_run) -> None:
    run = synthesise_run(images=360, groups=True)
    report = evaluate_run(run, resamples=30)
    assert {(part.group, part.value) for part in report.result.subgroups} == {
        ("kind", "bacteria"),
        ("kind", "virus"),
        ("source", "IM"),
        ("source", "NORMAL2-IM"),
    }
    assert sum(part.images for part in report.result.subgroups) == report.result.images
    assert report.result.metrics["worst_group_auroc"].value is not None
    assert "against" in (report.result.worst_group or "")
    metrics = read_metrics(run)
    assert metrics.splits["test"] == report.result
    assert metrics.splits["train"].subgroups == []  # the weights have seen these images
    text = run.report.read_text()
    assert "Subgroups, test" in text
    assert "kind: virus" in text
    assert report.result.worst_group in text


def test_groups_in_the_predictions_need_no_data_set(synthesise_run) -> None:
    run = synthesise_run(images=360, groups=True)
    frame = pd.read_parquet(run.predictions)
    frame["group:sex"] = ["f" if number // 4 % 2 else None for number in range(len(frame))]
    frame.to_parquet(run.predictions)
    shutil.rmtree(Path(run.info().data))
    found = evaluate_run(run, resamples=10).result.subgroups
    assert [(part.group, part.value) for part in found] == [("sex", "f")]


def test_groups_of_a_data_set_that_has_changed_are_not_used(synthesise_run) -> None:
    run = synthesise_run(images=120, groups=True)
    path = Path(run.info().data) / "dataset.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"fingerprint": "0"}))
    assert evaluate_run(run, resamples=10).result.subgroups == []


def test_predictions_keep_the_groups_of_the_data_set(trained: Run) -> None:
    frame = pd.read_parquet(trained.predictions)
    grouped: Any = frame.groupby("label")["group:kind"]
    kinds = grouped.agg(lambda values: set(values))
    assert kinds["PNEUMONIA"] == {"bacteria", "virus"}
    assert kinds["NORMAL"] == {""}
    assert len(make_predictions_frame([], np.zeros((0, 2), dtype=np.float32))) == 0
    test = read_metrics(trained).splits["test"]
    assert {part.value for part in test.subgroups} >= {"bacteria", "virus"}

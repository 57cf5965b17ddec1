import json
import subprocess
import sys
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm

from pneumo.pipeline import decisions
from pneumo.pipeline.evaluation import evaluate_run, read_metrics
from pneumo.serving.contracts.errors import InputError

pytestmark = pytest.mark.usefixtures("no_pages")


def test_a_run_gets_decisions_metrics_and_a_report(synthesise_run) -> None:
    run = synthesise_run(images=900)
    report = evaluate_run(run, resamples=200)
    assert report.split == "test"
    assert [name for name in ("metrics.json", "decisions.json", "report.html") if (run.folder / name).is_file()] == [
        "metrics.json",
        "decisions.json",
        "report.html",
    ]
    metrics = read_metrics(run)
    assert set(metrics.splits) == {"train", "validation", "test"}
    assert metrics.splits["test"] == report.result
    assert metrics.decisions == decisions.read_decisions(run)
    auroc = report.result.metrics["auroc"]
    assert auroc.low < norm.cdf(np.sqrt(2)) < auroc.high
    assert report.result.images == sum(report.result.counts.values()) == np.sum(report.result.confusion.counts)
    assert report.result.patients == report.result.images / 2


def test_decisions_come_from_validation_alone(synthesise_run) -> None:
    run = synthesise_run(images=300)
    evaluate_run(run, resamples=0)
    before = decisions.read_decisions(run)
    frame = pd.read_parquet(run.predictions)
    others = frame["split"] != "validation"
    frame.loc[others, "label"] = "NORMAL"
    frame.to_parquet(run.predictions)
    evaluate_run(run, resamples=0)
    assert decisions.read_decisions(run) == before
    assert before.images == (~others).sum()


def test_the_policy_is_kept_by_the_next_evaluation(synthesise_run) -> None:
    run = synthesise_run(images=300)
    report = evaluate_run(run, policy="sensitivity >= 0.95", resamples=0)
    again = evaluate_run(run, resamples=0)
    assert again.decisions == report.decisions
    assert read_metrics(run).splits["validation"].metrics["sensitivity"].value >= 0.95


def test_the_decisions_of_the_config_are_used_until_another_policy_is_asked_for(synthesise_run) -> None:
    run = synthesise_run(images=300)
    run.config.write_text("decisions: {threshold: 'cost FN:FP = 5:1', coverage: 0.8, outliers: 0.95}\n")
    found = evaluate_run(run, resamples=0).decisions
    assert (found.policy, found.conformal_level, found.outlier_quantile) == ("cost FN:FP = 5:1", 0.8, 0.95)
    again = evaluate_run(run, policy="max accuracy", resamples=0).decisions
    assert (again.policy, again.conformal_level, again.outlier_quantile) == ("max accuracy", 0.8, 0.95)
    assert again.threshold > found.threshold
    assert evaluate_run(run, resamples=0).decisions == again


def test_a_policy_for_more_than_two_classes_is_refused(synthesise_run) -> None:
    run = synthesise_run(("a", "b", "c"), images=90)
    with pytest.raises(InputError, match=r"--policy 'max accuracy': .* has 3 classes and no threshold"):
        evaluate_run(run, policy="max accuracy", resamples=0)


def test_calibration_is_told_before_and_after_with_the_interval_of_the_change(synthesise_run) -> None:
    run = synthesise_run(images=900, shift=1.0)
    frame = pd.read_parquet(run.predictions)
    scaled: Any = [np.asarray(row) * 10 for row in frame["logits"]]  # far too sure
    frame["logits"] = scaled
    frame.to_parquet(run.predictions)
    found = evaluate_run(run, resamples=200).result.metrics
    assert found["ece"].value < found["ece_uncalibrated"].value
    change = found["ece_change"]
    assert change.value == pytest.approx(found["ece"].value - found["ece_uncalibrated"].value)
    assert change.low <= change.value <= change.high < 0


def test_a_temperature_that_spoils_the_calibration_of_a_split_is_told(synthesise_run, page) -> None:
    run = synthesise_run(images=900, shift=1.0)
    good = evaluate_run(run, resamples=100)
    assert good.remarks == []
    frame = pd.read_parquet(run.predictions)
    held = frame["split"] == "validation"
    scaled: Any = [np.asarray(row) * (4 if val else 2) for row, val in zip(frame["logits"], held, strict=True)]
    frame["logits"] = scaled
    # What was too sure on validation was right on test: after shift 1 the true log odds are twice the logit.
    frame.to_parquet(run.predictions)
    (run.folder / decisions.FILE).unlink()
    (remark,) = evaluate_run(run, resamples=200).remarks
    assert remark.startswith("temperature scaling raises the calibration error on test by 0.")
    assert "raises the calibration error on test" in run.report.read_text()


def test_accuracy_is_higher_where_the_model_is_certain(synthesise_run) -> None:
    found = evaluate_run(synthesise_run(images=900), resamples=50).result.metrics
    assert found["accuracy_certain"].value > found["accuracy"].value
    assert found["accuracy_certain"].low <= found["accuracy_certain"].value
    shares = [found["prevalence"].value, 1 - found["prevalence"].value]
    by_class = [found["coverage:PNEUMONIA"].value, found["coverage:NORMAL"].value]
    assert np.dot(shares, by_class) == pytest.approx(found["coverage"].value)


def test_metrics_of_an_earlier_version_are_read(synthesise_run) -> None:
    run = synthesise_run()
    evaluate_run(run, resamples=10)
    document = json.loads(run.metrics.read_text())
    for name in ("outlier_quantile", "equivalent"):
        del document["decisions"][name]
    for part in document["splits"].values():
        del part["subgroups"], part["worst_group"]
        part["metrics"] = {name: value for name, value in part["metrics"].items() if name not in ("ece_change",)}
    run.metrics.write_text(json.dumps(document))
    assert read_metrics(run).decisions.outlier_quantile == 0.99


def test_a_wrong_policy_leaves_the_run_as_it_was(synthesise_run) -> None:
    run = synthesise_run()
    evaluate_run(run, resamples=10)
    before = {path.name: path.read_bytes() for path in run.folder.iterdir() if path.is_file()}
    with pytest.raises(InputError, match="not a rule"):
        evaluate_run(run, policy="best", resamples=10)
    assert before == {path.name: path.read_bytes() for path in run.folder.iterdir() if path.is_file()}


def test_metrics_are_json_without_nan_where_a_split_has_one_class(synthesise_run, page) -> None:
    run = synthesise_run()
    frame = pd.read_parquet(run.predictions)
    frame.loc[frame["split"] == "test", "label"] = "PNEUMONIA"
    frame.to_parquet(run.predictions)
    evaluate_run(run, resamples=20)

    def refuse(text: str) -> None:
        raise AssertionError(text)

    document = json.loads(run.metrics.read_text(), parse_constant=refuse)
    auroc = document["splits"]["test"]["metrics"]["auroc"]
    assert auroc["value"] is None
    assert auroc["reason"] == "no NORMAL images in this split"
    assert "no NORMAL images" in run.report.read_text()


@pytest.mark.parametrize(("splits", "lead"), [(("train", "validation"), "validation"), (("train",), "train")])
def test_a_run_without_test_images_is_led_by_what_it_has(synthesise_run, splits, lead) -> None:
    run = synthesise_run(splits=splits)
    assert evaluate_run(run, resamples=10).split == lead


def test_more_than_two_classes_are_measured(synthesise_run, page) -> None:
    run = synthesise_run(("bacteria", "normal", "virus"), images=300, shift=3.0)
    report = evaluate_run(run, resamples=50)
    assert report.decisions.threshold is None
    assert report.result.metrics["auroc"].value > 0.9
    assert "Sensitivity of virus" in run.report.read_text()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda frame: frame.drop(columns="patient"), "no column 'patient'"),
        (lambda frame: frame.assign(label="COVID"), "label 'COVID' is unknown"),
        (lambda frame: frame.assign(split="holdout"), "split 'holdout' is unknown"),
        (lambda frame: frame.assign(logits=[[0.0, float("nan")]] * len(frame)), "finite numbers"),
        (lambda frame: frame.assign(logits=[[0.0]] * len(frame)), "must be 2 finite numbers"),
        (lambda frame: frame.iloc[:0], "no images to evaluate"),
    ],
)
def test_predictions_that_do_not_fit_are_refused_in_a_line(synthesise_run, change, message) -> None:
    run = synthesise_run()
    change(pd.read_parquet(run.predictions)).to_parquet(run.predictions)
    with pytest.raises(InputError, match=message) as caught:
        evaluate_run(run, resamples=10)
    assert "\n" not in str(caught.value)


def test_missing_and_damaged_predictions_are_told_apart(synthesise_run) -> None:
    run = synthesise_run()
    run.predictions.write_bytes(b"not parquet")
    with pytest.raises(InputError, match="damaged"):
        evaluate_run(run)
    run.predictions.unlink()
    with pytest.raises(InputError, match="--resume"):
        evaluate_run(run)


def test_damaged_metrics_are_named_with_the_fix(synthesise_run) -> None:
    run = synthesise_run()
    with pytest.raises(InputError, match="not evaluated yet"):
        read_metrics(run)
    run.metrics.write_text("{}")
    with pytest.raises(InputError, match=r"metrics\.json: run: .*pneumo evaluate"):
        read_metrics(run)


@pytest.mark.slow
def test_torch_is_not_loaded_to_evaluate(synthesise_run) -> None:
    run = synthesise_run()
    code = (
        "import sys; from pathlib import Path; from pneumo.pipeline.runs.run import Run\n"
        "from pneumo.pipeline.evaluation import evaluate_run\n"
        f"evaluate_run(Run(Path({str(run.folder)!r})), resamples=10)\n"
        "print('torch' in sys.modules, 'ludwig' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]

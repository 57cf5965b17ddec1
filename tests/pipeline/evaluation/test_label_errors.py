import csv
import io
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pneumo.pipeline.crossval.record import Crossval, CrossvalFolder
from pneumo.pipeline.data import manifest
from pneumo.pipeline.data.audit import Severity
from pneumo.pipeline.data.manifest import Dataset
from pneumo.pipeline.evaluation.label_errors import LabelErrors, find_label_errors, rank_labels
from pneumo.pipeline.runs.run import Run, Status
from pneumo.serving.contracts.errors import InputError
from tests.pipeline.conftest import SynthesiseRun

PROBABILITIES = """
0.5584 0.2937 0.1479  0.1548 0.7083 0.1369  0.142 0.659 0.199  0.279 0.389 0.332  0.3796 0.2977 0.3227
0.566 0.049 0.385  0.4625 0.3546 0.1829  0.276 0.217 0.507  0.564 0.374 0.062  0.405 0.269 0.326
0.08 0.766 0.154  0.076 0.717 0.207  0.4356 0.4815 0.0829  0.173 0.614 0.213  0.015 0.072 0.913
0.097 0.64 0.263  0.014 0.91 0.076  0.035 0.162 0.803  0.4044 0.4234 0.1722  0.124 0.851 0.025
0.2543 0.1141 0.6316  0.3367 0.2567 0.4066  0.2118 0.7732 0.015  0.137 0.774 0.089
"""


def judge(run: Run) -> LabelErrors:
    return find_label_errors(run, read_data(run))


def read_data(run: Run) -> Dataset:
    return manifest.read_dataset(Path(run.info().data))


def keep_as_crossval(run: Run, folder: Path, predictions: pd.DataFrame) -> CrossvalFolder:
    """Write predictions as the folder of a finished cross-validation on a run's data set."""
    info = run.info()
    record = Crossval(
        name=folder.name,
        command=[],
        config=info.config,
        data=info.data,
        data_fingerprint=info.data_fingerprint,
        classes=info.classes,
        positive=info.positive,
        folds=2,
        repeats=2,
        seed=0,
        git_commit=None,
        started=datetime(2026, 1, 2, tzinfo=UTC),
        status=Status.DONE,
    )
    folder.mkdir(parents=True)
    crossval = CrossvalFolder(folder)
    crossval.save(record)
    predictions.to_parquet(crossval.predictions)
    return crossval


def test_likely_errors_and_their_order_are_those_that_cleanlab_finds() -> None:
    """Values of cleanlab 2.9.0: filter `confident_learning`, ranked by normalized margin with `adjust_pred_probs`."""
    probabilities = np.array(PROBABILITIES.split(), dtype=np.float64).reshape(24, 3)
    order, suggested, likely = rank_labels(np.arange(24) % 3, probabilities)
    assert order.tolist() == [8, 7, 23, 4, 11, 2, 5, 15, 21, 3, 9, 13, 12, 18, 1, 22, 6, 20, 10, 0, 19, 16, 17, 14]
    assert np.flatnonzero(likely).tolist() == [2, 4, 5, 7, 8, 11, 23]
    assert suggested[[23, 8, 7]].tolist() == [1, 0, 2]


def test_swapped_labels_lead_the_ranking_and_the_rest_follows_by_margin() -> None:
    rng = np.random.default_rng(3)
    truth = (rng.random(2000) < 0.7).astype(np.int64)
    swapped = rng.permutation(2000)[:100]
    labels = truth.copy()
    labels[swapped] = 1 - truth[swapped]
    positive = 1 / (1 + np.exp(-rng.normal(np.where(truth == 1, 3.0, -3.0), 1.5)))
    order, _, likely = rank_labels(labels, np.stack([1 - positive, positive], axis=1))
    assert np.isin(swapped, order[:200]).mean() > 0.9
    sure = np.array([(1 - positive)[labels == 0].mean(), positive[labels == 1].mean()])
    given = (np.where(labels == 1, positive, 1 - positive) - (sure[labels] - sure[1 - labels]) / 2)[order]
    count = int(likely.sum())
    assert likely[order[:count]].all()
    assert all((np.diff(part) >= 0).all() for part in (given[:count], given[count:]))


def test_a_class_that_no_judged_image_has_is_never_a_reason() -> None:
    probabilities = np.array([[0.4, 0.1, 0.5], [0.9, 0.1, 0.0], [0.2, 0.8, 0.0]])
    _, suggested, likely = rank_labels(np.array([0, 0, 1]), probabilities)
    assert not likely.any()
    assert suggested.tolist() == [2, 1, 0]


def test_only_images_that_a_run_was_not_trained_on_are_judged(synthesise_run: SynthesiseRun) -> None:
    run = synthesise_run(shift=0.5)
    errors = judge(run)
    assert {suspect.split for suspect in errors.ranking} == {"validation", "test"}
    assert len(errors.ranking) == 80
    assert errors.images == 120
    assert "80 of 120 images" in errors.describe()
    finding = errors.to_finding()
    assert finding.severity is Severity.WARNING
    assert finding.count == errors.likely > 0
    assert finding.members[0] == (errors.ranking[0].image,)


def test_all_images_of_a_cross_validation_are_judged_by_their_mean_over_repeats(
    synthesise_run: SynthesiseRun, tmp_path: Path
) -> None:
    run = synthesise_run()
    frame = pd.read_parquet(run.predictions).assign(split="test")
    shifted = [list(np.stack(list(frame["logits"])) + np.array([0, n])) for n in range(2)]
    repeats = [frame.assign(repeat=n + 1, fold=1, logits=shifted[n]) for n in range(2)]
    crossval = keep_as_crossval(run, tmp_path / "crossvals" / "mine", pd.concat(repeats, ignore_index=True))
    dataset = read_data(run)
    errors = find_label_errors(crossval, dataset)
    assert sorted(suspect.image for suspect in errors.ranking) == [row.image for row in dataset.rows]
    suspect = errors.ranking[0]
    logit = dict(zip(frame["image"], frame["logits"], strict=True))[suspect.image][1]
    positive = np.mean([1 / (1 + np.exp(-(logit + n))) for n in range(2)])
    assert suspect.probability == pytest.approx(positive if suspect.label == "PNEUMONIA" else 1 - positive, abs=1e-5)


def test_the_ranking_leaves_as_a_table_with_the_given_labels(synthesise_run: SynthesiseRun, tmp_path: Path) -> None:
    errors = judge(synthesise_run())
    errors.write_csv(tmp_path / "ranking.csv")
    rows = list(csv.DictReader(io.StringIO((tmp_path / "ranking.csv").read_text())))
    assert [row["image"] for row in rows] == [suspect.image for suspect in errors.ranking]
    assert [row["label"] for row in rows] == [suspect.label for suspect in errors.ranking]
    assert {row["likely"] for row in rows[: errors.likely]} == {"True"}
    assert rows[0]["rank"] == "1"


def test_predictions_of_other_data_or_of_no_held_out_image_are_refused(synthesise_run: SynthesiseRun) -> None:
    run, other = synthesise_run(), synthesise_run(seed=1)
    with pytest.raises(InputError, match=r"was not trained on .*data-1-2 as it is now"):
        find_label_errors(run, read_data(other))
    pd.read_parquet(run.predictions).assign(split="train").to_parquet(run.predictions)
    with pytest.raises(InputError, match=r"predictions.parquet: holds no validation or test images"):
        judge(run)
    run.predictions.unlink()
    with pytest.raises(InputError, match=rf"predictions.parquet: cannot be read .*finish {run.name} first"):
        judge(run)

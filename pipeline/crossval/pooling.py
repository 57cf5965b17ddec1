"""Out-of-fold predictions of all folds as one table, and what they measure."""

from collections.abc import Mapping, Sequence
from statistics import fmean, stdev
from typing import TYPE_CHECKING

import numpy as np

from pneumo.pipeline.crossval.record import Crossval, CrossvalFolder, FoldRun, Spread
from pneumo.pipeline.decisions import read_decisions
from pneumo.pipeline.evaluation.cases import Cases, positive_column, read_predictions, take_images, to_scores
from pneumo.pipeline.evaluation.measure import measure_cases
from pneumo.pipeline.evaluation.results import display_rank, read_metrics
from pneumo.pipeline.runs.run import Fold, Run

if TYPE_CHECKING:
    import pandas as pd


def pool_folds(folder: CrossvalFolder, record: Crossval) -> None:
    """Write `predictions.parquet` of a cross-validation whose folds are all trained, and measure it into the record."""
    runs = folder.list_runs()
    record.classes = next(iter(runs.values())).info().classes
    frame = join_predictions(runs, record.classes)
    cases = decide_cases(frame, runs, record, place=str(folder.predictions))
    record.pooled = measure_cases(cases, record.classes, record.bootstrap)
    record.spread = measure_spread([each.metrics for each in record.runs])
    frame.to_parquet(folder.predictions, index=False)


def describe_run(run: Run, fold: Fold) -> FoldRun:
    """Return the entry of a finished fold in `crossval.json`."""
    result = read_metrics(run).splits["test"]
    return FoldRun(
        run=f"{run.folder.parent.name}/{run.name}",
        fold=fold.number,
        repeat=fold.repeat,
        seed=fold.seed,
        images=result.images,
        patients=result.patients,
        metrics={name: each.value for name, each in result.metrics.items() if each.value is not None},
    )


def join_predictions(runs: Mapping[Fold, Run], classes: Sequence[str]) -> "pd.DataFrame":
    """Return the predictions of each run for its own fold, with `fold` and `repeat`; columns of logits as `classes`."""
    import pandas as pd

    parts = []
    for fold, run in runs.items():
        frame = read_predictions(run)
        frame = frame[frame["split"] == "test"].assign(fold=fold.number, repeat=fold.repeat)
        order = [run.info().classes.index(name) for name in classes]
        for column in ("logits", "probabilities"):
            frame[column] = [np.asarray(row)[order].tolist() for row in frame[column]]
        parts.append(frame)
    return pd.concat(parts, ignore_index=True)


def decide_cases(frame: "pd.DataFrame", runs: Mapping[Fold, Run], record: Crossval, *, place: str) -> Cases:
    """Apply to each image the decisions of its fold's run, which were fitted without the fold.

    Patients are numbered over all folds and repeats, so that a draw of patients draws them in every repeat.
    """
    scores, positive = to_scores(frame, record.classes, place=place), positive_column(record.classes, record.positive)
    parts = []
    for fold, run in runs.items():
        decisions = read_decisions(run)
        limits = decisions.limits_by_class(run.info().classes)
        decisions = decisions.model_copy(update={"conformal_limit": [limits[name] for name in record.classes]})
        own = np.asarray((frame["fold"] == fold.number) & (frame["repeat"] == fold.repeat))
        parts.append(Cases.make(take_images(scores, own), decisions, positive))
    names, patient = np.unique(scores.patient, return_inverse=True)
    return Cases(
        image=scores.image,
        patient=patient.astype(np.int64),
        patients=len(names),
        truth=scores.truth,
        probabilities=np.concatenate([part.probabilities for part in parts]),
        uncalibrated=np.concatenate([part.uncalibrated for part in parts]),
        answer=np.concatenate([part.answer for part in parts]),
        sets=np.concatenate([part.sets for part in parts]),
        positive=positive,
        groups=scores.groups,
    )


def measure_spread(folds: Sequence[Mapping[str, float]]) -> dict[str, Spread]:
    """Return the spread of each metric that is defined on each of two or more folds."""
    names = sorted(set.intersection(*(set(each) for each in folds)), key=display_rank)
    values = {name: [each[name] for each in folds] for name in names}
    return {
        name: Spread(mean=fmean(some), deviation=stdev(some), low=min(some), high=max(some))
        for name, some in values.items()
    }

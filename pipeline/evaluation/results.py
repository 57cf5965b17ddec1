"""Results of an evaluation: the types behind `metrics.json`."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import ValidationError

from pneumo.pipeline.decisions import Decisions
from pneumo.pipeline.runs.run import Run
from pneumo.serving.contracts.errors import InputError, first_problem
from pneumo.serving.contracts.figures import format_estimate
from pneumo.serving.contracts.models import FrozenModel

ECE_BINS = 15

SECTIONS = {
    "Discrimination": {
        "auroc": "AUROC",
        "worst_group_auroc": "Worst-group AUROC",
        "average_precision": "Average precision",
    },
    "Classification": {
        "sensitivity": "Sensitivity",
        "specificity": "Specificity",
        "ppv": "Positive predictive value",
        "npv": "Negative predictive value",
        "accuracy": "Accuracy",
        "balanced_accuracy": "Balanced accuracy",
        "f1": "F1",
        "prevalence": "Prevalence",
    },
    "Calibration": {
        "ece_uncalibrated": f"Expected calibration error ({ECE_BINS} bins), uncalibrated",
        "ece": "Expected calibration error, calibrated",
        "ece_change": "Change in expected calibration error",
        "brier": "Brier score",
        "nll_uncalibrated": "Negative log-likelihood, uncalibrated",
        "nll": "Negative log-likelihood, calibrated",
    },
    "Uncertainty": {
        "coverage": "Prediction set coverage",
        "uncertain": "Share of uncertain images",
        "accuracy_certain": "Accuracy on certain images",
    },
}
"""Titles of the metrics by section, in the order they are shown."""

TITLES = {name: words for section in SECTIONS.values() for name, words in section.items()}


def display_rank(metric: str) -> int:
    """Return the position of a metric among those that are shown."""
    return list(TITLES).index(metric.partition(":")[0])


def by_section(metrics: Iterable[str]) -> dict[str, list[str]]:
    """Group metrics by the section they are shown in, each once and in order; empty sections are left out."""
    ordered = sorted(dict.fromkeys(metrics), key=display_rank)
    groups = {name: [each for each in ordered if each.partition(":")[0] in words] for name, words in SECTIONS.items()}
    return {name: members for name, members in groups.items() if members}


def title(metric: str) -> str:
    """Return the title of a metric; `sensitivity:COVID` is the sensitivity of one class."""
    base, _, of_class = metric.partition(":")
    return TITLES.get(base, base) + (f" of {of_class}" if of_class else "")


class Estimate(FrozenModel):
    """A value with its interval; None if undefined, `reason` says why.

    `dropped` counts the resamples left out because the metric is undefined in them.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    reason: str | None = None
    dropped: int = 0


class Confusion(FrozenModel):
    """Counts of images with intervals: rows are the ground truth, columns the predicted class, in class order."""

    counts: list[list[int]]
    low: list[list[float]] | None = None
    high: list[list[float]] | None = None


class Subgroup(FrozenModel):
    """Metrics of one subgroup of a split, such as the value `virus` of the group `kind`.

    A subgroup of one class has sensitivity or specificity, and the AUROC against all images of the other class.
    """

    group: str
    value: str
    images: int
    patients: int
    counts: dict[str, int]
    metrics: dict[str, Estimate]


class SplitResult(FrozenModel):
    """Metrics of one split, by the names in `TITLES`; a metric of one class has `:class` behind its name.

    `worst_group` names the images of `worst_group_auroc`, such as `virus against NORMAL2-IM`.
    """

    images: int
    patients: int
    counts: dict[str, int]
    metrics: dict[str, Estimate]
    confusion: Confusion
    subgroups: list[Subgroup] = []
    worst_group: str | None = None


class Bootstrap(FrozenModel):
    """Method of the intervals: percentiles over resamples of whole patients, widened to hold the value.

    If no resample differs, as with a rate of 0 or 1, the interval is exact (`evaluation.exact_intervals`).
    """

    unit: str = "patient"
    method: str = "percentile, exact where it has no width"
    level: float = 0.95
    resamples: int = 1000
    seed: int = 0

    @property
    def tails(self) -> tuple[float, float]:
        """Lower and upper quantile of the resampled values that bound an interval."""
        return (1 - self.level) / 2, 1 - (1 - self.level) / 2


class Metrics(FrozenModel):
    """`metrics.json`: every split of one data set under one model and its decisions.

    Classes are in column order; `positive` is None with more than two. Splits without images are left out.
    """

    schema_version: int = 1
    run: str
    data: str
    data_fingerprint: str
    classes: list[str]
    positive: str | None
    decisions: Decisions
    bootstrap: Bootstrap
    ece_bins: int = ECE_BINS
    splits: dict[str, SplitResult]


class EvaluationReport(FrozenModel):
    """One split of `Metrics`, with the paths of the files that were written."""

    run: str
    data: str
    data_fingerprint: str
    split: str
    classes: list[str]
    positive: str | None
    decisions: Decisions
    bootstrap: Bootstrap
    result: SplitResult
    remarks: list[str] = []
    files: list[str] = []


def list_doubts(metrics: Metrics) -> list[str]:
    """Return the reasons not to use a model; an empty list is no recommendation."""
    return [
        f"{split} AUROC {format_estimate(auroc)}: no better than chance"
        for split, result in metrics.splits.items()
        if split != "train" and (auroc := result.metrics.get("auroc")) and auroc.low is not None and auroc.low <= 0.5
    ]


def list_remarks(metrics: Metrics) -> list[str]:
    """Return notes for readers of the figures."""
    remarks = list(metrics.decisions.notes)
    for split, result in metrics.splits.items():
        change = result.metrics.get("ece_change")
        if split != "train" and change and change.value is not None and change.low is not None and change.low > 0:
            remarks.append(
                f"temperature scaling raises the calibration error on {split} by {format_estimate(change)}: "
                "the temperature was fitted to few or different images"
            )
        for name in metrics.classes if split != "train" else ():
            held, aim = result.metrics.get(f"coverage:{name}"), metrics.decisions.conformal_level
            if held and held.value is not None and held.low is not None and held.high is not None and held.high < aim:
                remarks.append(
                    f"prediction sets cover {format_estimate(held)} of the {name} images of {split}, "
                    f"less than the {aim:g} they aim at"
                )
    return remarks


def values_by_split(document: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Return the defined values of all metrics by split, from `metrics.json` or a bundle's copy of it."""
    return {
        split: {name: part["value"] for name, part in result["metrics"].items() if part["value"] is not None}
        for split, result in document.get("splits", {}).items()
    }


def read_values(run: Run) -> dict[str, dict[str, float]]:
    """Return the values of a run's metrics by split, quickly; none if it was not evaluated.

    Raises:
        InputError: `metrics.json` is damaged.
    """
    try:
        return values_by_split(json.loads(run.metrics.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError, LookupError, TypeError, AttributeError):
        raise InputError(f"{run.metrics}: cannot be read; run `pneumo evaluate {run.name}`") from None


def read_metrics(run: Run) -> Metrics:
    """Read `metrics.json` of a run; raise an `InputError` if it was not evaluated, or the file is damaged."""
    if not run.metrics.is_file():
        raise InputError(f"{run.folder}: not evaluated yet; run `pneumo evaluate {run.name}`")
    try:
        return Metrics.model_validate_json(run.metrics.read_text(encoding="utf-8"))
    except ValidationError as error:
        raise InputError(f"{run.metrics}: {first_problem(error)}; run `pneumo evaluate {run.name}`") from None

"""What an evaluation says: the types behind `metrics.json`."""

from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import ValidationError

from pneumo.pipeline.decisions import Decisions
from pneumo.pipeline.runs.run import Run
from pneumo.serving.contracts.errors import InputError, first_problem
from pneumo.serving.contracts.models import FrozenModel

ECE_BINS = 15

SECTIONS = {
    "Ranking": {
        "auroc": "AUROC",
        "worst_group_auroc": "Worst-group AUROC",
        "average_precision": "Average precision",
    },
    "Answers": {
        "sensitivity": "Sensitivity",
        "specificity": "Specificity",
        "ppv": "Positive predictive value",
        "npv": "Negative predictive value",
        "accuracy": "Accuracy",
        "balanced_accuracy": "Balanced accuracy",
        "f1": "F1",
        "prevalence": "Prevalence",
    },
    "Probabilities": {
        "ece_uncalibrated": f"Calibration error (ECE, {ECE_BINS} bins) before temperature",
        "ece": "Calibration error with temperature",
        "ece_change": "Change of the calibration error",
        "brier": "Brier score",
        "nll_uncalibrated": "Negative log-likelihood before temperature",
        "nll": "Negative log-likelihood with temperature",
    },
    "Certainty": {
        "coverage": "Conformal coverage",
        "uncertain": "Share uncertain",
        "accuracy_certain": "Accuracy where certain",
    },
}
"""Names for people by section, in the order they are shown."""

TITLES = {name: words for section in SECTIONS.values() for name, words in section.items()}
_ORDER = list(TITLES)


def place(metric: str) -> int:
    """Where a metric stands among those that are shown."""
    return _ORDER.index(metric.partition(":")[0])


def by_section(metrics: Iterable[str]) -> dict[str, list[str]]:
    """Metrics by the section they are shown in, in order and once; sections without any are left out."""
    ordered = sorted(dict.fromkeys(metrics), key=place)
    found = {name: [each for each in ordered if each.partition(":")[0] in words] for name, words in SECTIONS.items()}
    return {name: some for name, some in found.items() if some}


def title(metric: str) -> str:
    """Name of a metric for people; `sensitivity:COVID` is the sensitivity of a class."""
    base, _, of_class = metric.partition(":")
    return f"{TITLES.get(base, base)} of {of_class}" if of_class else TITLES.get(base, base)


class Estimate(FrozenModel):
    """A value with its interval.

    Attributes:
        value: The value on the images as they are; None where it is undefined.
        low: Lower end of the interval, or None where there is none.
        high: Upper end.
        reason: Why value or interval is missing.
        dropped: Resamples left out because the metric was undefined in them.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    reason: str | None = None
    dropped: int = 0


class Confusion(FrozenModel):
    """Counts of images, rows by true class and columns by answer, both in the order of `classes`, with intervals."""

    counts: list[list[int]]
    low: list[list[float]] | None = None
    high: list[list[float]] | None = None


class Subgroup(FrozenModel):
    """How a model does on the images of one subgroup of a split.

    Attributes:
        group: Name of the group, such as `kind`.
        value: Which of its images, such as `virus`.
        images: Images in it.
        patients: Patients in it.
        counts: Images by class.
        metrics: By name. A subgroup of one class has what can be said of it: sensitivity or specificity, and AUROC
            against all images of the other class.
    """

    group: str
    value: str
    images: int
    patients: int
    counts: dict[str, int]
    metrics: dict[str, Estimate]


class SplitResult(FrozenModel):
    """How a model does on one split.

    Attributes:
        images: Images in it.
        patients: Patients in it.
        counts: Images by class.
        metrics: By name; the names are the keys of `TITLES`, with `:class` behind those that are of one class.
        confusion: At the threshold.
        subgroups: By group and value, as far as the data set has groups.
        worst_group: Which images `worst_group_auroc` is of, such as `virus against NORMAL2-IM`.
    """

    images: int
    patients: int
    counts: dict[str, int]
    metrics: dict[str, Estimate]
    confusion: Confusion
    subgroups: list[Subgroup] = []
    worst_group: str | None = None


class Bootstrap(FrozenModel):
    """How intervals were made: percentiles over resamples of whole patients, widened to hold the value.

    Where no resample differs, as with a rate of 0 or 1, exact bounds stand instead, see `evaluation.exact`.
    """

    unit: str = "patient"
    method: str = "percentile, exact where it has no width"
    level: float = 0.95
    resamples: int = 1000
    seed: int = 0


class Metrics(FrozenModel):
    """`metrics.json`: every split of one data set under one model and its decisions.

    Attributes:
        run: Name of the run.
        data: The data set, by name.
        data_fingerprint: Its fingerprint.
        classes: Class names, in column order.
        positive: The positive class with two classes.
        decisions: What turned logits into answers.
        bootstrap: How intervals were made.
        ece_bins: Equally wide bins of the expected calibration error.
        splits: `train`, `validation` and `test`, as far as they hold images.
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
    """One split of `Metrics`, and the files that were written (none where nothing was)."""

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


def doubts(metrics: Metrics) -> list[str]:
    """What speaks against using a model, in words; nothing said is no recommendation."""
    found = []
    for split, result in metrics.splits.items():
        auroc = result.metrics.get("auroc")
        if split != "train" and auroc and auroc.low is not None and auroc.low <= 0.5:
            found.append(
                f"{split} AUROC {auroc.value:.3f} ({auroc.low:.3f} to {auroc.high:.3f}): no better than chance"
            )
    return found


def remarks(metrics: Metrics) -> list[str]:
    """What a reader of the figures should know, in words."""
    found = list(metrics.decisions.notes)
    for split, result in metrics.splits.items():
        change = result.metrics.get("ece_change")
        if split == "train" or change is None or change.value is None or change.low is None or change.low <= 0:
            continue
        found.append(
            f"the temperature raises the calibration error on {split}, by {change.value:.3f} "
            f"({change.low:.3f} to {change.high:.3f}): it was fitted to the likelihood of few or unlike images"
        )
    return found


def values_by_split(document: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Value of each metric that has one by split, out of `metrics.json` or what a bundle keeps of it."""
    return {
        split: {name: part["value"] for name, part in found["metrics"].items() if part["value"] is not None}
        for split, found in document.get("splits", {}).items()
    }


def read_metrics(run: Run) -> Metrics:
    """Read `metrics.json` of a run.

    Raises:
        InputError: The run was not evaluated, or the file is damaged.
    """
    if not run.metrics.is_file():
        raise InputError(f"{run.folder}: not evaluated yet; run `pneumo evaluate {run.name}`")
    try:
        return Metrics.model_validate_json(run.metrics.read_text(encoding="utf-8"))
    except ValidationError as error:
        raise InputError(f"{run.metrics}: {first_problem(error)}; run `pneumo evaluate {run.name}`") from None

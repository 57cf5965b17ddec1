"""How a model does on subgroups: which kinds of images a good figure for all of them hides."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pneumo.pipeline.evaluation import exact_intervals
from pneumo.pipeline.evaluation.bootstrap import draw_patients, rank_scores, resample_metrics, summarise_draws
from pneumo.pipeline.evaluation.cases import Cases
from pneumo.pipeline.evaluation.classification_metrics import point_values
from pneumo.pipeline.evaluation.results import Bootstrap, Estimate, Subgroup
from pneumo.serving.contracts.arrays import Float64

FEWEST = 20
"""Images that a subgroup needs to count for the worst-group AUROC."""
FEWEST_OF_CLASS = 10
"""Images of each class that an AUROC needs to count for it: one of 25 images with a single negative one is a coin."""

_ONE_CLASS = ("coverage", "uncertain")
_SEVERAL = ("accuracy", "coverage", "uncertain")

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Worst:
    """The subgroup, or pair of subgroups, with the lowest AUROC."""

    name: str | None
    auroc: Estimate


@dataclass(frozen=True)
class _Part:
    group: str
    value: str
    own: Mask


def measure_subgroups(cases: Cases, classes: list[str], settings: Bootstrap) -> tuple[list[Subgroup], Worst | None]:
    """Measure every subgroup of a split, and with two classes find the worst.

    The worst-group AUROC is the least of those of the subgroups with at least `FEWEST` images, each as it is shown, and
    of those of pairs: a subgroup that holds only positive images against one that holds only negative ones. None counts
    that is of fewer than `FEWEST_OF_CLASS` images of a class. Each resample takes its own least one, so that the
    interval leans downwards: it counts the luck of the draw as well.

    Args:
        cases: The images; without groups there is nothing to measure.
        classes: Class names, in column order.
        settings: Resamples, seed and level.

    Returns:
        Subgroups by group, the larger first; the worst where there are subgroups and two classes.
    """
    parts = [
        _Part(name, str(value), values == value)
        for name, values in sorted(cases.groups.items())
        for value in sorted(set(values.tolist()) - {""}, key=lambda value: (-(values == value).sum(), value))
    ]
    if not parts:
        return [], None
    enough = cases.patients > 1 and settings.resamples > 0
    drawn = list(draw_patients(cases, settings)) if enough else []
    found = [_measure(cases, classes, part, drawn, settings) for part in parts]
    return found, None if cases.positive is None else _worst(cases, parts, drawn, settings)


def _measure(
    cases: Cases, classes: list[str], part: _Part, drawn: list[NDArray[np.int64]], settings: Bootstrap
) -> Subgroup:
    some = cases.where(part.own)
    patients = len(np.unique(some.patient))
    if patients < 2:  # drawn again and again, one patient would give an interval without width
        drawn = []
    points = point_values(some, classes)
    values = [resample_metrics(some, classes, each)[0] for each in drawn]
    metrics = {name: _summary(points[name], [each[name] for each in values], settings) for name in points}
    metrics = exact_intervals.widen(metrics, some, classes, settings)
    if cases.positive is None:
        metrics = {name: metrics[name] for name in _SEVERAL}
    elif len(set(some.truth.tolist())) == 1:
        rate = "sensitivity" if some.truth[0] == cases.positive else "specificity"
        metrics = {"auroc": _auroc(cases, _against_others(cases, part), drawn, settings)[0], rate: metrics[rate]} | {
            name: metrics[name] for name in _ONE_CLASS
        }
    return Subgroup(
        group=part.group,
        value=part.value,
        images=len(some),
        patients=patients,
        counts={label: int((some.truth == column).sum()) for column, label in enumerate(classes)},
        metrics=metrics,
    )


def _worst(cases: Cases, parts: list[_Part], drawn: list[NDArray[np.int64]], settings: Bootstrap) -> Worst:
    positive = cases.truth == cases.positive
    large = [part for part in parts if part.own.sum() >= FEWEST]
    ones = [part for part in large if positive[part.own].all()]
    others = [part for part in large if not positive[part.own].any()]
    compared = [(f"{part.group} {part.value}", _against_others(cases, part)) for part in large]
    compared += [(_versus(one, other, parts), one.own | other.own) for one in ones for other in others]
    measured = [
        (name, *_auroc(cases, mask, drawn, settings))
        for name, mask in compared
        if min(positive[mask].sum(), (~positive[mask]).sum()) >= FEWEST_OF_CLASS
    ]
    if not measured:
        reason = f"no subgroup of {FEWEST} images to compare with {FEWEST_OF_CLASS} or more images of each class"
        return Worst(None, Estimate(value=None, reason=reason))
    name, estimate, _ = min(measured, key=lambda item: item[1].value or 0)
    if not drawn:
        return Worst(name, estimate)
    found = _summary((estimate.value, None), [np.fmin.reduce([values for *_, values in measured])], settings)
    if exact_intervals.has_no_width(found):  # at 1 all are stuck there, and the least sure says how low it may be
        found = found.model_copy(update={"low": min(each.low or 0 for _, each, _ in measured), "high": estimate.high})
    return Worst(name, found)


def _versus(one: _Part, other: _Part, parts: list[_Part]) -> str:
    """`virus against IM`, with the names of the groups where another group has that value too."""
    values = [part.value for part in parts]
    told = [f"{part.group} {part.value}" if values.count(part.value) > 1 else part.value for part in (one, other)]
    return " against ".join(told)


def _against_others(cases: Cases, part: _Part) -> Mask:
    """A subgroup as its AUROC is taken: by itself with both classes, else with all images of the other class."""
    held = set(cases.truth[part.own].tolist())
    return part.own | (cases.truth != held.pop()) if len(held) == 1 else part.own


def _auroc(cases: Cases, mask: Mask, drawn: list[NDArray[np.int64]], settings: Bootstrap) -> tuple[Estimate, Float64]:
    truth = cases.truth[mask] == cases.positive
    scores = cases.probabilities[mask][:, cases.positive or 0]
    patient = cases.patient[mask]
    reason = None if truth.any() and not truth.all() else "images of one class only"
    once = np.ones((1, cases.patients), dtype=np.int64)
    value = None if reason else float(rank_scores(scores, truth, once, patient)[0][0])
    values = [rank_scores(scores, truth, each, patient)[0] for each in drawn]
    found = exact_intervals.widen_auroc(_summary((value, reason), values, settings), truth, patient, settings.level)
    return found, np.concatenate(values) if values else np.zeros(0)


def _summary(point: tuple[float | None, str | None], values: list[Float64], settings: Bootstrap) -> Estimate:
    if not values:
        return Estimate(value=point[0], reason=point[1] or "one patient only, or no resamples: no interval")
    return summarise_draws(*point, np.concatenate(values), settings)

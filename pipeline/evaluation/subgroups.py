"""Metrics by subgroup: kinds of images that a good overall figure hides."""

from dataclasses import dataclass

import numpy as np

from pneumo.pipeline.evaluation import exact_intervals
from pneumo.pipeline.evaluation.bootstrap import draw_patients, summarise_draws
from pneumo.pipeline.evaluation.cases import Cases, Ints, take_images
from pneumo.pipeline.evaluation.classification_metrics import Point, point_values, rank_scores, resample_metrics
from pneumo.pipeline.evaluation.results import Bootstrap, Estimate, Subgroup
from pneumo.serving.contracts.arrays import Float64, Mask

FEWEST = 20
"""Images that a subgroup needs to count for the worst-group AUROC."""
FEWEST_OF_CLASS = 10
"""Images of each class that an AUROC needs to count for it: with one negative image of 25 it is a matter of chance."""

_ONE_CLASS = ("coverage", "uncertain")
_MULTICLASS = ("accuracy", "coverage", "uncertain")


@dataclass(frozen=True)
class Worst:
    """The subgroup, or pair of subgroups, with the lowest AUROC."""

    name: str | None
    auroc: Estimate


@dataclass(frozen=True)
class _Part:
    """A subgroup and the mask [N] of its images."""

    group: str
    value: str
    own: Mask


def measure_subgroups(cases: Cases, classes: list[str], settings: Bootstrap) -> tuple[list[Subgroup], Worst | None]:
    """Measure every subgroup of a split, the larger first, and with two classes find the worst.

    The worst-group AUROC is the lowest of two kinds: subgroups with at least `FEWEST` images, as they are shown, and
    pairs of a subgroup of positive images with a subgroup of negative ones. Each needs `FEWEST_OF_CLASS` images of each
    class. Each resample takes its own lowest AUROC, so that the interval leans downwards: it includes the luck of the
    draw.
    """
    parts = [
        _Part(name, str(value), values == value)
        for name, values in sorted(cases.groups.items())
        for value in sorted(set(values.tolist()) - {""}, key=lambda value: (-(values == value).sum(), value))
    ]
    if not parts:
        return [], None
    drawn = list(draw_patients(cases, settings)) if cases.patients > 1 and settings.resamples > 0 else []
    subgroups = [_measure(cases, classes, part, drawn, settings) for part in parts]
    return subgroups, None if cases.positive is None else _find_worst(cases, parts, drawn, settings)


def _measure(cases: Cases, classes: list[str], part: _Part, drawn: list[Ints], settings: Bootstrap) -> Subgroup:
    some = take_images(cases, part.own)
    patients = some.count_patients(np.ones(len(some), dtype=np.bool_))
    if patients < 2:  # drawn again and again, one patient would give an interval without width
        drawn = []
    points = point_values(some, classes)
    values = [resample_metrics(some, classes, each)[0] for each in drawn]
    metrics = {name: _summarise(points[name], [each[name] for each in values], settings) for name in points}
    metrics = exact_intervals.widen(metrics, some, classes, settings.level)
    if cases.positive is None:
        metrics = {name: metrics[name] for name in _MULTICLASS}
    elif len(set(some.truth.tolist())) == 1:
        rate = "sensitivity" if some.truth[0] == cases.positive else "specificity"
        auroc, _ = _estimate_auroc(cases, _add_other_class(cases, part), drawn, settings)
        metrics = {"auroc": auroc, rate: metrics[rate]} | {name: metrics[name] for name in _ONE_CLASS}
    return Subgroup(
        group=part.group,
        value=part.value,
        images=len(some),
        patients=patients,
        counts=some.count_classes(classes),
        metrics=metrics,
    )


def _find_worst(cases: Cases, parts: list[_Part], drawn: list[Ints], settings: Bootstrap) -> Worst:
    positive = cases.truth == cases.positive
    large = [part for part in parts if part.own.sum() >= FEWEST]
    compared = [(f"{part.group} {part.value}", _add_other_class(cases, part)) for part in large]
    compared += [
        (_pair_title(one, other, parts), one.own | other.own)
        for one in large
        for other in large
        if positive[one.own].all() and not positive[other.own].any()
    ]
    measured = [
        (name, *_estimate_auroc(cases, mask, drawn, settings))
        for name, mask in compared
        if min(positive[mask].sum(), (~positive[mask]).sum()) >= FEWEST_OF_CLASS
    ]
    if not measured:
        reason = f"no subgroup of {FEWEST} images to compare with {FEWEST_OF_CLASS} or more images of each class"
        return Worst(None, Estimate(value=None, reason=reason))
    name, estimate, _ = min(measured, key=lambda item: item[1].value or 0)
    if not drawn:
        return Worst(name, estimate)
    worst = _summarise((estimate.value, None), [np.fmin.reduce([values for *_, values in measured])], settings)
    if exact_intervals.has_no_width(worst):  # every AUROC is 1: the widest interval says how low the worst may be
        worst = worst.model_copy(update={"low": min(each.low or 0 for _, each, _ in measured), "high": estimate.high})
    return Worst(name, worst)


def _pair_title(one: _Part, other: _Part, parts: list[_Part]) -> str:
    """Return a title such as `virus against IM`, with the group's name if another group has the same value."""
    values = [part.value for part in parts]
    titles = [f"{part.group} {part.value}" if values.count(part.value) > 1 else part.value for part in (one, other)]
    return " against ".join(titles)


def _add_other_class(cases: Cases, part: _Part) -> Mask:
    """Return the images for the AUROC of a subgroup: its own; those of one class with all images of the other class."""
    columns = set(cases.truth[part.own].tolist())
    return part.own | (cases.truth != columns.pop()) if len(columns) == 1 else part.own


def _estimate_auroc(cases: Cases, mask: Mask, drawn: list[Ints], settings: Bootstrap) -> tuple[Estimate, Float64]:
    """Return the AUROC of the images in a mask [N] with its interval, and its resampled values [R]."""
    truth = cases.truth[mask] == cases.positive
    scores = cases.probabilities[mask][:, cases.positive or 0]
    patient = cases.patient[mask]
    reason = None if truth.any() and not truth.all() else "images of one class only"
    once = np.ones((1, cases.patients), dtype=np.int64)
    value = None if reason else float(rank_scores(scores, truth, once, patient)[0][0])
    values = [rank_scores(scores, truth, each, patient)[0] for each in drawn]
    estimate = _summarise((value, reason), values, settings)
    return (
        exact_intervals.widen_auroc(estimate, truth, patient, settings.level),
        np.concatenate(values) if values else np.zeros(0),
    )


def _summarise(point: Point, values: list[Float64], settings: Bootstrap) -> Estimate:
    if not values:
        return Estimate(value=point[0], reason=point[1] or "one patient only, or no resamples: no interval")
    return summarise_draws(*point, np.concatenate(values), settings)

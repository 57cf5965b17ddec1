"""Comparison of a quantised graph with the float one on the same images, and limits for accepting it."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pneumo.pipeline.decisions import Decisions
from pneumo.pipeline.evaluation.bootstrap import draw_patients, percentile_interval
from pneumo.pipeline.evaluation.cases import Cases, Scores
from pneumo.pipeline.evaluation.classification_metrics import point_values, resample_metrics
from pneumo.pipeline.evaluation.exact_intervals import share_bounds
from pneumo.pipeline.evaluation.results import Bootstrap
from pneumo.pipeline.export.int8.graph import make_batches
from pneumo.pipeline.export.int8.wording import describe_change
from pneumo.serving.images.types import Gray
from pneumo.serving.model.bundle import Figure, Quantization, Speed
from pneumo.serving.model.predictor import BATCH, open_session

_SECONDS = 4.0
"""Time for measuring the speed of each batch size, for at least `_TURNS` turns."""
_TURNS = 7
_MOST_TURNS = 60


@dataclass(frozen=True)
class AcceptanceLimits:
    """Largest change of AUROC, largest share of images with another predicted class, and lowest speed-up."""

    auroc: float = 0.005
    decisions: float = 0.01
    speed: float = 1.1


@dataclass(frozen=True)
class ClassDecisions:
    """Classes of a model in column order, the positive one if there are two, and its decisions."""

    classes: list[str]
    positive: str | None
    decisions: Decisions

    def apply(self, scores: Scores) -> Cases:
        """Apply the decisions to logits."""
        positive = None if self.positive is None else self.classes.index(self.positive)
        return Cases.make(scores, self.decisions, positive)


@dataclass(frozen=True)
class Difference:
    """Changes on some images between two sets of logits; see `pneumo.serving.model.bundle.Quantization`."""

    auroc: Figure
    decisions: Figure
    certainty: float
    max_probability_difference: float


def measure_difference(before: Scores, after: Scores, rules: ClassDecisions, settings: Bootstrap) -> Difference | None:
    """Compare two graphs on the same images in the same order; None if a class has no images.

    Intervals are of a paired bootstrap by patient.
    """
    old, new = rules.apply(before), rules.apply(after)
    aurocs = [point_values(cases, rules.classes)["auroc"][0] for cases in (old, new)]
    if aurocs[0] is None or aurocs[1] is None:
        return None
    other = old.answer != new.answer
    changes, shares = [], []
    for drawn in draw_patients(old, settings):
        one, two = (resample_metrics(cases, rules.classes, drawn)[0]["auroc"] for cases in (old, new))
        changes.append(two - one)
        weights = drawn[:, old.patient]
        shares.append(weights @ other / weights.sum(axis=1))
    share = float(other.mean())
    bounds = percentile_interval(np.concatenate(shares), settings)
    if share in (0, 1):  # no resample differs, so that the interval is exact
        bounds = share_bounds(share, old.patients, settings.level)
    return Difference(
        auroc=_change(aurocs[1] - aurocs[0], percentile_interval(np.concatenate(changes), settings)),
        decisions=_change(share, bounds),
        certainty=float((old.certain != new.certain).mean()),
        max_probability_difference=float(np.abs(old.probabilities - new.probabilities).max()),
    )


def measure_speeds(before: bytes, after: bytes, images: Sequence[Gray]) -> list[Speed]:
    """Measure the speed-up of a graph for one image and for a batch, filled with model inputs uint8 [H, W, C].

    Both graphs run in turns on one thread. Compared are medians of processor time: other processes on the machine
    disturb it far less than wall time.
    """
    sessions = [open_session(graph, 1) for graph in (before, after)]
    speeds = []
    for size in (1, BATCH):
        batch = next(make_batches([images[index % len(images)] for index in range(size)]))
        for session in sessions:
            session.run(["logits"], {"image": batch})
        spent: list[list[float]] = [[], []]
        began = time.perf_counter()
        while len(spent[0]) < _TURNS or (time.perf_counter() < began + _SECONDS and len(spent[0]) < _MOST_TURNS):
            for session, times in zip(sessions, spent, strict=True):
                start = time.process_time()
                session.run(["logits"], {"image": batch})
                times.append(time.process_time() - start)
        speeds.append(Speed(batch=size, ratio=float(np.median(spent[0]) / np.median(spent[1]))))
    return speeds


def list_objections(quantization: Quantization, limits: AcceptanceLimits) -> list[str]:
    """Return the reasons to refuse a quantised graph; empty if it is accepted."""
    auroc, decisions = quantization.auroc, quantization.decisions
    slowest = min(quantization.speed, key=lambda speed: speed.ratio)
    objections = []
    if abs(auroc.value) > limits.auroc:
        objections.append(f"AUROC changes by {describe_change(auroc, '+.4f')}, more than {limits.auroc:g}")
    if decisions.value > limits.decisions:
        change = describe_change(decisions, ".1%")
        objections.append(f"the predicted class of {change} of images changes, more than {limits.decisions:.1%}")
    if slowest.ratio < limits.speed:
        objections.append(
            f"a batch of {slowest.batch} is {slowest.ratio:.2f} times as fast on {quantization.processor}, "
            f"less than {limits.speed:g}"
        )
    return objections


def _change(value: float, bounds: tuple[float, float] | None) -> Figure:
    low, high = bounds or (None, None)
    return Figure(value=value, low=low, high=high)

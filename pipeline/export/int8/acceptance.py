"""Whether a quantised graph may stand in for the float one: the same images, before and after."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pneumo.pipeline.decisions import Decisions
from pneumo.pipeline.evaluation.bootstrap import draw_patients, resample_metrics
from pneumo.pipeline.evaluation.cases import Cases, Scores
from pneumo.pipeline.evaluation.classification_metrics import point_values
from pneumo.pipeline.evaluation.exact_intervals import share_bounds
from pneumo.pipeline.evaluation.results import Bootstrap
from pneumo.pipeline.export.int8.graph import make_batches
from pneumo.pipeline.export.int8.wording import describe_change
from pneumo.serving.contracts.arrays import Float64
from pneumo.serving.images.types import Gray
from pneumo.serving.model.bundle import Change, Quantization, Speed
from pneumo.serving.model.predictor import BATCH, open_session

_SECONDS = 4.0
"""Of measuring the speed of each batch size, at least `_TURNS` turns."""
_TURNS = 7
_MOST_TURNS = 60


@dataclass(frozen=True)
class AcceptanceLimits:
    """What a quantised graph is refused for.

    Attributes:
        auroc: Largest change of AUROC, either way.
        decisions: Largest share of images that are called another class.
        speed: How many times as fast it must be.
    """

    auroc: float = 0.005
    decisions: float = 0.01
    speed: float = 1.1


@dataclass(frozen=True)
class Difference:
    """What changed on some images between two sets of logits; see `pneumo.serving.model.bundle.Quantization`."""

    auroc: Change
    decisions: Change
    certainty: float
    max_probability_difference: float


def measure_difference(
    before: Scores, after: Scores, classes: list[str], decisions: Decisions, positive: int | None, settings: Bootstrap
) -> Difference | None:
    """Compare two graphs on the same images, with the same decisions; intervals are of a paired bootstrap by patient.

    Args:
        before: Of the float graph.
        after: Of the quantised one, the same images in the same order.
        classes: Class names, in column order.
        decisions: Temperature, threshold and conformal limit.
        positive: Column of the positive class with two classes, None with more.
        settings: Of the bootstrap.

    Returns:
        None where the images have no AUROC, since a class is missing.
    """
    old, new = (Cases.make(scores, decisions, positive) for scores in (before, after))
    aurocs = [point_values(cases, classes)["auroc"][0] for cases in (old, new)]
    if aurocs[0] is None or aurocs[1] is None:
        return None
    other = old.answer != new.answer
    changes, shares = [], []
    for drawn in draw_patients(old, settings):
        changes.append(
            resample_metrics(new, classes, drawn)[0]["auroc"] - resample_metrics(old, classes, drawn)[0]["auroc"]
        )
        weights = drawn[:, old.patient]
        shares.append(weights @ other / weights.sum(axis=1))
    return Difference(
        auroc=_change(aurocs[1] - aurocs[0], np.concatenate(changes), settings),
        decisions=_share(float(other.mean()), np.concatenate(shares), old.patients, settings),
        certainty=float((old.certain != new.certain).mean()),
        max_probability_difference=float(np.abs(old.probabilities - new.probabilities).max()),
    )


def measure_speeds(before: bytes, after: bytes, images: Sequence[Gray]) -> list[Speed]:
    """How many times as fast a graph is, for one image and for a batch.

    Both run in turns on one thread, and what counts is the median of the processor time: neighbours on the same machine
    disturb that far less than the time on the wall.

    Args:
        before: The float graph.
        after: The quantised one.
        images: Model inputs, uint8 [H, W, C] each, at least one; repeated to fill a batch.
    """
    sessions = [open_session(graph, 1) for graph in (before, after)]
    found = []
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
        found.append(Speed(batch=size, ratio=float(np.median(spent[0]) / np.median(spent[1]))))
    return found


def list_objections(found: Quantization, limits: AcceptanceLimits) -> list[str]:
    """Why a quantised graph is refused; empty where it is not."""
    auroc, decisions = found.auroc, found.decisions
    slowest = min(found.speed, key=lambda speed: speed.ratio)
    reasons = {
        f"AUROC changes by {describe_change(auroc, '+.4f')}, more than {limits.auroc:g}": abs(auroc.value)
        > limits.auroc,
        f"{describe_change(decisions, '.1%')} of decisions change, more than {limits.decisions:.1%}": (
            decisions.value > limits.decisions
        ),
        f"a batch of {slowest.batch} is {slowest.ratio:.2f} times as fast on {found.processor}, less than "
        f"{limits.speed:g}": slowest.ratio < limits.speed,
    }
    return [reason for reason, holds in reasons.items() if holds]


def _change(value: float, values: Float64, settings: Bootstrap) -> Change:
    valid = values[np.isfinite(values)]
    if not len(valid):
        return Change(value=value)
    tail = (1 - settings.level) / 2
    low, high = np.quantile(valid, (tail, 1 - tail))
    return Change(value=value, low=float(low), high=float(high))


def _share(value: float, values: Float64, patients: int, settings: Bootstrap) -> Change:
    """A share with its interval; where nothing or everything changed, no resample differs and an exact one stands."""
    if value in (0, 1):
        low, high = share_bounds(value, patients, settings.level)
        return Change(value=value, low=low, high=high)
    return _change(value, values, settings)

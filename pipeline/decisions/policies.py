"""Rules for the threshold, and the cut that follows from one on validation scores."""

import math
import re
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pneumo.serving.contracts.arrays import Float64
from pneumo.serving.contracts.errors import CheckFailedError, InputError

DEFAULT_POLICY = "max balanced accuracy"
EXAMPLES = "'max balanced accuracy', 'max accuracy', 'sensitivity >= 0.95', 'specificity >= 0.9' or 'cost FN:FP = 5:1'"

_NUMBER = r"((?:\d+(?:\.\d*)?|\.\d+)(?:e[+-]?\d+)?)"  # with the exponent that `str` of a rule may print
_FLOOR = re.compile(rf"(sensitivity|specificity) ?>= ?{_NUMBER}")
_COST = re.compile(rf"cost fn ?: ?fp ?= ?{_NUMBER} ?: ?{_NUMBER}")
_GRID = 1001
NOISE = 2.0
"""Standard errors that a threshold may lose against the best by count: less is the luck of the draw."""

_LEAST, _MOST = 1e-12, 1 - 1e-12


@dataclass(frozen=True)
class Policy:
    """A parsed rule for the threshold: the most of something, or a floor under a rate.

    Attributes:
        kind: What is wanted: the most balanced accuracy or accuracy, the least cost, or a floor under a rate.
        floor: The floor, in (0, 1].
        costs: What a missed positive and a false alarm cost, each above 0.
    """

    kind: Literal["balanced accuracy", "accuracy", "cost", "sensitivity", "specificity"] = "balanced accuracy"
    floor: float | None = None
    costs: tuple[float, float] | None = None

    @classmethod
    def parse(cls, text: str, *, place: str = "--policy") -> "Policy":
        """Read a rule; case and spaces do not matter.

        Args:
            text: Such as `max balanced accuracy`, `max accuracy`, `sensitivity >= 0.95`, `specificity >= 0.9` or
                `cost FN:FP = 5:1`.
            place: Where it stands, for messages.

        Raises:
            InputError: The text is none of these, the floor lies outside (0, 1], or a cost is 0.
        """
        plain = " ".join(text.lower().split())
        if plain == DEFAULT_POLICY:
            return cls()
        if plain == "max accuracy":
            return cls("accuracy")
        if match := _COST.fullmatch(plain):
            missed, alarm = float(match[1]), float(match[2])
            if not (0 < missed < math.inf and 0 < alarm < math.inf):
                raise InputError(f"{place} {text!r}: both costs must be above 0 and finite, such as 5:1")
            return cls("cost", costs=(missed, alarm))
        if not (match := _FLOOR.fullmatch(plain)):
            raise InputError(f"{place} {text!r}: not a rule; write {EXAMPLES}")
        floor = float(match[2])
        if not 0 < floor <= 1:
            raise InputError(f"{place} {text!r}: the floor must be above 0 and at most 1, such as 0.95")
        return cls("sensitivity" if match[1] == "sensitivity" else "specificity", floor)

    def __str__(self) -> str:
        if self.floor is not None:
            return f"{self.kind} >= {self.floor:.12g}"
        if self.costs is not None:
            return f"cost FN:FP = {self.costs[0]:.12g}:{self.costs[1]:.12g}"
        return f"max {self.kind}"

    def weights(self, positives: int, negatives: int) -> tuple[float, float]:
        """Weights of sensitivity and specificity in what is maximised; they add up to 1.

        Accuracy and cost are about images as frequent as in the split: a model whose images hold fewer positives
        wants a higher threshold.
        """
        missed, alarm = self.costs or (1.0, 1.0)
        one, other = (1.0, 1.0) if self.kind == "balanced accuracy" else (missed * positives, alarm * negatives)
        return one / (one + other), other / (one + other)


@dataclass(frozen=True)
class Cut:
    """A chosen threshold.

    Attributes:
        threshold: In [0, 1]: positive is at or above it.
        low: The lowest threshold that is as good within `NOISE` standard errors, None with a floor, which is kept as
            exactly as the images allow.
        high: The highest.
    """

    threshold: float
    low: float | None = None
    high: float | None = None


def choose_threshold(scores: Float64, truth: NDArray[np.bool_], policy: Policy) -> Cut:
    """Choose where to cut.

    What is to be maximised is smoothed first, with a Gaussian kernel over the log odds of each class (Fluss, Faraggi
    and Reiser, Estimation of the Youden Index and its associated cutoff point, 2005), and the best cut taken, as long
    as the images as they are lose no more than `NOISE` standard errors by it. Where a model is nearly perfect dozens of
    cuts tie or nearly tie, and the best of them by count lies anywhere among them: on new images it lost two to five
    times as much (docs/benchmarks.md).

    A floor on sensitivity takes the highest cut that keeps it, a floor on specificity the lowest, midway between two
    neighbouring scores, so that new images near either fall as these did.

    Args:
        scores: Probability of the positive class, [N].
        truth: Whether an image is positive, [N]; both kinds occur.
        policy: The rule.

    Raises:
        CheckFailedError: No threshold reaches the floor.
    """
    distinct = np.unique(scores)
    middle = (distinct[:-1] + distinct[1:]) / 2
    # Between adjacent floats the middle rounds to the lower one, which would move that image across.
    middle = np.where(middle > distinct[:-1], middle, distinct[1:])
    above = (distinct[-1] + 1) / 2
    cuts = np.concatenate(([distinct[0] / 2], middle, [above] if above > distinct[-1] else []))
    positives, negatives = np.sort(scores[truth]), np.sort(scores[~truth])
    # Whole numbers, so that equal rates compare as equal.
    found = len(positives) - np.searchsorted(positives, cuts, side="left")
    rejected = np.searchsorted(negatives, cuts, side="left")
    if policy.floor is None:
        return _smooth(distinct, cuts, found, rejected, positives, negatives, policy)
    if policy.kind == "sensitivity":
        return Cut(float(cuts[np.flatnonzero(found >= policy.floor * len(positives) - 1e-9)[-1]]))
    enough = np.flatnonzero(rejected >= policy.floor * len(negatives) - 1e-9)
    if not len(enough):
        best = rejected.max() / len(negatives)
        raise CheckFailedError(f"policy {str(policy)!r}: no threshold reaches it on validation; the best is {best:.4f}")
    return Cut(float(cuts[enough[0]]))


def _smooth(
    distinct: Float64,
    cuts: Float64,
    found: NDArray[np.integer],
    rejected: NDArray[np.integer],
    positives: Float64,
    negatives: Float64,
    policy: Policy,
) -> Cut:
    p, n = len(positives), len(negatives)
    one, other = policy.weights(p, n)
    gained = one * found / p + other * rejected / n
    best = int(gained.argmax())
    # One image more of each answer, so that a split without errors does not count as certain.
    rate, counter = (found[best] + 1) / (p + 2), (rejected[best] + 1) / (n + 2)
    error = np.sqrt(one**2 * rate * (1 - rate) / p + other**2 * counter * (1 - counter) / n)
    good = np.flatnonzero(gained >= gained[best] - NOISE * error)
    chosen = _smoothed_best(_log_odds(positives), _log_odds(negatives), weights=(one, other))
    if np.searchsorted(distinct, chosen, side="left") not in good:
        distances = np.abs(_log_odds(cuts[good]) - _log_odds(np.array([chosen])))
        chosen = float(cuts[good[distances.argmin()]])
    low, high = min(float(cuts[good[0]]), chosen), max(float(cuts[good[-1]]), chosen)
    return Cut(chosen, low=low, high=high)


def _smoothed_best(positives: Float64, negatives: Float64, *, weights: tuple[float, float]) -> float:
    """The probability at the best smoothed cut, the middle one of several.

    Args:
        positives: Log odds of the positive images.
        negatives: Log odds of the others.
        weights: Of sensitivity and specificity.
    """
    from scipy.special import expit, ndtr

    every = np.concatenate((positives, negatives))
    grid = np.linspace(every.min(), every.max(), _GRID)
    wide, wide_too = _bandwidth(positives), _bandwidth(negatives)
    sensitivity = np.array([ndtr((positives - cut) / wide).mean() for cut in grid])
    specificity = np.array([ndtr((cut - negatives) / wide_too).mean() for cut in grid])
    value = weights[0] * sensitivity + weights[1] * specificity
    top = np.flatnonzero(value >= value.max() - 1e-12)
    return float(expit(grid[top[len(top) // 2]]))


def _bandwidth(values: Float64) -> float:
    """The normal reference rule (Scott, Multivariate Density Estimation, 1992), which outliers do not stretch."""
    quarter, three = np.quantile(values, (0.25, 0.75))
    spreads = [spread for spread in (float(values.std()), float(three - quarter) / 1.34) if spread > 0]
    return float(max(1.06 * min(spreads, default=0.0) * len(values) ** -0.2, 1e-6))


def _log_odds(probabilities: Float64) -> Float64:
    clipped = np.clip(probabilities, _LEAST, _MOST)
    return np.asarray(np.log(clipped / (1 - clipped)))

"""Rules for the decisions, and the threshold that a policy chooses on validation scores."""

import math
import re
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pneumo.serving.contracts.arrays import Float64, Mask
from pneumo.serving.contracts.errors import CheckFailedError, InputError

DEFAULT_POLICY = "max balanced accuracy"
DEFAULT_LEVEL = 0.9
DEFAULT_OUTLIER_QUANTILE = 0.97
EXAMPLES = "'max balanced accuracy', 'max accuracy', 'sensitivity >= 0.95', 'specificity >= 0.9' or 'cost FN:FP = 5:1'"

_NUMBER = r"((?:\d+(?:\.\d*)?|\.\d+)(?:e[+-]?\d+)?)"  # with the exponent that `str` of a rule may print
_FLOOR = re.compile(rf"(sens|spec)(?:itivity|ificity)? ?(?:>=|≥) ?{_NUMBER} ?(%?)")
_COST = re.compile(rf"cost fn ?: ?fp ?= ?{_NUMBER} ?: ?{_NUMBER}")
_GRID = 1001
NOISE = 2.0
"""Standard errors that a threshold may lose against the best by count: smaller differences are chance."""

FitOn = Literal["validation", "shifts"]
Counts = NDArray[np.integer]
_LEAST, _MOST = 1e-12, 1 - 1e-12


@dataclass(frozen=True)
class Policy:
    """A parsed rule for the threshold: a value to maximize, or a floor under a rate.

    Attributes:
        kind: The highest balanced accuracy or accuracy, the lowest cost, or a floor under sensitivity or specificity.
        floor: The floor, in (0, 1].
        costs: Costs of a false negative and of a false positive, each above 0.
    """

    kind: Literal["balanced accuracy", "accuracy", "cost", "sensitivity", "specificity"] = "balanced accuracy"
    floor: float | None = None
    costs: tuple[float, float] | None = None

    @classmethod
    def parse(cls, text: str, *, place: str = "--policy") -> "Policy":
        """Parse a rule such as those in `EXAMPLES`, or `sens >= 95%`; an `InputError` begins with `place`."""
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
        floor = float(match[2]) / (100 if match[3] else 1)
        if not 0 < floor <= 1:
            raise InputError(f"{place} {text!r}: the floor must be above 0 and at most 1, such as 0.95 or 95%")
        return cls("sensitivity" if match[1] == "sens" else "specificity", floor)

    def __str__(self) -> str:
        if self.floor is not None:
            return f"{self.kind} >= {self.floor:.12g}"
        if self.costs is not None:
            return f"cost FN:FP = {self.costs[0]:.12g}:{self.costs[1]:.12g}"
        return f"max {self.kind}"

    def weights(self, positives: int, negatives: int) -> tuple[float, float]:
        """Return the weights of sensitivity and specificity in the value to maximize; they add up to 1.

        Accuracy and cost depend on the share of positives, which is taken from the split. A model that sees fewer
        positives in use needs a higher threshold.
        """
        missed, alarm = self.costs or (1.0, 1.0)
        one, other = (1.0, 1.0) if self.kind == "balanced accuracy" else (missed * positives, alarm * negatives)
        return one / (one + other), other / (one + other)


@dataclass(frozen=True)
class DecisionRules:
    """How decisions are fitted on validation.

    Attributes:
        level: Wanted coverage of the prediction sets, in (0, 1).
        outlier_quantile: Share of validation images below the outlier limit, in (0, 1).
        fit_on: Images that all but the outlier limit is fitted to: validation as it is, or half of it under changes.
    """

    policy: Policy = field(default_factory=Policy)
    level: float = DEFAULT_LEVEL
    outlier_quantile: float = DEFAULT_OUTLIER_QUANTILE
    fit_on: FitOn = "validation"

    def __post_init__(self) -> None:
        for name, value in (("coverage", self.level), ("outliers", self.outlier_quantile)):
            if not 0 < value < 1:
                raise InputError(f"decisions.{name} is {value:g}; it must lie between 0 and 1, such as 0.9")
        if self.fit_on == "shifts" and self.policy.floor is not None:
            raise InputError(  # a floor would be held for the worst change, at any price in the other rate
                f"decisions.fit_on is shifts and the policy {str(self.policy)!r}: under changes the threshold must "
                f"trade both errors; write {DEFAULT_POLICY!r} or 'cost FN:FP = 5:1', or fit_on: validation"
            )


@dataclass(frozen=True)
class Cut:
    """A chosen threshold.

    Attributes:
        threshold: In [0, 1]; an image at or above it is positive.
        equivalent: The lowest and the highest threshold that are as good within `NOISE` standard errors; None for a
            floor, which is kept as exactly as the images allow.
    """

    threshold: float
    equivalent: tuple[float, float] | None = None


def choose_threshold(scores: Float64, truth: Mask, policy: Policy) -> Cut:
    """Choose the threshold for probabilities of the positive class [N] and truth [N], of which both kinds occur.

    The value to maximize is smoothed first, with a Gaussian kernel over the log odds of each class (Fluss, Faraggi and
    Reiser, Estimation of the Youden Index and its associated cutoff point, 2005). Its best cut is taken if, counted on
    the images without smoothing, it loses no more than `NOISE` standard errors. With a nearly perfect model dozens of
    cuts tie or nearly tie, and the best by count is one of them by chance: on new images it lost two to five times as
    much (docs/benchmarks.md).

    A floor on sensitivity takes the highest cut that keeps it, a floor on specificity the lowest. The cut lies midway
    between two neighbouring scores, so that new images near either are classified as these were.

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
    detected = len(positives) - np.searchsorted(positives, cuts, side="left")
    rejected = np.searchsorted(negatives, cuts, side="left")
    if policy.floor is not None and policy.kind == "sensitivity":
        return Cut(float(cuts[np.flatnonzero(detected >= policy.floor * len(positives) - 1e-9)[-1]]))
    if policy.floor is not None:
        enough = np.flatnonzero(rejected >= policy.floor * len(negatives) - 1e-9)
        if not len(enough):
            best = rejected.max() / len(negatives)
            raise CheckFailedError(
                f"policy {str(policy)!r}: no threshold reaches it on validation; the best is {best:.4f}, so set a "
                "lower floor"
            )
        return Cut(float(cuts[enough[0]]))
    sizes = (len(positives), len(negatives))
    weights = policy.weights(*sizes)
    good = _find_equivalent(detected, rejected, sizes, weights)
    chosen = _maximize_smoothed(_log_odds(positives), _log_odds(negatives), weights)
    if np.searchsorted(distinct, chosen, side="left") not in good:
        distances = np.abs(_log_odds(cuts[good]) - _log_odds(np.array([chosen])))
        chosen = float(cuts[good[distances.argmin()]])
    return Cut(chosen, (min(float(cuts[good[0]]), chosen), max(float(cuts[good[-1]]), chosen)))


def _find_equivalent(
    detected: Counts, rejected: Counts, sizes: tuple[int, int], weights: tuple[float, float]
) -> NDArray[np.intp]:
    """Return the positions of the cuts that are as good as the best by count, within `NOISE` standard errors."""
    (p, n), (one, other) = sizes, weights
    gained = one * detected / p + other * rejected / n
    best = int(gained.argmax())
    # One more image of each answer, so that a split without errors does not count as certain.
    rate, counter = (detected[best] + 1) / (p + 2), (rejected[best] + 1) / (n + 2)
    error = np.sqrt(one**2 * rate * (1 - rate) / p + other**2 * counter * (1 - counter) / n)
    return np.flatnonzero(gained >= gained[best] - NOISE * error)


def _maximize_smoothed(positives: Float64, negatives: Float64, weights: tuple[float, float]) -> float:
    """Return the probability at the best smoothed cut, the middle one of several; the arguments are log odds."""
    from scipy.special import expit, ndtr

    every = np.concatenate((positives, negatives))
    grid = np.linspace(every.min(), every.max(), _GRID)
    width, other_width = _bandwidth(positives), _bandwidth(negatives)
    sensitivity = np.array([ndtr((positives - cut) / width).mean() for cut in grid])
    specificity = np.array([ndtr((cut - negatives) / other_width).mean() for cut in grid])
    value = weights[0] * sensitivity + weights[1] * specificity
    top = np.flatnonzero(value >= value.max() - 1e-12)
    return float(expit(grid[top[len(top) // 2]]))


def _bandwidth(values: Float64) -> float:
    """Return the normal reference rule (Scott, Multivariate Density Estimation, 1992), which resists outliers."""
    quarter, three = np.quantile(values, (0.25, 0.75))
    spreads = [spread for spread in (float(values.std()), float(three - quarter) / 1.34) if spread > 0]
    return float(max(1.06 * min(spreads, default=0.0) * len(values) ** -0.2, 1e-6))


def _log_odds(probabilities: Float64) -> Float64:
    clipped = np.clip(probabilities, _LEAST, _MOST)
    return np.asarray(np.log(clipped / (1 - clipped)))

"""How well a model does on live images: measured where true labels came, estimated where none did.

Images count as independent of each other, since the log knows of no patients.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pneumo.serving.contracts.arrays import Float64, Mask

LEVEL = 0.95
"""Of every interval."""
_Z = 1.959963984540054
_TAIL = (1 - LEVEL) / 2

ECE_BINS = 15
"""As in a bundle's metrics."""
TABLE_BINS = 10

LEAST_EXPECTED = 5
"""Expected images of a class without which no share of it is estimated: the interval of a ratio needs some."""


@dataclass(frozen=True)
class Estimate:
    """A figure in [0, 1] with its 95 % interval, and how many images it is a figure of."""

    value: float
    low: float
    high: float
    images: int


@dataclass(frozen=True)
class Performance:
    """How well N images were answered; None is what these images, or a model of several classes, do not tell.

    Attributes:
        images: N.
        accuracy: Share that was answered right.
        sensitivity: Of the positive class.
        specificity: Of the other.
        auroc: Of the probability; never estimated without labels.
    """

    images: int
    accuracy: Estimate | None = None
    sensitivity: Estimate | None = None
    specificity: Estimate | None = None
    auroc: Estimate | None = None


@dataclass(frozen=True)
class LabelledAnswers:
    """N answers whose true label is known.

    Attributes:
        day: Whole number that rises with time, [N].
        truth: True class, [N].
        said: Class that was said, [N].
        probability: Calibrated, of the positive class, or of the class said with more than two, [N].
    """

    day: NDArray[np.int64]
    truth: NDArray[Any]
    said: NDArray[Any]
    probability: Float64

    def __len__(self) -> int:
        return len(self.probability)

    def take(self, rows: Mask | NDArray[np.integer]) -> "LabelledAnswers":
        """Some of them."""
        return LabelledAnswers(self.day[rows], self.truth[rows], self.said[rows], self.probability[rows])

    def measure(self, positive_class: str | None) -> Performance:
        """How well they were answered.

        Args:
            positive_class: What `probability` is about; None with more than two classes.
        """
        right = self.truth == self.said
        accuracy = estimate_share(int(right.sum()), len(self))
        if positive_class is None:
            return Performance(len(self), accuracy)
        positive = self.truth == positive_class
        return Performance(
            len(self),
            accuracy,
            estimate_share(int(right[positive].sum()), int(positive.sum())),
            estimate_share(int(right[~positive].sum()), int((~positive).sum())),
            estimate_auroc(positive, self.probability),
        )

    def claims(self, positive_class: str | None) -> tuple[Float64, Mask]:
        """Each probability and whether what it is about came true."""
        about = self.said if positive_class is None else positive_class
        return self.probability, np.asarray(self.truth == about)

    def spans(self, least: int) -> Iterator["LabelledAnswers"]:
        """One part a day; days with fewer images go with those after them, the last ones with those before."""
        days, counts = np.unique(self.day, return_counts=True)
        span = np.zeros(len(days), dtype=np.int64)
        number = count = 0
        for place, here in enumerate(counts):
            span[place] = number
            count += here
            if count >= least:
                number, count = number + 1, 0
        if count and number:
            span[span == number] = number - 1
        of_row = span[np.searchsorted(days, self.day)]
        for each in np.unique(of_row):
            yield self.take(of_row == each)


def estimate_share(hits: int, count: int) -> Estimate | None:
    """Estimate a share, with Wilson's interval (Probable Inference, 1927); None of no images."""
    if not count:
        return None
    share, square = hits / count, _Z * _Z / count
    middle = (share + square / 2) / (1 + square)
    half = _Z * math.sqrt(share * (1 - share) / count + square / (4 * count)) / (1 + square)
    return Estimate(share, max(0.0, min(share, middle - half)), min(1.0, max(share, middle + half)), count)


def estimate_auroc(positive: Mask, scores: Float64) -> Estimate | None:
    """Estimate the area under the ROC curve; None without images of both classes.

    The variance is that of DeLong et al. (Comparing the Areas under Two or More Correlated ROC Curves, 1988), computed
    by ranks (Sun and Xu, Fast Implementation of DeLong's Algorithm, 2014); the interval is symmetric in log odds. Where
    that variance is none, as with equal scores, the largest possible one stands in: A (1 - A) over the images of the
    rarer class (van Dantzig, 1951). An area of 0 or 1 gets an exact bound: that of a share of as many pairs as there
    are images of the rarer class.

    Args:
        positive: Truth, [N].
        scores: Higher speaks for positive, [N].
    """
    ones, zeros = scores[positive], scores[~positive]
    rarer = min(len(ones), len(zeros))
    if not rarer:
        return None
    ranks = _midranks(np.concatenate([ones, zeros]))
    of_ones = (ranks[: len(ones)] - _midranks(ones)) / len(zeros)
    of_zeros = 1 - (ranks[len(ones) :] - _midranks(zeros)) / len(ones)
    area = float(of_ones.mean())
    bound: float = _TAIL ** (1 / rarer)
    if min(area, 1 - area) < 1e-12:
        area = float(round(area))
        return Estimate(area, bound if area else 0.0, 1.0 if area else 1 - bound, len(scores))
    variance = 0.0
    if rarer > 1:
        variance = float(of_ones.var(ddof=1) / len(ones) + of_zeros.var(ddof=1) / len(zeros))
    if variance < 1e-12:
        variance = area * (1 - area) / rarer
    odds, half = math.log(area / (1 - area)), _Z * math.sqrt(variance) / (area * (1 - area))
    return Estimate(area, _chance(odds - half), _chance(odds + half), len(scores))


@dataclass(frozen=True)
class Bin:
    """Images whose probabilities are alike: from `low` to `high`, `claimed` in the mean, and how often it came true."""

    low: float
    high: float
    claimed: float
    observed: Estimate


def bin_reliability(claimed: Float64, came_true: Mask, bins: int = TABLE_BINS) -> list[Bin]:
    """Return equally wide bins of probabilities against what came true; empty ones are left out.

    Args:
        claimed: In [0, 1], [N].
        came_true: [N].
        bins: How many.
    """
    place = np.minimum((claimed * bins).astype(np.int64), bins - 1)
    found = []
    for number in np.unique(place).tolist():
        rows = place == number
        observed = estimate_share(int(came_true[rows].sum()), int(rows.sum()))
        assert observed is not None
        found.append(Bin(number / bins, (number + 1) / bins, float(claimed[rows].mean()), observed))
    return found


def compute_calibration_error(claimed: Float64, came_true: Mask) -> float:
    """Compute the expected calibration error of 15 equal bins (Naeini et al., 2015), as in a bundle's metrics.

    Of few images it is too high: chance alone moves each bin.
    """
    place = np.searchsorted(np.linspace(0, 1, ECE_BINS + 1), np.clip(claimed, 0, 1), side="right") - 1
    gap = np.bincount(place, weights=claimed - came_true, minlength=ECE_BINS + 1)
    return float(np.abs(gap).sum() / len(claimed))


@dataclass(frozen=True)
class ProbabilitySums:
    """Sums over the probabilities of some answers, which a database can compute.

    With more than two classes every answer counts as positive, and its probability is that of the class said.

    Attributes:
        positive: Images that were called positive.
        positive_sum: Sum of their probabilities p.
        positive_spread: Sum of their p (1 - p).
        negative: Images that were called negative.
        negative_sum: Sum of their probabilities, of the positive class too.
        negative_spread: Sum of their p (1 - p).
    """

    positive: int = 0
    positive_sum: float = 0.0
    positive_spread: float = 0.0
    negative: int = 0
    negative_sum: float = 0.0
    negative_spread: float = 0.0

    @classmethod
    def from_answers(cls, probability: Float64, said_positive: Mask) -> "ProbabilitySums":
        """Add up probabilities [N] of the positive class, with whether it was said [N]."""
        spread = probability * (1 - probability)
        yes, no = said_positive, ~said_positive
        return cls(
            int(yes.sum()),
            float(probability[yes].sum()),
            float(spread[yes].sum()),
            int(no.sum()),
            float(probability[no].sum()),
            float(spread[no].sum()),
        )

    @classmethod
    def total(cls, parts: Sequence["ProbabilitySums"]) -> "ProbabilitySums":
        """All of them together."""
        return cls(
            sum(part.positive for part in parts),
            math.fsum(part.positive_sum for part in parts),
            math.fsum(part.positive_spread for part in parts),
            sum(part.negative for part in parts),
            math.fsum(part.negative_sum for part in parts),
            math.fsum(part.negative_spread for part in parts),
        )

    def estimate(self, *, two_classes: bool) -> Performance:
        """Estimate performance without labels, from calibrated probabilities alone.

        Confidence-based performance estimation as NannyML has it (its documentation, How It Works: Estimation of
        Performance of the Monitored Model): each probability is the chance that the image is positive, and these add up
        to the expected table of answers against truth. The interval is where the figure of just these images would lie
        if their probabilities were calibrated: a normal one, with the variance of independent draws, for ratios to
        first order, and half an image for their being whole. It cannot know of a shift that spoils the calibration.

        Args:
            two_classes: Whether there is a positive class to speak of.
        """
        images = self.positive + self.negative
        if not images:
            return Performance(0)
        hit, miss = self.positive_sum, self.negative_sum
        false_alarm, rejected = self.positive - hit, self.negative - miss
        variance = (self.positive_spread + self.negative_spread) / images**2
        accuracy = _around((hit + rejected) / images, variance, images)
        if not two_classes:
            return Performance(images, accuracy)
        return Performance(
            images,
            accuracy,
            _ratio(hit, self.positive_spread, miss, self.negative_spread),
            _ratio(rejected, self.negative_spread, false_alarm, self.positive_spread),
        )


def _ratio(inside: float, inside_variance: float, outside: float, outside_variance: float) -> Estimate | None:
    """One expected count over itself and another, independent one."""
    total = inside + outside
    if total < LEAST_EXPECTED:
        return None
    variance = (outside**2 * inside_variance + inside**2 * outside_variance) / total**4
    return _around(inside / total, variance, total)


def _around(value: float, variance: float, images: float) -> Estimate:
    half = _Z * math.sqrt(max(0.0, variance)) + 0.5 / images
    value = min(1.0, max(0.0, value))
    return Estimate(value, max(0.0, value - half), min(1.0, value + half), round(images))


def _midranks(values: Float64) -> Float64:
    """Ranks from 1, equal values sharing the mean of theirs."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    after = np.cumsum(counts)
    ranks: Float64 = (after - (counts - 1) / 2)[place]
    return ranks


def _chance(odds: float) -> float:
    """The inverse of log odds."""
    return 1 / (1 + math.exp(-odds)) if odds > -700 else 0.0

"""Live performance: measured on images with ground truth, estimated from probabilities for the others.

Images count as independent of each other, since the log has no patients.
"""

import dataclasses
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pneumo.serving.contracts.arrays import Float64, Mask

_Z = 1.959963984540054
_TAIL = 0.025
"""Normal quantile and tail of a 95% interval."""

ECE_BINS = 15
"""Bins of the calibration error, as in a bundle's metrics."""
TABLE_BINS = 10

LEAST_EXPECTED = 5
"""Minimum expected images of a class to estimate a share of it: the interval of a ratio needs some."""


@dataclass(frozen=True)
class Estimate:
    """A metric in [0, 1] with its 95% interval and its number of images."""

    value: float
    low: float
    high: float
    images: int


@dataclass(frozen=True)
class Performance:
    """Metrics of some images; None if the images do not tell, or if the model has more than two classes.

    The AUROC is never estimated without labels.
    """

    images: int
    accuracy: Estimate | None = None
    sensitivity: Estimate | None = None
    specificity: Estimate | None = None
    auroc: Estimate | None = None


@dataclass(frozen=True)
class LabelledAnswers:
    """N answers with ground truth.

    `day` is a whole number that rises with time. Probabilities are calibrated, those of the positive class, or of the
    predicted class with more than two.
    """

    day: NDArray[np.int64]
    truth: NDArray[np.object_]
    predicted: NDArray[np.object_]
    probability: Float64

    def __len__(self) -> int:
        return len(self.probability)

    def take(self, rows: Mask | NDArray[np.integer]) -> "LabelledAnswers":
        """Return the answers of some rows."""
        return LabelledAnswers(self.day[rows], self.truth[rows], self.predicted[rows], self.probability[rows])

    def measure(self, positive_class: str | None) -> Performance:
        """Measure performance; `positive_class` is None with more than two classes."""
        right = self.truth == self.predicted
        accuracy = _estimate_mean(right)
        if positive_class is None:
            return Performance(len(self), accuracy)
        positive = self.truth == positive_class
        sensitivity, specificity = _estimate_mean(right[positive]), _estimate_mean(right[~positive])
        return Performance(len(self), accuracy, sensitivity, specificity, estimate_auroc(positive, self.probability))

    def outcomes(self, positive_class: str | None) -> tuple[Float64, Mask]:
        """Return each probability, and True if its class is the ground truth."""
        about = self.predicted if positive_class is None else positive_class
        return self.probability, np.asarray(self.truth == about)

    def split_by_day(self, least: int) -> Iterator["LabelledAnswers"]:
        """Yield one part per day; join days until a part has `least` images, the last ones to those before them."""
        days, counts = np.unique(self.day, return_counts=True)
        part = np.zeros(len(days), dtype=np.int64)
        number = images = 0
        for place, count in enumerate(counts):
            part[place] = number
            images += count
            if images >= least:
                number, images = number + 1, 0
        if images and number:
            part[part == number] = number - 1
        part_of_row = part[np.searchsorted(days, self.day)]
        for each in np.unique(part_of_row):
            yield self.take(part_of_row == each)


def estimate_share(hits: int, count: int) -> Estimate | None:
    """Estimate a share with Wilson's interval (Probable Inference, 1927); None without images."""
    if not count:
        return None
    share, square = hits / count, _Z * _Z / count
    middle = (share + square / 2) / (1 + square)
    half = _Z * math.sqrt(share * (1 - share) / count + square / (4 * count)) / (1 + square)
    return Estimate(share, max(0.0, min(share, middle - half)), min(1.0, max(share, middle + half)), count)


def _estimate_mean(hits: Mask) -> Estimate | None:
    return estimate_share(int(hits.sum()), len(hits))


def estimate_auroc(positive: Mask, scores: Float64) -> Estimate | None:
    """Estimate the area under the ROC curve of scores [N] and truth [N]; None without images of both classes.

    The variance is that of DeLong et al. (Comparing the Areas under Two or More Correlated ROC Curves, 1988), computed
    by ranks (Sun and Xu, Fast Implementation of DeLong's Algorithm, 2014). The interval is symmetric in log odds. If
    that variance is zero, as with equal scores, the largest possible one replaces it: A (1 - A) over the images of the
    rarer class (van Dantzig, 1951). An area of 0 or 1 gets an exact bound: that of a share of as many pairs as there
    are images of the rarer class.
    """
    ones, zeros = scores[positive], scores[~positive]
    rarer = min(len(ones), len(zeros))
    if not rarer:
        return None
    ranks = rank_values(np.concatenate([ones, zeros]))
    of_ones = (ranks[: len(ones)] - rank_values(ones)) / len(zeros)
    of_zeros = 1 - (ranks[len(ones) :] - rank_values(zeros)) / len(ones)
    variance = 0.0
    if rarer > 1:
        variance = float(of_ones.var(ddof=1) / len(ones) + of_zeros.var(ddof=1) / len(zeros))
    return Estimate(*bound_auroc(float(of_ones.mean()), variance, rarer), len(scores))


def bound_auroc(area: float, variance: float, rarer: int) -> tuple[float, float, float]:
    """Return an area under the ROC curve with its interval, as `estimate_auroc` describes it."""
    if min(area, 1 - area) < 1e-9:
        bound: float = _TAIL ** (1 / rarer)
        return (1.0, bound, 1.0) if area > 0.5 else (0.0, 0.0, 1 - bound)
    if variance < 1e-12:
        variance = area * (1 - area) / rarer
    log_odds, half = math.log(area / (1 - area)), _Z * math.sqrt(variance) / (area * (1 - area))
    return area, _sigmoid(log_odds - half), _sigmoid(log_odds + half)


@dataclass(frozen=True)
class Bin:
    """Images with probabilities from `low` to `high`: their mean probability, and the observed share."""

    low: float
    high: float
    mean: float
    observed: Estimate


def bin_reliability(probability: Float64, came_true: Mask) -> list[Bin]:
    """Compare probabilities [N] with outcomes [N] in bins of equal width; leave empty bins out."""
    place = np.minimum((probability * TABLE_BINS).astype(np.int64), TABLE_BINS - 1)
    bins = []
    for number in np.unique(place).tolist():
        rows = place == number
        if observed := _estimate_mean(came_true[rows]):
            mean = float(probability[rows].mean())
            bins.append(Bin(number / TABLE_BINS, (number + 1) / TABLE_BINS, mean, observed))
    return bins


def compute_calibration_error(probability: Float64, came_true: Mask) -> float:
    """Compute the expected calibration error of 15 equal bins (Naeini et al., 2015), as in a bundle's metrics.

    It is too high for few images: chance alone moves each bin.
    """
    place = np.searchsorted(np.linspace(0, 1, ECE_BINS + 1), np.clip(probability, 0, 1), side="right") - 1
    gap = np.bincount(place, weights=probability - came_true, minlength=ECE_BINS + 1)
    return float(np.abs(gap).sum() / len(probability))


@dataclass(frozen=True)
class ProbabilitySums:
    """Sums over the probabilities p of answers, which a database can compute.

    `positive` images are called positive and `negative` ones are not; of both, the sum of p, of the positive class, and
    as spread that of p (1 - p). With more than two classes every answer counts as positive, and p is that of the
    predicted class.
    """

    positive: int = 0
    positive_sum: float = 0.0
    positive_spread: float = 0.0
    negative: int = 0
    negative_sum: float = 0.0
    negative_spread: float = 0.0

    @classmethod
    def total(cls, parts: Sequence["ProbabilitySums"]) -> "ProbabilitySums":
        """Add the sums of several parts."""
        return cls(*map(sum, zip(*map(dataclasses.astuple, parts), strict=True)))

    def estimate(self, *, two_classes: bool) -> Performance:
        """Estimate performance without labels, from calibrated probabilities alone.

        Confidence-based performance estimation of NannyML (its documentation, How It Works: Estimation of Performance
        of the Monitored Model): each probability is the chance that the image is positive, and these add up to the
        expected confusion matrix. The interval holds the metric of these images if their probabilities are calibrated:
        it is normal, with the variance of independent draws, to first order for ratios, and half an image wider since
        images are whole. It cannot know of a shift that spoils the calibration.
        """
        images = self.positive + self.negative
        if not images:
            return Performance(0)
        hit, miss = self.positive_sum, self.negative_sum
        false_alarm, rejected = self.positive - hit, self.negative - miss
        variance = (self.positive_spread + self.negative_spread) / images**2
        accuracy = _estimate_normal((hit + rejected) / images, variance, images)
        if not two_classes:
            return Performance(images, accuracy)
        return Performance(
            images,
            accuracy,
            _estimate_ratio(hit, self.positive_spread, miss, self.negative_spread),
            _estimate_ratio(rejected, self.negative_spread, false_alarm, self.positive_spread),
        )


def _estimate_ratio(count: float, count_variance: float, other: float, other_variance: float) -> Estimate | None:
    """Estimate count / (count + other) of two independent expected counts."""
    total = count + other
    if total < LEAST_EXPECTED:
        return None
    variance = (other**2 * count_variance + count**2 * other_variance) / total**4
    return _estimate_normal(count / total, variance, total)


def _estimate_normal(value: float, variance: float, images: float) -> Estimate:
    half = _Z * math.sqrt(max(0.0, variance)) + 0.5 / images
    value = min(1.0, max(0.0, value))
    return Estimate(value, max(0.0, value - half), min(1.0, value + half), round(images))


def rank_values(values: Float64) -> Float64:
    """Rank values from 1; equal values share their mean rank (`scipy.stats.rankdata`, which a service lacks)."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks: Float64 = (np.cumsum(counts) - (counts - 1) / 2)[place]
    return ranks


def _sigmoid(log_odds: float) -> float:
    return 1 / (1 + math.exp(-log_odds)) if log_odds > -700 else 0.0

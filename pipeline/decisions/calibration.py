"""Temperature and conformal limits, which make probabilities and prediction sets hold what they promise."""

import math

import numpy as np
from numpy.typing import NDArray

from pneumo.serving.contracts.arrays import Float64

TEMPERATURES = (0.25, 10.0)
"""Bounds of the temperature: outside of them a validation split is too small or too unusual to trust."""

PRIOR = 0.5
"""Standard deviation of log temperature before any image was seen: most networks need between 0.4 and 2.7."""

Labels = NDArray[np.integer]

_ROUNDING = 1e-9
"""10 * 0.7 is a little above 7 in floating point."""


def fit_temperature(logits: NDArray[np.floating], labels: Labels) -> float:
    """Fit the most probable temperature of logits [N, K], N > 0, with ground truth [N], within bounds.

    Guo et al., On Calibration of Modern Neural Networks, 2017. A log-normal prior around 1 has two effects. A split of
    some dozen images cannot move the temperature far. A split that the model separates perfectly, whose likelihood
    grows without end towards temperature 0, cannot move it to the bound. With 780 images the prior changes the
    temperature by at most 2% (docs/benchmarks.md, also against Platt's smoothed targets and no prior).
    """
    from scipy.optimize import minimize_scalar
    from scipy.special import logsumexp

    exact = np.asarray(logits, dtype=np.float64)
    own = exact[np.arange(len(labels)), labels]

    def loss(log_temperature: float) -> float:
        scale = math.exp(-log_temperature)
        return float((logsumexp(exact * scale, axis=1) - own * scale).sum() + (log_temperature / PRIOR) ** 2 / 2)

    low, high = map(math.log, TEMPERATURES)
    fit = minimize_scalar(loss, bounds=(low, high), method="bounded", options={"xatol": 1e-6})
    return float(math.exp(fit.x))


def fit_conformal_limits(probabilities: Float64, labels: Labels, level: float) -> list[float]:
    """Return for each class, in column order, the split-conformal quantile of 1 - p(class) over its own images.

    Of n images it is the ceil((n + 1) level)-th smallest score, so that the set of a new image of the class, if
    exchangeable with them, holds the class with a probability of at least `level`, in (0, 1). A class with fewer images
    than `count_fewest_images` gets 1, which never rules it out (class-conditional or Mondrian prediction: Vovk,
    Conditional Validity of Inductive Conformal Predictors, 2012; Sadinle et al., 2019).

    Each image counts once, whatever its patient. Over random splits by patient the mean coverage of new images is the
    promised one; patients only make it vary more. Counting each patient once, or weighing images by patient, covered
    too much, since patients with many images are the easy ones (docs/benchmarks.md).
    """
    limits = []
    for column in range(probabilities.shape[1]):
        scores = np.sort(1.0 - probabilities[labels == column, column])
        rank = max(1, math.ceil((len(scores) + 1) * level - _ROUNDING))
        limits.append(1.0 if rank > len(scores) else float(scores[rank - 1]))
    return limits


def count_fewest_images(level: float) -> int:
    """Return the fewest images of a class from which a limit below 1 can be fitted for a coverage of `level`."""
    return math.ceil(level / (1 - level) - _ROUNDING)

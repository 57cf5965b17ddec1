"""Temperature and conformal limit, which make probabilities and prediction sets hold what they promise."""

import math

import numpy as np
from numpy.typing import NDArray

from pneumo.serving.contracts.arrays import Float64

TEMPERATURES = (0.25, 10.0)
"""Bounds of the temperature: outside of them a validation split is too small or too unusual to trust."""

PRIOR = 0.5
"""Standard deviation of log temperature before any image was seen: most networks need between 0.4 and 2.7."""

Labels = NDArray[np.integer]


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


def fit_conformal_limit(probabilities: Float64, labels: Labels, level: float) -> float:
    """Return the split-conformal quantile of 1 - p(ground truth) of N images, with the finite-sample correction.

    It is the ceil((n + 1) level)-th smallest score, so that the set of a new exchangeable image holds the ground truth
    with a probability of at least `level`, in (0, 1). If n is too small for that, it is 1, which rules no class out
    (Sadinle et al., 2019).

    Each image counts once, whatever its patient. Over random splits by patient the mean coverage of new images is the
    promised one; patients only make it vary more. Counting each patient once, or weighing images by patient, covered
    too much, since patients with many images are the easy ones (docs/benchmarks.md).
    """
    images = len(labels)
    rank = max(1, math.ceil((images + 1) * level - 1e-9))  # 10 * 0.7 is a little above 7
    if rank > images:
        return 1.0
    return float(np.sort(1.0 - probabilities[np.arange(images), labels])[rank - 1])

"""Temperature and conformal limit: what makes probabilities and sets of classes mean what they say."""

import math

import numpy as np
from numpy.typing import NDArray

from pneumo.serving.contracts.arrays import Float64

TEMPERATURES = (0.25, 10.0)
"""Bounds of the temperature: outside of them a validation split is too small or too odd to be believed."""

PRIOR = 0.5
"""Standard deviation of log temperature before any image was seen: most networks need between 0.4 and 2.7."""

Labels = NDArray[np.integer]


def fit_temperature(logits: NDArray[np.floating], labels: Labels) -> float:
    """Find the most probable temperature (Guo et al., On Calibration of Modern Neural Networks, 2017), within bounds.

    A log-normal prior around 1 keeps a split of some dozen images from moving it far, and a split that the model
    separates perfectly, whose likelihood grows without end towards temperature 0, from moving it to the bound. With
    780 images it changes the temperature by 2 % at most (docs/benchmarks.md, also against Platt's smoothed targets and
    no prior).

    Args:
        logits: [N, K], N > 0.
        labels: Index of the true class, [N].
    """
    from scipy.optimize import minimize_scalar

    exact = np.asarray(logits, dtype=np.float64)
    own = exact[np.arange(len(labels)), labels]

    def loss(log_temperature: float) -> float:
        scale = math.exp(-log_temperature)
        top = exact.max(axis=1)
        log_sum = top * scale + np.log(np.exp((exact - top[:, None]) * scale).sum(axis=1))
        return float((log_sum - own * scale).sum() + (log_temperature / PRIOR) ** 2 / 2)

    low, high = map(math.log, TEMPERATURES)
    found = minimize_scalar(loss, bounds=(low, high), method="bounded", options={"xatol": 1e-6})
    return float(math.exp(found.x))


def fit_conformal_limit(probabilities: Float64, labels: Labels, level: float) -> float:
    """Return the split-conformal quantile of 1 - p(true class), with the finite-sample correction.

    It is the ceil((n + 1) level)-th smallest score, so that a new exchangeable image is covered with a probability of
    at least `level`; 1, which rules nothing out, where n is too small for that (Sadinle et al., 2019).

    Images count one by one, whichever patients they are of. Over random splits by patient the coverage of new images
    is the promised one in the mean; patients only make it vary more. Counting each patient once, or weighing images by
    patient, covered too much: patients with many images are the easy ones (docs/benchmarks.md).

    Args:
        probabilities: [N, K].
        labels: Index of the true class, [N].
        level: Wanted coverage, in (0, 1).
    """
    images = len(labels)
    rank = max(1, math.ceil((images + 1) * level - 1e-9))  # 10 * 0.7 is a little above 7
    if rank > images:
        return 1.0
    return float(np.sort(1.0 - probabilities[np.arange(images), labels])[rank - 1])

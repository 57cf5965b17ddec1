"""Logits to calibrated probabilities, and those to conformal prediction sets."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pneumo.serving.contracts.arrays import Float64, Mask


def calibrate_logits(logits: NDArray[np.floating], temperature: float) -> Float64:
    """Return the softmax of logits over a temperature (Guo et al., On Calibration of Modern Neural Networks, 2017).

    Args:
        logits: [N, K]; with two classes of a binary output the first column is 0 and the second the logit.
        temperature: Above 0; 1 changes nothing.

    Returns:
        Probabilities [N, K], each row summing to 1.
    """
    scaled = np.asarray(logits, dtype=np.float64) / temperature
    powers = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    result: Float64 = powers / powers.sum(axis=1, keepdims=True)
    return result


def build_prediction_sets(probabilities: Float64, limits: Sequence[float] | Float64) -> Mask:
    """Build prediction sets, a mask [N, K]: the classes with 1 - probability at or below their limit.

    Split conformal prediction by class with the score of Sadinle et al., Least Ambiguous Set-Valued Classifiers, 2019.
    A set may be empty: the image is unlike most of the held-out images of every class.

    Args:
        probabilities: Calibrated, [N, K].
        limits: Quantile of 1 - p(class) on held-out images of each class, [K], or one for all classes; in [0, 1].
    """
    return np.asarray(1.0 - probabilities <= np.asarray(limits))


def find_certain(sets: Mask, labels: NDArray[np.integer]) -> Mask:
    """Find the images whose prediction set [N, K] holds the predicted class [N] and no other, as a mask [N].

    A threshold far from 0.5 may predict a class that the set rules out; such an image is uncertain too.
    """
    return np.asarray((sets.sum(axis=1) == 1) & sets[np.arange(len(sets)), labels])

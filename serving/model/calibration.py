"""From logits to what is said about an image: calibrated probabilities and conformal sets."""

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


def build_prediction_sets(probabilities: Float64, limit: float) -> Mask:
    """Return which classes cannot be ruled out: those with 1 - probability at or below a limit.

    Split conformal prediction with the score of Sadinle et al., Least Ambiguous Set-Valued Classifiers, 2019. A set may
    be empty.

    Args:
        probabilities: Calibrated, [N, K].
        limit: Quantile of 1 - p(true class) on held-out images, in [0, 1].

    Returns:
        Mask [N, K].
    """
    return np.asarray(1.0 - probabilities <= limit)


def find_certain(sets: Mask, answers: NDArray[np.integer]) -> Mask:
    """Return which cases have a prediction set of the answer and nothing else.

    A threshold that is far from 0.5 may say a class that the set rules out; that is uncertain too.

    Args:
        sets: Conformal sets, [N, K].
        answers: Index of the class that is said, [N].

    Returns:
        Mask [N].
    """
    return np.asarray((sets.sum(axis=1) == 1) & sets[np.arange(len(sets)), answers])

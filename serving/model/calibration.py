"""From logits to what is said about an image: calibrated probabilities and conformal sets."""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def calibrated(logits: NDArray[np.floating], temperature: float) -> Floats:
    """Softmax of logits divided by a temperature (Guo et al., On Calibration of Modern Neural Networks, 2017).

    Args:
        logits: [N, K]; with two classes of a binary output the first column is 0 and the second the logit.
        temperature: Above 0; 1 changes nothing.

    Returns:
        Probabilities [N, K], each row summing to 1.
    """
    scaled = np.asarray(logits, dtype=np.float64) / temperature
    powers = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    result: Floats = powers / powers.sum(axis=1, keepdims=True)
    return result


def conformal_sets(probabilities: Floats, limit: float) -> NDArray[np.bool_]:
    """Which classes cannot be ruled out: those with 1 - probability at or below a limit.

    Split conformal prediction with the score of Sadinle et al., Least Ambiguous Set-Valued Classifiers, 2019. A set may
    be empty.

    Args:
        probabilities: Calibrated, [N, K].
        limit: Quantile of 1 - p(true class) on held-out images, in [0, 1].

    Returns:
        Mask [N, K].
    """
    return np.asarray(1.0 - probabilities <= limit)


def certain(sets: NDArray[np.bool_], answers: NDArray[np.integer]) -> NDArray[np.bool_]:
    """Whether the conformal set of a case is the answer and nothing else.

    A threshold that is far from 0.5 may say a class that the set rules out; that is uncertain too.

    Args:
        sets: Conformal sets, [N, K].
        answers: Index of the class that is said, [N].

    Returns:
        Mask [N].
    """
    return np.asarray((sets.sum(axis=1) == 1) & sets[np.arange(len(sets)), answers])

"""Samples of image descriptors drawn from known distributions."""

import numpy as np

from pneumo.serving.drift.performance import ProbabilitySums
from pneumo.serving.drift.samples import NUMBERS, Sample


def draw(count: int, seed: int, *, constant: tuple[str, ...] = ("aspect", "width", "height")) -> Sample:
    """Images whose numbers are normal, but those that are the same for all."""
    rng = np.random.default_rng(seed)
    numbers = {name: np.full(count, 224.0) if name in constant else rng.normal(100, 10, count) for name in NUMBERS}
    numbers["probability"] = rng.uniform(0, 1, count)
    shares = {
        "out_of_distribution": rng.uniform(size=count) < 0.01,
        "uncertain": rng.uniform(size=count) < 0.1,
        "decision": numbers["probability"] >= 0.4,
    }
    return Sample(numbers, shares, rng.normal(size=(count, 8)))


def sum_probabilities(probability: np.ndarray, positive: np.ndarray) -> ProbabilitySums:
    """Add up probabilities of answers, of which some are called positive."""
    return ProbabilitySums(
        *(
            part
            for rows in (positive, ~positive)
            for part in (int(rows.sum()), probability[rows].sum(), (probability * (1 - probability))[rows].sum())
        )
    )

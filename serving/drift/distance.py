"""Maximum mean discrepancy between two sets of embeddings, with a permutation test.

Gretton et al., A Kernel Two-Sample Test, 2012: a Gaussian kernel as wide as the median distance, and the statistic's
distribution under exchange of the two sets.
"""

import numpy as np
from numpy.typing import NDArray

PERMUTATIONS = 2000
MOST = 500
"""Reference images that are compared at most: the kernel of all pairs grows with the square."""

Floats = NDArray[np.float64]


def discrepancy(
    reference: Floats, window: Floats, *, seed: int = 0, permutations: int = PERMUTATIONS
) -> tuple[float, float]:
    """Squared maximum mean discrepancy, and how often chance alone gives as much.

    Args:
        reference: [N, P].
        window: [M, P], M at least 2.
        seed: Of the permutations, and of the choice among more than `MOST` reference images.
        permutations: How many; the least p-value is one over that and one.

    Returns:
        Statistic (unbiased, may be slightly negative) and p-value.
    """
    rng = np.random.default_rng(seed)
    if len(reference) > MOST:
        reference = reference[rng.choice(len(reference), MOST, replace=False)]
    both = np.concatenate([reference, window])
    kernel = _kernel(both)
    np.fill_diagonal(kernel, 0.0)
    size, count = len(both), len(window)
    of_window = np.zeros((size, permutations + 1))
    of_window[len(reference) :, 0] = 1.0
    for column in range(1, permutations + 1):
        of_window[rng.choice(size, count, replace=False), column] = 1.0
    with_window = kernel @ of_window
    inside = (of_window * with_window).sum(axis=0)
    across = with_window.sum(axis=0) - inside
    outside = kernel.sum() - inside - 2 * across
    rest = size - count
    values = inside / (count * (count - 1)) + outside / (rest * (rest - 1)) - 2 * across / (count * rest)
    reached = int((values[1:] >= values[0] - 1e-15).sum())
    return float(values[0]), (1 + reached) / (permutations + 1)


def _kernel(points: Floats) -> Floats:
    squares = (points**2).sum(axis=1)
    distances = np.maximum(squares[:, None] + squares[None, :] - 2 * points @ points.T, 0.0)
    upper = distances[np.triu_indices(len(points), 1)]
    width = float(np.median(upper)) or 1.0
    result: Floats = np.exp(-distances / width)
    return result

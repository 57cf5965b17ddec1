"""Distances of a window from a reference, and of windows drawn at random from the reference.

Windows are masks over images, [B, L] for B windows, so that all drawn windows are measured in one go.
SciPy's `anderson_ksamp` takes one window at a time; its `ks_2samp` and `fisher_exact` compute the same numbers, 100 and
10 times as slowly.
"""

import numpy as np
from numpy.typing import NDArray

from pneumo.serving.contracts.arrays import Float64, Mask

Counts = NDArray[np.int64]

MOST = 2000
"""Maximum embeddings of a set: the kernel of all pairs grows with the square."""

DRAWS = 2000
"""Windows drawn from a reference; `estimate_tail` tells p-values below 1 / 2001, which many sites need."""


def anderson_darling(values: Float64, windows: Mask) -> Float64:
    """Return the distances [B] of the distributions of values [L] inside and outside of windows [B, L].

    Scholz & Stephens, K-Sample Anderson-Darling Tests, 1987, for two samples with ties. It notices tails and small
    shifts earlier than the statistic of Kolmogorov and Smirnov (docs/drift.md). It is about 1 for equal distributions,
    0 if all values are the same. Each window needs images inside and outside.
    """
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    ends = np.flatnonzero(ordered[1:] != ordered[:-1])  # of runs of equal values, but the last
    below = (ends + 1).astype(np.float64)
    weight = np.diff(below, prepend=0.0)
    inside = np.cumsum(windows[:, order], axis=1, dtype=np.int32)[:, ends].astype(np.float64)
    count = windows.sum(axis=1).astype(np.float64)
    size = float(len(values))
    inside *= size
    inside -= below * count[:, None]
    np.square(inside, out=inside)
    result: Float64 = inside @ (weight / (below * (size - below))) / (count * (size - count))
    return result


def kolmogorov_smirnov(reference: Float64, window: Float64) -> float:
    """Return the largest difference of two distribution functions, 0 to 1."""
    places = np.concatenate([reference, window])
    first, second = (np.searchsorted(np.sort(each), places, side="right") / len(each) for each in (reference, window))
    return float(np.abs(first - second).max())


def fisher(inside: Counts, count: int, outside: Counts, rest: int) -> Float64:
    """Return two-sided p-values [B] of Fisher's exact test: `inside` [B] of `count`, `outside` [B] of `rest` images."""
    pairs = list(zip(inside.tolist(), outside.tolist(), strict=True))
    p_values = {pair: _fisher(pair[0], count, pair[1], rest) for pair in set(pairs)}
    return np.array([p_values[pair] for pair in pairs])


def _fisher(a: int, count: int, b: int, rest: int) -> float:
    from scipy.special import gammaln

    total = a + b
    possible = np.arange(max(0, total - rest), min(count, total) + 1)
    parts = (possible, count - possible, total - possible, rest - total + possible)
    logs = -np.sum([gammaln(part + 1.0) for part in parts], axis=0)
    chances = np.exp(logs - logs.max())
    as_rare = chances <= chances[a - possible[0]] * (1 + 1e-7)
    return float(chances[as_rare].sum() / chances.sum())


def all_inside(extreme: Counts, count: int, rest: int) -> Float64:
    """Return the chance [B] that the `extreme` [B] most extreme of `count` + `rest` images all are of the `count`."""
    steps = np.arange(int(extreme.max(initial=0)))
    chances = np.concatenate([[1.0], np.cumprod((count - steps) / (count + rest - steps))])
    result: Float64 = chances[extreme]
    return result


def count_leading(values: Float64, windows: Mask) -> Counts:
    """Count the images in each window [B, L] with larger values [L] than all images outside."""
    best_outside = np.where(windows, -np.inf, values).max(axis=1)
    counts: Counts = ((values > best_outside[:, None]) & windows).sum(axis=1)
    return counts


def draw_windows(groups: NDArray[np.integer], size: int, *, draws: int = DRAWS, seed: int = 0) -> Mask:
    """Draw windows of whole groups from a reference; the last group of a window is cut when the window is full.

    Images of one patient are alike, and a window often holds several of them. Tests that take images as independent
    then raise three to four times as many false alarms as they promise (docs/drift.md). `groups` are the numbers of the
    images' patients, [N]. Returns masks [draws, N], each with `size` images, from 1 to N - 1.
    """
    rng = np.random.default_rng(seed)
    order = np.argsort(groups, kind="stable")
    members = np.split(order, np.flatnonzero(np.diff(groups[order])) + 1)
    sizes = np.array([len(each) for each in members])
    drawn = np.zeros((draws, len(groups)), dtype=np.bool_)
    for row in drawn:
        turn = rng.permutation(len(members))
        needed = int(np.searchsorted(np.cumsum(sizes[turn]), size)) + 1
        row[np.concatenate([members[each] for each in turn[:needed]])[:size]] = True
    return drawn


def estimate_tail(drawn: Float64, value: float) -> float:
    """Estimate the chance of a value that is larger than all those drawn, which are in ascending order.

    Knijnenburg et al., Fewer Permutations, More Accurate P-Values, 2009: a generalised Pareto distribution is fitted to
    the largest twentieth, here by moments, and with a shape of at least 0. It tells nothing below 1e-6.
    """
    from scipy.stats import genpareto

    if not (count := len(drawn) // 20):
        return 1.0
    high, excess = drawn[-count - 1], drawn[-count:] - drawn[-count - 1]
    mean, variance = float(excess.mean()), float(excess.var())
    if not variance:
        return 1.0
    shape = max(0.0, (1 - mean**2 / variance) / 2)
    return max(1e-6, count / len(drawn) * float(genpareto.sf(value - high, shape, scale=mean * (1 - shape))))


class Kernel:
    """Maximum mean discrepancy of embeddings from those of a reference, with a Gaussian kernel.

    Gretton et al., A Kernel Two-Sample Test, 2012; the kernel is as wide as the median distance in the reference.
    """

    def __init__(self, reference: Float64) -> None:
        """Compare the reference [N, P] with itself; of more than `MOST` images a random sample."""
        from scipy.spatial.distance import pdist

        self.chosen = _choose(len(reference))
        self._points = reference[self.chosen]
        self._width = float(np.median(pdist(self._points, "sqeuclidean"))) or 1.0
        self._inner = self._compare(self._points, self._points)
        np.fill_diagonal(self._inner, 0.0)

    def __len__(self) -> int:
        return len(self._points)

    def measure_window(self, window: Float64) -> tuple[float, float]:
        """Measure a window [M, P] with M at least 2.

        Returns:
            The squared discrepancy (unbiased, may be slightly negative), and its multiple of the discrepancy that
            chance causes, which does not depend on M.
        """
        points = window[_choose(len(window))]
        count, rest = len(points), len(self)
        own = self._compare(points, points)
        np.fill_diagonal(own, 0.0)
        across = self._compare(points, self._points)
        value = float(own.sum() / (count * (count - 1)) + self._inner.sum() / (rest * (rest - 1)) - 2 * across.mean())
        return value, value / (1 / count + 1 / rest)

    def measure_members(self, windows: Mask) -> Float64:
        """Measure windows [B, N] over the chosen reference images against the rest of them.

        Returns:
            [B]: the second value of `measure_window`.
        """
        members = windows.astype(np.float64).T
        count = members.sum(axis=0)
        rest = len(self) - count
        with_window = self._inner @ members
        inside = (members * with_window).sum(axis=0)
        across = with_window.sum(axis=0) - inside
        outside = self._inner.sum() - inside - 2 * across
        value = inside / (count * (count - 1)) + outside / (rest * (rest - 1)) - 2 * across / (count * rest)
        result: Float64 = value / (1 / count + 1 / rest)
        return result

    def likeness(self, points: Float64, *, own: bool = False) -> Float64:
        """Return the mean kernel [M] of points [M, P] with the reference, 0 to 1: the likeness of each image to it.

        `own` says that the points are the reference itself; each is then left out of its comparison.
        """
        itself = np.zeros(len(points))
        if own:
            itself[self.chosen] = 1.0
        return np.asarray((self._compare(points, self._points).sum(axis=1) - itself) / (len(self) - itself))

    def _compare(self, one: Float64, other: Float64) -> Float64:
        from scipy.spatial.distance import cdist

        return np.asarray(np.exp(-cdist(one, other, "sqeuclidean") / self._width))


def _choose(size: int) -> NDArray[np.int64]:
    if size <= MOST:
        return np.arange(size)
    return np.sort(np.random.default_rng(0).choice(size, MOST, replace=False))

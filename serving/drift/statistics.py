"""How far a window lies from a reference, and how far windows that chance draws out of it lie.

A window is given as a mask over images, [B, L] for B windows, so that windows that chance draws out of the reference
are measured in one go.
"""

import numpy as np
from numpy.typing import NDArray

from pneumo.serving.contracts.arrays import Float64, Mask

Counts = NDArray[np.int64]

MOST = 2000
"""Images of a set whose embeddings are compared at most: the kernel of all pairs grows with the square."""


DRAWS = 2000
"""Windows that are drawn of a reference: with fifteen columns the least adjusted p-value is 0.0075."""


def anderson_darling(values: Float64, windows: Mask) -> Float64:
    """Distance of the distributions of one number inside and outside of windows.

    Scholz & Stephens, K-Sample Anderson-Darling Tests, 1987, for two samples with ties. Against the better known
    statistic of Kolmogorov and Smirnov it sees tails and small shifts earlier (docs/drift.md).

    Args:
        values: [L].
        windows: [B, L], each with images inside and outside.

    Returns:
        [B]; about 1 where both are alike, 0 where all values are the same.
    """
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    ends = np.flatnonzero(ordered[1:] != ordered[:-1])  # of runs of equal values, but the last
    below = (ends + 1).astype(np.float64)
    weight = np.diff(np.concatenate([[0.0], below]))
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
    shares = (np.searchsorted(np.sort(values), places, side="right") / len(values) for values in (reference, window))
    first, second = shares
    return float(np.abs(first - second).max())


def fisher(inside: Counts, count: int, outside: Counts, rest: int) -> Float64:
    """Fisher's exact test of two shares, two-sided.

    Args:
        inside: Images of the window that are of a kind, [B].
        count: Images of a window.
        outside: Images of the rest that are of the kind, [B].
        rest: Images of the rest.

    Returns:
        p-values, [B].
    """
    known: dict[tuple[int, int], float] = {}
    pairs = list(zip(inside.tolist(), outside.tolist(), strict=True))
    for a, b in pairs:
        if (a, b) not in known:
            known[a, b] = _fisher(a, count, b, rest)
    return np.array([known[pair] for pair in pairs])


def _fisher(a: int, count: int, b: int, rest: int) -> float:
    """One table; scipy's is as exact and ten times as slow."""
    from scipy.special import gammaln

    kind = a + b
    possible = np.arange(max(0, kind - rest), min(count, kind) + 1)
    parts = (possible, count - possible, kind - possible, rest - kind + possible)
    logs = -np.sum([gammaln(part + 1.0) for part in parts], axis=0)
    chances = np.exp(logs - logs.max())
    as_rare = chances <= chances[a - possible[0]] * (1 + 1e-7)
    return float(chances[as_rare].sum() / chances.sum())


def all_inside(odd: Counts, count: int, rest: int) -> Float64:
    """How often chance puts all of the oddest images into the window.

    Args:
        odd: How many they are, [B], at most `count`.
        count: Images of a window.
        rest: Images of the rest.

    Returns:
        p-values, [B]; 1 where there is none.
    """
    steps = np.arange(int(odd.max(initial=0)))
    chances = np.concatenate([[1.0], np.cumprod((count - steps) / (count + rest - steps))])
    result: Float64 = chances[odd]
    return result


def count_leading(values: Float64, windows: Mask) -> Counts:
    """Count the images inside of each window with larger values than all outside: windows [B, L] to [B]."""
    best_outside = np.where(windows, -np.inf, values).max(axis=1)
    counts: Counts = ((values > best_outside[:, None]) & windows).sum(axis=1)
    return counts


def draw_windows(groups: NDArray[np.integer], size: int, *, draws: int = DRAWS, seed: int = 0) -> Mask:
    """Draw windows of whole groups out of a reference; the last group of a window is cut where it is full.

    Images of one patient are alike, and a window often holds several of them. Tests that take every image for a new
    one then raise three to four times as many false alarms as they promise (docs/drift.md).

    Args:
        groups: Whom each image of the reference is of, [N].
        size: Images of a window, from 1 to N - 1.
        draws: How many windows.
        seed: Of the draws.

    Returns:
        Masks [draws, N], each with `size` images.
    """
    rng = np.random.default_rng(seed)
    order = np.argsort(groups, kind="stable")
    starts = np.flatnonzero(np.diff(groups[order], prepend=groups[order[0]] - 1))
    members = np.split(order, starts[1:])
    sizes = np.array([len(each) for each in members])
    drawn = np.zeros((draws, len(groups)), dtype=np.bool_)
    for row in drawn:
        turn = rng.permutation(len(members))
        wanted = int(np.searchsorted(np.cumsum(sizes[turn]), size)) + 1
        row[np.concatenate([members[each] for each in turn[:wanted]])[:size]] = True
    return drawn


class Kernel:
    """Maximum mean discrepancy of embeddings from those of a reference, with a Gaussian kernel.

    Gretton et al., A Kernel Two-Sample Test, 2012; the kernel is as wide as the median distance in the reference.
    """

    def __init__(self, reference: Float64, seed: int = 0) -> None:
        """Compare the reference with itself, [N, P]; of more than `MOST` images chance chooses."""
        self.chosen = _chosen(len(reference), seed)
        self._points = reference[self.chosen]
        distances = _squared(self._points, self._points)
        upper = distances[np.triu_indices(len(distances), 1)]
        self._width = float(np.median(upper)) or 1.0
        self._inner = np.exp(-distances / self._width)
        np.fill_diagonal(self._inner, 0.0)

    def __len__(self) -> int:
        return len(self._points)

    def measure_window(self, window: Float64, seed: int = 0) -> tuple[float, float]:
        """A window [M, P], M at least 2.

        Returns:
            The squared discrepancy (unbiased, may be slightly negative), and its size in units of what chance makes of
            it, which does not depend on M.
        """
        points = window[_chosen(len(window), seed)]
        count, rest = len(points), len(self)
        own = np.exp(-_squared(points, points) / self._width)
        np.fill_diagonal(own, 0.0)
        across = np.exp(-_squared(points, self._points) / self._width)
        value = float(own.sum() / (count * (count - 1)) + self._inner.sum() / (rest * (rest - 1)) - 2 * across.mean())
        return value, value / (1 / count + 1 / rest)

    def measure_members(self, windows: Mask) -> Float64:
        """Windows out of the reference against what is left of it, [B, N] over the chosen images.

        Returns:
            [B]: as the second that `measure_window` returns.
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
        """Mean kernel of points [M, P] with the reference: how much an image looks like it, 0 to 1, [M].

        Args:
            points: Embeddings.
            own: They are the reference itself; each is left out of what it is compared with.
        """
        found: Float64 = np.exp(-_squared(points, self._points) / self._width).sum(axis=1)
        if own:
            itself = np.zeros(len(points))
            itself[self.chosen] = 1.0
            return np.asarray((found - itself) / (len(self) - itself))
        return np.asarray(found / len(self))


def _chosen(size: int, seed: int) -> NDArray[np.int64]:
    if size <= MOST:
        return np.arange(size)
    return np.sort(np.random.default_rng(seed).choice(size, MOST, replace=False))


def _squared(one: Float64, other: Float64) -> Float64:
    squares = (one**2).sum(axis=1)[:, None] + (other**2).sum(axis=1)[None, :] - 2 * one @ other.T
    result: Float64 = np.maximum(squares, 0.0, out=squares)
    return result

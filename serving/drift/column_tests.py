"""Reference against window: a test for each column, a correction for their number, one verdict.

Each column has a statistic that sees a difference, and its p-value is the share of windows drawn out of the reference
itself that look as different (`pneumo.serving.drift.statistics.draw_windows`).
Evidently's presets raise false alarms or miss small windows
(docs/drift.md has the figures).
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from pneumo.serving.contracts.arrays import Float64, Mask
from pneumo.serving.drift.samples import LEAST as LEAST
from pneumo.serving.drift.samples import Sample
from pneumo.serving.drift.statistics import (
    DRAWS,
    Kernel,
    all_inside,
    anderson_darling,
    count_leading,
    draw_windows,
    fisher,
    kolmogorov_smirnov,
)
from pneumo.serving.drift.verdict import ColumnResult, Middle, TestName, Verdict
from pneumo.serving.drift.wording import describe_column

WARNING, DRIFT = 0.05, 0.01
"""Adjusted p-values below which there is a warning, or drift; the first bounds the chance of any false alarm."""

SIZES = ("aspect", "width", "height")
"""Columns that tell where an image comes from, not what it shows: they give a warning at most."""

BEYOND = "beyond_reference"
"""Share of images that are stranger to the model than every image of the reference: sees a few strangers among many."""
_STRANGENESS = "outlier_score"


@dataclass(frozen=True)
class _Column:
    """A column of a window, measured.

    Attributes:
        name: Of the column.
        test: How it is tested.
        statistic: Of that test.
        extreme: What is compared with windows of the reference; larger is more different.
        least_p: What the p-value is at least: what a test says that takes every image for a new one, where it is exact.
        distance: How far apart, for people.
        reference: Where the reference lies.
        window: Where the window lies.
        rises: Whether the window has more of it.
    """

    name: str
    test: TestName
    statistic: float
    extreme: float
    least_p: float
    distance: float
    reference: Middle | None = None
    window: Middle | None = None
    rises: bool = True


class ColumnTests:
    """Compares windows with one reference; what does not depend on a window is computed once for each size."""

    def __init__(self, reference: Sample, *, positive_class: str | None, draws: int = DRAWS, seed: int = 0) -> None:
        """Measure the reference.

        Args:
            reference: Images as they should be, at least four.
            positive_class: What a decision is about, for the words.
            draws: Windows that are drawn from the reference; a p-value is at least one over that and one.
            seed: Of the draws.
        """
        self.reference = reference
        self.kernel = Kernel(reference.embedding, seed)
        self._positive_class = positive_class
        self._draws = draws
        self._seed = seed
        self._middles = {name: _middle(values) for name, values in reference.numbers.items()}
        self._chance: dict[int, dict[str, Float64]] = {}

    def compare(self, window: Sample) -> tuple[Verdict, list[ColumnResult]]:
        """Compare a window with the reference.

        Returns:
            The verdict of all columns together, and each of them, the strongest first. A column that is constant in
            both and alike is left out.
        """
        if len(window) < LEAST:
            return Verdict.TOO_FEW, []
        found = [column for measure in self._measures() for column in measure(window)]
        drawn = self._drawn(len(window))
        p_values = [max(column.least_p, self._p_value(drawn.get(column.name), column)) for column in found]
        adjusted = adjust_p_values(p_values)
        order = sorted(
            range(len(found)),
            key=lambda place: (adjusted[place] >= WARNING, -found[place].distance, adjusted[place]),
        )
        columns = [self._result(found[place], p_values[place], adjusted[place]) for place in order]
        return find_worst_verdict(column.verdict for column in columns), columns

    def _measures(self) -> tuple[Callable[[Sample], list[_Column]], ...]:
        return self._numbers, self._shares, self._beyond, self._embedding

    def _p_value(self, drawn: Float64 | None, column: _Column) -> float:
        """Share of drawn windows, given in order, that are as extreme."""
        if drawn is None:
            return column.least_p
        reached = len(drawn) - int(np.searchsorted(drawn, column.extreme * (1 - 1e-9) - 1e-12))
        return (1 + reached) / (len(drawn) + 1)

    def _drawn(self, count: int) -> dict[str, Float64]:
        """How extreme windows of the reference are against the rest of it, in ascending order for each column.

        All statistics are in units that do not depend on sizes, so that half of the reference stands for larger
        windows.
        """
        reference = self.reference
        count = min(count, len(reference) // 2)
        if count in self._chance:
            return self._chance[count]
        groups = np.arange(len(reference)) if reference.groups is None else reference.groups
        drawn = draw_windows(groups, count, draws=self._draws, seed=self._seed)
        rest = len(reference) - count
        found = {
            name: anderson_darling(values, drawn)
            for name, values in reference.numbers.items()
            if values.min() < values.max()
        }
        for name, of_kind in reference.shares.items():
            inside = drawn[:, of_kind].sum(axis=1)
            found[name] = -fisher(inside, count, of_kind.sum() - inside, rest)
        found[BEYOND] = -all_inside(count_leading(reference.numbers[_STRANGENESS], drawn), count, rest)
        members = drawn[:, self.kernel.chosen]
        usable = (members.sum(axis=1) > 1) & ((~members).sum(axis=1) > 1)
        found["embedding"] = self.kernel.measure_members(members[usable])
        self._chance[count] = {name: np.sort(values) for name, values in found.items()}
        return self._chance[count]

    def _numbers(self, window: Sample) -> list[_Column]:
        found = []
        for name, before in self.reference.numbers.items():
            now = window.numbers[name]
            low, high = self._middles[name], _middle(now)
            rises = high.median > low.median
            if high.median == low.median:
                rises = float(now.mean()) > float(before.mean())
            distance = kolmogorov_smirnov(before, now)
            if before.min() < before.max():
                inside = np.arange(len(before) + len(now)) >= len(before)
                statistic = float(anderson_darling(np.concatenate([before, now]), inside[None])[0])
                found.append(_Column(name, "anderson", statistic, statistic, 0.0, distance, low, high, rises))
            elif (now != before[0]).any():
                other = np.array([int((now != before[0]).sum())])
                chance = float(all_inside(other, len(now), len(before))[0])
                share = float(other[0]) / len(now)
                found.append(_Column(name, "all_inside", share, -chance, chance, distance, low, high, rises))
        return found

    def _shares(self, window: Sample) -> list[_Column]:
        found = []
        for name, before in self.reference.shares.items():
            now = window.shares[name]
            if not (before.any() or now.any()) or (before.all() and now.all()):
                continue
            counts = np.array([now.sum()]), len(now), np.array([before.sum()]), len(before)
            found.append(_share(name, "fisher", before, now, float(fisher(*counts)[0])))
        return found

    def _beyond(self, window: Sample) -> list[_Column]:
        known = self.reference.numbers[_STRANGENESS]
        now = window.numbers[_STRANGENESS] > known.max()
        chance = float(all_inside(np.array([now.sum()]), len(window), len(known))[0])
        return [_share(BEYOND, "all_inside", np.zeros(len(known), dtype=np.bool_), now, chance)]

    def _embedding(self, window: Sample) -> list[_Column]:
        value, extreme = self.kernel.measure_window(window.embedding, self._seed)
        return [_Column("embedding", "mmd", value, extreme, 0.0, float(np.sqrt(max(value, 0.0))))]

    def _result(self, column: _Column, p_value: float, adjusted: float) -> ColumnResult:
        verdict = Verdict.OK
        if adjusted < WARNING:
            verdict = Verdict.DRIFT if adjusted < DRIFT and column.name not in SIZES else Verdict.WARNING
        words = describe_column(column.name, rises=column.rises, positive_class=self._positive_class)
        return ColumnResult(
            name=column.name,
            test=column.test,
            statistic=column.statistic,
            p_value=p_value,
            adjusted=adjusted,
            distance=column.distance,
            verdict=verdict,
            reference=column.reference,
            window=column.window,
            words=None if verdict is Verdict.OK else words,
        )


def compare_columns(
    reference: Sample, window: Sample, *, positive_class: str | None, draws: int = DRAWS, seed: int = 0
) -> tuple[Verdict, list[ColumnResult]]:
    """Compare one window with a reference; see `ColumnTests`."""
    return ColumnTests(reference, positive_class=positive_class, draws=draws, seed=seed).compare(window)


def adjust_p_values(p_values: Sequence[float]) -> list[float]:
    """Adjust p-values for their number (Holm, A Simple Sequentially Rejective Multiple Test Procedure, 1979)."""
    order = np.argsort(p_values)
    count = len(p_values)
    adjusted = np.empty(count)
    highest = 0.0
    for rank, index in enumerate(order):
        highest = max(highest, min(1.0, (count - rank) * p_values[index]))
        adjusted[index] = highest
    return [float(value) for value in adjusted]


def find_worst_verdict(verdicts: Iterable[Verdict]) -> Verdict:
    """Return the most alarming of some verdicts."""
    found = set(verdicts)
    return next((each for each in (Verdict.DRIFT, Verdict.WARNING) if each in found), Verdict.OK)


def _share(name: str, test: TestName, before: Mask, now: Mask, p_value: float) -> _Column:
    was, comes = float(before.mean()), float(now.mean())
    return _Column(
        name,
        test,
        statistic=comes - was,
        extreme=-p_value,
        least_p=p_value,
        distance=abs(comes - was),
        reference=Middle(low=was, median=was, high=was),
        window=Middle(low=comes, median=comes, high=comes),
        rises=comes > was,
    )


def _middle(values: Float64) -> Middle:
    low, median, high = np.quantile(values, [0.05, 0.5, 0.95])
    return Middle(low=float(low), median=float(median), high=float(high))

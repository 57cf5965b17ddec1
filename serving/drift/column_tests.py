"""Reference against window: one test per column, a correction for their number, one verdict.

The p-value of a column is the share of windows drawn from the reference itself that differ as much
(`pneumo.serving.drift.statistics.draw_windows`). Evidently's presets raise false alarms or miss small windows
(docs/drift.md has the figures).
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from pneumo.serving.contracts.arrays import Float64, Mask
from pneumo.serving.drift.samples import LEAST, Sample, name_class
from pneumo.serving.drift.statistics import (
    DRAWS,
    Kernel,
    all_inside,
    anderson_darling,
    count_leading,
    draw_windows,
    estimate_tail,
    fisher,
    kolmogorov_smirnov,
)
from pneumo.serving.drift.verdict import ColumnResult, Middle, TestName, Verdict, find_worst
from pneumo.serving.drift.wording import describe_column

WARNING, DRIFT = 0.05, 0.01
"""Adjusted p-values below which there is a warning, or drift; the first bounds the chance of any false alarm."""

SIZES = ("aspect", "width", "height")
"""Columns that tell the source of an image, not its content: they give a warning at most."""

BEYOND = "beyond_reference"
"""Share of images with a higher out-of-distribution score than every reference image: notices a few among many."""


@dataclass(frozen=True)
class _Column:
    """A measured column of a window; see `ColumnResult` for the fields of that name.

    Attributes:
        extreme: Value to compare with that of drawn windows, if they have one; larger is more different.
        least_p: Lower bound of the p-value: that of the exact test that takes images as independent.
        rises: True if the window has larger values.
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
    """Compares windows with one reference; drawn windows are kept for each window size."""

    def __init__(self, reference: Sample, *, positive_class: str | None, draws: int = DRAWS) -> None:
        """Measure the reference, at least four images; a p-value is at least 1 / (draws + 1)."""
        self.reference = reference
        self._kernel = Kernel(reference.embedding)
        self._positive_class = positive_class
        self._draws = draws
        self._drawn: dict[int, dict[str, Float64]] = {}

    def compare(self, window: Sample) -> tuple[Verdict, list[ColumnResult]]:
        """Compare a window with the reference; return the verdict of all columns together, and the columns.

        The strongest come first; columns that are constant and equal in both are left out.
        """
        return self.compare_all([window])[0]

    def compare_all(self, windows: Sequence[Sample]) -> list[tuple[Verdict, list[ColumnResult]]]:
        """Compare several windows, such as those of sites; p-values are adjusted for all columns of all windows."""
        measured = [list(self._measure(window)) if len(window) >= LEAST else [] for window in windows]
        p_values = [
            [_compute_p_value(self._measure_drawn(len(window)).get(column.name), column) for column in columns]
            for window, columns in zip(windows, measured, strict=True)
        ]
        adjusted = iter(adjust_p_values(list(itertools.chain(*p_values))))
        comparisons = []
        for columns, own in zip(measured, p_values, strict=True):
            results = [self._judge(*each, next(adjusted)) for each in zip(columns, own, strict=True)]
            results.sort(key=lambda column: (column.adjusted >= WARNING, -column.distance, column.adjusted))
            comparisons.append((find_worst(column.verdict for column in results), results))
        return comparisons

    def _measure(self, window: Sample) -> Iterator[_Column]:
        reference, rest = self.reference, len(self.reference)
        for name, before in reference.numbers.items():
            now = window.numbers[name]
            now = now[~np.isnan(now)]
            if (count := len(now)) < LEAST:
                continue
            low, high = _find_middle(before), _find_middle(now)
            rises = high.median > low.median or (high.median == low.median and float(now.mean()) > float(before.mean()))
            distance = kolmogorov_smirnov(before, now)
            if before.min() < before.max():
                inside = np.arange(rest + count) >= rest
                statistic = float(anderson_darling(np.concatenate([before, now]), inside[None])[0])
                yield _Column(name, "anderson", statistic, statistic, 0.0, distance, low, high, rises)
            elif other := int((now != before[0]).sum()):
                chance = float(all_inside(np.array([other]), count, rest)[0])
                yield _Column(name, "all_inside", other / count, 0.0, chance, distance, low, high, rises)
        count = len(window)
        for name, was in reference.shares.items():
            is_now = window.shares[name]
            if (was.any() or is_now.any()) and not (was.all() and is_now.all()):
                p_value = float(fisher(np.array([is_now.sum()]), count, np.array([was.sum()]), rest)[0])
                yield _measure_share(name, "fisher", was, is_now, p_value)
        beyond = window.numbers["outlier_score"] > reference.numbers["outlier_score"].max()
        chance = float(all_inside(np.array([beyond.sum()]), count, rest)[0])
        yield _measure_share(BEYOND, "all_inside", np.zeros(rest, dtype=np.bool_), beyond, chance)
        value, extreme = self._kernel.measure_window(window.embedding)
        yield _Column("embedding", "mmd", value, extreme, 0.0, float(np.sqrt(max(value, 0.0))))

    def _measure_drawn(self, count: int) -> dict[str, Float64]:
        """Return the sorted `extreme` values of windows drawn from the reference against the rest of it, by column.

        Statistics do not depend on sizes, so that half of the reference stands for larger windows.
        """
        reference = self.reference
        count = min(count, len(reference) // 2)
        if count not in self._drawn:
            groups = np.arange(len(reference)) if reference.groups is None else reference.groups
            drawn = draw_windows(groups, count, draws=self._draws)
            rest = len(reference) - count
            extremes = {
                name: anderson_darling(values, drawn)
                for name, values in reference.numbers.items()
                if values.min() < values.max()
            }
            for name, mask in reference.shares.items():
                inside = drawn[:, mask].sum(axis=1)
                extremes[name] = _rarity(fisher(inside, count, mask.sum() - inside, rest))
            leading = count_leading(reference.numbers["outlier_score"], drawn)
            extremes[BEYOND] = _rarity(all_inside(leading, count, rest))
            members = drawn[:, self._kernel.chosen]
            usable = (members.sum(axis=1) > 1) & ((~members).sum(axis=1) > 1)
            extremes["embedding"] = self._kernel.measure_members(members[usable])
            self._drawn[count] = {name: np.sort(values) for name, values in extremes.items()}
        return self._drawn[count]

    def _judge(self, column: _Column, p_value: float, adjusted: float) -> ColumnResult:
        verdict = Verdict.OK
        if adjusted < WARNING:
            verdict = Verdict.DRIFT if adjusted < DRIFT and column.name not in SIZES else Verdict.WARNING
        words = describe_column(column.name, rises=column.rises, positive_class=self._positive_class)
        label = name_class(column.name, self._positive_class)
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
            label=label,
        )


def adjust_p_values(p_values: Sequence[float]) -> list[float]:
    """Adjust p-values for their number (Holm, A Simple Sequentially Rejective Multiple Test Procedure, 1979)."""
    order = np.argsort(p_values)
    scaled = np.sort(p_values) * np.arange(len(p_values), 0, -1)
    adjusted = np.empty(len(p_values))
    adjusted[order] = np.maximum.accumulate(np.minimum(scaled, 1.0))
    return [float(value) for value in adjusted]


def _compute_p_value(drawn: Float64 | None, column: _Column) -> float:
    """Return the share of drawn windows, in ascending order, that are as extreme, but at least `least_p`.

    If there is none, the share is estimated from the most extreme ones.
    """
    if drawn is None:
        return column.least_p
    reached = len(drawn) - int(np.searchsorted(drawn, column.extreme * (1 - 1e-9) - 1e-12))
    beyond = 1.0 if reached else estimate_tail(drawn, column.extreme)
    return max(column.least_p, min(beyond, (1 + reached) / (len(drawn) + 1)))


def _rarity(chance: Float64 | float) -> Float64:
    """Return numbers that grow as chances get rarer, at a pace that `estimate_tail` can follow."""
    return np.asarray(-np.log(np.maximum(chance, 1e-300)))


def _measure_share(name: str, test: TestName, before: Mask, now: Mask, p_value: float) -> _Column:
    low, high = float(before.mean()), float(now.mean())
    return _Column(
        name,
        test,
        statistic=high - low,
        extreme=float(_rarity(p_value)),
        least_p=p_value,
        distance=abs(high - low),
        reference=Middle(low=low, median=low, high=low),
        window=Middle(low=high, median=high, high=high),
        rises=high > low,
    )


def _find_middle(values: Float64) -> Middle:
    low, median, high = np.quantile(values, [0.05, 0.5, 0.95])
    return Middle(low=float(low), median=float(median), high=float(high))

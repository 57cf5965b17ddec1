"""Reference against window: a test for each column, a correction for their number, one verdict.

Evidently's presets raise false alarms or miss small windows (docs/drift.md has the figures), so the tests and their
thresholds are chosen here and given to it.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from serving.drift.distance import PERMUTATIONS, discrepancy
from serving.drift.samples import Floats, Mask, Sample
from serving.drift.verdict import ColumnResult, Middle, Verdict
from serving.drift.words import meaning

WARNING, DRIFT = 0.05, 0.01
"""Adjusted p-values below which there is a warning, or drift; the first bounds the chance of any false alarm."""

LEAST = 20
"""Images without which nothing is said."""

SIZES = ("aspect", "width", "height")
"""Columns that tell where an image comes from, not what it shows: they give a warning at most."""


@dataclass(frozen=True)
class _Tested:
    name: str
    test: Literal["ks", "fisher", "mmd"]
    statistic: float
    p_value: float
    reference: Middle | None
    window: Middle | None
    effect: float


def judge(
    reference: Sample, window: Sample, *, positive_class: str | None, seed: int = 0, permutations: int = PERMUTATIONS
) -> tuple[Verdict, list[ColumnResult]]:
    """Compare a window with the reference.

    Args:
        reference: Images as they should be.
        window: Images as they come.
        positive_class: What a decision is about, for the words.
        seed: Of the permutations.
        permutations: Of the embedding's test.

    Returns:
        The verdict of all columns together, and each of them, the strongest first. A column that is constant in both
        and alike is left out.
    """
    if len(window) < LEAST:
        return Verdict.TOO_FEW, []
    tested = [
        *(_numbers(name, reference.numbers[name], window.numbers[name]) for name in reference.numbers),
        *(_shares(name, reference.shares[name], window.shares[name]) for name in reference.shares),
        _embedding(reference.embedding, window.embedding, seed, permutations),
    ]
    found = [each for each in tested if each is not None]
    adjusted = holm([each.p_value for each in found])
    columns = [
        _result(each, value, positive_class)
        for each, value in sorted(
            zip(found, adjusted, strict=True), key=lambda pair: (pair[1] >= WARNING, -pair[0].effect, pair[1])
        )
    ]
    return worst(column.verdict for column in columns), columns


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust p-values for their number (Holm, A Simple Sequentially Rejective Multiple Test Procedure, 1979)."""
    order = np.argsort(p_values)
    count = len(p_values)
    adjusted = np.empty(count)
    highest = 0.0
    for rank, index in enumerate(order):
        highest = max(highest, min(1.0, (count - rank) * p_values[index]))
        adjusted[index] = highest
    return [float(value) for value in adjusted]


def worst(verdicts: Iterable[Verdict]) -> Verdict:
    """The most alarming of some verdicts."""
    found = set(verdicts)
    return next((each for each in (Verdict.DRIFT, Verdict.WARNING) if each in found), Verdict.OK)


def _result(tested: _Tested, adjusted: float, positive_class: str | None) -> ColumnResult:
    verdict = Verdict.OK
    if adjusted < WARNING:
        verdict = Verdict.DRIFT if adjusted < DRIFT and tested.name not in SIZES else Verdict.WARNING
    rises = bool(tested.reference and tested.window and tested.window.median > tested.reference.median)
    if tested.reference and tested.window and tested.window.median == tested.reference.median:
        rises = tested.window.low + tested.window.high > tested.reference.low + tested.reference.high
    return ColumnResult(
        name=tested.name,
        test=tested.test,
        statistic=tested.statistic,
        p_value=tested.p_value,
        adjusted=adjusted,
        verdict=verdict,
        reference=tested.reference,
        window=tested.window,
        words=None if verdict is Verdict.OK else meaning(tested.name, rises=rises, positive_class=positive_class),
    )


def _numbers(name: str, reference: Floats, window: Floats) -> _Tested | None:
    """Kolmogorov-Smirnov, exact where that is quick; ties make it cautious."""
    from scipy.stats import ks_2samp

    if reference.min() == reference.max() == window.min() == window.max():
        return None
    found = ks_2samp(reference, window)
    statistic, p_value = float(found.statistic), float(found.pvalue)
    return _Tested(name, "ks", statistic, p_value, _middle(reference), _middle(window), statistic)


def _shares(name: str, reference: Mask, window: Mask) -> _Tested | None:
    """Fisher's exact test of two shares."""
    from scipy.stats import fisher_exact

    if not (reference.any() or window.any()) or (reference.all() and window.all()):
        return None
    table = [[int(values.sum()), int((~values).sum())] for values in (reference, window)]
    before, now = float(reference.mean()), float(window.mean())
    return _Tested(
        name,
        "fisher",
        now - before,
        float(fisher_exact(table).pvalue),
        Middle(low=before, median=before, high=before),
        Middle(low=now, median=now, high=now),
        abs(now - before),
    )


def _embedding(reference: Floats, window: Floats, seed: int, permutations: int) -> _Tested:
    statistic, p_value = discrepancy(reference, window, seed=seed, permutations=permutations)
    return _Tested("embedding", "mmd", statistic, p_value, None, None, float(np.sqrt(max(statistic, 0.0))))


def _middle(values: Floats) -> Middle:
    low, median, high = np.quantile(values, [0.05, 0.5, 0.95])
    return Middle(low=float(low), median=float(median), high=float(high))

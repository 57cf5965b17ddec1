"""The result of a drift check: the verdict, and the columns and sites behind it."""

from collections.abc import Iterable
from datetime import datetime
from enum import StrEnum
from typing import Literal

from pydantic import BaseModel

from pneumo.serving.contracts.schemas import NOTICE

TestName = Literal["anderson", "fisher", "all_inside", "mmd"]
"""Anderson and Darling's distance of two distributions, Fisher's exact test of two shares, the chance that all of the
most extreme images lie in the window, maximum mean discrepancy."""


class Verdict(StrEnum):
    """The result of a check, or of one of its columns."""

    OK = "ok"
    WARNING = "warning"
    DRIFT = "drift"
    TOO_FEW = "too_few"


_SEVERITY = (Verdict.TOO_FEW, Verdict.OK, Verdict.WARNING, Verdict.DRIFT)


def find_worst(verdicts: Iterable[Verdict]) -> Verdict:
    """Return the most severe of some verdicts; `TOO_FEW` without any other."""
    return max(verdicts, key=_SEVERITY.index, default=Verdict.TOO_FEW)


class Middle(BaseModel, frozen=True):
    """The 5%, 50% and 95% quantiles of a column; of a share, all three are its mean."""

    low: float
    median: float
    high: float


class ColumnResult(BaseModel, frozen=True):
    """One column, reference against window.

    Attributes:
        test: Test of the column, see `TestName`.
        statistic: Statistic of that test; for a share the difference to the reference.
        p_value: Share of windows drawn from the reference that differ as much, for this column alone.
        adjusted: P-value after Holm's correction for all columns, and those of all sites.
        distance: 0 to about 1: largest difference of the distribution functions, difference of the shares, or root of
            the discrepancy.
        reference: Quantiles in the reference; None for the embedding.
        window: Quantiles in the window.
        words: The difference in words, or None without one.
        label: The class whose predictions are counted; None in other columns.
    """

    name: str
    test: TestName
    statistic: float
    p_value: float
    adjusted: float
    distance: float
    verdict: Verdict
    reference: Middle | None
    window: Middle | None
    words: str | None
    label: str | None = None


class SiteCheck(BaseModel, frozen=True):
    """One site of the window against the reference.

    Attributes:
        site: Name; `_OTHER` for the smaller sites beyond the largest twenty, `_NONE` for images without a site.
        uncertain: Share of uncertain images.
        summary: The verdict in a sentence.
        columns: Up to three columns with a difference, the strongest first, and those of predicted classes.
    """

    site: str
    images: int
    uncertain: float
    verdict: Verdict
    summary: str
    columns: list[ColumnResult]


class DriftCheck(BaseModel, frozen=True):
    """The comparison of a window with the reference.

    Attributes:
        window: The window in words.
        first: Time of the first image of the window, if it was served.
        last: Time of the last image.
        verdict: Verdict of all columns and sites together.
        top: Columns of all images with the strongest evidence, at most three.
        summary: The verdict in a sentence.
        columns: All tested columns of all images, the strongest first.
        sites: Sites, the largest first; none if the log keeps no site.
    """

    time: datetime
    model: str
    version: str
    window: str
    first: datetime | None
    last: datetime | None
    images: int
    reference_images: int
    verdict: Verdict
    top: list[str]
    summary: str
    columns: list[ColumnResult]
    sites: list[SiteCheck] = []
    notice: str = NOTICE

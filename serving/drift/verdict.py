"""What a drift check says: one verdict, the columns behind it, and what they mean."""

from datetime import datetime
from enum import StrEnum
from typing import Literal

from pydantic import BaseModel, ConfigDict

from pneumo.serving.contracts.schemas import NOTICE

TestName = Literal["anderson", "fisher", "all_inside", "mmd"]
"""Anderson and Darling's distance of two distributions, Fisher's exact test of two shares, the chance that all of the
oddest images lie in the window, maximum mean discrepancy."""


class Verdict(StrEnum):
    """Whether the window looks like the reference."""

    OK = "ok"
    WARNING = "warning"
    DRIFT = "drift"
    TOO_FEW = "too_few"


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True)


class Middle(_Frozen):
    """Where the middle nine tenths of a column lie; of a share, all three are its mean."""

    low: float
    median: float
    high: float


class ColumnResult(_Frozen):
    """One column, reference against window.

    Attributes:
        name: Of the column.
        test: How it was tested, see `TestName`.
        statistic: Of that test; of a share the difference to the reference.
        p_value: Of this column alone: how often a window of the reference looks as different.
        adjusted: After Holm's correction for all columns.
        distance: How far apart, 0 to about 1: largest difference of the distribution functions, difference of the
            shares, or the root of the discrepancy.
        verdict: Of this column.
        reference: Where the reference lies; None of the embedding.
        window: Where the window lies.
        words: What the difference means, or None where there is none.
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


class DriftCheck(_Frozen):
    """The result of comparing a window with the reference.

    Attributes:
        time: When it was made, UTC.
        model: Name of the model, with its `version`.
        window: What was compared, in words.
        first: Time of the first image of the window, where it has one.
        last: Of the last.
        images: In the window.
        reference_images: In the reference.
        verdict: All columns together.
        top: The columns that say most, at most three.
        summary: The verdict in a sentence.
        columns: All that was tested, the strongest first.
        notice: What this is not.
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
    notice: str = NOTICE

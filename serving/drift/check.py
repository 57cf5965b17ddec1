"""A drift check: a window of served images, or of image files, against the reference of the model that judged them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from pneumo.serving.drift.column_tests import ColumnTests
from pneumo.serving.drift.samples import Sample, build_window, read_reference
from pneumo.serving.drift.verdict import DriftCheck, Verdict
from pneumo.serving.drift.wording import write_summary
from pneumo.serving.model.bundle import Bundle
from pneumo.serving.predictions.rows import LogRow

TOP = 3
"""Columns that are named in a summary at most."""


@dataclass(frozen=True)
class DriftResult:
    """A drift check with the samples it compared, for `pneumo.serving.drift.evidently_page`.

    Attributes:
        check: What it says.
        reference: Images as they should be.
        window: Images as they came.
    """

    check: DriftCheck
    reference: Sample
    window: Sample


def check_drift(
    bundle: Bundle,
    rows: Sequence[LogRow] | Sequence[Mapping[str, Any]],
    *,
    window: str,
    reference: Sample | None = None,
    served: bool = True,
    now: datetime | None = None,
) -> DriftResult:
    """Compare rows of the prediction log with a bundle's reference.

    Args:
        bundle: The model that answered.
        rows: What it answered, in any order, from `pneumo.serving.predictions.windows.read_window` or
            `pneumo.serving.drift.describe_files`.
        window: What they are, in words, such as `the last 500 images`.
        reference: The bundle's, where it was read already.
        served: Whether the times of the rows are those at which images came.
        now: When the check is made, UTC; now by default.

    Raises:
        InputError: The bundle has no reference, or the rows are of another model.
        BundleError: The reference is not the one that was sealed.
    """
    info = bundle.info
    reference = reference or read_reference(bundle)
    sample = build_window(rows, info)
    verdict, columns = ColumnTests(reference, positive_class=info.positive_class).compare(sample)
    top = [column for column in columns if column.verdict is not Verdict.OK][:TOP]
    times = [row.time if isinstance(row, LogRow) else row["time"] for row in rows] if served else []
    made = DriftCheck(
        time=now or datetime.now(UTC),
        model=info.name,
        version=info.version,
        window=window,
        first=min(times, default=None),
        last=max(times, default=None),
        images=len(sample),
        reference_images=len(reference),
        verdict=verdict,
        top=[column.name for column in top],
        summary=write_summary(verdict, top, len(sample)),
        columns=columns,
    )
    return DriftResult(made, reference, sample)

"""A drift check: a window of served images, or of image files, against the reference of the model."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from pneumo.serving.drift.column_tests import ColumnTests
from pneumo.serving.drift.samples import Sample, build_window, read_reference
from pneumo.serving.drift.verdict import DriftCheck, Verdict
from pneumo.serving.drift.wording import write_summary
from pneumo.serving.model.bundle import Bundle
from pneumo.serving.predictions.rows import Columns

TOP = 3
"""Maximum columns of a summary."""


@dataclass(frozen=True)
class DriftResult:
    """A drift check with the reference and the window that it compared."""

    check: DriftCheck
    reference: Sample
    window: Sample


def check_drift(
    bundle: Bundle, rows: Sequence[Columns], *, window: str, served: bool = True, now: datetime | None = None
) -> DriftResult:
    """Compare rows of the prediction log, in any order, with a bundle's reference.

    `window` names the rows in words, such as `the last 500 images`. With `served` false their times are not those of
    requests. The check is dated `now`, in UTC.

    Raises:
        InputError: The bundle has no reference, or the rows are of another model.
        BundleError: The reference is not the sealed one.
    """
    info = bundle.info
    reference, sample = read_reference(bundle), build_window(rows, info)
    verdict, columns = ColumnTests(reference, positive_class=info.positive_class).compare(sample)
    top = [column for column in columns if column.verdict is not Verdict.OK][:TOP]
    times = [row["time"] for row in rows] if served else []
    check = DriftCheck(
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
    return DriftResult(check, reference, sample)

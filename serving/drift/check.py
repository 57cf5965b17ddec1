"""A drift check: a window of served images, or of image files, against the reference of the model."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from pneumo.serving.contracts.sites import MOST_SITES, NO_SITE, OTHER_SITES
from pneumo.serving.drift.column_tests import ColumnTests
from pneumo.serving.drift.samples import Sample, build_window, read_reference
from pneumo.serving.drift.verdict import ColumnResult, DriftCheck, SiteCheck, Verdict, find_worst
from pneumo.serving.drift.wording import TOP, add_sites, write_summary
from pneumo.serving.model.bundle import Bundle
from pneumo.serving.predictions.rows import Columns


@dataclass(frozen=True)
class DriftResult:
    """A drift check with the reference and the window that it compared."""

    check: DriftCheck
    reference: Sample
    window: Sample


def check_drift(
    bundle: Bundle, rows: Sequence[Columns], *, window: str, served: bool = True, now: datetime | None = None
) -> DriftResult:
    """Compare rows of the prediction log, in any order, with a bundle's reference: all together, and by site.

    `window` names the rows in words, such as `the last 500 images`. With `served` false their times are not those of
    requests. The check is dated `now`, in UTC.

    Raises:
        InputError: The bundle has no reference, or the rows are of another model.
        BundleError: The reference is not the sealed one.
    """
    info = bundle.info
    reference, sample = read_reference(bundle), build_window(rows, info)
    groups = _group_by_site(rows)
    parts = [sample.take(places) for places in groups.values()] if len(groups) > 1 else []  # one site is all images
    compared = ColumnTests(reference, positive_class=info.positive_class).compare_all([sample, *parts])
    sites = [
        SiteCheck(
            site=site,
            images=len(part),
            uncertain=float(part.shares["uncertain"].mean()),
            verdict=verdict,
            summary=write_summary(verdict, top := _find_top(columns), len(part)),
            columns=[column for column in columns if column in top or column.label],
        )
        for site, part, (verdict, columns) in zip(groups, parts or [sample], compared[1:] or compared, strict=False)
    ]
    whole, columns = compared[0]
    top = _find_top(columns)
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
        verdict=find_worst(verdict for verdict, _ in compared),
        top=[column.name for column in top],
        summary=add_sites(write_summary(whole, top, len(sample)), sites if parts else []),
        columns=columns,
        sites=sites,
    )
    return DriftResult(check, reference, sample)


def _find_top(columns: Sequence[ColumnResult]) -> list[ColumnResult]:
    return [column for column in columns if column.verdict is not Verdict.OK][:TOP]


def _group_by_site(rows: Sequence[Columns]) -> dict[str, NDArray[np.int64]]:
    """Return the places of each site's rows, the largest site first; nothing if no row names a site."""
    names = [row.get("site") or NO_SITE for row in rows]
    kept = [name for name, _ in Counter(name for name in names if name != NO_SITE).most_common(MOST_SITES)]
    told = np.array([name if name in (*kept, NO_SITE) else OTHER_SITES for name in names])
    return {name: np.flatnonzero(told == name) for name, _ in Counter(told.tolist()).most_common()} if kept else {}

"""What the dashboard shows: gathered from the prediction log, the stored checks and a bundle's reference."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta

import numpy as np

from pneumo.serving.contracts.arrays import Float64
from pneumo.serving.contracts.errors import InputError
from pneumo.serving.contracts.install_hints import install_hint
from pneumo.serving.drift.bundle_lookup import BundleLookup, load_reference
from pneumo.serving.drift.column_tests import LEAST
from pneumo.serving.drift.log_queries import (
    Selection,
    ServedVersion,
    Span,
    count_over_time,
    list_versions,
    read_labelled_answers,
    read_sample,
)
from pneumo.serving.drift.performance import (
    Bin,
    LabelledAnswers,
    Performance,
    ProbabilitySums,
    bin_reliability,
    compute_calibration_error,
)
from pneumo.serving.drift.samples import Sample
from pneumo.serving.drift.stored_checks import (
    DayVerdicts,
    StoredCheck,
    count_verdicts_by_day,
    latest_check,
    list_checks,
)
from pneumo.serving.model.bundle import Bundle
from pneumo.serving.predictions.store import LogStore

DAYS = 30
"""Shown where no range is asked for: the last ones in which images came."""
HOURLY_DAYS = 2
"""Ranges up to this are shown by the hour."""
BARS = 24
"""Of a histogram."""
LEAST_LABELLED = 30
"""Images of a span of time whose performance is measured, but where all together are fewer."""

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class BoardQuery:
    """The query of a reader, as far as it can be understood.

    Attributes:
        version: `name:version`.
        first: First day.
        last: Last day, shown too.
        report: Id of a check whose page is to be opened.
        notes: What was not understood.
    """

    version: str | None = None
    first: date | None = None
    last: date | None = None
    report: str | None = None
    notes: tuple[str, ...] = ()

    @classmethod
    def from_query(cls, query: Mapping[str, str]) -> "BoardQuery":
        """From the query of an address: `version`, `from`, `to` and `report`."""
        notes: list[str] = []

        def day(name: str) -> date | None:
            value = query.get(name, "")
            try:
                found = date.fromisoformat(value) if value else None
            except ValueError:
                notes.append(f"“{value[:20]}” is no date such as 2026-11-24, so it was left out.")
                return None
            if found and not 1970 <= found.year < 9999:
                notes.append(f"{found} is out of range, so it was left out.")
                return None
            return found

        first, last = day("from"), day("to")
        if first and last and first > last:
            first, last = last, first
        return cls(query.get("version") or None, first, last, query.get("report") or None, tuple(notes))


@dataclass(frozen=True)
class Distribution:
    """One column of the reference and of the images in view.

    Attributes:
        name: Of the column.
        edges: Of the bars, one more than bars; values beyond lie in the first and last.
        before: Share of the reference in each bar.
        now: Share of the images.
    """

    name: str
    edges: Float64
    before: Float64
    now: Float64


@dataclass(frozen=True)
class LivePerformance:
    """Performance on the images in view.

    Attributes:
        images: How many there are.
        labels: How many of them have a label, at most as many as are read.
        measured: Of those with a label.
        measured_over_time: Beginning of each span of days, UTC, and what was measured in it.
        estimated: Of all, without labels.
        estimated_over_time: For each span of the dashboard.
        bins: Probabilities against what came true.
        calibration_error: Expected, of the same; None without labels.
    """

    images: int
    labels: int
    measured: Performance
    measured_over_time: list[tuple[datetime, Performance]]
    estimated: Performance
    estimated_over_time: list[Performance]
    bins: list[Bin] = field(default_factory=list)
    calibration_error: float | None = None


@dataclass(frozen=True)
class Board:
    """All that one page shows.

    Attributes:
        asked: What for.
        now: When it was gathered.
        versions: Everything that answered, the last one first.
        bundle: Of the version in view, where it is loaded or registered.
        chosen: The version in view; None while the log is empty.
        first: First day in view.
        last: Last day in view.
        step: Length of a span.
        spans: Of time, those in which images came.
        latest: The newest check of this version.
        verdicts: Of this version in this range, by day.
        checks: The newest of them.
        distributions: Columns; none where there is no reference, or fewer than 20 images.
        reference_images: In the reference.
        sampled: Images that the distributions are of.
        no_reference: Why there is none, or None.
        live: Performance.
    """

    asked: BoardQuery
    now: datetime
    versions: Sequence[ServedVersion]
    chosen: ServedVersion | None = None
    bundle: Bundle | None = None
    first: date = date.min
    last: date = date.min
    step: timedelta = DAY
    spans: Sequence[Span] = ()
    latest: StoredCheck | None = None
    verdicts: Sequence[DayVerdicts] = ()
    checks: Sequence[StoredCheck] = ()
    distributions: Sequence[Distribution] = ()
    reference_images: int = 0
    sampled: int = 0
    no_reference: str | None = None
    live: LivePerformance | None = None

    @property
    def images(self) -> int:
        """In view."""
        return sum(span.images for span in self.spans)

    @property
    def positive_class(self) -> str | None:
        """What probabilities are about; None with more than two classes, or of an unknown model."""
        return self.bundle.info.positive_class if self.bundle else None

    @property
    def report(self) -> StoredCheck | None:
        """The check whose page is to be opened, where it is listed and has one."""
        return next((each for each in self.checks if each.id == self.asked.report and each.has_page), None)


def gather_board(store: LogStore, models: BundleLookup, asked: BoardQuery, *, now: datetime) -> Board:
    """Ask the log for everything that a page shows.

    Args:
        store: The log.
        models: Those it may speak of.
        asked: What the reader wants to see.
        now: UTC.

    Raises:
        SQLAlchemyError: The database is away.
    """
    store.prepare()
    versions = list_versions(store)
    if not versions:
        return Board(asked, now, versions)
    chosen, unknown = _choose(versions, models, asked.version)
    if unknown:
        asked = BoardQuery(asked.version, asked.first, asked.last, asked.report, (*asked.notes, unknown))
    first, last = _range(asked, chosen)
    start = datetime.combine(first, time(), UTC)
    selection = Selection(chosen.model, chosen.version, start, datetime.combine(last, time(), UTC) + DAY)
    bundle = models.find(chosen.model, chosen.version)
    positive = bundle.info.positive_class if bundle else None
    step = HOUR if (last - first).days < HOURLY_DAYS else DAY
    spans = count_over_time(store, selection, step, positive)
    images = sum(span.images for span in spans)
    before, why_not = _reference(bundle)
    numbers = read_sample(store, selection, images) if before and images >= LEAST else {}
    answers = read_labelled_answers(store, selection, images, bundle.info.classes if bundle else None)
    mine = (chosen.model, chosen.version)
    return Board(
        asked=asked,
        now=now,
        versions=versions,
        chosen=chosen,
        bundle=bundle,
        first=first,
        last=last,
        step=step,
        spans=spans,
        latest=latest_check(store, *mine),
        verdicts=count_verdicts_by_day(store, *mine, selection.first, selection.until),
        checks=list_checks(store, *mine, first=selection.first, until=selection.until),
        distributions=[_distribution(name, before.numbers[name], values) for name, values in numbers.items()]
        if before
        else [],
        reference_images=len(before) if before else 0,
        sampled=len(next(iter(numbers.values()), ())),
        no_reference=why_not,
        live=_live(spans, answers, bundle),
    )


def _choose(
    versions: Sequence[ServedVersion], models: BundleLookup, wanted: str | None
) -> tuple[ServedVersion, str | None]:
    """The version to show: the one asked for, else the one that answers now, else the last that did."""
    by_id = {f"{each.model}:{each.version}": each for each in versions}
    if wanted in by_id:
        return by_id[wanted], None
    answering = (bundle.info.id for bundle in models.loaded())
    found = next((by_id[each] for each in answering if each in by_id), versions[0])
    return found, f"The log knows no version “{wanted[:100]}”." if wanted else None


def _range(asked: BoardQuery, chosen: ServedVersion) -> tuple[date, date]:
    last = asked.last or max(chosen.last.date(), asked.first or date.min)
    earliest = max(chosen.first.date(), last - (DAYS - 1) * DAY)
    return asked.first or min(earliest, last), last


def _reference(bundle: Bundle | None) -> tuple[Sample | None, str | None]:
    if bundle is None:
        return None, "its bundle is neither loaded nor in the registry any more"
    try:
        return load_reference(bundle), None
    except InputError:
        return None, "its bundle holds no reference that can be read; export the model again"
    except ImportError:
        return None, f"what reads the reference is not installed; {install_hint('drift')}"


def _distribution(name: str, before: Float64, now: Float64) -> Distribution:
    both = np.concatenate([before, now])
    low, high = np.quantile(both, [0.005, 0.995])
    if name == "probability":
        low, high = 0.0, 1.0
    elif low == high:
        low, high = low - 0.5, high + 0.5
    edges = np.linspace(low, high, BARS + 1)

    def shares(values: Float64) -> Float64:
        counts, _ = np.histogram(np.clip(values, low, high), edges)
        result: Float64 = counts / len(values)
        return result

    return Distribution(name, edges, shares(before), shares(now))


def _live(spans: Sequence[Span], answers: LabelledAnswers, bundle: Bundle | None) -> LivePerformance:
    positive = bundle.info.positive_class if bundle else None
    two_classes = positive is not None
    images = sum(span.images for span in spans)
    # Without its bundle it is not known what the probabilities of a version are about.
    claims = ProbabilitySums.total([span.claims for span in spans]) if bundle else ProbabilitySums()
    estimated = [span.claims.estimate(two_classes=two_classes) for span in spans] if bundle else []
    if not len(answers):
        return LivePerformance(images, 0, Performance(0), [], claims.estimate(two_classes=two_classes), estimated)
    parts = [(_EPOCH + int(part.day[0]) * DAY, part.measure(positive)) for part in answers.spans(LEAST_LABELLED)]
    claimed, came_true = answers.claims(positive)
    return LivePerformance(
        images,
        len(answers),
        answers.measure(positive),
        parts,
        claims.estimate(two_classes=two_classes),
        estimated,
        bin_reliability(claimed, came_true) if bundle else [],
        compute_calibration_error(claimed, came_true) if bundle else None,
    )

"""Content of the dashboard: gathered from the prediction log, the stored checks and a bundle's reference."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, time, timedelta

import numpy as np

from pneumo.serving.contracts.arrays import Float64
from pneumo.serving.contracts.errors import InputError
from pneumo.serving.contracts.install_hints import install_hint
from pneumo.serving.drift.bundle_lookup import BundleLookup, load_reference
from pneumo.serving.drift.log_queries import (
    ServedVersion,
    SiteCounts,
    Span,
    count_by_site,
    count_over_time,
    list_versions,
    read_labelled_answers,
    read_sample,
)
from pneumo.serving.drift.performance import (
    Bin,
    Estimate,
    LabelledAnswers,
    Performance,
    ProbabilitySums,
    bin_reliability,
    compute_calibration_error,
)
from pneumo.serving.drift.samples import LEAST, Sample
from pneumo.serving.drift.stored_checks import (
    DayVerdicts,
    StoredCheck,
    count_verdicts_by_day,
    latest_check,
    list_checks,
)
from pneumo.serving.model.bundle import Bundle
from pneumo.serving.predictions.store import LogStore
from pneumo.serving.predictions.windows import Window

DAYS = 30
"""Most days that are shown if the reader selects none."""
HOURLY_DAYS = 2
"""Most days that are shown per hour."""
BARS = 24
"""Bars of a histogram."""
LEAST_LABELLED = 30
"""Fewest labelled images per point of measured performance, if there are as many."""

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class BoardQuery:
    """Selection of a reader: a version, first and last day, a check whose report to open, notes on ignored parts."""

    version: str | None = None
    first: date | None = None
    last: date | None = None
    report: str | None = None
    notes: tuple[str, ...] = ()

    @classmethod
    def from_query(cls, query: Mapping[str, str]) -> "BoardQuery":
        """Parse the query of an address: `version`, `from`, `to` and `report`."""
        notes: list[str] = []

        def parse_day(name: str) -> date | None:
            value = query.get(name, "")
            try:
                day = date.fromisoformat(value) if value else None
            except ValueError:
                notes.append(f"“{value[:20]}” is not a date such as 2026-11-24, so it was ignored.")
                return None
            if day and not 1970 <= day.year < 9999:
                notes.append(f"{day} is out of range, so it was ignored.")
                return None
            return day

        first, last = parse_day("from"), parse_day("to")
        if first and last and first > last:
            first, last = last, first
        return cls(query.get("version") or None, first, last, query.get("report") or None, tuple(notes))


@dataclass(frozen=True)
class Distribution:
    """Histograms of one column: edges of the bars, and the share of the reference and of the selected images in each.

    Values beyond the edges count in the first and last bar.
    """

    name: str
    edges: Float64
    before: Float64
    now: Float64


@dataclass(frozen=True)
class LivePerformance:
    """Performance on the selected images.

    `measured` is that on labelled images, `measured_over_time` has the first day of each part of them. `estimated` is
    that on all images, without labels; `estimated_over_time` has a value for each span of the dashboard. `labels`
    counts the labelled images that were read. `sensitivities` are those of each class with more than two.
    """

    images: int
    labels: int
    measured: Performance
    measured_over_time: list[tuple[datetime, Performance]]
    estimated: Performance
    estimated_over_time: list[Performance]
    bins: list[Bin] = field(default_factory=list)
    calibration_error: float | None = None
    sensitivities: Mapping[str, Estimate | None] = field(default_factory=dict)


@dataclass(frozen=True)
class Board:
    """Content of one page.

    Attributes:
        versions: Model versions in the log, the last one first.
        chosen: The selected version; None if the log is empty.
        bundle: Bundle of that version, if it is loaded or registered.
        spans: Hours or days with images; `step` is their length.
        sites: Sites of the selected images; none if the log keeps no site.
        verdicts: Verdicts of this version in the selected days, by day.
        checks: The newest of these checks.
        distributions: Histograms of columns; none without a reference, or with fewer than `LEAST` images.
        sampled: Images in the histograms.
        no_reference: Reason for a missing reference, or None.
    """

    query: BoardQuery
    now: datetime
    versions: Sequence[ServedVersion]
    chosen: ServedVersion | None = None
    bundle: Bundle | None = None
    first: date = date.min
    last: date = date.min
    step: timedelta = DAY
    spans: Sequence[Span] = ()
    sites: Sequence[SiteCounts] = ()
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
        """Number of selected images."""
        return sum(span.images for span in self.spans)

    @property
    def positive_class(self) -> str | None:
        """Class of the probabilities; None with more than two classes, or without a bundle."""
        return self.bundle.info.positive_class if self.bundle else None

    @property
    def report(self) -> StoredCheck | None:
        """The check whose report is opened, if it is listed and has one."""
        return next((each for each in self.checks if each.id == self.query.report and each.has_page), None)


def gather_board(store: LogStore, models: BundleLookup, query: BoardQuery, *, now: datetime) -> Board:
    """Gather the content of a page from the log; raise `SQLAlchemyError` if the database cannot be reached."""
    store.prepare()
    versions = list_versions(store)
    if not versions:
        return Board(query, now, versions)
    by_id = {version.id: version for version in versions}
    loaded = (bundle.info.id for bundle in models.loaded())
    answering = next((by_id[each] for each in loaded if each in by_id), versions[0])
    chosen = by_id.get(query.version or "", answering)
    if query.version and chosen.id != query.version:
        note = f"The log has no version “{query.version[:100]}”."
        query = replace(query, notes=(*query.notes, note))
    first, last = _select_days(query, chosen)
    start, end = (datetime.combine(day, time(), UTC) for day in (first, last))
    window = Window(chosen.model, chosen.version, lane=None, since=start, until=end + DAY)
    bundle = models.find(chosen.model, chosen.version)
    step = HOUR if (last - first).days < HOURLY_DAYS else DAY
    spans = count_over_time(store, window, step, bundle.info.positive_class if bundle else None)
    images = sum(span.images for span in spans)
    reference, reason = _load_reference(bundle)
    numbers = read_sample(store, window, images) if reference and images >= LEAST else {}
    answers = read_labelled_answers(store, window, images, bundle.info.classes if bundle else None)
    return Board(
        query=query,
        now=now,
        versions=versions,
        chosen=chosen,
        bundle=bundle,
        first=first,
        last=last,
        step=step,
        spans=spans,
        sites=count_by_site(store, window),
        latest=latest_check(store, chosen.model, chosen.version),
        verdicts=count_verdicts_by_day(store, window),
        checks=list_checks(store, window),
        distributions=[
            _compare(name, reference.numbers[name], known)
            for name, values in numbers.items()
            if reference and len(known := values[~np.isnan(values)])
        ],
        reference_images=len(reference) if reference else 0,
        sampled=len(next(iter(numbers.values()), ())),
        no_reference=reason,
        live=_measure_live(spans, answers, bundle),
    )


def _select_days(query: BoardQuery, chosen: ServedVersion) -> tuple[date, date]:
    last = query.last or max(chosen.last.date(), query.first or date.min)
    earliest = max(chosen.first.date(), last - (DAYS - 1) * DAY)
    return query.first or min(earliest, last), last


def _load_reference(bundle: Bundle | None) -> tuple[Sample | None, str | None]:
    """Return the reference of a bundle, or the reason why there is none."""
    if bundle is None:
        return None, "the bundle of this version is neither loaded nor in the registry"
    try:
        return load_reference(bundle), None
    except InputError:
        return None, "the bundle holds no readable reference; export the model again"
    except ImportError:
        return None, f"a package that reads the reference is not installed; {install_hint('drift')}"


def _compare(name: str, before: Float64, now: Float64) -> Distribution:
    low, high = np.quantile(np.concatenate([before, now]), [0.005, 0.995])
    if name == "probability":
        low, high = 0.0, 1.0
    elif low == high:
        low, high = low - 0.5, high + 0.5
    edges = np.linspace(low, high, BARS + 1)
    shares = (np.histogram(np.clip(values, low, high), edges)[0] / len(values) for values in (before, now))
    return Distribution(name, edges, *shares)


def _measure_live(spans: Sequence[Span], answers: LabelledAnswers, bundle: Bundle | None) -> LivePerformance:
    positive = bundle.info.positive_class if bundle else None
    two_classes = positive is not None
    # Without its bundle the class of a version's probabilities is unknown.
    sums = [span.sums for span in spans] if bundle else []
    live = LivePerformance(
        images=sum(span.images for span in spans),
        labels=len(answers),
        measured=Performance(0),
        measured_over_time=[],
        estimated=ProbabilitySums.total(sums).estimate(two_classes=two_classes),
        estimated_over_time=[each.estimate(two_classes=two_classes) for each in sums],
    )
    if not len(answers):
        return live
    probability, came_true = answers.outcomes(positive)
    first = min((span.start for span in spans), default=_EPOCH)
    return replace(
        live,
        measured=answers.measure(positive),
        measured_over_time=[
            (max(_EPOCH + int(part.day[0]) * DAY, first), part.measure(positive))
            for part in answers.split_by_day(LEAST_LABELLED)
        ],
        bins=bin_reliability(probability, came_true) if bundle else [],
        calibration_error=compute_calibration_error(probability, came_true) if bundle else None,
        sensitivities={
            name: answers.take(answers.truth == name).measure(None).accuracy
            for name in (bundle.info.classes if bundle and positive is None else ())
        },
    )

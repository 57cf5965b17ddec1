"""Audit a data set that was imported, or anything that can be."""

import hashlib
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from pneumo.pipeline.data import manifest
from pneumo.pipeline.data.audit import defects as rules
from pneumo.pipeline.data.audit.appearance import NEAR_DISTANCE, describe_appearance
from pneumo.pipeline.data.audit.audit_report import AuditReport, Finding, Kind, Severity
from pneumo.pipeline.data.audit.defects import Record, split_name
from pneumo.pipeline.data.manifest import COLUMNS, DATASET, DIGESTS, MANIFEST, Dataset, Row, Split
from pneumo.pipeline.data.parallel import apply, choose_workers
from pneumo.pipeline.data.patients import PatientRule
from pneumo.pipeline.data.sources import Item, Skipped, Source, UnreadableError, open_source
from pneumo.pipeline.data.staging import IMAGES
from pneumo.serving.contracts.errors import ImageError, InputError
from pneumo.serving.images.decode import read_gray
from pneumo.serving.images.types import Fit, Gray

_SMALLEST = 64
"""Sides below this, in pixels, show no lung texture; asked of raw sources, whose size of preparation is not known."""

Progress = Callable[[int], None]
"""Called with the number of images done so far."""


type Subject = Dataset | Source
"""What can be audited."""


@dataclass(frozen=True)
class _Raw:
    item: Item
    data: bytes
    sha256: str
    patient: str


@dataclass(frozen=True)
class _Stored:
    path: Path
    row: Row
    digest: str
    size: int
    fit: Fit


@dataclass(frozen=True)
class _Problem:
    kind: Kind
    name: str
    reason: str


def is_dataset(path: Path) -> bool:
    """Whether `path` is a data set that `pneumo data import` made, however damaged."""
    folder = path.parent if path.name == MANIFEST else path
    if (folder / DATASET).is_file():
        return True
    try:
        with (folder / MANIFEST).open(encoding="utf-8") as file:
            return file.readline().strip().split(",")[: len(COLUMNS)] == list(COLUMNS)
    except (OSError, UnicodeDecodeError):
        return False


@contextmanager
def open_subject(path: Path) -> Iterator[Subject]:
    """Open what is to be audited: a data set (its folder or manifest), or what `pneumo data import` takes.

    Raises:
        InputError: Neither is there.
    """
    if is_dataset(path):
        yield manifest.read_dataset(path)
        return
    with open_source(path) as source:
        yield source


def count_images(subject: Subject) -> int:
    """How many images an audit will look at."""
    return len(subject.items if isinstance(subject, Source) else subject.rows)


def audit(
    source: Path | Subject,
    *,
    near_distance: int = NEAR_DISTANCE,
    patient_regex: str | None = None,
    workers: int | None = None,
    progress: Progress | None = None,
) -> AuditReport:
    """Audit a data set, or a source that is not imported yet; nothing is written.

    Args:
        source: Where it is, or what `open_subject` gave.
        near_distance: Bits of 256 in which the perceptual hashes of near-identical images may differ.
        patient_regex: As for an import; of a data set the manifest says the patients.
        workers: Processes; by default as many as help.
        progress: Told how many images are done.

    Raises:
        InputError: There is nothing to audit.
    """
    if not 0 <= near_distance < 128:
        raise InputError(
            f"--near-distance {near_distance}: give 0 to 127; unlike images differ in about 128 of 256 bits"
        )
    rule = PatientRule.parse(patient_regex)
    with open_subject(source) if isinstance(source, Path) else nullcontext(source) as subject:
        if isinstance(subject, Source):
            return _audit_source(subject, rule, near_distance, workers, progress)
        return _audit_dataset(subject, near_distance, workers, progress)


def _audit_dataset(data: Dataset, near: int, workers: int | None, progress: Progress | None) -> AuditReport:
    tasks = [_Stored(data.path(row), row, data.digests[row.image], data.info.size, data.info.fit) for row in data.rows]
    count = choose_workers(len(tasks), 0, workers)
    records, problems = _collect(apply(_look_at_stored, tasks, workers=count), progress)
    info = data.info
    made = manifest.compute_fingerprint(
        data.rows, size=info.size, fit=info.fit, decode=info.decode, digests=data.digests
    )
    if made != info.fingerprint:
        problems.append(
            _Problem(Kind.CHANGED, MANIFEST, f"it or {DIGESTS} does not match the fingerprint in {DATASET}")
        )
    found = [*_problem_findings(problems), *_stray(data)]
    found += _left_out([Skipped(one["source"], one["reason"], int(one.get("count", 1))) for one in data.info.skipped])
    everything = [(row.split, row.label, row.patient) for row in data.rows]
    return _report(str(data.folder), everything, records, found, smallest=data.info.size, near=near)


def _audit_source(
    source: Source, rule: PatientRule, near: int, workers: int | None, progress: Progress | None
) -> AuditReport:
    lost = [entry for entry in source.skipped if entry.lost]
    problems = [_Problem(Kind.UNREADABLE, entry.source, entry.reason) for entry in lost]

    def tasks() -> Iterator[_Raw]:
        for item in source.items:
            try:
                blob = source.read(item)
            except UnreadableError as error:
                problems.append(_Problem(Kind.UNREADABLE, item.name, str(error)))
                continue
            yield _Raw(item, blob.data, blob.sha256, rule.patient(item))

    count = choose_workers(len(source.items), sum(item.size for item in source.items), workers)
    records, more = _collect(apply(_look_at_raw, tasks(), workers=count), progress)
    found = [*_problem_findings([*problems, *more])]
    found += _left_out([entry for entry in source.skipped if not entry.lost])
    everything = [(item.split, item.label, rule.patient(item)) for item in source.items]
    return _report(str(source.path), everything, records, found, smallest=_SMALLEST, near=near)


def _report(
    source: str,
    everything: Sequence[tuple[Split | None, str, str]],
    records: Sequence[Record],
    found: list[Finding],
    *,
    smallest: int,
    near: int,
) -> AuditReport:
    splits = sorted({split for split, _, _ in everything}, key=lambda split: -1 if split is None else split)
    counts = {
        split_name(split): dict(sorted(Counter(label for own, label, _ in everything if own is split).items()))
        for split in splits
    }
    patients = {split_name(split): len({who for own, _, who in everything if own is split}) for split in splits}
    found = [
        *found,
        *rules.find_identical(records),
        *rules.find_patients_across_splits(records),
        *rules.find_near_identical(records, near),
        *rules.check_class_balance(counts),
        *rules.find_odd_sizes(records, smallest),
        *rules.find_blank_or_clipped(records),
    ]
    return AuditReport.build(source, len(everything), counts, patients, found)


def _collect(results: Generator[Record | _Problem], progress: Progress | None) -> tuple[list[Record], list[_Problem]]:
    records: list[Record] = []
    problems: list[_Problem] = []
    with closing(results):
        for done, result in enumerate(results, start=1):
            if isinstance(result, Record):
                records.append(result)
            else:
                problems.append(result)
            if progress is not None:
                progress(done)
    return records, problems


def _look_at_raw(task: _Raw) -> Record | _Problem:
    item = task.item
    try:
        gray = read_gray(task.data).gray
    except ImageError as error:
        return _Problem(Kind.UNREADABLE, item.name, str(error))
    return Record(item.name, item.label, item.split, task.patient, task.sha256, describe_appearance(gray))


def _look_at_stored(task: _Stored) -> Record | _Problem:
    row = task.row
    try:
        data = task.path.read_bytes()
    except FileNotFoundError:
        return _Problem(Kind.MISSING, row.image, "no such file")
    except OSError as error:
        return _Problem(Kind.UNREADABLE, row.image, f"cannot be read: {error.strerror}")
    try:
        picture = read_gray(data)
    except ImageError as error:
        return _Problem(Kind.UNREADABLE, row.image, str(error))
    if picture.format != "PNG" or picture.mode != "L" or picture.gray.shape != (task.size, task.size):
        what = f"{picture.format} {picture.mode} {picture.width} x {picture.height}"
        return _Problem(Kind.CHANGED, row.image, f"is {what}, not an 8-bit gray PNG of {task.size} px")
    if hashlib.sha256(data).hexdigest() != task.digest:
        return _Problem(Kind.CHANGED, row.image, f"its SHA-256 is not the one in {DIGESTS}")
    content = _without_padding(picture.gray, row) if task.fit is Fit.PAD else picture.gray
    return Record(
        row.image,
        row.label,
        row.split,
        row.patient,
        row.sha256,
        describe_appearance(content, width=row.width, height=row.height),
    )


def _without_padding(gray: Gray, row: Row) -> Gray:
    size = gray.shape[0]
    scale = size / max(row.width, row.height)
    width, height = max(1, round(row.width * scale)), max(1, round(row.height * scale))
    left, top = (size - width) // 2, (size - height) // 2
    return gray[top : top + height, left : left + width]


def _problem_findings(problems: Sequence[_Problem]) -> Iterator[Finding]:
    texts = {Kind.UNREADABLE: "cannot be read", Kind.MISSING: "are missing", Kind.CHANGED: "were changed"}
    for kind, text in texts.items():
        of_kind = sorted((problem for problem in problems if problem.kind is kind), key=lambda problem: problem.name)
        if of_kind:
            told = "; ".join(f"{problem.name}: {problem.reason}" for problem in of_kind[:3])
            more = f"; and {len(of_kind) - 3} more" if len(of_kind) > 3 else ""
            summary = f"{len(of_kind)} files {text} ({told}{more})"
            yield Finding(kind, Severity.DEFECT, summary, tuple((problem.name,) for problem in of_kind))


def _stray(data: Dataset) -> Iterator[Finding]:
    known = {row.image for row in data.rows}
    there = sorted(path.relative_to(data.folder).as_posix() for path in (data.folder / IMAGES).rglob("*.png"))
    stray = [name for name in there if name not in known]
    if stray:
        summary = f"{len(stray)} images in the folder are not in the manifest"
        yield Finding(Kind.STRAY, Severity.WARNING, summary, tuple((name,) for name in stray))


def _left_out(skipped: Sequence[Skipped]) -> Iterator[Finding]:
    if skipped:
        told = "; ".join(f"{entry.source}: {entry.reason}" for entry in skipped[:3])
        summary = (
            f"{sum(entry.count for entry in skipped)} files left out ({told}{'; ...' if len(skipped) > 3 else ''})"
        )
        yield Finding(Kind.LEFT_OUT, Severity.INFO, summary, tuple((entry.source,) for entry in skipped))

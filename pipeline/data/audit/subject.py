"""Audit an imported data set, or anything that can be imported."""

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from pneumo.pipeline.data import manifest
from pneumo.pipeline.data.audit import defects as rules
from pneumo.pipeline.data.audit.appearance import NEAR_DISTANCE, describe_appearance
from pneumo.pipeline.data.audit.audit_report import AuditReport, Finding, Kind, Severity
from pneumo.pipeline.data.audit.defects import ImageFacts, Record
from pneumo.pipeline.data.manifest import COLUMNS, DATASET, DIGESTS, MANIFEST, Dataset, Row, Split
from pneumo.pipeline.data.parallel import Progress, apply, choose_workers, map_source
from pneumo.pipeline.data.patients import PatientRule
from pneumo.pipeline.data.shortcuts import LabelledTraits, describe_traits, is_sampled, measure_shortcuts
from pneumo.pipeline.data.sources import Blob, Item, Skipped, Source, SourceOptions, open_source
from pneumo.pipeline.data.staging import IMAGES
from pneumo.serving.contracts.errors import ImageError
from pneumo.serving.contracts.quantities import format_count
from pneumo.serving.images.decode import read_gray
from pneumo.serving.images.preparation import fit
from pneumo.serving.images.types import Fit, Gray

_SMALLEST = 64
"""Sides below this, in pixels, show no lung texture; for raw sources, whose prepared size is not known."""
_SIDE = 224
"""Side of the squares, in pixels, in which shortcuts are looked for in a raw source: that of an import by default."""

type Subject = Dataset | Source
"""Anything that can be audited."""


@dataclass(frozen=True)
class _Problem:
    kind: Kind
    name: str
    reason: str


def is_dataset(path: Path) -> bool:
    """Return True if `path` is a data set that `pneumo data import` made, however damaged."""
    folder = path.parent if path.name == MANIFEST else path
    if (folder / DATASET).is_file():
        return True
    try:
        with (folder / MANIFEST).open(encoding="utf-8") as file:
            return file.readline().strip().split(",")[: len(COLUMNS)] == list(COLUMNS)
    except (OSError, UnicodeDecodeError):
        return False


def open_subject(path: Path, options: SourceOptions | None = None) -> AbstractContextManager[Subject]:
    """Open a data set (its folder or manifest), or anything that `pneumo data import` takes, with its options.

    Raises:
        InputError: `path` is neither.
    """
    return nullcontext(manifest.read_dataset(path)) if is_dataset(path) else open_source(path, options)


def count_images(subject: Subject) -> int:
    """Return the number of images that an audit reads."""
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
        source: A path, or the result of `open_subject`.
        near_distance: Most bits of 256 in which the perceptual hashes of near-identical images differ.
        patient_regex: As for an import; a data set's manifest has its own patients.
        workers: Processes; by default as many as help.
        progress: Called with the number of images done.

    Raises:
        InputError: There is nothing to audit.
    """
    rule = PatientRule.parse(patient_regex)
    with open_subject(source) if isinstance(source, Path) else nullcontext(source) as subject:
        if isinstance(subject, Source):
            return _audit_source(subject, rule, near_distance, workers, progress)
        return _audit_dataset(subject, near_distance, workers, progress)


def _audit_dataset(data: Dataset, near: int, workers: int | None, progress: Progress | None) -> AuditReport:
    info = data.info
    describe = partial(_describe_stored, data.folder, info.size, info.fit, len(data.rows))
    tasks = [(row, data.digests[row.image]) for row in data.rows]
    results: list[Record | _Problem] = []
    with closing(apply(describe, tasks, workers=choose_workers(len(tasks), 0, workers))) as outcomes:
        for result in outcomes:
            results.append(result)
            if progress is not None:
                progress(len(results))
    records = [result for result in results if isinstance(result, Record)]
    problems = [result for result in results if isinstance(result, _Problem)]
    if manifest.compute_fingerprint(data.rows, info, data.digests) != info.fingerprint:
        problems.append(
            _Problem(Kind.CHANGED, MANIFEST, f"it or {DIGESTS} does not match the fingerprint in {DATASET}")
        )
    skipped = [Skipped(entry["source"], entry["reason"], int(entry.get("count", 1))) for entry in info.skipped]
    findings = [*_report_problems(problems), *_find_stray(data), *_report_skipped(skipped)]
    images = [(row.split, row.label, row.patient) for row in data.rows]
    return _build_report(str(data.folder), images, records, findings, smallest=info.size, near=near)


def _audit_source(
    source: Source, rule: PatientRule, near: int, workers: int | None, progress: Progress | None
) -> AuditReport:
    records, unread = map_source(
        partial(_describe_raw, rule, len(source.items)), source, workers=workers, progress=progress
    )
    lost = [*(entry for entry in source.skipped if entry.lost), *unread]
    findings = [*_report_problems([_Problem(Kind.UNREADABLE, entry.source, entry.reason) for entry in lost])]
    findings += _report_skipped([entry for entry in source.skipped if not entry.lost])
    images = [(item.split, item.label, rule.patient(item)) for item in source.items]
    return _build_report(str(source.path), images, records, findings, smallest=_SMALLEST, near=near)


def _build_report(
    source: str,
    images: Sequence[ImageFacts],
    records: Sequence[Record],
    findings: list[Finding],
    *,
    smallest: int,
    near: int,
) -> AuditReport:
    """Apply the rules; `images` are split, label and patient of all images, unreadable ones included."""
    by_split = {split: [image for image in images if image[0] is split] for split in (None, *Split)}
    named = {"all" if split is None else split.name.lower(): some for split, some in by_split.items() if some}
    counts = {name: dict(sorted(Counter(label for _, label, _ in some).items())) for name, some in named.items()}
    patients = {name: len({patient for _, _, patient in some}) for name, some in named.items()}
    shortcuts = measure_shortcuts([LabelledTraits(r.label, r.patient, r.traits) for r in records if r.traits])
    findings = [
        *findings,
        *rules.find_identical(records),
        *rules.find_patients_across_splits(records),
        *rules.find_near_identical(records, near),
        *rules.check_class_balance(counts, images),
        *rules.check_patients(images),
        *rules.find_odd_sizes(records, smallest),
        *rules.find_blank_or_clipped(records),
        *rules.report_shortcuts(shortcuts),
    ]
    kinds, severities = list(Kind), list(Severity)
    findings.sort(key=lambda finding: (severities.index(finding.severity), kinds.index(finding.kind)))
    return AuditReport(source, len(images), counts, patients, tuple(findings), shortcuts)


def _describe_raw(rule: PatientRule, count: int, item: Item, blob: Blob) -> Record:
    picture, patient, traits = read_gray(blob.data), rule.patient(item), None
    if is_sampled(patient, count):
        stored = fit(picture.gray, _SIDE, Fit.SQUASH)
        traits = describe_traits(picture, stored, size=item.size, file_format=picture.format)
    return Record(item.name, item.label, item.split, patient, blob.sha256, describe_appearance(picture.gray), traits)


def _describe_stored(folder: Path, size: int, how: Fit, count: int, task: tuple[Row, str]) -> Record | _Problem:
    row, digest = task
    try:
        data = (folder / row.image).read_bytes()
        picture = read_gray(data)
    except FileNotFoundError:
        return _Problem(Kind.MISSING, row.image, "no such file")
    except OSError as error:
        return _Problem(Kind.UNREADABLE, row.image, f"cannot be read: {error.strerror}")
    except ImageError as error:
        return _Problem(Kind.UNREADABLE, row.image, str(error))
    if picture.format != "PNG" or picture.mode != "L" or picture.gray.shape != (size, size):
        actual = f"{picture.format} {picture.mode} {picture.width} x {picture.height}"
        return _Problem(Kind.CHANGED, row.image, f"is {actual}, not an 8-bit gray PNG of {size} px")
    if hashlib.sha256(data).hexdigest() != digest:
        return _Problem(Kind.CHANGED, row.image, f"its SHA-256 is not the one in {DIGESTS}")
    content = _crop_padding(picture.gray, row) if how is Fit.PAD else picture.gray
    look, traits = describe_appearance(content, width=row.width, height=row.height), None
    if is_sampled(row.patient, count):
        original = replace(picture, width=row.width, height=row.height)
        traits = describe_traits(original, picture.gray, size=row.bytes, file_format=row.format)
    return Record(row.image, row.label, row.split, row.patient, row.sha256, look, traits)


def _crop_padding(gray: Gray, row: Row) -> Gray:
    size = gray.shape[0]
    scale = size / max(row.width, row.height)
    width, height = max(1, round(row.width * scale)), max(1, round(row.height * scale))
    left, top = (size - width) // 2, (size - height) // 2
    return gray[top : top + height, left : left + width]


def _report_problems(problems: Sequence[_Problem]) -> Iterator[Finding]:
    texts = {Kind.UNREADABLE: "unreadable", Kind.MISSING: "missing", Kind.CHANGED: "changed"}
    for kind, text in texts.items():
        some = sorted((problem for problem in problems if problem.kind is kind), key=lambda problem: problem.name)
        if some:
            examples = "; ".join(f"{problem.name}: {problem.reason}" for problem in some[:3])
            more = f"; and {len(some) - 3} more" if len(some) > 3 else ""
            summary = f"{format_count(len(some), f'{text} file')} ({examples}{more})"
            yield Finding(kind, Severity.DEFECT, summary, tuple((problem.name,) for problem in some))


def _find_stray(data: Dataset) -> Iterator[Finding]:
    paths = {path.relative_to(data.folder).as_posix() for path in (data.folder / IMAGES).rglob("*.png")}
    if stray := sorted(paths - {row.image for row in data.rows}):
        summary = f"{format_count(len(stray), 'image')} in the folder without a row of the manifest"
        yield Finding(Kind.STRAY, Severity.WARNING, summary, tuple((name,) for name in stray))


def _report_skipped(skipped: Sequence[Skipped]) -> Iterator[Finding]:
    if skipped:
        examples = "; ".join(f"{entry.source}: {entry.reason}" for entry in skipped[:3])
        more = "; ..." if len(skipped) > 3 else ""
        summary = f"{format_count(sum(entry.count for entry in skipped), 'file')} left out ({examples}{more})"
        yield Finding(Kind.LEFT_OUT, Severity.INFO, summary, tuple((entry.source,) for entry in skipped))

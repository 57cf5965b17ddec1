"""Import images: read, prepare, split, and write a data set that `pneumo.pipeline.data.manifest` reads."""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import closing, nullcontext
from dataclasses import dataclass
from pathlib import Path

from pneumo.pipeline.data import manifest
from pneumo.pipeline.data.assembly import Prepared, assemble
from pneumo.pipeline.data.groups import GroupRule
from pneumo.pipeline.data.import_settings import ImportSettings, SplitMethod
from pneumo.pipeline.data.manifest import Dataset
from pneumo.pipeline.data.parallel import apply, choose_workers
from pneumo.pipeline.data.patients import PatientRule
from pneumo.pipeline.data.sources import Item, Skipped, Source, UnreadableError, open_source
from pneumo.pipeline.data.splits import Fractions
from pneumo.pipeline.data.staging import find_existing, is_same_dataset, publish, refuse_foreign, staging
from pneumo.serving.contracts.errors import ImageError, InputError, MachineError
from pneumo.serving.images.decode import read_stored
from pneumo.serving.images.preparation import encode_png
from pneumo.serving.images.types import Decode, Fit

Progress = Callable[[int], None]
"""Called with the number of images done so far."""


@dataclass(frozen=True)
class _Job:
    item: Item
    data: bytes
    sha256: str
    target: Path
    settings: ImportSettings


def import_dataset(
    source: Path | Source,
    out: Path,
    *,
    size: int = 224,
    fit: Fit = Fit.SQUASH,
    decode: Decode = Decode.SCALED,
    seed: int = 0,
    split: str = SplitMethod.GROUPED,
    fractions: Fractions | None = None,
    patient_regex: str | None = None,
    groups: str | None = None,
    force: bool = False,
    workers: int | None = None,
    progress: Progress | None = None,
) -> Dataset:
    """Import a source into `out`.

    The data set is made beside `out` and put in place whole. Importing the same again leaves the same bytes.

    Args:
        source: Where the images are, or an opened source.
        out: Folder of the data set.
        size: Side of the prepared square images, in pixels.
        fit: How rectangles become squares.
        decode: How JPEGs are decoded; models that are trained on the data set decode theirs alike.
        seed: Seed of the splits.
        split: `grouped` makes splits by class, patient and identical bytes; `given` keeps those of the source.
        fractions: Shares of the splits; 0.7, 0.15, 0.15 by default.
        patient_regex: Searched in names inside the source; its group is the patient. By default Kermany's names.
        groups: Columns of the source's table that are subgroups, such as `sex,view`. Kermany's names say some of
            their own, unless a `patient_regex` says that names are others.
        force: Replace a different data set that is at `out`.
        workers: Processes; by default as many as help.
        progress: Told how many images are done.

    Returns:
        The data set as it is read back from `out`. Remarks about its splits are in `info.split["notes"]`.

    Raises:
        InputError: The source cannot be used, or `out` holds something else.
        MachineError: `out` cannot be written.
    """
    settings = ImportSettings(
        size=size,
        fit=Fit(fit),
        decode=Decode(decode),
        seed=seed,
        split=SplitMethod(split),
        fractions=fractions or Fractions(),
        patients=PatientRule.parse(patient_regex),
        groups=GroupRule.parse(groups, by_name=patient_regex is None),
    )
    path = source.path if isinstance(source, Source) else source
    _refuse_nesting(path, out)
    with nullcontext(source) if isinstance(source, Source) else open_source(path) as opened:
        _check(opened, settings)
        old = _replaceable(out, opened, settings, force=force)
        target = out.resolve()
        with staging(target) as new:
            try:
                images, skipped = _prepare(opened, settings, new, workers, progress)
                made = assemble(new, images, skipped, settings, source=path)
                if old is not None and is_same_dataset(old, made):
                    return old
                if old is not None and old.info.fingerprint != made.info.fingerprint:
                    raise _differs(out)
                publish(new, target)
            except OSError as error:
                raise MachineError(f"{error.filename or out}: cannot be written: {error.strerror}") from None
    return manifest.read_dataset(out)


def _refuse_nesting(source: Path, out: Path) -> None:
    inside, around = out.resolve(), source.resolve()
    if inside.is_relative_to(around) or around.is_relative_to(inside):
        raise InputError(f"{out}: --out and the source {source} lie in one another; choose another --out")


def _check(source: Source, settings: ImportSettings) -> None:
    classes = sorted({item.label for item in source.items})
    if len(classes) < 2:
        raise InputError(f"{source.path}: one class only, {classes[0]!r}; put images of two or more into class folders")
    if settings.split is SplitMethod.GIVEN:
        without = [item.name for item in source.items if item.split is None]
        if without:
            raise InputError(
                f"{source.path}: {len(without)} images such as {without[0]!r} have no split; "
                "use --split grouped, or train, val and test folders or a `split` column"
            )
    settings.groups.check(source.items)
    pattern = settings.patients.pattern
    if pattern and not any(item.patient or pattern.search(item.name) for item in source.items):
        raise InputError(f"--patient-regex {pattern.pattern!r}: matches no name, such as {source.items[0].name!r}")


def _replaceable(out: Path, source: Source, settings: ImportSettings, *, force: bool) -> Dataset | None:
    """The data set at `out`, none if it may be replaced; refuses early where plainly another one would come out."""
    if force:
        refuse_foreign(out)
        return None
    old = find_existing(out)
    if old is None:
        return None
    names = {item.name for item in source.items}
    settled = (old.info.size, old.info.fit, old.info.decode) == (settings.size, settings.fit, settings.decode)
    if not settled or any(row.source not in names for row in old.rows):
        raise _differs(out)
    return old


def _differs(out: Path) -> InputError:
    return InputError(f"{out}: holds a different data set; use --force to replace it, or choose another --out")


def _prepare(
    source: Source, settings: ImportSettings, folder: Path, workers: int | None, progress: Progress | None
) -> tuple[list[Prepared], list[Skipped]]:
    images: list[Prepared] = []
    skipped = list(source.skipped)

    def jobs() -> Iterator[_Job]:
        for number, item in enumerate(source.items):
            try:
                blob = source.read(item)
            except UnreadableError as error:
                skipped.append(Skipped(item.name, str(error), lost=True))
                continue
            yield _Job(item, blob.data, blob.sha256, folder / f"{number}.png", settings)

    count = choose_workers(len(source.items), sum(item.size for item in source.items), workers)
    with closing(apply(_prepare_one, jobs(), workers=count)) as results:
        for result in results:
            if isinstance(result, Prepared):
                images.append(result)
            else:
                skipped.append(result)
            if progress is not None:
                progress(len(images) + len(skipped) - len(source.skipped))
    if not images:
        told = "; ".join(f"{entry.source}: {entry.reason}" for entry in skipped[:3])
        raise InputError(f"{source.path}: none of {len(source.items)} images can be read ({told})")
    return images, skipped


def _prepare_one(job: _Job) -> Prepared | Skipped:
    settings = job.settings
    try:
        picture = read_stored(job.data, size=settings.size, how=settings.fit, decode=settings.decode)
    except ImageError as error:
        return Skipped(job.item.name, str(error), lost=True)
    png = encode_png(picture.gray)
    job.target.write_bytes(png)
    digest = hashlib.sha256(png).hexdigest()
    return Prepared(job.item, job.sha256, job.target, digest, picture.width, picture.height)

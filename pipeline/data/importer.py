"""Import images: read, prepare, split, and write a data set that `pneumo.pipeline.data.manifest` reads."""

import hashlib
from collections import Counter
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path

from pneumo.pipeline.data import manifest
from pneumo.pipeline.data.assembly import Prepared, assemble_dataset
from pneumo.pipeline.data.corrections import correct_items
from pneumo.pipeline.data.import_settings import ImportSettings, SplitMethod
from pneumo.pipeline.data.interpretation import Interpretation
from pneumo.pipeline.data.manifest import Dataset
from pneumo.pipeline.data.parallel import Progress, map_source
from pneumo.pipeline.data.plausibility import find_alike_patients
from pneumo.pipeline.data.public_sets import recognise_population
from pneumo.pipeline.data.shortcuts import describe_traits, is_sampled
from pneumo.pipeline.data.sources import Blob, Item, Source, open_source
from pneumo.pipeline.data.staging import is_same_dataset, refuse_foreign
from pneumo.serving.contracts.errors import InputError, MachineError
from pneumo.serving.contracts.files import publish_folder, stage_folder
from pneumo.serving.contracts.quantities import format_count
from pneumo.serving.images.decode import read_stored
from pneumo.serving.images.preparation import encode_png
from pneumo.serving.images.types import DECODING_RULES

__all__ = ["ImportSettings", "SplitMethod", "import_dataset", "interpret_source"]


def import_dataset(
    source: Path | Source,
    out: Path,
    settings: ImportSettings | None = None,
    *,
    force: bool = False,
    workers: int | None = None,
    progress: Progress | None = None,
) -> Dataset:
    """Import a source into `out`.

    The data set is made beside `out` and replaces it atomically. Importing the same again leaves the same bytes.

    Args:
        source: The path of the images, or a source opened with the settings' options.
        out: Folder of the data set.
        settings: How images are prepared and split; the defaults if None.
        force: Replace a different data set at `out`.
        workers: Processes; by default as many as help.
        progress: Called with the number of images done.

    Returns:
        The data set as it is read back from `out`. Notes about its splits are in `info.split["notes"]`.

    Raises:
        InputError: The source cannot be used, or `out` holds something else.
        MachineError: `out` cannot be written.
    """
    settings = settings or ImportSettings()
    path = source.path if isinstance(source, Source) else source
    settings = replace(settings, population=settings.population or recognise_population(path))
    target, real = out.resolve(), path.resolve()
    if target.is_relative_to(real) or real.is_relative_to(target):
        raise InputError(f"{out}: --out and the source {path} lie inside one another; choose another --out")
    with nullcontext(source) if isinstance(source, Source) else open_source(path, settings.source) as opened:
        opened.refuse_ambiguities()
        understood = interpret_source(opened, settings)
        corrected = correct_items(settings.corrections, opened.items)
        old = _find_replaceable(out, opened, settings, force=force)
        with stage_folder(target) as new:
            try:
                prepare = partial(_prepare_image, settings, new, len(opened.items))
                images, skipped = map_source(prepare, opened, workers=workers, progress=progress)
                if not images:
                    reasons = "; ".join(f"{entry.source}: {entry.reason}" for entry in skipped[:3])
                    raise InputError(
                        f"{path}: no image of {len(opened.items)} can be read ({reasons}); get the files again"
                    )
                skipped = [*opened.skipped, *skipped]
                dataset = assemble_dataset(new, images, skipped, settings, understood, corrected, source=path)
                if old is not None and is_same_dataset(old, dataset):
                    return old
                if old is not None and old.info.fingerprint != dataset.info.fingerprint:
                    raise _different(out)
                publish_folder(new, target)
            except OSError as error:
                raise MachineError(
                    f"{error.filename or out}: cannot be written: {error.strerror}; choose another --out"
                ) from None
    return manifest.read_dataset(out)


def interpret_source(source: Source, settings: ImportSettings) -> Interpretation:
    """Return what an import understands of a source, without reading an image.

    Raises:
        InputError: The settings do not fit the source, or it has one class only.
    """
    classes = Counter(item.label for item in source.items)
    ignored: Counter[str] = Counter()
    for entry in source.skipped:
        ignored[entry.reason] += entry.count
    has_splits = any(item.split is not None for item in source.items)
    splits = "made by class and patient" + f"; --split given keeps those of {source.origin}" * has_splits
    patient = settings.patient_rule.patient
    patients = len(set(map(patient, source.items)))
    understood = Interpretation(
        layout=source.layout,
        example=min(item.name for item in source.items),
        classes=dict(sorted(classes.items())),
        labels_from=source.origin,
        patients_from=f"{settings.patient_rule.describe(source.items)}; {patients} patients",
        splits_from=source.origin if settings.split is SplitMethod.GIVEN else splits,
        ignored=dict(sorted(ignored.items())),
        notes=[*source.notes, *find_alike_patients((item.split, item.label, patient(item)) for item in source.items)],
        ambiguities=list(source.ambiguities),
    )
    if not source.ambiguities:
        _check_source(source, settings, list(understood.classes))
    return understood


def _check_source(source: Source, settings: ImportSettings, classes: list[str]) -> None:
    if len(classes) < 2:
        raise InputError(
            f"{source.path}: one class only, {classes[0]!r}; put images of two or more into class folders, or list "
            "them in a table"
        )
    if settings.split is SplitMethod.GIVEN:
        without = [item.name for item in source.items if item.split is None]
        if without:
            raise InputError(
                f"{source.path}: {format_count(len(without), 'image')} without a split, such as {without[0]!r}; "
                "use --split grouped, or train, val and test folders or a column of splits"
            )
    settings.group_rule.check(source.items)
    correct_items(settings.corrections, source.items)
    pattern = settings.patient_rule.pattern
    if pattern and not any(map(settings.patient_rule.find, source.items)):
        raise InputError(
            f"--patient-regex {pattern.pattern!r}: matches no name in the source; an example of a name is "
            f"{source.items[0].name!r}"
        )


def _find_replaceable(out: Path, source: Source, settings: ImportSettings, *, force: bool) -> Dataset | None:
    """Return the data set at `out`, None if `out` may be replaced; refuse early if the new one must differ."""
    refuse_foreign(out)
    if force or not out.exists() or not any(out.iterdir()):
        return None
    try:
        old = manifest.read_dataset(out)
    except InputError as error:
        raise InputError(f"{error}; --force replaces it") from None
    names = {item.name for item in source.items}
    if old.info.settings() != settings.storage.settings() or any(row.source not in names for row in old.rows):
        raise _different(out, old.info.rules)
    return old


def _different(out: Path, rules: int = DECODING_RULES) -> InputError:
    old = "" if rules == DECODING_RULES else f", imported under decoding rules {rules} (now {DECODING_RULES})"
    return InputError(f"{out}: holds a different data set{old}; use --force to replace it, or choose another --out")


def _prepare_image(settings: ImportSettings, folder: Path, count: int, item: Item, blob: Blob) -> Prepared:
    picture = read_stored(blob.data, settings.storage)
    png = encode_png(picture.gray)
    target = folder / f"{hashlib.sha256(item.name.encode()).hexdigest()}.png"
    target.write_bytes(png)
    digest = hashlib.sha256(png).hexdigest()
    traits = None
    if is_sampled(settings.patient_rule.patient(item), count):
        traits = describe_traits(picture, picture.gray, size=item.size, file_format=picture.format)
    facts = (picture.width, picture.height, picture.format, picture.remarks)
    return Prepared(item, blob.sha256, target, digest, *facts, traits)

"""Assemble prepared images into a data set: splits, paths, manifest and description."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pneumo.pipeline.data import manifest
from pneumo.pipeline.data.corrections import Corrected
from pneumo.pipeline.data.import_settings import ImportSettings, SplitMethod
from pneumo.pipeline.data.interpretation import Interpretation
from pneumo.pipeline.data.manifest import Dataset, DatasetInfo, RemarkCount, Row, Split
from pneumo.pipeline.data.plausibility import find_rare_classes
from pneumo.pipeline.data.shortcuts import LabelledTraits, Traits, measure_shortcuts
from pneumo.pipeline.data.sources import Item, Skipped
from pneumo.pipeline.data.splits import Sample, carve_validation, split_images
from pneumo.pipeline.data.staging import IMAGES, name_prepared
from pneumo.serving.contracts.errors import InputError


@dataclass(frozen=True)
class Prepared:
    """One prepared image.

    Attributes:
        sha256: Digest of the original bytes; width and height are those of the original too.
        staged: The prepared PNG, under a temporary name.
        digest: SHA-256 of the prepared PNG.
        format: Container format of the original, as Pillow names it.
        remarks: Remarks about the original file.
        traits: What shortcuts are measured from; None if the image is not in the sample.
    """

    item: Item
    sha256: str
    staged: Path
    digest: str
    width: int
    height: int
    format: str
    remarks: tuple[str, ...]
    traits: Traits | None


def assemble_dataset(
    folder: Path,
    images: Sequence[Prepared],
    skipped: Sequence[Skipped],
    settings: ImportSettings,
    understood: Interpretation,
    corrected: Corrected,
    *,
    source: Path,
) -> Dataset:
    """Split images, move them to their paths in `folder`, and write manifest and description there.

    Raises:
        InputError: Fewer than two classes are left, the training split lacks one, or corrections empty a split.
    """
    patient = settings.patient_rule.patient
    samples = [Sample(image.item.name, image.item.label, patient(image.item), image.sha256) for image in images]
    splits, notes = _assign_splits(images, samples, settings)
    paths = _choose_paths(samples, splits)  # both by the labels of the source, so that a correction moves no image
    left_out = {name: file for name, file in corrected.left_out.items() if name in splits}
    for image in images:
        if image.item.name in left_out:
            image.staged.unlink()
    images = [image for image in images if image.item.name not in left_out]
    if emptied := {splits[name] for name in left_out} - {splits[image.item.name] for image in images}:
        split = min(emptied).name.lower()
        raise InputError(f"--exclude leaves no image in the {split} split; keep only rows of images to leave out")
    samples = [replace(each, label=corrected.labels[each.name]) for each in samples if each.name not in left_out]
    skipped = [*skipped, *(Skipped(name, f"left out by {file}") for name, file in left_out.items())]
    notes += _note_missing_classes(source, samples, splits)
    facts = [(splits[sample.name], sample.label, sample.patient) for sample in samples]
    notes += [*find_rare_classes(facts), *_note_unknown_patients(images, settings)]
    rows: list[Row] = []
    digests: dict[str, str] = {}
    for image, sample in zip(images, samples, strict=True):
        path = paths[sample.name]
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        image.staged.rename(folder / path)
        digests[path] = image.digest
        rows.append(
            Row(
                image=path,
                label=sample.label,
                split=splits[sample.name],
                patient=sample.patient,
                source=sample.name,
                sha256=sample.sha256,
                width=image.width,
                height=image.height,
                groups=settings.group_rule.groups(image.item),
                bytes=image.item.size,
                format=image.format,
                original_label=image.item.label if image.item.label != sample.label else None,
            )
        )
    rows.sort(key=lambda row: (row.split, row.image))
    by_split = {split.name.lower(): [row for row in rows if row.split is split] for split in Split}
    info = DatasetInfo(
        classes=sorted({row.label for row in rows}),
        counts={name: dict(sorted(Counter(row.label for row in some).items())) for name, some in by_split.items()},
        patients={name: len({row.patient for row in some}) for name, some in by_split.items()},
        **settings.storage.settings(),
        split={
            "method": settings.split.value,
            "seed": settings.seed,
            "fractions": {split.name.lower(): settings.fractions.share(split) for split in Split},
            "grouped_by": "nothing: splits as given"
            if settings.split is SplitMethod.GIVEN
            else "patient and identical bytes",
            "patients_from": settings.patient_rule.describe(image.item for image in images),
            "notes": notes,
        },
        source=source.resolve().name,
        understood=understood,
        population=settings.population,
        skipped=[entry.to_dict() for entry in sorted(skipped, key=lambda entry: (entry.source, entry.reason))],
        remarks=_count_remarks(images),
        shortcuts=measure_shortcuts(
            [
                LabelledTraits(sample.label, sample.patient, image.traits)
                for image, sample in zip(images, samples, strict=True)
                if image.traits
            ]
        ),
        corrections=corrected.corrections,
        fingerprint=manifest.compute_fingerprint(rows, settings.storage, digests),
    )
    manifest.write_dataset(folder, rows, info, digests)
    return Dataset(folder=folder, rows=tuple(rows), info=info, digests=digests)


def _assign_splits(
    images: Sequence[Prepared], samples: Sequence[Sample], settings: ImportSettings
) -> tuple[dict[str, Split], list[str]]:
    fractions = settings.fractions
    if settings.split is SplitMethod.GROUPED:
        return split_images(samples, fractions, seed=settings.seed), []
    given = {image.item.name: image.item.split for image in images if image.item.split is not None}
    train = [sample for sample in samples if given[sample.name] is Split.TRAIN]
    if Split.VALIDATION in given.values() or not train or not fractions.validation:
        return given, []
    share = fractions.validation / (fractions.train + fractions.validation)
    chosen = carve_validation(train, share, seed=settings.seed)
    note = f"the source has no validation split: {len(chosen)} of {len(train)} training images became one, by patient"
    return given | dict.fromkeys(chosen, Split.VALIDATION), [note]


def _note_missing_classes(source: Path, samples: Sequence[Sample], splits: dict[str, Split]) -> list[str]:
    present = {(splits[sample.name], sample.label) for sample in samples}
    labels = sorted({sample.label for sample in samples})
    if len(labels) < 2:
        raise InputError(
            f"{source}: only images of {labels[0]!r} can be read; two or more classes are needed. "
            f"`pneumo data check {source}` lists the others"
        )
    notes = []
    for split in Split:
        missing = [label for label in labels if (split, label) not in present]
        if missing and split is Split.TRAIN:
            raise InputError(f"{source}: no training image of class {missing[0]!r}; add some, or use --split grouped")
        if missing == labels:
            notes.append(f"the {split.name.lower()} split is empty")
        elif missing:
            notes.append(f"the {split.name.lower()} split has no image of class {', '.join(map(repr, missing))}")
    return notes


def _note_unknown_patients(images: Sequence[Prepared], settings: ImportSettings) -> list[str]:
    own = [image.item.name for image in images if settings.patient_rule.find(image.item) is None]
    if not own:
        return []
    return [
        f"{len(own)} of {len(images)} images, such as {min(own)!r}, count as a patient of their own, since neither a "
        "table nor their names give the patient; --patient-regex groups them"
    ]


def _count_remarks(images: Sequence[Prepared]) -> list[RemarkCount]:
    names: defaultdict[str, list[str]] = defaultdict(list)
    for image in images:
        for remark in image.remarks:
            names[remark].append(image.item.name)
    counts = (RemarkCount(remark=remark, images=len(some), example=min(some)) for remark, some in names.items())
    return sorted(counts, key=lambda count: (-count.images, count.remark))


def _choose_paths(samples: Sequence[Sample], splits: dict[str, Split]) -> dict[str, str]:
    """Return a path for each image; it depends on the image alone unless two paths would collide."""
    folders = {sample.name: f"{IMAGES}/{splits[sample.name].name.lower()}" for sample in samples}
    names = {sample.name: name_prepared(sample.name, sample.label) for sample in samples}
    uses = Counter(f"{folders[name]}/{plain}".casefold() for name, (plain, _) in names.items())  # some disks ignore it
    return {
        name: f"{folders[name]}/{plain if uses[f'{folders[name]}/{plain}'.casefold()] == 1 else unique}"
        for name, (plain, unique) in names.items()
    }

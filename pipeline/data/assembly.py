"""Put prepared images together to a data set: splits, paths, manifest and description."""

import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from pneumo.pipeline.data import manifest
from pneumo.pipeline.data.import_settings import ImportSettings, SplitMethod
from pneumo.pipeline.data.manifest import Dataset, DatasetInfo, Row, Split
from pneumo.pipeline.data.sources import Item, Skipped
from pneumo.pipeline.data.splits import Fractions, Sample, carve, split_images
from pneumo.pipeline.data.staging import IMAGES
from pneumo.serving.contracts.errors import InputError


@dataclass(frozen=True)
class Prepared:
    """One image that was prepared.

    Attributes:
        item: What it is in the source.
        sha256: Digest of the original bytes.
        staged: The prepared PNG, under a name for the time being.
        digest: SHA-256 of the prepared PNG.
        width: Width of the original, in pixels.
        height: Height of the original, in pixels.
    """

    item: Item
    sha256: str
    staged: Path
    digest: str
    width: int
    height: int


def assemble(
    folder: Path, images: Sequence[Prepared], skipped: Sequence[Skipped], settings: ImportSettings, *, source: Path
) -> Dataset:
    """Split images, move them to their places in `folder`, and write manifest and description there.

    Raises:
        InputError: Fewer than two classes are left, or the training split lacks one.
    """
    samples = [
        Sample(image.item.name, image.item.label, settings.patients.patient(image.item), image.sha256)
        for image in images
    ]
    splits, notes = _splits(images, samples, settings)
    notes += _missing_classes(source, samples, splits)
    notes += _unknown_patients(images, settings)
    paths = _paths(samples, splits)
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
                groups=settings.groups.groups(image.item),
            )
        )
    rows.sort(key=lambda row: (row.split, row.image))
    held = {split.name.lower(): [row for row in rows if row.split is split] for split in Split}
    info = DatasetInfo(
        classes=sorted({row.label for row in rows}),
        counts={name: dict(sorted(Counter(row.label for row in some).items())) for name, some in held.items()},
        patients={name: len({row.patient for row in some}) for name, some in held.items()},
        size=settings.size,
        fit=settings.fit,
        decode=settings.decode,
        split=_describe(images, settings, notes),
        source=source.resolve().name,
        skipped=[entry.to_dict() for entry in sorted(skipped, key=lambda entry: (entry.source, entry.reason))],
        fingerprint=manifest.compute_fingerprint(
            rows, size=settings.size, fit=settings.fit, decode=settings.decode, digests=digests
        ),
    )
    manifest.write_dataset(folder, rows, info, digests)
    return Dataset(folder=folder, rows=tuple(rows), info=info, digests=digests)


def _splits(
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
    chosen = carve(train, share, seed=settings.seed)
    note = f"the source has no validation split: {len(chosen)} of {len(train)} training images became one, by patient"
    return given | dict.fromkeys(chosen, Split.VALIDATION), [note]


def _missing_classes(source: Path, samples: Sequence[Sample], splits: dict[str, Split]) -> list[str]:
    held = {(splits[sample.name], sample.label) for sample in samples}
    labels = sorted({sample.label for sample in samples})
    if len(labels) < 2:
        raise InputError(f"{source}: only images of {labels[0]!r} can be read; two or more classes are needed")
    notes = []
    for split in Split:
        missing = [label for label in labels if (split, label) not in held]
        if missing and split is Split.TRAIN:
            raise InputError(f"{source}: no training image of class {missing[0]!r}; add some, or use --split grouped")
        if missing == labels:
            notes.append(f"the {split.name.lower()} split is empty")
        elif missing:
            notes.append(f"the {split.name.lower()} split has no image of class {', '.join(map(repr, missing))}")
    return notes


def _unknown_patients(images: Sequence[Prepared], settings: ImportSettings) -> list[str]:
    own = [image.item.name for image in images if not settings.patients.is_told(image.item)]
    if not own:
        return []
    return [
        f"{len(own)} of {len(images)} images, such as {min(own)!r}, count as a patient of their own, since neither a "
        "table nor their names tell the patient; --patient-regex groups them"
    ]


def _describe(images: Sequence[Prepared], settings: ImportSettings, notes: Sequence[str]) -> dict[str, Any]:
    fractions: Fractions = settings.fractions
    given = settings.split is SplitMethod.GIVEN
    return {
        "method": settings.split.value,
        "seed": settings.seed,
        "fractions": {split.name.lower(): fractions.share(split) for split in Split},
        "grouped_by": "nothing: splits as given" if given else "patient and identical bytes",
        "patients_from": settings.patients.describe(image.item for image in images),
        "notes": list(notes),
    }


def _paths(samples: Sequence[Sample], splits: dict[str, Split]) -> dict[str, str]:
    """A path for each image that depends on its own name, and on others only where two would collide."""
    plain = {}
    for sample in samples:
        folder = f"{IMAGES}/{splits[sample.name].name.lower()}/{_slug(sample.label)}"
        plain[sample.name] = f"{folder}/{_slug(PurePosixPath(sample.name).stem)}"
    uses = Counter(path.casefold() for path in plain.values())  # file systems may not tell case apart
    paths = {}
    for name, path in plain.items():
        unique = "" if uses[path.casefold()] == 1 else f"-{hashlib.sha256(name.encode()).hexdigest()[:16]}"
        paths[name] = f"{path}{unique}.png"
    return paths


def _slug(text: str) -> str:
    return re.sub(r"[^\w.-]+", "_", unicodedata.normalize("NFC", text)).strip(".")[:80] or "_"

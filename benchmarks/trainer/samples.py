"""Images for everybody alike: as pneumo has them, and as files in a table for Ludwig."""

import csv
import shutil
import tarfile
from pathlib import Path

from PIL import Image

from pneumo.pipeline.data import manifest, phantom
from pneumo.pipeline.data.manifest import Dataset, Row, Split

SIZE = 224
"""Pixels of the stored images."""
SHARES = (0.75, 0.125, 0.125)
"""Of the images in training, validation and test."""
TABLE = "ludwig.csv"
"""What Ludwig reads, beside the manifest: the same rows with the files as they came."""


def share_of(whole: Dataset, folder: Path, images: int) -> Dataset:
    """The first images of a data set, classes alike: three quarters to train on, the rest for validation and test."""
    rows: list[Row] = []
    for split, share in zip((Split.TRAIN, Split.VALIDATION, Split.TEST), SHARES, strict=True):
        for label in whole.info.classes:
            chosen = [row for row in whole.select(split) if row.label == label]
            rows += chosen[: int(images * share / len(whole.info.classes))]
    for row in rows:
        target = folder / row.image
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(whole.path(row), target)
    manifest.write_dataset(folder, rows, whole.info)
    return manifest.read_dataset(folder)


def enlarge(dataset: Dataset, raw: Path, folder: Path, size: tuple[int, int]) -> Path:
    """Write the files of a data set as JPEGs of another width and height, in pixels."""
    for row in dataset.rows:
        target = folder / row.source
        target.parent.mkdir(parents=True, exist_ok=True)
        with Image.open(raw / row.source) as image:
            image.convert("L").resize(size, Image.Resampling.BICUBIC).save(target, quality=90)
    return folder


def write_table(dataset: Dataset, raw: Path) -> Path:
    """Write what Ludwig reads of a data set: the files as they came."""
    path = dataset.folder / TABLE
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["image", "label", "split"])
        table.writerows([raw / row.source, row.label, int(row.split)] for row in dataset.rows)
    return path


def jpegs(archive: Path | None, folder: Path, images: int) -> Path:
    """A folder of JPEG files of SIZE pixels: those of a tar archive, or phantoms."""
    if archive is not None:
        with tarfile.open(archive) as file:
            file.extractall(folder, filter="data")
        return folder
    phantom.write_phantoms(folder, phantom.Recipe(images=images + images // 4, seed=0, size=SIZE))
    for path in sorted(folder.rglob("*.png")):
        with Image.open(path) as image:
            image.convert("L").save(path.with_suffix(".jpeg"), quality=90)
        path.unlink()
    return folder

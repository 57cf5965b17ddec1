"""A tiny bundle with a reference, and image files that look like it."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from pneumo.serving.drift.describe_files import describe_images
from pneumo.serving.images.descriptors import Descriptors
from pneumo.serving.images.types import Picture
from pneumo.serving.model.bundle import Bundle, seal_bundle
from pneumo.serving.model.predictor import Predictor
from pneumo.serving.predictions.rows import Columns
from tests.support.bundles import make_bundle

SIDE = 32


def gray(seed: int, *, darker: int = 0) -> np.ndarray:
    """A soft random image, uint8 [32, 32]; images of other seeds are of the same kind."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.normal(128, 40, (6, 6)).clip(0, 255).astype(np.uint8))
    fine = np.asarray(coarse.resize((SIDE, SIDE), Image.Resampling.BICUBIC), dtype=float)
    return (fine + rng.normal(0, 4, fine.shape) - darker).clip(0, 255).astype(np.uint8)


def png(image: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


def rows_of(bundle: Bundle, seeds: range, *, darker: int = 0) -> list:
    """Rows of the log for images of some seeds."""
    pictures = [Picture(gray(seed, darker=darker), "PNG", "L", SIDE, SIDE) for seed in seeds]
    return list(describe_images(Predictor(bundle), pictures))


def columns_of(bundle: Bundle, seeds: range, *, darker: int = 0) -> list[Columns]:
    """The same as columns of the database."""
    return [row.values() for row in rows_of(bundle, seeds, darker=darker)]


def make_judged(folder: Path, *, images: int = 150, **changes: Any) -> Bundle:
    """A bundle whose reference are the images of the seeds from 0 on."""
    bundle = make_bundle(folder, **changes)
    rows = rows_of(bundle, range(images))
    columns = {name: [getattr(row.descriptors, name) for row in rows] for name in Descriptors.__annotations__}
    classes = bundle.info.classes
    other = len(classes) - 1
    frame = pd.DataFrame(
        {
            "split": "validation",
            "label": [classes[number % len(classes)] for number in range(images)],
            "patient_number": range(images),
            **columns,
            "probability": [row.probability for row in rows],
            "probabilities": [[(1 - row.probability) / other] * other + [row.probability] for row in rows],
            "outlier_score": [row.outlier_score for row in rows],
            "embedding": [row.embedding for row in rows],
        }
    )
    frame.to_parquet(bundle.folder / "reference.parquet", index=False)
    (bundle.folder / "bundle.json").unlink()
    seal_bundle(bundle.folder, bundle.info)
    return Bundle.open(bundle.folder)


def write_images(folder: Path, seeds: range, *, darker: int = 0) -> Path:
    """PNG files of images of some seeds."""
    folder.mkdir(parents=True, exist_ok=True)
    for seed in seeds:
        (folder / f"{seed:04}.png").write_bytes(png(gray(seed, darker=darker)))
    return folder

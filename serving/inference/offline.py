"""Offline prediction of image files, with the code of the service."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import batched
from pathlib import Path
from typing import TYPE_CHECKING

from pneumo.serving.contracts.errors import ImageError, InputError
from pneumo.serving.contracts.schemas import ImagePrediction
from pneumo.serving.contracts.setting_types import MAX_PIXELS

if TYPE_CHECKING:  # the Python client imports `find_images` without ONNX Runtime
    from pneumo.serving.model.predictor import Predictor

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".dcm", ".dicom"})
"""Suffixes of images in a folder; a file named by itself may have any."""


@dataclass(frozen=True)
class FileResult:
    """The prediction of one file, or the error that prevented it."""

    path: Path
    prediction: ImagePrediction | None
    error: str | None


def find_images(paths: Sequence[Path]) -> list[Path]:
    """List the given files, and the images in and below the given folders, sorted, each once and without hidden ones.

    Raises:
        InputError: A path does not exist, or a folder holds no image.
    """
    images: dict[Path, None] = {}
    for path in paths:
        if path.is_dir():
            inside = sorted(
                file
                for file in path.rglob("*")
                if file.suffix.lower() in SUFFIXES
                and file.is_file()
                and not any(part.startswith(".") for part in file.relative_to(path).parts)
            )
            if not inside:
                raise InputError(f"{path}: no images in this folder ({', '.join(sorted(SUFFIXES))})")
            images.update(dict.fromkeys(inside))
        elif path.exists():
            images[path] = None
        else:
            raise InputError(f"{path}: no such file or folder")
    return list(images)


def count_skipped_files(paths: Sequence[Path]) -> int:
    """Count the files in the given folders that `find_images` skips."""
    folders = [path for path in paths if path.is_dir()]
    files = sum(file.is_file() for folder in folders for file in folder.rglob("*"))
    return files - (len(find_images(folders)) if files else 0)


def predict_files(
    predictor: "Predictor", paths: Sequence[Path], *, max_pixels: int = MAX_PIXELS
) -> Iterator[FileResult]:
    """Predict image files in order; a file that cannot be read gives a result with an error.

    Args:
        predictor: A loaded bundle.
        paths: Image files.
        max_pixels: Largest image, width times height.
    """
    from pneumo.serving.inference.decoding import decode_image
    from pneumo.serving.model.predictor import BATCH, name_prediction

    for chunk in batched(paths, BATCH):
        decoded, errors = {}, {}
        preparation = predictor.bundle.info.preparation
        for path in chunk:
            try:
                decoded[path] = decode_image(path.read_bytes(), preparation, max_pixels=max_pixels)
            except (ImageError, OSError) as error:
                errors[path] = str(error) if isinstance(error, ImageError) else f"cannot be read: {error.strerror}"
        predictions = iter(predictor.predict([each.image for each in decoded.values()]))
        for path in chunk:
            if path in errors:
                yield FileResult(path, None, errors[path])
            else:
                image = decoded[path]
                remarks = predictor.list_remarks(image.picture)
                named = name_prediction(next(predictions), str(path), image.took_s * 1000, remarks)
                yield FileResult(path, named, None)

"""Rows of the prediction log for images that were never served: the same numbers, by the same code."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import batched
from pathlib import Path

import numpy as np

from pneumo.serving.images.descriptors import describe
from pneumo.serving.images.preparation import MAX_PIXELS, ImageError, Picture, read_stored, to_input
from pneumo.serving.model.predictor import BATCH, Predictor
from pneumo.serving.predictions.rows import LogRow

LANE = "offline"
"""Of rows that no service wrote."""


@dataclass(frozen=True)
class Looked:
    """What came of some files: rows of those that are images, and why others are none, by path."""

    rows: list[LogRow]
    unreadable: dict[Path, str]


def look(predictor: Predictor, pictures: Iterable[Picture]) -> Iterator[LogRow]:
    """Predict and describe images, in their order.

    Args:
        predictor: A loaded bundle.
        pictures: Images as `read_stored` fits them for this bundle: gray uint8 [S, S].

    Raises:
        BundleError: The network gave values that are not finite.
    """
    info = predictor.bundle.info
    number = 0
    for chunk in batched(pictures, BATCH):
        began = time.perf_counter()
        outputs = predictor.run(np.stack([to_input(picture.gray, info.preparation) for picture in chunk]))
        share = (time.perf_counter() - began) * 1000 / len(chunk)
        predictions = predictor.judge(outputs, elapsed_ms=share)
        embeddings = predictor.familiarity.embedding.project(outputs.embedding).astype(np.float32)
        for picture, prediction, embedding in zip(chunk, predictions, embeddings, strict=True):
            yield LogRow.of(
                prediction,
                time=datetime.now(UTC),
                request_id=LANE,
                image_index=number,
                model=info.name,
                version=info.version,
                lane=LANE,
                file_format=picture.format,
                descriptors=describe(picture, picture.gray),
                embedding=embedding,
            )
            number += 1


def look_at_files(
    predictor: Predictor,
    paths: Sequence[Path],
    *,
    max_pixels: int = MAX_PIXELS,
    progress: Callable[[int], object] | None = None,
) -> Looked:
    """Predict and describe image files, decoded as the service decodes them.

    Args:
        predictor: A loaded bundle.
        paths: The files.
        max_pixels: Largest image, width times height.
        progress: Told of each file.

    Returns:
        A row for each file that is an image, in their order, and the others.
    """
    preparation = predictor.bundle.info.preparation
    unreadable: dict[Path, str] = {}

    def pictures() -> Iterator[Picture]:
        for path in paths:
            try:
                data = path.read_bytes()
                yield read_stored(
                    data,
                    size=preparation.size,
                    how=preparation.fit,
                    decode=preparation.decode,
                    max_pixels=max_pixels,
                )
            except ImageError as error:
                unreadable[path] = str(error)
            except OSError as error:
                unreadable[path] = f"cannot be read: {error.strerror}"
            if progress:
                progress(1)

    return Looked(list(look(predictor, pictures())), unreadable)

"""Images of a data set, unchanged and under every change, predicted and described once each."""

import zlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import reduce

import numpy as np
from numpy.typing import NDArray

from pneumo.pipeline.data.manifest import Dataset, Row
from pneumo.pipeline.data.training_images import read_images
from pneumo.pipeline.drift.grades import Grade
from pneumo.pipeline.evaluation.stress.shifts import Shift
from pneumo.serving.contracts.arrays import Mask
from pneumo.serving.contracts.cores import available_cores
from pneumo.serving.drift.describe_files import describe_images
from pneumo.serving.drift.samples import Sample, build_window
from pneumo.serving.images.types import Gray, Picture
from pneumo.serving.model.predictor import Predictor


@dataclass(frozen=True)
class PredictedImages:
    """N images under one change, or unchanged; `right` [N] is true if the predicted label is the ground truth."""

    sample: Sample
    right: Mask


@dataclass(frozen=True)
class Scene:
    """The images that windows are drawn from.

    Attributes:
        changed: Images under each change, by its title.
        photographs: Images that are no radiographs; None without any.
        patients: Patient of each image, [N].
        positive: True if the ground truth is the positive class, [N]; None with more than two classes.
    """

    plain: PredictedImages
    changed: Mapping[str, PredictedImages]
    photographs: Sample | None
    patients: NDArray[np.str_]
    positive: Mask | None

    def __len__(self) -> int:
        return len(self.patients)

    def select(self, grade: Grade) -> PredictedImages:
        """Return all images under a grade's change."""
        return self.plain if grade.change is None else self.changed[grade.change.title]

    def has_enough(self, grade: Grade, size: int) -> bool:
        """Return True if there are enough images for windows of a grade."""
        if grade.photographs and self.photographs is None:
            return False
        if grade.positive is None:
            return True
        if self.positive is None:
            return False
        parts = ((grade.positive, self.positive), (1 - grade.positive, ~self.positive))
        return all(share * size <= mask.sum() for share, mask in parts)

    def draw_window(self, grade: Grade | None, size: int, rng: np.random.Generator) -> Sample:
        """Draw different images at random for a grade that has enough, or unchanged images."""
        if grade is None:
            return self.plain.sample.take(rng.choice(len(self), size, replace=False))
        photographs = int(rng.binomial(size, grade.photographs))
        rows = self._draw_rows(grade, size - photographs, rng)
        hit = rng.random(len(rows)) < grade.share
        parts = [(self.plain.sample, rows[~hit]), (self.select(grade).sample, rows[hit])]
        if self.photographs is not None:
            parts.append((self.photographs, rng.choice(len(self.photographs), photographs)))
        return reduce(Sample.join, [sample.take(chosen) for sample, chosen in parts if len(chosen)])

    def _draw_rows(self, grade: Grade, count: int, rng: np.random.Generator) -> NDArray[np.int64]:
        if grade.positive is None or self.positive is None:
            return rng.choice(len(self), count, replace=False)
        yes, no = np.flatnonzero(self.positive), np.flatnonzero(~self.positive)
        wanted = int(np.clip(rng.binomial(count, grade.positive), count - len(no), len(yes)))
        chosen = [rng.choice(yes, wanted, replace=False), rng.choice(no, count - wanted, replace=False)]
        return np.concatenate(chosen)


def predict_changes(
    predictor: Predictor,
    dataset: Dataset,
    rows: Sequence[Row],
    grades: Sequence[Grade],
    *,
    photographs: Sequence[Gray] = (),
    progress: Callable[[str], object] = lambda title: None,
) -> Scene:
    """Predict and describe images under every change, exactly as the service does.

    Photographs are images that are no radiographs, uint8 [S, S]. `progress` is called with the title of each change
    before it is made. Raises an `InputError` if an image is missing, damaged or changed since the import, or is
    prepared otherwise.
    """
    info = predictor.bundle.info
    side = info.preparation.size
    whole = info.preparation.model_copy(update={"height": side, "width": side, "channels": 1})
    stored = [pixels[:, :, 0] for pixels in read_images(dataset, rows, whole)]

    def predict(shift: Shift | None) -> PredictedImages:
        progress(shift.title if shift else "unchanged")

        def change(gray: Gray, row: Row) -> Picture:
            return Picture(shift.apply(gray, row.image) if shift else gray, "PNG", "L", row.width, row.height)

        with ThreadPoolExecutor(max_workers=available_cores()) as pool:
            logged = list(describe_images(predictor, pool.map(change, stored, rows)))
        right = np.array([line.label == row.label for line, row in zip(logged, rows, strict=True)])
        return PredictedImages(build_window([line.values() for line in logged], info), right)

    foreign = None
    if photographs:
        pictures = [Picture(gray, "PNG", "L", gray.shape[1], gray.shape[0]) for gray in photographs]
        foreign = build_window([line.values() for line in describe_images(predictor, pictures)], info)
    shifts = {grade.change.title: grade.change for grade in grades if grade.change is not None}
    return Scene(
        plain=predict(None),
        changed={title: predict(shift) for title, shift in shifts.items()},
        photographs=foreign and _give_sizes(foreign, rows),
        patients=np.array([row.patient for row in rows], dtype=np.str_),
        positive=np.array([row.label == info.positive_class for row in rows]) if info.positive_class else None,
    )


def _give_sizes(photographs: Sample, rows: Sequence[Row]) -> Sample:
    """Give photographs the sizes of radiographs: a check must notice them by their content."""
    chosen = [rows[zlib.crc32(str(number).encode()) % len(rows)] for number in range(len(photographs))]
    width, height = np.array([(row.width, row.height) for row in chosen], dtype=np.float64).T
    sizes = {"width": width, "height": height, "aspect": width / height}
    return replace(photographs, numbers={**photographs.numbers, **sizes})

"""What a model sees of a data set's images, as they are and under every change: predicted and described once each."""

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
from pneumo.serving.contracts.cores import available_cores
from pneumo.serving.drift.describe_files import describe_images
from pneumo.serving.drift.samples import Sample, build_window
from pneumo.serving.images.types import Gray, Picture
from pneumo.serving.model.predictor import Predictor

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class PredictedImages:
    """N images under one change, or as they are.

    Attributes:
        sample: As drift looks at them.
        right: Where the label said is the true one, [N].
    """

    sample: Sample
    right: Mask


@dataclass(frozen=True)
class Scene:
    """Everything that windows are drawn from.

    Attributes:
        plain: The images as they are.
        changed: Under each change, by its title.
        strangers: What is no radiograph; None where there is none.
        patients: Whom each image is of, [N].
        positive: Where the true label is the positive class, [N]; None with more than two classes.
    """

    plain: PredictedImages
    changed: Mapping[str, PredictedImages]
    strangers: Sample | None
    patients: NDArray[np.str_]
    positive: Mask | None

    def __len__(self) -> int:
        return len(self.patients)

    def under(self, grade: Grade) -> PredictedImages:
        """The images as a grade changes them, all of them."""
        return self.plain if grade.change is None else self.changed[grade.change.title]

    def has(self, grade: Grade, size: int) -> bool:
        """Whether there are images enough for windows of a grade."""
        if grade.strangers and self.strangers is None:
            return False
        if grade.positive is None:
            return True
        if self.positive is None:
            return False
        parts = ((grade.positive, self.positive), (1 - grade.positive, ~self.positive))
        return all(share * size <= mask.sum() for share, mask in parts)

    def window(self, grade: Grade | None, size: int, rng: np.random.Generator) -> Sample:
        """Draw a window of a grade that it `has`, or of the images as they are: images at random, none twice."""
        if grade is None:
            return self.plain.sample.take(rng.choice(len(self), size, replace=False))
        strange = int(rng.binomial(size, grade.strangers))
        rows = self._rows(grade, size - strange, rng)
        hit = rng.random(len(rows)) < grade.share
        parts = [(self.plain.sample, rows[~hit]), (self.under(grade).sample, rows[hit])]
        if self.strangers is not None:
            parts.append((self.strangers, rng.choice(len(self.strangers), strange)))
        return reduce(Sample.join, [sample.take(chosen) for sample, chosen in parts if len(chosen)])

    def _rows(self, grade: Grade, count: int, rng: np.random.Generator) -> NDArray[np.int64]:
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
    strangers: Sequence[Gray] = (),
    progress: Callable[[str], None] | None = None,
) -> Scene:
    """Predict and describe images under every change, exactly as the service would.

    Args:
        predictor: A loaded bundle.
        dataset: Where the images lie, prepared as the bundle needs it.
        rows: Which images.
        grades: The changes.
        strangers: Images that are no radiographs, uint8 [S, S].
        progress: Told the title of each change before it is made.

    Raises:
        InputError: An image is missing, damaged or changed since the import, or the data set is prepared otherwise.
    """
    info = predictor.bundle.info
    whole = info.preparation.model_copy(
        update={"height": info.preparation.size, "width": info.preparation.size, "channels": 1}
    )
    stored = [pixels[:, :, 0] for pixels in read_images(dataset, rows, whole)]

    def seen(shift: Shift | None) -> PredictedImages:
        if progress:
            progress(shift.title if shift else "as they are")

        def picture(gray: Gray, row: Row) -> Picture:
            moved = shift.apply(gray, row.image) if shift else gray
            return Picture(moved, "PNG", "L", row.width, row.height)

        with ThreadPoolExecutor(max_workers=available_cores()) as pool:
            found = list(describe_images(predictor, pool.map(picture, stored, rows)))
        right = np.array([line.label == row.label for line, row in zip(found, rows, strict=True)])
        return PredictedImages(build_window(found, info), right)

    shifts = {grade.change.title: grade.change for grade in grades if grade.change is not None}
    odd = [Picture(gray, "PNG", "L", gray.shape[1], gray.shape[0]) for gray in strangers]
    return Scene(
        plain=seen(None),
        changed={title: seen(shift) for title, shift in shifts.items()},
        strangers=_sized(build_window(list(describe_images(predictor, odd)), info), rows) if odd else None,
        patients=np.array([row.patient for row in rows], dtype=np.str_),
        positive=np.array([row.label == info.positive_class for row in rows]) if info.positive_class else None,
    )


def _sized(strangers: Sample, rows: Sequence[Row]) -> Sample:
    """Give strangers the sizes of radiographs: that they are strange must show in what they show."""
    chosen = [rows[zlib.crc32(str(number).encode()) % len(rows)] for number in range(len(strangers))]
    sizes = {
        "width": np.array([row.width for row in chosen], dtype=np.float64),
        "height": np.array([row.height for row in chosen], dtype=np.float64),
        "aspect": np.array([row.width / row.height for row in chosen]),
    }
    return replace(strangers, numbers={**strangers.numbers, **sizes})

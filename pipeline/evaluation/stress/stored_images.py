"""Images of a data set as they are stored, and as inputs of a model under a change."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from pneumo.pipeline.data.manifest import Dataset, Row
from pneumo.pipeline.data.training_images import read_images
from pneumo.pipeline.evaluation.stress.shifts import Shift
from pneumo.pipeline.runs.run import RunInfo
from pneumo.serving.contracts.cores import available_cores
from pneumo.serving.images.preparation import Preparation, resize
from pneumo.serving.images.types import Gray


@dataclass(frozen=True)
class StoredImages:
    """Rows of a data set, [N], with their pixels as stored, uint8 [S, S]: they are changed before they are resized.

    `positive` is the name of the positive class, None with more than two.
    """

    rows: Sequence[Row]
    pixels: Sequence[Gray]
    preparation: Preparation
    positive: str | None

    @classmethod
    def read(cls, dataset: Dataset, rows: Sequence[Row], info: RunInfo) -> "StoredImages":
        """Read rows for a run's model; raise an `InputError` if an image is missing, damaged or changed."""
        preparation = Preparation.model_validate(info.preparation)
        whole = preparation.model_copy(update={"height": preparation.size, "width": preparation.size, "channels": 1})
        pixels = [each[:, :, 0] for each in read_images(dataset, rows, whole)]
        return cls(rows, pixels, preparation, info.positive)

    def change(self, shift: Shift | None) -> list[Gray]:
        """Return model inputs, uint8 [H, W, C], under a change, or unchanged for None."""
        return self.change_each([shift] * len(self.rows))

    def change_each(self, shifts: Sequence[Shift | None]) -> list[Gray]:
        """Return model inputs, uint8 [H, W, C], each image under a change of its own, [N]."""

        def change(gray: Gray, row: Row, shift: Shift | None) -> Gray:
            changed = shift.apply(gray, row.image, positive=row.label == self.positive) if shift else gray
            resized = resize(changed, self.preparation.height, self.preparation.width)
            return np.repeat(resized[:, :, None], self.preparation.channels, axis=2)

        with ThreadPoolExecutor(max_workers=available_cores()) as pool:
            return list(pool.map(change, self.pixels, self.rows, shifts))

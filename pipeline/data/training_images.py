"""Images of a data set in memory for Ludwig, read as the service reads them and never cached."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pneumo.pipeline.data.manifest import Dataset, Row
from pneumo.serving.contracts.cores import available_cores
from pneumo.serving.contracts.errors import ImageError, InputError
from pneumo.serving.images.decode import read_gray
from pneumo.serving.images.preparation import Preparation, resize
from pneumo.serving.images.types import Gray

if TYPE_CHECKING:
    import pandas as pd

_VALUES = frozenset(("yes", "y", "true", "t", "no", "n", "false", "f", "nan", "inf", "infinity", "none", "null"))
_PREFIX = "class "


def read_prepared(dataset: Dataset, row: Row, size: int) -> tuple[bytes, Gray]:
    """Return the file of a prepared image and its pixels, uint8 [size, size]; raise as `read_images` does."""
    path = dataset.path(row)
    try:
        content = path.read_bytes()
        dataset.check(row, content)
        picture = read_gray(content)
    except FileNotFoundError:
        raise InputError(f"{path}: missing; import the data set again") from None
    except (ImageError, OSError) as error:
        raise InputError(f"{path}: {error}; import the data set again, or run `pneumo data check`") from None
    if picture.gray.shape != (size, size):
        raise InputError(
            f"{path}: {picture.width} x {picture.height}, but the data set was prepared at {size} pixels; "
            "import the data set again"
        )
    return content, picture.gray


def read_images(
    dataset: Dataset, rows: Sequence[Row], preparation: Preparation, *, progress: Callable[[int], None] | None = None
) -> list[NDArray[np.uint8]]:
    """Read prepared images at the model's size.

    Ludwig would fill a damaged image with gray, copy a neighbour over a missing one, and not notice a changed one. This
    function refuses all three.

    Args:
        dataset: The data set that holds the images.
        rows: The rows to read.
        preparation: The model's size and channels.
        progress: Called with 1 after each image.

    Returns:
        One uint8 [height, width, channels] per row, in the rows' order.

    Raises:
        InputError: An image is missing, damaged or changed since the import; the message names it.
    """

    def read(row: Row) -> NDArray[np.uint8]:
        _, prepared = read_prepared(dataset, row, preparation.size)
        gray = resize(prepared, preparation.height, preparation.width)
        return np.repeat(gray[:, :, None], preparation.channels, axis=2)

    images = []
    with ThreadPoolExecutor(max_workers=available_cores()) as pool:  # Pillow decodes without the interpreter's lock
        for pixels in pool.map(read, rows):
            images.append(pixels)
            if progress:
                progress(1)
    return images


def name_for_ludwig(label: str) -> str:
    """Return the name of a class inside Ludwig, which reads `yes`, `0` or `nan` as booleans and numbers."""
    is_word = label[:1].isalpha() and label.casefold() not in _VALUES and not label.startswith(_PREFIX)
    return label if is_word else _PREFIX + label


def ludwig_frame(rows: Sequence[Row], images: Sequence[NDArray[np.uint8]], *, image: str, label: str) -> "pd.DataFrame":
    """Return images, labels (`name_for_ludwig`) and splits as the data frame that Ludwig trains on."""
    import pandas as pd

    column = np.empty(len(images), dtype=object)  # one object per image: pandas would make it one array of pixels
    for position, pixels in enumerate(images):
        column[position] = pixels
    labels = [name_for_ludwig(row.label) for row in rows]
    return pd.DataFrame({image: column, label: labels, "split": [int(row.split) for row in rows]})

"""MedMNIST's `.npz` files: `train_images`, `train_labels` and the same for `val` and `test`."""

import hashlib
import io
import zipfile
from contextlib import ExitStack

import numpy as np
from numpy.lib.npyio import NpzFile
from numpy.typing import NDArray
from PIL import Image

from pneumo.pipeline.data.sources.containers import Blob, UnreadableError
from pneumo.pipeline.data.sources.items import SPLIT_NAMES, Item, Listing
from pneumo.serving.contracts.errors import InputError, first_line

_PNEUMONIA = ("NORMAL", "PNEUMONIA")


class MedMnist:
    """An opened `.npz`: its images by name, one array in memory at a time; `stack` closes it."""

    def __init__(self, file: io.BufferedIOBase, stack: ExitStack, *, where: str, name: str) -> None:
        self._where = where
        self._array: tuple[str, NDArray[np.generic]] | None = None
        stack.enter_context(file)
        try:
            self._npz: NpzFile = stack.enter_context(np.load(file, allow_pickle=False))
            self.listing = self._list(_PNEUMONIA if "pneumoniamnist" in name.lower() else ())
        except (ValueError, EOFError, OSError, zipfile.BadZipFile, AttributeError, TypeError) as error:
            raise InputError(f"{where}: not a MedMNIST .npz: {first_line(error)}; get it again") from None

    def _list(self, names: tuple[str, ...]) -> Listing:
        items: list[Item] = []
        for split in ("train", "val", "test"):
            if f"{split}_images" not in self._npz:
                continue
            if f"{split}_labels" not in self._npz:
                raise InputError(f"{self._where}: {split}_images without {split}_labels; add the labels")
            images = self._load(f"{split}_images")
            labels = _check_labels(self._npz[f"{split}_labels"], where=f"{self._where}: {split}_labels")
            if len(images) != len(labels):
                raise InputError(
                    f"{self._where}: {len(images)} {split}_images but {len(labels)} {split}_labels; add the rest"
                )
            for position, label in enumerate(labels):
                named = names[label] if label < len(names) else f"class_{label}"
                size = images[position].nbytes
                items.append(Item(f"{split}_{position:05d}", named, SPLIT_NAMES[split], size=size))
        if not items:
            raise InputError(f"{self._where}: no arrays train_images, val_images or test_images; get the file again")
        return Listing(tuple(items), (), "arrays", "arrays")

    def _load(self, key: str) -> NDArray[np.generic]:
        if self._array is None or self._array[0] != key:
            self._array = (key, self._npz[key])
        array = self._array[1]
        shaped = array.ndim == 3 or (array.ndim == 4 and array.shape[3] == 3)
        if not shaped or array.dtype not in (np.uint8, np.uint16):
            raise InputError(
                f"{self._where}: {key} is {array.dtype} {array.shape}; it must be uint8 or uint16, [N, H, W] or "
                "[N, H, W, 3]"
            )
        return array

    def read(self, name: str) -> Blob:
        """Return an image as the bytes of a PNG file, with the digest of its array.

        Raises:
            UnreadableError: No PNG can hold the array.
        """
        split, position = name.split("_")
        array = np.ascontiguousarray(self._load(f"{split}_images")[int(position)])
        buffer = io.BytesIO()
        try:
            Image.fromarray(array).save(buffer, format="PNG", compress_level=0)
        except (TypeError, ValueError, OSError) as error:
            raise UnreadableError(f"not an image: {error}") from None
        return Blob(buffer.getvalue(), hashlib.sha256(array.tobytes()).hexdigest())


def _check_labels(values: NDArray[np.generic], *, where: str) -> list[int]:
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim != 1:
        raise InputError(f"{where}: shape {values.shape}; each image needs one class, not several")
    if not np.issubdtype(values.dtype, np.integer) or (values.size and int(values.min()) < 0):
        raise InputError(f"{where}: must be whole numbers from 0")
    return [int(value) for value in values]

"""MedMNIST's `.npz` files: `train_images`, `train_labels` and the same for `val` and `test`."""

import io
import zipfile
from typing import BinaryIO

import numpy as np
from numpy.lib.npyio import NpzFile
from numpy.typing import NDArray
from PIL import Image

from pneumo.pipeline.data.sources.containers import UnreadableError, shorten_name
from pneumo.pipeline.data.sources.layouts import SPLIT_NAMES, Item, Listing
from pneumo.serving.contracts.errors import InputError

_SPLITS = ("train", "val", "test")
_PNEUMONIA = ("NORMAL", "PNEUMONIA")


class MedMnist:
    """An opened `.npz`: its images by name, one array in memory at a time."""

    def __init__(self, file: BinaryIO, *, where: str, name: str) -> None:
        self._where = where
        self._positions: dict[str, tuple[str, int]] = {}
        self._array: tuple[str, NDArray[np.generic]] | None = None
        try:
            self._npz: NpzFile = np.load(file, allow_pickle=False)
            self.listing = self._list(name)
        except (ValueError, EOFError, OSError, zipfile.BadZipFile, AttributeError) as error:
            raise InputError(f"{where}: not a MedMNIST .npz: {shorten_name(error)}") from None

    def _list(self, name: str) -> Listing:
        names = _PNEUMONIA if "pneumoniamnist" in name.lower() else ()
        items: list[Item] = []
        for split in _SPLITS:
            if f"{split}_images" not in self._npz:
                continue
            if f"{split}_labels" not in self._npz:
                raise InputError(f"{self._where}: {split}_images without {split}_labels")
            images = self._load(f"{split}_images")
            labels = _labels(self._npz[f"{split}_labels"], where=f"{self._where}: {split}_labels")
            if len(images) != len(labels):
                raise InputError(f"{self._where}: {len(images)} {split}_images but {len(labels)} {split}_labels")
            for position, label in enumerate(labels):
                item = Item(
                    name=f"{split}_{position:05d}",
                    label=names[label] if label < len(names) else f"class_{label}",
                    split=SPLIT_NAMES[split],
                    size=images[position].nbytes,
                )
                items.append(item)
                self._positions[item.name] = (f"{split}_images", position)
        if not items:
            raise InputError(f"{self._where}: no arrays train_images, val_images or test_images with images in them")
        return Listing(tuple(items), (), "MedMNIST")

    def _load(self, key: str) -> NDArray[np.generic]:
        if self._array is None or self._array[0] != key:
            self._array = (key, self._npz[key])
        array = self._array[1]
        if (
            array.ndim not in (3, 4)
            or (array.ndim == 4 and array.shape[3] != 3)
            or array.dtype not in (np.uint8, np.uint16)
        ):
            raise InputError(
                f"{self._where}: {key} is {array.dtype} {array.shape}; 8- or 16-bit [N, H, W] or [N, H, W, 3]"
            )
        return array

    def read(self, name: str) -> tuple[bytes, bytes]:
        """An image as the bytes of a PNG file, and the raw bytes of its array.

        Raises:
            UnreadableError: No PNG can hold the array.
        """
        key, position = self._positions[name]
        array = np.ascontiguousarray(self._load(key)[position])
        buffer = io.BytesIO()
        try:
            Image.fromarray(array).save(buffer, format="PNG", compress_level=0)
        except (TypeError, ValueError, OSError) as error:
            raise UnreadableError(f"not an image: {error}") from None
        return buffer.getvalue(), array.tobytes()

    def close(self) -> None:
        """Close the file."""
        self._npz.close()


def _labels(values: NDArray[np.generic], *, where: str) -> list[int]:
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim != 1:
        raise InputError(f"{where}: shape {values.shape}; one class an image is needed, not several")
    if not np.issubdtype(values.dtype, np.integer) or (values.size and int(values.min()) < 0):
        raise InputError(f"{where}: not whole numbers from 0 up")
    return [int(value) for value in values]

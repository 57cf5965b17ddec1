"""A local backend for Ludwig that keeps images as bytes until a batch needs them. Importing this loads Ludwig.

Ludwig's own turns every image into float32 before training: four times the memory, for all images at once, and a
Python loop over them before the first step.
"""

import contextlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from ludwig.backend.base import Backend, LocalBackend
from ludwig.data.batcher.random_access import RandomAccessBatcher
from ludwig.data.dataset.pandas import PandasDataset, PandasDatasetManager
from ludwig.data.sampler import DistributedSampler
from ludwig.features.image_feature import ImageFeatureMixin
from ludwig.utils.defaults import default_random_seed
from ludwig.utils.misc_utils import get_proc_features
from numpy.typing import NDArray


class CountedBatcher(RandomAccessBatcher):
    """Ludwig's batches, counted right: it leaves out a last batch of one image, and counts its step all the same.

    With one step too many an epoch, rounds and the schedule drift away from epochs.
    """

    def _compute_steps_per_epoch(self) -> int:
        whole, rest = divmod(self.total_size, self.batch_size)
        left_out = self.ignore_last and rest == 1 and whole > 0
        return whole + (rest > 0 and not left_out)


class PixelDataset(PandasDataset):
    """Ludwig's dataset in memory, whose images are uint8 [N, C, H, W] and come out as float32 in [0, 1]."""

    def get(self, proc_column: str, idx: Any = None) -> Any:
        """A column at some positions, images scaled as Ludwig scales them."""
        values = super().get(proc_column, idx)  # type: ignore[no-untyped-call]
        if isinstance(values, np.ndarray) and values.dtype == np.uint8 and values.ndim == 4:
            values = values.astype(np.float32)
            values /= np.float32(255)
        return values

    @contextlib.contextmanager
    def initialize_batcher(  # type: ignore[override]  # Ludwig's say nothing of what they yield
        self,
        batch_size: int = 128,
        should_shuffle: bool = True,
        random_seed: int = default_random_seed,
        ignore_last: bool = False,
        distributed: Any = None,
        augmentation_pipeline: Any = None,
        **_: Any,
    ) -> Iterator[RandomAccessBatcher]:
        """Batches as Ludwig's own data set gives them for images in memory."""
        sampler = DistributedSampler(
            len(self), shuffle=should_shuffle, random_seed=random_seed, distributed=distributed
        )
        yield CountedBatcher(
            self, sampler, batch_size, ignore_last=ignore_last, augmentation_pipeline=augmentation_pipeline
        )


class _PixelDatasets(PandasDatasetManager):
    def create(self, dataset: Any, config: dict[str, Any], training_set_metadata: dict[str, Any]) -> PixelDataset:
        features = get_proc_features(config)
        return PixelDataset(dataset, features, None, training_set_metadata)  # type: ignore[no-untyped-call]


class PixelBackend(LocalBackend):
    """Ludwig's local backend, with images as bytes where they need nothing but scaling."""

    def __init__(self) -> None:
        Backend.__init__(self, dataset_manager=_PixelDatasets(self))  # LocalBackend's own would set its manager

    @staticmethod
    def read_binary_files(  # type: ignore[override]  # as Ludwig's own: its base class knows no file size
        column: pd.Series, map_fn: Callable[[Any], Any] | None = None, file_size: int | None = None
    ) -> pd.Series:
        """Ludwig's hook for reading a column of images: here they are in memory already.

        Returns:
            uint8 [C, H, W] views of the arrays given, or what Ludwig makes of them where it has to resize or normalise.
        """
        if _needs_scaling_only(column.array, map_fn):
            return pd.Series([pixels.transpose(2, 0, 1) for pixels in column], index=column.index, name=column.name)
        return LocalBackend.read_binary_files(column, map_fn=map_fn, file_size=file_size)


def _needs_scaling_only(images: Any, map_fn: Callable[[Any], Any] | None) -> bool:
    if not isinstance(map_fn, partial) or map_fn.func is not ImageFeatureMixin._read_image_if_bytes_obj_and_resize:
        return False
    wanted = map_fn.keywords
    shape = (wanted["img_height"], wanted["img_width"], wanted["num_channels"])
    if wanted["standardize_image"] is not None or len(wanted["channel_class_map"]):
        return False

    def fits(pixels: NDArray[Any]) -> bool:
        return isinstance(pixels, np.ndarray) and pixels.dtype == np.uint8 and pixels.shape == shape

    return all(fits(pixels) for pixels in images)

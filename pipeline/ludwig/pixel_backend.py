"""A local backend for Ludwig that keeps images as bytes until a batch needs them. Importing this loads Ludwig.

Ludwig's own turns every image into float32 before training: four times the memory, for all images at once, and a
Python loop over them before the first step.
"""

import contextlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

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

from pneumo.pipeline.ludwig.compat import has_names
from pneumo.pipeline.ludwig.feature_cache import EncodedDataset, FeatureCache

if TYPE_CHECKING:
    from ludwig.distributed.base import DistributedStrategy
    from ludwig.utils.augmentation_utils import AugmentationPipelines


class CountedBatcher(RandomAccessBatcher):
    """Ludwig's batches with the right number of steps: it leaves out a last batch of one image, but counts its step.

    With one step too many per epoch, rounds and the schedule drift away from epochs.
    """

    def _compute_steps_per_epoch(self) -> int:
        complete, rest = divmod(self.total_size, self.batch_size)
        is_left_out = self.ignore_last and rest == 1 and complete > 0
        return complete + (rest > 0 and not is_left_out)


class PixelDataset(PandasDataset):
    """Ludwig's data set in memory; images are uint8 [N, C, H, W] and are returned as float32 in [0, 1]."""

    cache: FeatureCache | None = None

    def with_cache(self, cache: FeatureCache | None) -> "PixelDataset":
        """Give batches of features, if the cache has a network."""
        self.cache = cache
        return self

    def get(self, proc_column: str, idx: object = None) -> NDArray[Any]:
        """Return a column at some positions, with images scaled as Ludwig scales them."""
        values: NDArray[Any] = super().get(proc_column, idx)  # type: ignore[no-untyped-call]
        if isinstance(values, np.ndarray) and values.dtype == np.uint8 and values.ndim == 4:
            values = values.astype(np.float32)
            values /= np.float32(255)
        return values

    @contextlib.contextmanager
    def initialize_batcher(  # type: ignore[override]  # Ludwig's annotation is not that of a context manager
        self,
        batch_size: int = 128,
        should_shuffle: bool = True,
        random_seed: int = default_random_seed,
        ignore_last: bool = False,
        distributed: "DistributedStrategy | None" = None,
        augmentation_pipeline: "AugmentationPipelines | None" = None,
        **_: object,
    ) -> Iterator[RandomAccessBatcher]:
        """Yield batches as Ludwig's own data set does for images in memory, or of features that are computed once."""
        sampler = DistributedSampler(len(self), should_shuffle, random_seed, distributed)  # type: ignore[arg-type]
        if self.cache and self.cache.encoder:
            encoded = EncodedDataset(self, self.cache, sampler, augmentation_pipeline)
            yield CountedBatcher(encoded, sampler, batch_size, ignore_last)
        else:
            yield CountedBatcher(self, sampler, batch_size, ignore_last, augmentation_pipeline)


class _PixelDatasets(PandasDatasetManager):
    backend: "PixelBackend"

    def create(self, dataset: object, config: dict[str, Any], training_set_metadata: dict[str, Any]) -> PixelDataset:
        created = PixelDataset(dataset, get_proc_features(config), None, training_set_metadata)  # type: ignore[no-untyped-call]
        return created.with_cache(self.backend.features)


class PixelBackend(LocalBackend):
    """Ludwig's local backend, with images as bytes if they need nothing but scaling.

    With a `cache`, batches hold the features of a frozen network.
    """

    def __init__(self, cache: FeatureCache | None = None) -> None:
        self.features = cache
        Backend.__init__(self, dataset_manager=_PixelDatasets(self))  # LocalBackend's own would set its manager

    @staticmethod
    def read_binary_files(  # type: ignore[override]  # as in LocalBackend; its base class has no file size
        column: pd.Series, map_fn: Callable[[Any], Any] | None = None, file_size: int | None = None
    ) -> pd.Series:
        """Return a column of images, which are in memory already, as Ludwig's preprocessing needs them.

        Returns:
            uint8 [C, H, W] views of the arrays, or Ludwig's own result if it has to resize or standardize.
        """
        if _needs_only_scaling(column, map_fn):
            return pd.Series([pixels.transpose(2, 0, 1) for pixels in column], index=column.index, name=column.name)
        return LocalBackend.read_binary_files(column, map_fn=map_fn, file_size=file_size)


def _needs_only_scaling(images: pd.Series, map_fn: Callable[[Any], Any] | None) -> bool:
    if not isinstance(map_fn, partial) or not has_names("ludwig.pixel_backend.scaling"):
        return False
    if map_fn.func is not ImageFeatureMixin._read_image_if_bytes_obj_and_resize:
        return False
    options = map_fn.keywords
    shape = (options["img_height"], options["img_width"], options["num_channels"])
    if options["standardize_image"] is not None or len(options["channel_class_map"]):
        return False
    return all(
        isinstance(pixels, np.ndarray) and pixels.dtype == np.uint8 and pixels.shape == shape for pixels in images.array
    )

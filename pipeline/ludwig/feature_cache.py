"""Features of a frozen network, computed once per training instead of at each step. Importing this loads Ludwig.

Only what follows the network then trains: dropout and the layers up to the label. The model in memory, its checkpoints
and the saved model stay whole. Features lie in memory, never in a file, and are gone when the training ends.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from pneumo.pipeline.ludwig.compat import has_names
from pneumo.pipeline.ludwig.encoders.network import MOST_CACHED_VIEWS, NetworkEncoder
from pneumo.pipeline.ludwig.inference import BATCH
from pneumo.pipeline.runs.reporter import Reporter
from pneumo.serving.contracts.arrays import Float32

if TYPE_CHECKING:
    from ludwig.data.dataset.pandas import PandasDataset
    from ludwig.data.sampler import DistributedSampler
    from ludwig.utils.augmentation_utils import AugmentationPipelines

    from pneumo.pipeline.ludwig.protocols import Trainer

Augmentation = Callable[[torch.Tensor], torch.Tensor]


class FeatureCache:
    """Computes features of a training's images by its frozen network, if it has one that `cached_views` allows."""

    def __init__(self, seed: int, reporter: Reporter) -> None:
        self.seed = seed
        self.reporter = reporter
        self.encoder: NetworkEncoder[Any] | None = None

    def connect(self, trainer: "Trainer", stop_on_signal: Callable[[], None]) -> None:
        """Take the network of a trainer; `stop_on_signal` is called before each batch of images."""
        (feature,) = trainer.model.input_features.values()
        encoder = feature.encoder_obj
        if isinstance(encoder, NetworkEncoder) and encoder.caches_features and has_names("ludwig.feature_cache"):
            self.encoder, self.column = encoder, feature.proc_column
            self.device, self.stop_on_signal = torch.device(trainer.device), stop_on_signal

    def compute(self, dataset: "PandasDataset", view: int | None, augment: Augmentation | None) -> Float32:
        """Return the features [N, D] of a data set's images.

        Args:
            dataset: Ludwig's data set.
            view: Number of an augmented view of training, drawn anew for each number; None: as in evaluation.
            augment: Operation on a batch of images.
        """
        encoder = self.encoder
        assert encoder is not None
        number = "" if augment is None or view is None else f", view {view + 1} of {encoder.config.cached_views}"
        self.reporter.message(f"computing features of {len(dataset):,} images once{number} ...")
        features = np.empty((len(dataset), encoder.features), dtype=np.float32)
        was_training = encoder.training
        encoder.train(view is not None)
        with torch.random.fork_rng(devices=[]), torch.inference_mode():
            torch.manual_seed(self.seed * MOST_CACHED_VIEWS + (view or 0))
            # in random order, since Ludwig's own augmentations draw once per batch and rows are sorted by class
            order = torch.randperm(len(dataset)).numpy()
            for start in range(0, len(order), BATCH):
                self.stop_on_signal()
                chosen = order[start : start + BATCH]
                images = torch.from_numpy(dataset.get(self.column, chosen))  # type: ignore[no-untyped-call]
                images = (augment(images) if augment else images).to(self.device)
                features[chosen] = encoder.compute_features(images).float().cpu().numpy()
        encoder.train(was_training)
        return features


class EncodedDataset:
    """A data set of Ludwig's whose images are replaced by the features of one view of them.

    Each of the first epochs has its own augmented view, and later ones repeat these.
    """

    def __init__(
        self,
        dataset: "PandasDataset",
        cache: FeatureCache,
        sampler: "DistributedSampler",
        pipelines: "AugmentationPipelines | None",
    ) -> None:
        self.dataset = dataset
        self.cache = cache
        self.sampler = sampler
        self.is_training = pipelines is not None
        self.augment = pipelines[cache.column] if pipelines and cache.column in pipelines else None
        self.features = dataset.features
        self.views: dict[int | None, Float32] = vars(dataset).setdefault("encoded_views", {})

    def get(self, proc_column: str, idx: Any = None) -> NDArray[Any]:
        """Return a column at some positions."""
        if proc_column != self.cache.column:
            column: NDArray[Any] = self.dataset.get(proc_column, idx)  # type: ignore[no-untyped-call]
            return column
        view = self._choose_view()
        if view not in self.views:
            self.views[view] = self.cache.compute(self.dataset, view, self.augment)
        chosen: Float32 = self.views[view][idx]
        return chosen

    def _choose_view(self) -> int | None:
        assert self.cache.encoder is not None
        config = self.cache.encoder.config
        if self.augment:
            return int(self.sampler.epoch % config.cached_views)
        # in evaluation, and only there, an image with two views has the mean of itself and its mirror image
        return 0 if self.is_training and config.views > 1 else None

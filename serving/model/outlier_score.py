"""Out-of-distribution score of an image, from its embedding and three views of its thumbnail."""

import io
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from pneumo.serving.contracts.arrays import Float64
from pneumo.serving.contracts.errors import InputError
from pneumo.serving.images.thumbnails import SIDE, turn_thumbnails

_VARIANCE_FLOOR = 1e-12
_RELATIVE_FLOOR = 1e-6
_ARRAYS = ("mean", "basis", "variance", "residual_variance")
_THUMBNAIL = "thumbnail_"
_SCALE = "scale"
_VIEWS = 4
_TURNED = 2


@dataclass(frozen=True)
class EmbeddingSpace:
    """A Gaussian over embeddings with P wide directions and one variance for all others.

    The covariance is that of probabilistic PCA (Tipping & Bishop, Probabilistic Principal Component Analysis, 1999):
    with fewer images than dimensions a full covariance has no inverse, this one does.

    Attributes:
        mean: [D].
        basis: Orthonormal columns, [D, P].
        variance: Variance along each column, [P], above 0.
        residual_variance: Variance along any direction that no column spans, above 0.
    """

    mean: Float64
    basis: Float64
    variance: Float64
    residual_variance: float

    @property
    def dimensions(self) -> int:
        """Length D of an embedding."""
        return int(self.mean.shape[0])

    @classmethod
    def fit(cls, embeddings: NDArray[np.floating], max_components: int = 32) -> "EmbeddingSpace":
        """Fit mean, directions and variances.

        Variances have a floor, relative to the mean variance, so that constant columns and fewer images than dimensions
        give large scores instead of infinite ones.

        Args:
            embeddings: [N, D], N at least 2, finite.
            max_components: Most directions P; also at most N - 1 and D.

        Raises:
            InputError: Fewer than two embeddings, or values that are not finite.
        """
        values = np.asarray(embeddings, dtype=np.float64)
        if values.ndim != 2 or values.shape[0] < 2 or values.shape[1] < 1:
            raise InputError(f"embeddings of shape {values.shape}: at least two images are needed")
        if not np.isfinite(values).all():
            raise InputError("embeddings that are not finite: the model diverged; train it again")
        count, dimensions = values.shape
        mean = values.mean(axis=0)
        centred = values - mean
        eigenvalues, vectors = np.linalg.eigh(centred.T @ centred / (count - 1))
        eigenvalues, vectors = eigenvalues[::-1].clip(min=0.0), vectors[:, ::-1]
        components = max(1, min(max_components, count - 1, dimensions))
        floor = max(_VARIANCE_FLOOR, _RELATIVE_FLOOR * float(eigenvalues.mean()))
        rest = eigenvalues[components:]
        return cls(
            mean=mean,
            basis=np.ascontiguousarray(vectors[:, :components]),
            variance=eigenvalues[:components].clip(min=floor),
            residual_variance=max(floor, float(rest.mean()) if rest.size else floor),
        )

    def score(self, embeddings: NDArray[np.floating]) -> Float64:
        """Return the root of the squared Mahalanobis distance over D: [N, D] to [N], about 1 in distribution."""
        centred = np.asarray(embeddings, dtype=np.float64) - self.mean
        coordinates = centred @ self.basis
        inside = (coordinates**2 / self.variance).sum(axis=1)
        # The rest is computed as a vector: the difference of two squared lengths loses all digits if it is small.
        outside = ((centred - coordinates @ self.basis.T) ** 2).sum(axis=1) / self.residual_variance
        result: Float64 = np.sqrt((inside + outside) / self.dimensions)
        return result

    def score_pixels(self, embeddings: NDArray[np.floating]) -> Float64:
        """Return the root mean square of values in their own standard deviations: [N, D] to [N].

        Unlike `score`, it forgives nothing along the wide directions.
        """
        centred = np.asarray(embeddings, dtype=np.float64) - self.mean
        result: Float64 = np.sqrt((centred**2 / self._variances).mean(axis=1))
        return result

    @cached_property
    def _variances(self) -> Float64:
        """Variance of each value, [D]."""
        narrow = self.residual_variance * (1 - (self.basis**2).sum(axis=1))
        return np.maximum(self.basis**2 @ self.variance + np.maximum(narrow, 0.0), _VARIANCE_FLOOR)

    def project(self, embeddings: NDArray[np.floating]) -> Float64:
        """Return whitened coordinates: [N, D] to [N, P], mean 0 and variance 1 in distribution."""
        centred = np.asarray(embeddings, dtype=np.float64) - self.mean
        result: Float64 = centred @ self.basis / np.sqrt(self.variance)
        return result

    def to_arrays(self, prefix: str = "") -> dict[str, Float64]:
        """Return the arrays of the space by the names that they have in an `.npz` file."""
        return {prefix + name: np.asarray(getattr(self, name), dtype=np.float64) for name in _ARRAYS}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[np.generic]], prefix: str = "") -> "EmbeddingSpace":
        """Build a space from the arrays of `to_arrays`; raise an `InputError` for impossible numbers."""
        mean, basis, variance, rest = (np.asarray(arrays[prefix + name], dtype=np.float64) for name in _ARRAYS)
        space = cls(mean, basis, variance, float(rest))
        shapes_agree = mean.ndim == variance.ndim == 1 and basis.shape == (mean.size, variance.size)
        if not shapes_agree or not all(np.isfinite(values).all() for values in (mean, basis, variance, rest)):
            raise InputError("not an embedding space: wrong shapes or values; export the model again")
        if space.residual_variance <= 0 or (variance <= 0).any():
            raise InputError("not an embedding space: variances must be above 0; export the model again")
        return space


@dataclass(frozen=True)
class ImageFeatures:
    """Input of the out-of-distribution score for N images: embeddings [N, D] and thumbnails [N, SIDE, SIDE]."""

    embeddings: NDArray[np.floating]
    thumbnails: Float64


@dataclass(frozen=True)
class OutlierScorer:
    """Out-of-distribution score of an image: the largest of its scores in four views.

    The network's embedding shows odd content, but a network that was trained to ignore exposure may not see a negative,
    and one that pools over the image hardly sees what is upside down. A thumbnail's distance from training thumbnails
    shows other objects. And a thumbnail that lies nearer to them once it is turned, mirrored top to bottom or inverted
    was scanned wrong (after Golan & El-Yaniv, Deep Anomaly Detection Using Geometric Transformations, 2018). Films of
    another population lie along the directions in which training films differ most, which the distance forgives: they
    show once each pixel of the thumbnail counts alike.

    Attributes:
        embedding: Space of the embeddings of training images.
        thumbnail: Space of their thumbnails; None in a bundle of an older pneumo, which has only the first view.
        scale: For each view its median on held-out images and the distance from there to their quantile, [4, 2]; [3, 2]
            in a bundle without the last view, None without `thumbnail`.
    """

    embedding: EmbeddingSpace
    thumbnail: EmbeddingSpace | None = None
    scale: Float64 | None = None

    @classmethod
    def fit(cls, training: ImageFeatures, held_out: ImageFeatures, *, quantile: float) -> "OutlierScorer":
        """Fit the spaces to training images, and the scale of each view to held-out images.

        Args:
            training: Images that the network was trained on, N at least 2.
            held_out: Images of the same source that it was not trained on, N at least 1.
            quantile: Share of held-out images with a score of at most 1 in each view, in (0, 1).

        Raises:
            InputError: Fewer than two training images, or embeddings that are not finite.
        """
        thumbnail = EmbeddingSpace.fit(_flatten(training.thumbnails))
        bare = cls(EmbeddingSpace.fit(training.embeddings), thumbnail, np.array([[0.0, 1.0]] * _VIEWS))
        views = bare.score_views(held_out.embeddings, held_out.thumbnails)
        middle = np.median(views, axis=1)
        # A floor, since a handful of held-out images may all be alike.
        reach = np.maximum(np.quantile(views, quantile, axis=1) - middle, 0.01 * np.abs(middle) + _VARIANCE_FLOOR)
        # A thumbnail far nearer than its turned copies is upright, even if all held-out ones are nearer still.
        reach[_TURNED] = max(reach[_TURNED], -middle[_TURNED] / 2)
        return cls(bare.embedding, thumbnail, np.stack([middle, reach], axis=1))

    def score_views(self, embeddings: NDArray[np.floating], small: Float64) -> Float64:
        """Score images in each view: 0 for the typical held-out image, 1 at the quantile of held-out images.

        Args:
            embeddings: [N, D].
            small: Thumbnails of the same images, [N, SIDE, SIDE].

        Returns:
            [4, N]: by embedding, by thumbnail, by turned thumbnail, by pixels of the thumbnail; without the last in
            older bundles; [1, N], the embedding's distance, without thumbnails in the bundle.
        """
        by_embedding = self.embedding.score(embeddings)
        if self.thumbnail is None or self.scale is None:
            return by_embedding[None]
        every = self.thumbnail.score(_flatten(np.concatenate([small, *turn_thumbnails(small)])))  # one product, not six
        distance, others = every[: len(small)], every[len(small) :].reshape(-1, len(small)).min(axis=0)
        by_pixels = self.thumbnail.score_pixels(_flatten(small))
        views = np.stack([by_embedding, distance, distance**2 - others**2, by_pixels][: len(self.scale)])
        result: Float64 = (views - self.scale[:, :1]) / self.scale[:, 1:]
        return result

    def score(self, embeddings: NDArray[np.floating], small: Float64) -> Float64:
        """Return the largest score of the views, [N]; arguments as for `score_views`."""
        result: Float64 = self.score_views(embeddings, small).max(axis=0)
        return result

    def to_bytes(self) -> bytes:
        """Return the content of an `.npz` file; equal scorers give equal bytes."""
        arrays = self.embedding.to_arrays()
        if self.thumbnail is not None and self.scale is not None:
            arrays |= self.thumbnail.to_arrays(_THUMBNAIL) | {_SCALE: self.scale}
        buffer = io.BytesIO()
        np.savez(buffer, **arrays)  # type: ignore[arg-type]  # numpy's stub takes the names for its own options
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes) -> "OutlierScorer":
        """Read the bytes of `to_bytes`, unpickling nothing; raise an `InputError` for another file."""
        try:
            with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
                embedding = EmbeddingSpace.from_arrays(arrays)
                if _SCALE not in arrays:
                    return cls(embedding)
                thumbnail = EmbeddingSpace.from_arrays(arrays, _THUMBNAIL)
                scale = np.asarray(arrays[_SCALE], dtype=np.float64)
        except InputError:
            raise
        except Exception as error:  # NumPy and zipfile raise many kinds for damaged files, MemoryError among them
            raise InputError(f"not an embedding space: {type(error).__name__}; export the model again") from None
        if thumbnail.dimensions != SIDE**2 or scale.shape not in ((3, 2), (_VIEWS, 2)):
            raise InputError("not an embedding space: wrong shapes or values; export the model again")
        if not np.isfinite(scale).all() or (scale[:, 1] <= 0).any():
            raise InputError("not an embedding space: scales must be above 0; export the model again")
        return cls(embedding, thumbnail, scale)


def _flatten(small: Float64) -> Float64:
    return np.asarray(small.reshape(len(small), -1))

"""How far an embedding lies from those a model was trained on, and where it lies among them."""

import io
import zipfile
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from serving.errors import InputError

Floats = NDArray[np.float64]

_VARIANCE_FLOOR = 1e-12
_RELATIVE_FLOOR = 1e-6


@dataclass(frozen=True)
class EmbeddingSpace:
    """A Gaussian over embeddings with P wide directions and one variance for all others.

    The covariance of probabilistic PCA (Tipping & Bishop, Probabilistic Principal Component Analysis, 1999): with fewer
    images than dimensions a full covariance has no inverse, this one does.

    Attributes:
        mean: [D].
        basis: Orthonormal columns, [D, P].
        variance: Variance along each column, [P], above 0.
        residual_variance: Variance along any direction that no column spans, above 0.
    """

    mean: Floats
    basis: Floats
    variance: Floats
    residual_variance: float

    @property
    def dimensions(self) -> int:
        """Length D of an embedding."""
        return int(self.mean.shape[0])

    @classmethod
    def fit(cls, embeddings: NDArray[np.floating], max_components: int = 32) -> "EmbeddingSpace":
        """Fit mean, directions and variances.

        Variances have a floor, relative to the mean variance, so that constant columns and fewer images than dimensions
        give large scores rather than infinite ones.

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

    def score(self, embeddings: NDArray[np.floating]) -> Floats:
        """Distance from the training images: root of the Mahalanobis distance squared over D.

        Args:
            embeddings: [N, D].

        Returns:
            [N], about 1 in distribution.
        """
        centred = np.asarray(embeddings, dtype=np.float64) - self.mean
        coordinates = centred @ self.basis
        inside = (coordinates**2 / self.variance).sum(axis=1)
        # The rest is taken as a vector: the difference of two squared lengths loses all digits where it is small.
        outside = ((centred - coordinates @ self.basis.T) ** 2).sum(axis=1) / self.residual_variance
        result: Floats = np.sqrt((inside + outside) / self.dimensions)
        return result

    def project(self, embeddings: NDArray[np.floating]) -> Floats:
        """Whitened coordinates along the wide directions: [N, D] to [N, P], mean 0 and variance 1 in distribution."""
        centred = np.asarray(embeddings, dtype=np.float64) - self.mean
        result: Floats = centred @ self.basis / np.sqrt(self.variance)
        return result

    def to_bytes(self) -> bytes:
        """The content of an `.npz` file; equal spaces give equal bytes."""
        buffer = io.BytesIO()
        np.savez(
            buffer,
            mean=self.mean,
            basis=self.basis,
            variance=self.variance,
            residual_variance=np.float64(self.residual_variance),
        )
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes) -> "EmbeddingSpace":
        """Read what `to_bytes` wrote; nothing in it is unpickled.

        Raises:
            InputError: Not such a file, or numbers that cannot be right.
        """
        try:
            with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
                space = cls(
                    mean=np.asarray(arrays["mean"], dtype=np.float64),
                    basis=np.asarray(arrays["basis"], dtype=np.float64),
                    variance=np.asarray(arrays["variance"], dtype=np.float64),
                    residual_variance=float(arrays["residual_variance"]),
                )
        except (OSError, ValueError, KeyError, TypeError, EOFError, AttributeError, zipfile.BadZipFile) as error:
            raise InputError(f"not an embedding space: {type(error).__name__}; export the model again") from None
        shapes_agree = (
            space.mean.ndim == 1
            and space.variance.ndim == 1
            and space.basis.shape == (space.mean.size, space.variance.size)
        )
        numbers = np.concatenate([space.mean, space.variance, space.basis.ravel(), [space.residual_variance]])
        if not shapes_agree or not np.isfinite(numbers).all():
            raise InputError("not an embedding space: wrong shapes or values; export the model again")
        if space.residual_variance <= 0 or (space.variance <= 0).any():
            raise InputError("not an embedding space: variances must be above 0; export the model again")
        return space

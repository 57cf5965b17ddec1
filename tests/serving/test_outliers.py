import io

import numpy as np
import pytest

from serving.errors import InputError
from serving.outliers import EmbeddingSpace


def embeddings(count: int, dimensions: int = 20, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    scale = np.r_[np.array([9.0, 5.0, 3.0]), np.full(dimensions - 3, 0.5)]
    return rng.normal(2.0, scale, (count, dimensions))


def test_the_score_is_about_one_in_distribution():
    space = EmbeddingSpace.fit(embeddings(2000), max_components=5)
    assert np.mean(space.score(embeddings(500, seed=1)) ** 2) == pytest.approx(1, abs=0.05)


def test_the_score_is_the_mahalanobis_distance_where_all_directions_are_kept():
    values = embeddings(300)
    space = EmbeddingSpace.fit(values, max_components=20)
    others = embeddings(10, seed=3)
    centred = others - values.mean(axis=0)
    precision = np.linalg.inv(np.cov(values.T))
    expected = np.sqrt(np.einsum("ni,ij,nj->n", centred, precision, centred) / 20)
    np.testing.assert_allclose(space.score(others), expected, rtol=1e-8)


def test_the_score_is_the_mahalanobis_distance_of_the_ppca_covariance():
    space = EmbeddingSpace.fit(embeddings(300), max_components=4)
    rest = np.eye(20) - space.basis @ space.basis.T
    covariance = (space.basis * space.variance) @ space.basis.T + space.residual_variance * rest
    centred = embeddings(7, seed=4) - space.mean
    expected = np.sqrt(np.einsum("ni,ij,nj->n", centred, np.linalg.inv(covariance), centred) / 20)
    np.testing.assert_allclose(space.score(centred + space.mean), expected, rtol=1e-8)


@pytest.mark.parametrize("direction", [0, 19])
def test_far_along_a_wide_or_a_narrow_direction_scores_high(direction):
    space = EmbeddingSpace.fit(embeddings(1000), max_components=3)
    far = np.full((1, 20), 2.0)
    far[0, direction] += 20 * (9.0 if direction == 0 else 0.5)
    assert space.score(far)[0] > 3 * np.quantile(space.score(embeddings(500, seed=5)), 0.99)


def test_directions_are_orthonormal_and_coordinates_are_white():
    values = embeddings(500)
    space = EmbeddingSpace.fit(values, max_components=3)
    np.testing.assert_allclose(space.basis.T @ space.basis, np.eye(3), atol=1e-10)
    coordinates = space.project(values)
    np.testing.assert_allclose(coordinates.mean(axis=0), 0, atol=1e-10)
    np.testing.assert_allclose(np.cov(coordinates.T), np.eye(3), atol=1e-8)


@pytest.mark.parametrize("count", [2, 5, 19])
def test_fewer_images_than_dimensions_give_finite_scores(count):
    space = EmbeddingSpace.fit(embeddings(count))
    assert space.basis.shape == (20, count - 1)
    assert np.isfinite(space.score(embeddings(50, seed=6))).all()


def test_constant_columns_give_finite_scores_that_grow_with_the_distance():
    values = embeddings(200)
    values[:, 3:] = 7.0
    space = EmbeddingSpace.fit(values, max_components=10)
    near, far = values[:1].copy(), values[:1].copy()
    near[0, 19] += 0.1
    far[0, 19] += 1.0
    assert np.isfinite(space.score(far)).all()
    assert space.score(far)[0] > space.score(near)[0] > space.score(values[:1])[0]


def test_identical_embeddings_can_be_fitted():
    space = EmbeddingSpace.fit(np.ones((10, 4)))
    assert space.score(np.ones((1, 4)))[0] == 0
    assert np.isfinite(space.score(np.zeros((1, 4)))).all()


@pytest.mark.parametrize("values", [np.ones((1, 4)), np.ones(4), np.array([[1.0, np.nan], [0.0, 1.0]])])
def test_what_cannot_be_fitted_is_an_input_error(values):
    with pytest.raises(InputError):
        EmbeddingSpace.fit(values)


def test_a_space_survives_its_file_and_equal_spaces_give_equal_bytes():
    space = EmbeddingSpace.fit(embeddings(50))
    again = EmbeddingSpace.from_bytes(space.to_bytes())
    np.testing.assert_array_equal(again.score(embeddings(5, seed=7)), space.score(embeddings(5, seed=7)))
    assert again.to_bytes() == space.to_bytes() == EmbeddingSpace.fit(embeddings(50)).to_bytes()


def damaged(**changes: object) -> bytes:
    space = EmbeddingSpace.fit(embeddings(50), max_components=2)
    arrays = {
        "mean": space.mean,
        "basis": space.basis,
        "variance": space.variance,
        "residual_variance": np.float64(space.residual_variance),
    } | changes
    buffer = io.BytesIO()
    np.savez(buffer, **{name: value for name, value in arrays.items() if value is not None})
    return buffer.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not a zip",
        damaged()[:300],
        damaged(mean=None),
        damaged(mean=np.zeros(3)),
        damaged(variance=np.array([1.0, 0.0])),
        damaged(residual_variance=np.float64(-1)),
        damaged(residual_variance=np.float64(np.nan)),
        damaged(mean=np.array([{"a": 1}], dtype=object)),
    ],
)
def test_a_damaged_file_is_an_input_error_and_nothing_is_unpickled(content):
    with pytest.raises(InputError, match="not an embedding space"):
        EmbeddingSpace.from_bytes(content)

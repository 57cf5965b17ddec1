import io
import zipfile

import numpy as np
import pytest

from pneumo.serving.contracts.errors import InputError
from pneumo.serving.images.thumbnails import SIDE, turn_thumbnails
from pneumo.serving.model.outlier_score import EmbeddingSpace, ImageFeatures, OutlierScorer


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


def chests(count: int, seed: int = 0) -> ImageFeatures:
    """Thumbnails with a fixed pattern that is not symmetric, plus noise; embeddings of their own."""
    rng = np.random.default_rng(seed)
    pattern = np.linspace(-2, 2, SIDE)[:, None] + np.where(np.arange(SIDE) < 5, 1.0, -0.5)[None, :]
    return ImageFeatures(embeddings(count, seed=seed), pattern + rng.normal(0, 0.4, (count, SIDE, SIDE)))


@pytest.fixture(scope="module")
def scorer() -> OutlierScorer:
    return OutlierScorer.fit(chests(400), chests(1000, seed=1), quantile=0.99)


def test_each_view_has_its_median_at_zero_and_its_quantile_at_one(scorer):
    held_out = chests(1000, seed=1)
    seen = scorer.score_views(held_out.embeddings, held_out.thumbnails)
    np.testing.assert_allclose(np.median(seen, axis=1), 0, atol=1e-9)
    np.testing.assert_allclose(np.quantile(seen[[0, 1, 3]], 0.99, axis=1), 1)
    assert np.quantile(seen[2], 0.99) <= 1


def test_few_new_images_of_the_same_source_lie_above_the_limit(scorer):
    held_out, others = chests(1000, seed=1), chests(2000, seed=2)
    limit = np.quantile(scorer.score(held_out.embeddings, held_out.thumbnails), 0.99)
    assert 0.002 <= (scorer.score(others.embeddings, others.thumbnails) > limit).mean() <= 0.025


@pytest.mark.parametrize("way", range(5))
def test_a_familiar_thumbnail_that_is_turned_or_negative_is_strange(scorer, way):
    others = chests(50, seed=3)
    seen = scorer.score_views(others.embeddings, turn_thumbnails(others.thumbnails)[way])
    assert seen[2].min() > 1
    assert (scorer.score(others.embeddings, turn_thumbnails(others.thumbnails)[way]) == seen.max(axis=0)).all()


def test_a_strange_embedding_counts_where_the_thumbnail_is_familiar(scorer):
    others = chests(5, seed=4)
    far = others.embeddings + 100.0
    assert scorer.score(far, others.thumbnails).min() > 2 > scorer.score_views(far, others.thumbnails)[1:].max()


def test_a_population_that_lies_far_along_the_wide_directions_shows_by_pixels_alone():
    rng = np.random.default_rng(5)
    wide = np.linalg.qr(rng.normal(size=(SIDE**2, 8)))[0].T * 4.0

    def films(count: int, shift: float) -> ImageFeatures:
        flat = (rng.normal(size=(count, 8)) * 0.5 ** (shift > 0) + shift) @ wide + rng.normal(0, 0.2, (count, SIDE**2))
        return ImageFeatures(embeddings(count, seed=1), flat.reshape(count, SIDE, SIDE))

    scorer = OutlierScorer.fit(films(400, 0), films(400, 0), quantile=0.97)
    others = films(40, 2.0)
    seen = scorer.score_views(others.embeddings, others.thumbnails)
    assert (seen[3] > 1).mean() > 0.9
    assert (seen[:3] > 1).mean() < 0.2


def test_a_bundle_of_three_views_is_scored_by_these(scorer):
    older = OutlierScorer.from_bytes(OutlierScorer(scorer.embedding, scorer.thumbnail, scorer.scale[:3]).to_bytes())
    others = chests(5, seed=7)
    expected = scorer.score_views(others.embeddings, others.thumbnails)[:3]
    np.testing.assert_array_equal(older.score_views(others.embeddings, others.thumbnails), expected)


def test_held_out_images_that_are_all_alike_give_finite_scores():
    known = chests(30)
    alike = ImageFeatures(np.repeat(known.embeddings[:1], 4, axis=0), np.repeat(known.thumbnails[:1], 4, axis=0))
    scorer = OutlierScorer.fit(known, alike, quantile=0.99)
    assert np.isfinite(scorer.score(known.embeddings, known.thumbnails)).all()


def test_an_embedding_space_survives_its_file_alone_and_beside_thumbnails(scorer):
    others = chests(5, seed=7)
    for written in (scorer, OutlierScorer(scorer.embedding)):
        again = OutlierScorer.from_bytes(written.to_bytes())
        np.testing.assert_array_equal(
            again.score(others.embeddings, others.thumbnails), written.score(others.embeddings, others.thumbnails)
        )
        assert again.to_bytes() == written.to_bytes()


def damaged(**changes: object) -> bytes:
    whole = OutlierScorer.fit(chests(50), chests(20, seed=1), quantile=0.9)
    with np.load(io.BytesIO(whole.to_bytes())) as arrays:
        content = dict(arrays) | changes
    buffer = io.BytesIO()
    np.savez(buffer, **{name: value for name, value in content.items() if value is not None})
    return buffer.getvalue()


def claiming_a_petabyte() -> bytes:
    buffer, header = io.BytesIO(), io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f8", "fortran_order": False, "shape": (2**47,)})
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("mean.npy", header.getvalue())
    return buffer.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not a zip",
        claiming_a_petabyte(),
        damaged()[:300],
        damaged(mean=None),
        damaged(mean=np.zeros(3)),
        damaged(variance=np.zeros(19)),
        damaged(residual_variance=np.float64(-1)),
        damaged(residual_variance=np.float64(np.nan)),
        damaged(mean=np.array([{"a": 1}], dtype=object)),
        damaged(thumbnail_mean=None),
        damaged(thumbnail_basis=np.zeros((4, 2))),
        damaged(scale=np.ones((2, 2))),
        damaged(scale=np.array([[0, 1], [0, 1], [0, -1.0]])),
        damaged(scale=np.full((3, 2), np.nan)),
        damaged(thumbnail_mean=np.zeros(9), thumbnail_basis=np.zeros((9, 1)), thumbnail_variance=np.ones(1)),
    ],
)
def test_a_damaged_file_is_an_input_error_and_nothing_is_unpickled(content):
    with pytest.raises(InputError, match="not an embedding space"):
        OutlierScorer.from_bytes(content)

import dataclasses

import numpy as np
import pytest

from pneumo.serving.images.descriptors import compute_descriptors
from pneumo.serving.images.types import Picture


def described(stored: np.ndarray, shape: tuple[int, int] = (100, 150)):
    original = Picture(gray=stored, format="PNG", mode="L", width=shape[1], height=shape[0])
    return compute_descriptors(original, stored)


def noisy(sigma: float, level: float = 120, size: int = 224) -> np.ndarray:
    rng = np.random.default_rng(0)
    return np.clip(rng.normal(level, sigma, (size, size)), 0, 255).round().astype(np.uint8)


def test_a_constant_image_has_no_contrast_entropy_sharpness_or_noise():
    found = described(np.full((224, 224), 120, np.uint8))
    assert (found.mean, found.contrast, found.entropy, found.sharpness, found.noise) == (120, 0, 0, 0, 0)
    assert (found.black, found.white) == (0, 0)


def test_mean_contrast_and_entropy_are_those_of_the_pixels():
    stored = noisy(30, size=191)
    found = described(stored)
    share = np.unique(stored, return_counts=True)[1] / stored.size
    assert found.mean == pytest.approx(stored.mean())
    assert found.contrast == pytest.approx(stored.std())
    assert found.entropy == pytest.approx(-(share * np.log2(share)).sum())


@pytest.mark.parametrize("size", [192, 224, 256, 511])
def test_a_large_image_is_described_by_every_third_row(size):
    stored = noisy(30, size=size)
    stored[:, : size // 2] //= 3
    found, rows = described(stored), stored[::3]
    assert found.mean == pytest.approx(rows.mean())
    assert found.contrast == pytest.approx(rows.std())
    gray = stored.astype(float)
    inner = gray[1:-1, 1:-1]
    laplacian = gray[:-2, 1:-1] + gray[2:, 1:-1] + gray[1:-1, :-2] + gray[1:-1, 2:] - 4 * inner
    assert found.sharpness == pytest.approx(np.var(laplacian[::3]))
    assert found.sharpness == pytest.approx(np.var(laplacian), rel=0.05)


def test_blocks_of_eight_rows_are_met_at_every_row_of_theirs():
    edges = np.repeat(np.where(np.arange(264) % 8 == 0, 200, 100)[:, None], 264, axis=1).astype(np.uint8)
    assert described(edges).mean == pytest.approx(edges.mean())


def test_entropy_of_all_levels_alike_is_eight_bits():
    assert described(np.arange(256, dtype=np.uint8).reshape(16, 16)).entropy == pytest.approx(8)


@pytest.mark.parametrize("sigma", [2, 5, 15])
def test_the_noise_estimate_finds_the_noise(sigma):
    assert described(noisy(sigma)).noise == pytest.approx(sigma, rel=0.05)


def test_the_noise_estimate_ignores_a_gradient():
    ramp = np.tile(np.arange(224, dtype=np.uint8), (224, 1))
    assert described(ramp).noise == 0


def test_sharpness_is_the_variance_of_the_laplacian():
    stored = noisy(10, size=12)
    gray = stored.astype(float)
    laplacian = [
        gray[y - 1, x] + gray[y + 1, x] + gray[y, x - 1] + gray[y, x + 1] - 4 * gray[y, x]
        for y in range(1, 11)
        for x in range(1, 11)
    ]
    assert described(stored).sharpness == pytest.approx(np.var(laplacian))


def test_extreme_pixels_do_not_overflow():
    checks = ((np.indices((224, 224)).sum(axis=0) % 2) * 255).astype(np.uint8)
    found = described(checks)
    assert found.sharpness == pytest.approx((4 * 255) ** 2)
    assert found.noise == pytest.approx(np.sqrt(np.pi / 2) / 6 * 16 * 127.5)


def test_black_and_white_shares_count_from_their_levels():
    stored = np.array([[0, 5, 6], [249, 250, 255], [100, 100, 100]], dtype=np.uint8)
    found = described(stored)
    assert (found.black, found.white) == (pytest.approx(2 / 9), pytest.approx(2 / 9))


def test_size_and_aspect_are_those_of_the_original():
    found = described(noisy(5), shape=(100, 150))
    assert (found.width, found.height, found.aspect) == (150, 100, 1.5)


def test_all_descriptors_are_plain_finite_floats():
    values = dataclasses.asdict(described(noisy(20)))
    assert all(type(value) is float and np.isfinite(value) for value in values.values())

import numpy as np
import pytest

from pneumo.serving.images.thumbnails import SIDE, make_thumbnails, turn_thumbnails


def picture(height: int, width: int) -> np.ndarray:
    """A smooth picture that has no symmetry, float32 [1, 1, H, W] in [0, 1]."""
    y, x = np.mgrid[:height, :width] / np.array([height, width])[:, None, None]
    return (0.3 + 0.4 * y * y + 0.2 * x)[None, None].astype(np.float32)


@pytest.mark.parametrize("size", [(16, 16), (28, 28), (32, 48), (128, 128), (224, 200), (8, 8)])
def test_a_thumbnail_has_one_size_mean_zero_and_deviation_about_one(size):
    small = make_thumbnails(picture(*size))
    assert small.shape == (1, SIDE, SIDE)
    assert small.mean() == pytest.approx(0, abs=1e-6)
    assert small.std() == pytest.approx(1, abs=0.2)


def test_cells_are_means_of_their_pixels():
    values = np.random.default_rng(0).uniform(0, 1, (1, 1, 64, 64)).astype(np.float32)
    cells = values[0, 0].reshape(SIDE, 4, SIDE, 4).mean(axis=(1, 3))
    expected = (cells - cells.mean()) / (cells.std() + 0.02)
    np.testing.assert_allclose(make_thumbnails(values)[0], expected, atol=1e-4)


def test_the_same_picture_at_another_size_has_the_same_thumbnail():
    np.testing.assert_allclose(make_thumbnails(picture(224, 224)), make_thumbnails(picture(100, 100)), atol=0.05)


def test_exposure_and_window_hardly_change_it():
    image = picture(64, 64)
    np.testing.assert_allclose(make_thumbnails(0.5 * image + 0.3), make_thumbnails(image), atol=0.4)


def test_a_flat_image_is_all_zeros():
    np.testing.assert_allclose(make_thumbnails(np.full((2, 3, 40, 40), 0.7, np.float32)), 0, atol=1e-4)


def test_colour_models_see_the_same_thumbnail():
    image = picture(64, 64)
    np.testing.assert_array_equal(make_thumbnails(np.repeat(image, 3, axis=1)), make_thumbnails(image))


def test_turned_thumbnails_are_those_of_turned_images():
    image = picture(64, 64)
    gray = image[0, 0]
    wrong = [gray[::-1], np.rot90(gray, 2), np.rot90(gray, 1), np.rot90(gray, 3), 1 - gray]
    for expected, found in zip(wrong, turn_thumbnails(make_thumbnails(image)), strict=True):
        np.testing.assert_allclose(found[0], make_thumbnails(np.ascontiguousarray(expected)[None, None])[0], atol=1e-4)

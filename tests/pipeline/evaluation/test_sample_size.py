"""Numbers of images that a study needs, against simulated studies."""

import numpy as np
import pytest

from pneumo.pipeline.evaluation.exact_intervals import share_bounds
from pneumo.pipeline.evaluation.sample_size import POWER, count_needed_images


@pytest.mark.parametrize(("rate", "floor"), [(0.95, 0.9), (0.99, 0.95), (1.0, 0.9), (0.8, 0.5)])
def test_so_many_images_show_the_rate_as_often_as_promised(rate: float, floor: float) -> None:
    images = count_needed_images(rate, floor)
    assert images is not None
    hits = np.random.default_rng(0).binomial(images, rate, 4000)
    shown = {count: share_bounds(count / images, images, 0.95)[0] >= floor for count in np.unique(hits)}
    assert np.mean([shown[count] for count in hits]) >= POWER - 0.02
    fewer = np.random.default_rng(0).binomial(images // 2, rate, 4000)
    assert np.mean([share_bounds(count / (images // 2), images // 2, 0.95)[0] >= floor for count in fewer]) < POWER


def test_a_rate_at_its_floor_is_never_shown() -> None:
    assert count_needed_images(0.9, 0.9) is None
    assert count_needed_images(0.5, 0.9) is None

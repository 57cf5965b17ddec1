"""Numbers of images that a study needs."""

from pneumo.pipeline.evaluation.exact_intervals import share_bounds

POWER = 0.8
"""Chance that a study of so many images shows what is true."""

_MOST = 100_000


def count_needed_images(rate: float, floor: float, *, level: float = 0.95) -> int | None:
    """Return the number of images of a class that shows, with a chance of `POWER`, that a rate is at or above a floor.

    It is shown if the lower bound of the exact interval (Clopper and Pearson, 1934) at `level` reaches the floor. Each
    image counts as a patient of its own.

    Args:
        rate: True rate, such as the sensitivity, in [0, 1].
        floor: In (0, 1).
        level: Level of the interval, in (0, 1).

    Returns:
        None if the rate is not above the floor, or more than 100,000 images are needed.
    """
    from scipy.stats import binom

    def shows(images: int) -> bool:
        least, most = 0, images + 1  # the fewest hits whose lower bound reaches the floor
        while least < most:
            middle = (least + most) // 2
            reached = middle > images or share_bounds(middle / images, images, level)[0] >= floor
            least, most = (least, middle) if reached else (middle + 1, most)
        return float(binom.sf(least - 1, images, rate)) >= POWER

    if rate <= floor or not shows(_MOST):
        return None
    low, high = 1, _MOST
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if shows(middle) else (middle + 1, high)
    return low

"""Numbers of images that a study needs, and what a given number can show."""

from collections.abc import Sequence

from pneumo.pipeline.evaluation.exact_intervals import share_bounds
from pneumo.pipeline.evaluation.results import title

POWER = 0.8
"""Chance that a study of so many images shows what is true."""
FLOOR = 0.9
"""Rate that a study should show if nobody names another."""

_MOST = 100_000


def describe_power(metric: str, label: str, patients: Sequence[str], floor: float, expected: float | None) -> str:
    """Say what images of a class can show about its rate, whatever a model makes of them, and how many are needed.

    Shown is that the rate reaches a floor: the lower end of its 95% interval does. `patients` has the patient of each
    image; one counts once, since images of one patient are alike. Without an expected rate it is taken to be 1.
    """
    name, number = f"{title(metric).lower()} >= {floor:g}", len(set(patients))
    least = find_detectable_rate(number, floor)
    shown = f"cannot show {name}, whatever it is"
    if least is not None:
        shown = f"show {name} with a chance of {POWER:.0%} if it is {least:.3f} or more"
    needed = count_needed_images(1.0 if expected is None else expected, floor)
    more = "no number of patients shows" if needed is None else f"{needed:,} patients show"
    known = "a rate of 1" if expected is None else f"the expected {expected:.3f}"
    return f"{len(patients):,} {label} images of {number:,} patients {shown}; at {known} {more} it"


def list_rates(classes: Sequence[str], positive: str | None) -> dict[str, str]:
    """Return the rates of correct answers with the class that each belongs to: two names, or one for each class."""
    if positive is None:
        return {f"sensitivity:{name}": name for name in classes}
    return {"sensitivity": positive, "specificity": next(name for name in classes if name != positive)}


def find_detectable_rate(images: int, floor: float, *, level: float = 0.95) -> float | None:
    """Return the least true rate that so many images show to be at or above a floor, with a chance of `POWER`.

    Arguments are those of `count_needed_images`. None if even images that are all correct do not show it.
    """
    from scipy.special import betaincinv

    least = _count_hits(images, floor, level)
    return float(betaincinv(least, images - least + 1, POWER)) if least <= images else None


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
        return float(binom.sf(_count_hits(images, floor, level) - 1, images, rate)) >= POWER

    if rate <= floor or not shows(_MOST):
        return None
    low, high = 1, _MOST
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if shows(middle) else (middle + 1, high)
    return low


def _count_hits(images: int, floor: float, level: float) -> int:
    """Return the fewest correct answers to so many images whose lower bound reaches the floor; one more if none do."""
    least, most = 0, images + 1
    while least < most:
        middle = (least + most) // 2
        reached = middle > images or (images > 0 and share_bounds(middle / images, images, level)[0] >= floor)
        least, most = (least, middle) if reached else (middle + 1, most)
    return least

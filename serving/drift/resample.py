"""Windows that chance draws out of the reference: how different images look that come from where they should.

Images of one patient are alike, and a window often holds several of them. Tests that take every image for a
new one then raise three to four times as many false alarms as they promise (docs/drift.md).
"""

import numpy as np
from numpy.typing import NDArray

from pneumo.serving.drift.statistics import Mask

DRAWS = 2000
"""Windows that are drawn: with fifteen columns the least adjusted p-value is 0.0075."""


def windows(groups: NDArray[np.integer], size: int, *, draws: int = DRAWS, seed: int = 0) -> Mask:
    """Draw windows of whole groups; the last group of a window is cut where it is full.

    Args:
        groups: Whom each image of the reference is of, [N].
        size: Images of a window, from 1 to N - 1.
        draws: How many windows.
        seed: Of the draws.

    Returns:
        Masks [draws, N], each with `size` images.
    """
    rng = np.random.default_rng(seed)
    order = np.argsort(groups, kind="stable")
    starts = np.flatnonzero(np.diff(groups[order], prepend=groups[order[0]] - 1))
    members = np.split(order, starts[1:])
    sizes = np.array([len(each) for each in members])
    drawn = np.zeros((draws, len(groups)), dtype=np.bool_)
    for row in drawn:
        turn = rng.permutation(len(members))
        wanted = int(np.searchsorted(np.cumsum(sizes[turn]), size)) + 1
        row[np.concatenate([members[each] for each in turn[:wanted]])[:size]] = True
    return drawn

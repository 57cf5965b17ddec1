"""All near pairs of hashes, by the search that the audit uses for groups."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pneumo.pipeline.data.audit.near_search import is_near, suggest_pairs, to_words


def find_near_pairs(hashes: Sequence[bytes], distance: int) -> NDArray[np.intp]:
    """Return all pairs of hashes within `distance` bits: positions [pairs, 2], sorted, the smaller one first."""
    words = to_words(hashes)
    found = [pairs[:, is_near(words, pairs, distance)] for pairs in suggest_pairs(words, distance)]
    return np.unique(np.sort(np.concatenate([*found, np.empty((2, 0), dtype=np.intp)], axis=1).T), axis=0)

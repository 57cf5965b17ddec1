"""Whether class activation maps mark what a network looks at.

A map can be exact and yet mark nothing: each cell of the last features sees most of the image, and a network may gather
in the same cells what it saw anywhere. So maps are compared with what the network itself answers where a part of the
image is covered (Zeiler and Fergus, 2014): they are shown in place of occlusion, which takes 65 times as long, only
where both say the same.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pneumo.pipeline.export.cam import areas
from pneumo.serving.contracts.arrays import Float32
from pneumo.serving.model.predictor import MAPS, MAPS_POINT

AGREEMENT = 0.3
"""From which agreement on maps are shown. On real X-rays at 128 px the maps of the config `efficientnet_lite0` had -0.3
to -0.15, marking the same cell of nearly every image, and those of `recommended` 0.5 to 0.7."""

_GRID = 4
_MARKED = 4
_LEAST, _MOST = 8, 24


def measure_cam_agreement(model: Any, images: Float32, shown: int | None) -> float | None:
    """Measure how far the maps of a graph agree with occlusion, and write into its metadata whether they point.

    Each image is parted into 4 x 4 squares. Maps mark four of them; covering one of these costs the class so much on
    average, one of the four costliest so much more, and any one so much less. The agreement is where the first lies
    between the last, 0, and the second, 1: maps that mark at random have 0.

    Args:
        model: An `onnx.ModelProto` that gives `maps`; changed.
        images: Real inputs, float32 [N, C, H, W]; the first 24 that are said to be of the class are used.
        shown: The class whose maps are shown; where None, that of each image's largest logit.

    Returns:
        The agreement; None where fewer than 8 images are said to be of the class, and nothing can be told.
    """
    import onnxruntime

    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    marked: list[NDArray[np.float64]] = []
    costs: list[NDArray[np.float64]] = []
    for image in images:
        (logits,), (maps,) = session.run(["logits", MAPS], {"image": image[None]})
        said = int(logits.argmax())
        if shown not in (said, None) or len(costs) == _MOST:
            continue
        covered = session.run(["logits"], {"image": _covered(image)})[0]
        costs.append(_lead(logits, said) - _lead(covered.T, said))
        marked.append(_squares(_lead(maps, said)))
    agreement = _agreement(np.stack(marked), np.stack(costs)) if len(costs) >= _LEAST else None
    entry = model.metadata_props.add()
    entry.key, entry.value = MAPS_POINT, str(agreement is not None and agreement >= AGREEMENT).lower()
    return agreement


def _agreement(evidence: NDArray[np.float64], costs: NDArray[np.float64]) -> float:
    """Of evidence and costs of the squares of each image, [N, 16] both."""

    def mean_cost_of_most(values: NDArray[np.float64]) -> float:
        most = np.argsort(-values, axis=1, kind="stable")[:, :_MARKED]
        return float(np.take_along_axis(costs, most, axis=1).mean())

    best, any_one = mean_cost_of_most(costs), float(costs.mean())
    return (mean_cost_of_most(evidence) - any_one) / (best - any_one) if best > any_one else 0.0


def _lead(logits: NDArray[np.float32], index: int) -> NDArray[np.float64]:
    """Of one class over the mean of all, logits [K, ...]."""
    lead: NDArray[np.float64] = logits[index] - logits.mean(axis=0, dtype=np.float64)
    return lead


def _squares(evidence: NDArray[np.float64]) -> NDArray[np.float64]:
    """The mean of evidence [h, w] over each square, [16]."""
    height, width = evidence.shape
    return (areas(height, _GRID) @ evidence @ areas(width, _GRID).T).ravel()


def _covered(image: Float32) -> Float32:
    """An image once for each square, with that square in the image's mean gray, [16, C, H, W]."""
    covered = np.repeat(image[None], _GRID**2, axis=0)
    rows, columns = (np.arange(pixels) * _GRID // pixels for pixels in image.shape[1:])
    squares = rows[:, None] * _GRID + columns
    covered[np.broadcast_to((squares == np.arange(_GRID**2)[:, None, None])[:, None], covered.shape)] = image.mean()
    return covered

"""Agreement of class activation maps with occlusion.

A map can be exact and still show nothing: each cell of the last features sees most of the image, and a network may
collect in the same cells what it saw anywhere. So maps are compared with the network's own answers to images that are
partly covered (Zeiler and Fergus, 2014). They replace occlusion, which takes 65 times as long, only if both agree.
"""

from typing import TYPE_CHECKING

import numpy as np

from pneumo.pipeline.export.cam import overlap_shares, start_session
from pneumo.serving.contracts.arrays import Float32, Float64
from pneumo.serving.model.predictor import MAPS, MAPS_POINT

if TYPE_CHECKING:
    from onnx import ModelProto

AGREEMENT = 0.3
"""Lowest agreement of maps that are shown. On real X-rays at 128 px the maps of the config `efficientnet_lite0` had
-0.3 to -0.15, since they mark the same cell of nearly every image, and those of `recommended` 0.5 to 0.7."""

_GRID = 4
_MARKED = 4
_LEAST, _MOST = 8, 24


def measure_cam_agreement(model: "ModelProto", images: Float32, shown: int | None) -> float | None:
    """Measure the agreement of a graph's maps with occlusion, and write into its metadata whether they may be shown.

    Each image has 4 x 4 squares, and covering a square costs the class some of its logit. Three mean costs are
    compared: of the four squares that the map marks, of the four most costly ones (agreement 1), and of all squares
    (agreement 0, like marking at random). Used are the first 24 real images, float32 [N, C, H, W], of the predicted
    class `shown`, or of any if it is None. With fewer than 8 images the agreement is None.
    """
    session = start_session(model)
    marked: list[Float64] = []
    costs: list[Float64] = []
    for image in images:
        (logits,), (maps,) = session.run(["logits", MAPS], {"image": image[None]})
        predicted = int(logits.argmax())
        if shown not in (predicted, None) or len(costs) == _MOST:
            continue
        covered = session.run(["logits"], {"image": _cover_squares(image)})[0]
        costs.append(_margin(logits, predicted) - _margin(covered.T, predicted))
        marked.append(_average_squares(_margin(maps, predicted)))
    agreement = _agreement(np.stack(marked), np.stack(costs)) if len(costs) >= _LEAST else None
    model.metadata_props.add(key=MAPS_POINT, value=str(agreement is not None and agreement >= AGREEMENT).lower())
    return agreement


def _agreement(evidence: Float64, costs: Float64) -> float:
    """Compute the agreement from evidence and costs of the squares of each image, [N, 16] both."""

    def mean_cost_of_most(values: Float64) -> float:
        most = np.argsort(-values, axis=1, kind="stable")[:, :_MARKED]
        return float(np.take_along_axis(costs, most, axis=1).mean())

    best, average = mean_cost_of_most(costs), float(costs.mean())
    return (mean_cost_of_most(evidence) - average) / (best - average) if best > average else 0.0


def _margin(logits: Float32, index: int) -> Float64:
    """Return the difference of one class from the mean of all, for logits [K, ...]."""
    return np.asarray(logits[index] - logits.mean(axis=0, dtype=np.float64))


def _average_squares(evidence: Float64) -> Float64:
    """Return the mean of evidence [h, w] over each square, [16]."""
    height, width = evidence.shape
    return (overlap_shares(height, _GRID) @ evidence @ overlap_shares(width, _GRID).T).ravel()


def _cover_squares(image: Float32) -> Float32:
    """Return a copy of an image for each square, which is covered with the image's mean gray, [16, C, H, W]."""
    covered = np.repeat(image[None], _GRID**2, axis=0)
    rows, columns = (np.arange(pixels) * _GRID // pixels for pixels in image.shape[1:])
    squares = rows[:, None] * _GRID + columns
    covered[np.broadcast_to((squares == np.arange(_GRID**2)[:, None, None])[:, None], covered.shape)] = image.mean()
    return covered

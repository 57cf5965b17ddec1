"""Where on an image a model sees what it says: class activation maps, or occlusion where a network gives none."""

import base64
import time
from dataclasses import dataclass
from typing import Literal

import numpy as np

from pneumo.serving.contracts.arrays import Float32, Float64
from pneumo.serving.contracts.errors import InputError
from pneumo.serving.contracts.schemas import ExplainResponse, ImagePrediction, ModelName
from pneumo.serving.contracts.setting_types import MAX_PIXELS
from pneumo.serving.images.decode import read_gray
from pneumo.serving.images.preparation import fit, to_input
from pneumo.serving.images.types import Decode, Gray
from pneumo.serving.model.bundle import BundleInfo
from pneumo.serving.model.heatmap import OPACITY, encode_film, encode_heat, encode_overlay, project_on_film, scale_film
from pneumo.serving.model.predictor import BATCH, Outputs, Predictor, name_prediction

GRID = 8
"""Occluding squares a side: 64 images go through the network beside the image itself, `BATCH` at a time."""

PATCH = (2 / GRID) ** 2
"""Part of the image that one of them covers, and that evidence is given for."""

FULL = 0.25
"""Part of the margin that a `PATCH` holds where the colour is strongest: four times its share if spread evenly."""

LEAST_MARGIN = 2.0
"""Logits that the colours are measured by at least, so that an image without evidence is not coloured."""

Method = Literal["cam", "occlusion"]


class UnknownClassError(InputError):
    """The model has no such class."""


class NoMapsError(InputError):
    """The network gives no class activation maps."""


@dataclass(frozen=True)
class HeatMap:
    """Evidence for a class over a model's input, counted from the limit of the decision: above 0 it speaks for it.

    Attributes:
        values: float32 [h, w]: equal cells of the input, in calibrated logits.
        method: `cam`: what a `PATCH` of the image adds where all of it is like this cell; over the whole image that
            sums to how far the class lies above its limit. `occlusion`: what the class loses where a `PATCH` around
            this cell is covered, as far as it lies above its limit: what would make a clear no a clearer one is no
            evidence.
        margin: How far the image itself lies above the limit, in calibrated logits, smoothly cut off at 0.
    """

    values: Float32
    method: Method
    margin: float


@dataclass(frozen=True)
class Explanation:
    """What a model says about an image, and where it sees that.

    Attributes:
        prediction: What it says.
        class_name: The class that the heat map is of.
        method: How the heat map was made.
        film: The image as it is shown, uint8 [h, w].
        evidence: On the film, float32 [h, w], in calibrated logits as in `HeatMap`; NaN where the model did not look.
        margin: As in `HeatMap`.
    """

    prediction: ImagePrediction
    class_name: str
    method: Method
    film: Gray
    evidence: Float32
    margin: float

    @property
    def heat(self) -> Float32:
        """Evidence as it is coloured: 1 where a `PATCH` holds the part `FULL` of the margin.

        The scale is the image's margin, not its own maximum, and never less than `LEAST_MARGIN`.
        """
        return self.evidence / np.float32(FULL * max(self.margin, LEAST_MARGIN))

    def overlay(self, opacity: float = OPACITY) -> bytes:
        """The film with its heat map on it as a PNG."""
        return encode_overlay(self.film, self.heat, opacity)

    def answer(self, request_id: str, model: ModelName) -> ExplainResponse:
        """The same for a program or a page, which can lay one over the other."""
        return ExplainResponse(
            request_id=request_id,
            model=model,
            prediction=self.prediction,
            class_name=self.class_name,
            method=self.method,
            peak=float(np.nanmax(self.heat)),
            margin=self.margin,
            film=base64.b64encode(encode_film(self.film)).decode("ascii"),
            heat=base64.b64encode(encode_heat(self.heat)).decode("ascii"),
        )


def explain_image(
    predictor: Predictor,
    data: bytes,
    *,
    filename: str | None = None,
    class_name: str | None = None,
    method: Method | None = None,
    max_pixels: int = MAX_PIXELS,
) -> Explanation:
    """Predict one image file and say where the evidence lies.

    Args:
        predictor: A loaded bundle.
        data: A whole image file.
        filename: As the client named it.
        class_name: What the evidence is for; by default the positive class, with more than two classes the label.
        method: How; by default as `compute_heat_map` does.
        max_pixels: Largest width times height that is decoded.

    Raises:
        UnknownClassError: The model has no such class.
        NoMapsError: The network gives no class activation maps, and no others were asked for.
        ImageError: The bytes cannot become an image.
    """
    info = predictor.bundle.info
    if class_name is not None and class_name not in info.classes:
        raise UnknownClassError(f"class {class_name[:100]!r} is not one of {', '.join(info.classes)}")
    how = _method(predictor, method)
    began = time.perf_counter()
    gray, preparation = read_gray(data, max_pixels=max_pixels).gray, info.preparation
    if preparation.decode is Decode.FULL:
        image = to_input(fit(gray, preparation.size, preparation.fit), preparation)
    else:  # its pixels are others
        image = predictor.prepare(data, max_pixels=max_pixels)
    decoding = time.perf_counter() - began
    seen = _look(predictor, image, how)
    prediction = predictor.interpret_outputs(seen.outputs, elapsed_ms=seen.took * 1000)[0]
    meant = class_name or info.positive_class or prediction.label
    film = scale_film(gray)
    found = seen.build_heat_map(info.classes.index(meant))
    return Explanation(
        prediction=name_prediction(prediction, filename, decoding * 1000),
        class_name=meant,
        method=found.method,
        film=film,
        margin=found.margin,
        evidence=project_on_film(found.values, preparation, _shape(gray), _shape(film)),
    )


def compute_heat_map(predictor: Predictor, image: Float32, class_index: int, method: Method | None = None) -> HeatMap:
    """Compute where on a model's input, float32 [C, H, W], the evidence for a class lies.

    The class activation map (Zhou et al., 2016) takes one run of the network; it is the default of networks that give
    one which was found to mark what they look at. For others squares of a quarter of each side in the image's mean gray
    cover it one after the other, each half over the next, and what the class loses is the evidence (Zeiler and Fergus,
    2014).

    Raises:
        NoMapsError: The network gives no class activation maps, and no others were asked for.
    """
    return _look(predictor, image, _method(predictor, method)).build_heat_map(class_index)


def _method(predictor: Predictor, asked: Method | None) -> Method:
    if asked == "cam" and not predictor.has_maps:
        raise NoMapsError("this model gives no class activation maps; ask for method=occlusion")
    return asked or ("cam" if predictor.has_maps and predictor.maps_point else "occlusion")


@dataclass(frozen=True)
class _Look:
    """What was made of one image: for each class evidence [K, h, w] and margin [K]; seconds of the first run."""

    outputs: Outputs
    evidence: Float64
    margins: Float64
    method: Method
    took: float

    def build_heat_map(self, index: int) -> HeatMap:
        """The heat map of one class."""
        return HeatMap(self.evidence[index].astype(np.float32), self.method, float(self.margins[index]))


def _look(predictor: Predictor, image: Float32, method: Method) -> _Look:
    info = predictor.bundle.info
    began = time.perf_counter()
    outputs, maps = predictor.run_with_maps(image[None]) if method == "cam" else (predictor.run(image[None]), None)
    took = time.perf_counter() - began
    margins = _margins(outputs.logits.T, info)
    if maps is not None:
        evidence = _above_limit(maps[0], info) * PATCH
    else:
        covered = np.stack([_covered(image, row, column) for row in range(GRID) for column in range(GRID)])
        batches = [predictor.run(covered[start : start + BATCH]).logits for start in range(0, len(covered), BATCH)]
        evidence = (margins - _margins(np.concatenate(batches).T, info)).reshape(-1, GRID, GRID)
    return _Look(outputs, evidence, margins[:, 0], method, took)


def _margins(logits: Float32, info: BundleInfo) -> Float64:
    """How far classes lie above the limit of the decision, [K, N] as the logits; a smooth max(0, ...) of it."""
    margins: Float64 = np.logaddexp(0, _above_limit(logits, info))
    return margins


def _above_limit(logits: Float32, info: BundleInfo) -> Float64:
    """How far each class lies above the limit of the decision, in calibrated logits [K, ...].

    A class is measured by its lead over the mean of the others, which is what softmax leaves of logits and with two
    classes the log odds.
    """
    count = len(logits)
    scaled = logits.astype(np.float64) / info.temperature
    lead = (scaled - scaled.mean(axis=0)) * (count / (count - 1))
    above: Float64 = lead - _decision_limits(info).reshape(-1, *[1] * (logits.ndim - 1))
    return above


def _decision_limits(info: BundleInfo) -> Float64:
    """The lead [K] from which a class is said: with a positive class by its threshold, else 0."""
    limits = np.zeros(len(info.classes))
    if info.positive_class is not None:
        threshold = np.clip(info.thresholds["default"], 1e-6, 1 - 1e-6)
        limits[:] = -np.log(threshold / (1 - threshold))
        limits[info.classes.index(info.positive_class)] *= -1
    return limits


def _covered(image: Float32, row: int, column: int) -> Float32:
    """The image with a square of its mean gray around a cell of the grid, as wide as two cells."""
    height, width = image.shape[1:]
    covered = image.copy()
    rows, columns = _around(row, height), _around(column, width)
    covered[:, rows, columns] = image.mean()
    return covered


def _around(cell: int, pixels: int) -> slice:
    low, high = ((cell + 0.5 + step) / GRID * pixels for step in (-1, 1))
    return slice(max(0, round(low)), min(pixels, round(high)))


def _shape(gray: Gray) -> tuple[int, int]:
    return gray.shape[0], gray.shape[1]

"""Heat maps: class activation maps, or occlusion if a network gives none."""

import base64
import time
from dataclasses import dataclass
from typing import Literal

import numpy as np

from pneumo.serving.contracts.arrays import Float32, Float64
from pneumo.serving.contracts.errors import InputError
from pneumo.serving.contracts.schemas import ExplainResponse, ImagePrediction, ModelName
from pneumo.serving.contracts.setting_types import MAX_PIXELS
from pneumo.serving.images.decode import check_rules, read_gray
from pneumo.serving.images.preparation import Preparation, encode_png, fit, to_input
from pneumo.serving.images.types import Decode, Gray
from pneumo.serving.model.bundle import BundleInfo
from pneumo.serving.model.heatmap import encode_heat, encode_overlay, project_on_film, scale_film
from pneumo.serving.model.predictor import BATCH, Outputs, Predictor, name_prediction

GRID = 8
"""Occluding squares per side: 64 images go through the network in addition to the image, `BATCH` at a time."""

PATCH = (2 / GRID) ** 2
"""Share of the image that one square covers; evidence is given per `PATCH`."""

FULL = 0.25
"""Share of the margin in one `PATCH` that gets the strongest colour: four times the share of evenly spread evidence."""

LEAST_MARGIN = 2.0
"""Smallest margin of the colour scale, in logits, so that an image without evidence is not coloured."""

Method = Literal["cam", "occlusion"]


class UnknownClassError(InputError):
    """The model has no such class."""


class NoMapsError(InputError):
    """The network gives no class activation maps."""


@dataclass(frozen=True)
class Evidence:
    """Evidence for each class over a model's input, in calibrated logits above the decision threshold.

    Attributes:
        values: float64 [K, h, w], equal cells of the input; above 0 a cell supports the class. `cam`: the contribution
            of a `PATCH` if all of it were like this cell; the sum over the image is how far the class lies above the
            threshold. `occlusion`: the part of the margin that the class loses if a `PATCH` around this cell is
            covered; a change of a clear no to a clearer no is no evidence.
        margins: float64 [K], how far the image lies above the threshold, smoothly cut off at 0.
        method: The method.
        outputs: The network's outputs for the image.
        seconds: Time of one run of the network.
    """

    values: Float64
    margins: Float64
    method: Method
    outputs: Outputs
    seconds: float


@dataclass(frozen=True)
class Explanation:
    """A prediction and the heat map of one class.

    Attributes:
        prediction: The prediction.
        class_name: The class of the heat map.
        method: The method of the heat map.
        film: The image for display, uint8 [h, w].
        evidence: Evidence on the film, float32 [h, w], as in `Evidence`; NaN outside of the model's input.
        margin: As in `Evidence`.
    """

    prediction: ImagePrediction
    class_name: str
    method: Method
    film: Gray
    evidence: Float32
    margin: float

    @property
    def heat(self) -> Float32:
        """The evidence on the colour scale: 1 if a `PATCH` holds the share `FULL` of the margin.

        The scale follows the image's margin, not its own maximum, and never less than `LEAST_MARGIN`.
        """
        return self.evidence / np.float32(FULL * max(self.margin, LEAST_MARGIN))

    def overlay(self) -> bytes:
        """Return a PNG of the film under its heat map."""
        return encode_overlay(self.film, self.heat)

    def to_response(self, request_id: str, model: ModelName, notice: str) -> ExplainResponse:
        """Return film and heat map as separate pictures."""
        return ExplainResponse(
            request_id=request_id,
            model=model,
            prediction=self.prediction,
            class_name=self.class_name,
            method=self.method,
            peak=float(np.nanmax(self.heat)),
            margin=self.margin,
            film=base64.b64encode(encode_png(self.film)).decode("ascii"),
            heat=base64.b64encode(encode_heat(self.heat)).decode("ascii"),
            notice=notice,
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
    """Predict one image file and compute the heat map of one class.

    Args:
        predictor: A loaded bundle.
        data: A whole image file.
        filename: The client's name for it.
        class_name: By default the positive class, or the predicted one if there is no positive class.
        method: By default as in `measure_evidence`.
        max_pixels: Largest image, width times height.

    Raises:
        UnknownClassError: The model has no such class.
        NoMapsError: `cam` was requested, and the network gives no class activation maps.
        ImageError: The bytes cannot be read as an image.
    """
    info = predictor.bundle.info
    if class_name is not None and class_name not in info.classes:
        raise UnknownClassError(f"class {class_name[:100]!r} is not one of {', '.join(info.classes)}")
    method = _choose_method(predictor, method)  # fails before decoding
    began = time.perf_counter()
    picture, preparation = read_gray(data, max_pixels=max_pixels), info.preparation
    check_rules(picture, preparation)
    gray = picture.gray
    if preparation.decode is Decode.FULL:
        image = to_input(fit(gray, preparation.size, preparation.fit), preparation)
    else:  # the model saw a decoding at another resolution
        image = predictor.prepare(data, max_pixels=max_pixels)
    decoding_s = time.perf_counter() - began
    evidence = measure_evidence(predictor, image, method)
    prediction = predictor.interpret_outputs(evidence.outputs, elapsed_ms=evidence.seconds * 1000)[0]
    class_name = class_name or info.positive_class or prediction.label
    index = info.classes.index(class_name)
    film = scale_film(gray)
    values = evidence.values[index].astype(np.float32)
    return Explanation(
        prediction=name_prediction(prediction, filename, decoding_s * 1000, predictor.list_remarks(picture)),
        class_name=class_name,
        method=method,
        film=film,
        margin=float(evidence.margins[index]),
        evidence=project_on_film(values, preparation, _shape(gray), _shape(film)),
    )


def draw_film(data: bytes, preparation: Preparation, *, max_pixels: int = MAX_PIXELS) -> bytes:
    """Return a PNG of an image file in the gray levels that the model sees, whole and for display; no network runs.

    Raises:
        ImageError: The bytes cannot be read as an image.
    """
    picture = read_gray(data, max_pixels=max_pixels)
    check_rules(picture, preparation)
    return encode_png(scale_film(picture.gray))


def measure_evidence(predictor: Predictor, image: Float32, method: Method | None = None) -> Evidence:
    """Measure the evidence for each class over a model's input, float32 [C, H, W].

    Class activation maps (Zhou et al., 2016) take one run of the network. They are the default if the network gives
    them and export found that they mark what it uses. Otherwise occlusion (Zeiler and Fergus, 2014) is: squares of a
    quarter of each side, in the image's mean gray, cover the image one after the other, each half over the next; what
    a class loses is the evidence.

    Raises:
        NoMapsError: `cam` was requested, and the network gives no class activation maps.
    """
    info, method = predictor.bundle.info, _choose_method(predictor, method)
    began = time.perf_counter()
    outputs, maps = predictor.run_with_maps(image[None]) if method == "cam" else (predictor.run(image[None]), None)
    seconds = time.perf_counter() - began
    margins = _margins(outputs.logits.T, info)
    if maps is not None:
        values = _above_threshold(maps[0], info) * PATCH
    else:
        covered = np.stack([_cover(image, row, column) for row in range(GRID) for column in range(GRID)])
        batches = [predictor.run(covered[start : start + BATCH]).logits for start in range(0, len(covered), BATCH)]
        values = (margins - _margins(np.concatenate(batches).T, info)).reshape(-1, GRID, GRID)
    return Evidence(values, margins[:, 0], method, outputs, seconds)


def _choose_method(predictor: Predictor, requested: Method | None) -> Method:
    if requested == "cam" and not predictor.has_maps:
        raise NoMapsError("this model gives no class activation maps; ask for method=occlusion")
    return requested or ("cam" if predictor.has_maps and predictor.maps_point else "occlusion")


def _margins(logits: Float32, info: BundleInfo) -> Float64:
    """Return how far classes lie above the threshold, smoothly cut off at 0, [K, N] for logits [K, N]."""
    margins: Float64 = np.logaddexp(0, _above_threshold(logits, info))
    return margins


def _above_threshold(logits: Float32, info: BundleInfo) -> Float64:
    """Return how far each class lies above the decision threshold, in calibrated logits [K, ...].

    A class is measured by its lead over the mean of the others, which is what softmax depends on; with two classes it
    is the log odds.
    """
    count = len(logits)
    scaled = logits.astype(np.float64) / info.temperature
    lead = (scaled - scaled.mean(axis=0)) * (count / (count - 1))
    thresholds = np.zeros(count)
    if info.positive_class is not None:
        threshold = np.clip(info.thresholds["default"], 1e-6, 1 - 1e-6)
        thresholds[:] = -np.log(threshold / (1 - threshold))
        thresholds[info.classes.index(info.positive_class)] *= -1
    above: Float64 = lead - thresholds.reshape(-1, *[1] * (logits.ndim - 1))
    return above


def _cover(image: Float32, row: int, column: int) -> Float32:
    """Return the image with a square of its mean gray around a cell of the grid, as wide as two cells."""
    covered = image.copy()
    rows, columns = (_span(cell, side) for cell, side in zip((row, column), image.shape[1:], strict=True))
    covered[:, rows, columns] = image.mean()
    return covered


def _span(cell: int, pixels: int) -> slice:
    low, high = ((cell + 0.5 + step) / GRID * pixels for step in (-1, 1))
    return slice(max(0, round(low)), min(pixels, round(high)))


def _shape(gray: Gray) -> tuple[int, int]:
    return gray.shape[0], gray.shape[1]

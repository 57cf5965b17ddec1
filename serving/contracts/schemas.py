"""Answers of the service and of `pneumo predict`."""

from collections.abc import Sequence
from typing import Literal

from pydantic import BaseModel, Field

NOTICE = "research software, not a medical device"

SlotName = Literal["champion", "challenger", "shadow"]
"""Model slot: it answers, answers a share of requests, or is only measured."""


class ModelName(BaseModel, frozen=True):
    """Model that answered, and the class of `probability` and `threshold` (None with more than two classes)."""

    name: str
    version: str
    positive_class: str | None


class ImagePrediction(BaseModel, frozen=True):
    """Prediction for one image.

    Attributes:
        filename: File name that the client gave, or None.
        label: Predicted class: with a positive class, by the threshold; else the most probable class.
        probability: Calibrated probability of the positive class; with more than two classes, of the label.
        probabilities: Calibrated probability of each class; they sum to 1.
        threshold: Probability at or above which the positive class is predicted; None with more than two classes.
        certainty: `certain` if the prediction set is the label alone and the image is in distribution.
        in_distribution: Whether the image resembles the training images: its score is at most the outlier limit.
        outlier_score: Out-of-distribution score: about 0 for a typical held-out image, 1 near the limit.
        elapsed_ms: Time to decode this image plus its share of the network's time, in milliseconds.
        remarks: Remarks such as a DICOM file of another modality or a guessed depth; they quote nothing of the file.
    """

    filename: str | None
    label: str
    probability: float = Field(ge=0, le=1)
    probabilities: dict[str, float]
    threshold: float | None
    certainty: Literal["certain", "uncertain"]
    in_distribution: bool
    outlier_score: float
    elapsed_ms: float
    remarks: list[str] = []


class ServedPrediction(ImagePrediction, frozen=True):
    """A prediction with the position of its image in the request, from 0."""

    index: int

    @classmethod
    def from_prediction(
        cls,
        prediction: ImagePrediction,
        index: int,
        filename: str | None,
        decoding_ms: float,
        remarks: Sequence[str] = (),
    ) -> "ServedPrediction":
        """Return a prediction with its position, file name and remarks, and the time of decoding added."""
        elapsed_ms = round(prediction.elapsed_ms + decoding_ms, 3)
        own = {"index": index, "filename": filename, "elapsed_ms": elapsed_ms, "remarks": list(remarks)}
        return cls.model_construct(**prediction.__dict__ | own)


class ImageProblem(BaseModel, frozen=True):
    """Problem with one image of a request; the fields are those of a problem document."""

    index: int
    filename: str | None
    type: str
    title: str
    status: int
    detail: str


class PredictResponse(BaseModel):
    """Answer of `POST /v1/predict`: predictions in the order of the images sent.

    Attributes:
        request_id: Id of the request, also in `X-Request-ID`.
        model: Model that answered.
        predictions: One prediction per readable image.
        errors: One problem per unreadable image, if the request set `partial`.
        notice: Disclaimer, and the population that the model was trained on.
    """

    request_id: str
    model: ModelName
    predictions: list[ServedPrediction]
    errors: list[ImageProblem] = []
    notice: str = NOTICE


class ExplainResponse(BaseModel):
    """Answer of `POST /v1/explain?format=json`: the prediction for an image, and its heat map.

    Attributes:
        request_id: Id of the request, also in `X-Request-ID`.
        model: Model that answered.
        prediction: Prediction for the image.
        class_name: Class of the heat map.
        method: `cam`: a class activation map; `occlusion`: how much the score falls if a region is covered.
        peak: Colour strength of the strongest region: 1 is full, more is clipped; 0 or less if none is coloured.
        margin: How far the image lies above the decision limit, in calibrated logits; 0 if it lies below.
        film: The image as displayed, at most 1024 pixels per side: a gray PNG, base64.
        heat: Heat map to lay over `film`: a transparent PNG of the same size, base64.
        notice: Disclaimer, and the population that the model was trained on.
    """

    request_id: str
    model: ModelName
    prediction: ImagePrediction
    class_name: str
    method: Literal["cam", "occlusion"]
    peak: float
    margin: float
    film: str
    heat: str
    notice: str = NOTICE


class Status(BaseModel):
    """Answer of `/healthz` and `/readyz`."""

    status: Literal["ok", "degraded", "ready", "loading", "draining", "failed"]


class Problem(BaseModel):
    """A problem document (RFC 9457), `application/problem+json`.

    Attributes:
        type: `about:blank`, or a name of the kind of problem that programs can compare.
        title: Kind of problem in words.
        status: HTTP status.
        detail: The fault in this request, and its fix.
        request_id: Id of the request, also in `X-Request-ID`.
        filename: File at fault, if there is one.
        index: Position of that file in the request, from 0.
    """

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    request_id: str
    filename: str | None = None
    index: int | None = None

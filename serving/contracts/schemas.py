"""What the service and `pneumo predict` say about images."""

from collections.abc import Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

NOTICE = "research software, not a medical device"

SlotName = Literal["champion", "challenger", "shadow"]
"""What a loaded model is there for: to answer, to answer a share, or only to be compared."""


class ModelName(BaseModel):
    """Which model spoke, and the class that `probability` and `threshold` are about (None with more than two)."""

    model_config = ConfigDict(frozen=True)

    name: str
    version: str
    positive_class: str | None


class ImagePrediction(BaseModel):
    """What a model says about one image.

    Attributes:
        filename: As the client named it, or None.
        label: The class said: with a positive class, by the threshold; else the most probable.
        probability: Calibrated probability of the positive class; with more than two classes, of the label.
        probabilities: Calibrated probability of each class; they sum to 1.
        threshold: Probability from which the positive class is said; None with more than two classes.
        certainty: `certain` where the conformal set is the label alone.
        in_distribution: Whether the image resembles those the model was trained on.
        outlier_score: How strange the image is: about 0 for the typical held-out image, 1 near the limit.
        elapsed_ms: Decoding of this image and its share of the network's time, in milliseconds.
    """

    model_config = ConfigDict(frozen=True)

    filename: str | None
    label: str
    probability: float = Field(ge=0, le=1)
    probabilities: dict[str, float]
    threshold: float | None
    certainty: Literal["certain", "uncertain"]
    in_distribution: bool
    outlier_score: float
    elapsed_ms: float


class ServedPrediction(ImagePrediction):
    """A prediction with its place among the images of the request, and what is odd about the file.

    Attributes:
        index: The place, from 0.
        remarks: Such as a DICOM file of another modality; nothing is quoted but what the standard names.
    """

    index: int
    remarks: list[str] = []

    @classmethod
    def from_prediction(
        cls,
        prediction: ImagePrediction,
        index: int,
        filename: str | None,
        decoding_ms: float,
        remarks: Sequence[str] = (),
    ) -> "ServedPrediction":
        """Place and name a prediction, and add the time of decoding to its own."""
        own = {
            "index": index,
            "filename": filename,
            "elapsed_ms": round(prediction.elapsed_ms + decoding_ms, 3),
            "remarks": list(remarks),
        }
        return cls.model_construct(**prediction.__dict__ | own)


class ImageProblem(BaseModel):
    """Why there is no prediction for one image of a request; the fields mean what they do in a problem document."""

    model_config = ConfigDict(frozen=True)

    index: int
    filename: str | None
    type: str
    title: str
    status: int
    detail: str


class PredictResponse(BaseModel):
    """Answer of `POST /v1/predict`: predictions in the order of the images sent.

    Attributes:
        request_id: Of the request, also in `X-Request-ID`.
        model: What answered.
        predictions: One for each image that could be read.
        errors: One for each that could not, where `partial` was asked for.
        notice: What this is not.
    """

    request_id: str
    model: ModelName
    predictions: list[ServedPrediction]
    errors: list[ImageProblem] = []
    notice: str = NOTICE


class ExplainResponse(BaseModel):
    """Answer of `POST /v1/explain?format=json`: what is said about an image, and where the evidence lies.

    Attributes:
        request_id: Of the request, also in `X-Request-ID`.
        model: What answered.
        prediction: What is said.
        class_name: The class that the heat map is of.
        method: `cam`: a class activation map; `occlusion`: what the class loses where the image is covered.
        peak: How strongly the strongest place is coloured, 1 in full and more beyond; 0 or less where none is.
        margin: How far the image lies above the limit of the decision, in calibrated logits; 0 where it lies below.
        film: The image as it is shown, at most 1024 pixels a side: a gray PNG, base64.
        heat: What to lay on it: a transparent PNG of the same size, base64.
        notice: What this is not.
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

    status: Literal["ok", "ready", "loading", "draining", "failed"]


class Problem(BaseModel):
    """An error as of RFC 9457, `application/problem+json`.

    Attributes:
        type: `about:blank`, or a name of the kind of problem that programs can compare.
        title: The kind in words.
        status: HTTP status.
        detail: What is wrong with this request and how to mend it.
        request_id: Of the request, also in `X-Request-ID`.
        filename: The file that is at fault, where one is.
        index: Its position in the request, from 0.
    """

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    request_id: str
    filename: str | None = None
    index: int | None = None

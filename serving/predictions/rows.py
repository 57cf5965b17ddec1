"""A row of the prediction log, and its line in a spool file."""

import base64
import dataclasses
import json
import uuid
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from pneumo.serving.contracts.arrays import Float32
from pneumo.serving.contracts.schemas import ImagePrediction
from pneumo.serving.images.descriptors import Descriptors, compute_descriptors
from pneumo.serving.images.types import Picture

DESCRIPTORS = tuple(each.name for each in dataclasses.fields(Descriptors))
"""Names of the ten numbers that are computed from an image's pixels."""

TENSOR = "TENSOR"
"""Format of an image that its client prepared: nothing is known of the file, and all descriptors are 0."""

Columns = dict[str, Any]
"""Values of a row by the name of the database column."""


@dataclass(frozen=True, slots=True)
class Origin:
    """The request, whose id the client may have chosen, the place in it from 0, the model, and the site or None."""

    time: datetime
    request_id: str
    image_index: int
    model: str
    version: str
    lane: str
    site: str | None


@dataclass(frozen=True, slots=True)
class LogRow(Origin):
    """One image in the prediction log.

    Attributes:
        format: Container format of the file, such as `JPEG`.
        descriptors: See `pneumo.serving.images.descriptors`.
        embedding: float32 [P], whitened coordinates along the principal axes of training embeddings.
        probability: Calibrated; of the positive class, or of the label with more than two classes.
        latency_ms: Milliseconds from decoding to the answer.
        id: Key of the row, so that it is not written twice.
    """

    format: str
    descriptors: Descriptors
    embedding: Float32
    label: str
    probability: float
    certain: bool
    in_distribution: bool
    outlier_score: float
    latency_ms: float
    id: str = field(default_factory=lambda: uuid.uuid4().hex)

    @classmethod
    def from_prediction(
        cls, prediction: ImagePrediction, origin: Origin, picture: Picture | None, embedding: Float32
    ) -> "LogRow":
        """Build the row of a prediction, without the name of its file; None for the picture stands for a tensor."""
        return cls(
            **{name: getattr(origin, name) for name in _ORIGIN},
            format=picture.format if picture else TENSOR,
            descriptors=compute_descriptors(picture, picture.gray) if picture else _UNKNOWN,
            embedding=embedding,
            label=prediction.label,
            probability=prediction.probability,
            certain=prediction.certainty == "certain",
            in_distribution=prediction.in_distribution,
            outlier_score=prediction.outlier_score,
            latency_ms=prediction.elapsed_ms,
        )

    def values(self) -> Columns:
        """Return the row as database columns."""
        values = {name: getattr(self, name) for name in _COLUMNS}  # `asdict` copies: 30 times as long
        return values | vars(self.descriptors) | {"embedding": self.embedding.astype("<f4", copy=False).tobytes()}

    def to_json(self) -> str:
        """Return the row as a line of a spool file."""
        values = self.values()
        values["time"] = self.time.isoformat()
        values["embedding"] = base64.b64encode(values["embedding"]).decode("ascii")
        return json.dumps(values, separators=(",", ":"))


_ORIGIN = tuple(each.name for each in dataclasses.fields(Origin))
_COLUMNS = tuple(each.name for each in dataclasses.fields(LogRow) if each.name != "descriptors")
_UNKNOWN = Descriptors(**dict.fromkeys(DESCRIPTORS, 0.0))


def parse_row(line: str | bytes) -> Columns:
    """Read the columns of a row from a line of a spool file.

    Raises:
        ValueError, KeyError, TypeError: The line is damaged.
    """
    values: Columns = json.loads(line)
    embedding = base64.b64decode(values["embedding"], validate=True)
    return {"site": None, **values, "time": datetime.fromisoformat(values["time"]), "embedding": embedding}

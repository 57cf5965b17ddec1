"""A row of the prediction log, and how it survives where the database does not."""

import base64
import dataclasses
import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from pneumo.serving.contracts.arrays import Float32
from pneumo.serving.contracts.schemas import ImagePrediction
from pneumo.serving.images.descriptors import Descriptors

DESCRIPTORS = tuple(each.name for each in dataclasses.fields(Descriptors))
"""Names of the ten numbers that describe an image without a model."""


def _new_id() -> str:
    return uuid.uuid4().hex


@dataclass(frozen=True, slots=True)
class LogRow:
    """What is kept of one image.

    Attributes:
        time: When it was answered, UTC.
        request_id: Of the request, as the client may have chosen it.
        image_index: Its place in the request, from 0.
        model: Name of the model, with its `version`.
        lane: What that model is there for.
        format: Container format of the file, such as `JPEG`.
        descriptors: See `pneumo.serving.images.descriptors`.
        embedding: float32 [P], whitened coordinates along the widest directions of training embeddings.
        label: The class said.
        probability: Calibrated; of the positive class, or of the label with more than two classes.
        certain: Whether the conformal set was the label alone.
        in_distribution: Whether it looked like an image of training.
        outlier_score: How strange it was.
        latency_ms: From decoding to the answer.
        id: Of the row, so that it is not written twice.
    """

    time: datetime
    request_id: str
    image_index: int
    model: str
    version: str
    lane: str
    format: str
    descriptors: Descriptors
    embedding: Float32
    label: str
    probability: float
    certain: bool
    in_distribution: bool
    outlier_score: float
    latency_ms: float
    id: str = field(default_factory=_new_id)

    @classmethod
    def from_prediction(
        cls,
        prediction: ImagePrediction,
        *,
        time: datetime,
        request_id: str,
        image_index: int,
        model: str,
        version: str,
        lane: str,
        file_format: str,
        descriptors: Descriptors,
        embedding: Float32,
    ) -> "LogRow":
        """The row of a prediction; its file name is left out."""
        return cls(
            time=time,
            request_id=request_id,
            image_index=image_index,
            model=model,
            version=version,
            lane=lane,
            format=file_format,
            descriptors=descriptors,
            embedding=embedding,
            label=prediction.label,
            probability=prediction.probability,
            certain=prediction.certainty == "certain",
            in_distribution=prediction.in_distribution,
            outlier_score=prediction.outlier_score,
            latency_ms=prediction.elapsed_ms,
        )

    def values(self) -> dict[str, Any]:
        """The row as the database's columns."""
        known = {name: getattr(self, name) for name in _OWN}
        for name in DESCRIPTORS:
            known[name] = getattr(self.descriptors, name)
        known["embedding"] = self.embedding.astype("<f4", copy=False).tobytes()
        return known

    def to_json(self) -> str:
        """The row as a line of a spool file."""
        values = self.values()
        values["time"] = self.time.isoformat()
        values["embedding"] = base64.b64encode(values["embedding"]).decode("ascii")
        return json.dumps(values, separators=(",", ":"))


_OWN = tuple(each.name for each in dataclasses.fields(LogRow) if each.name != "descriptors")


def parse_row(line: str) -> dict[str, Any]:
    """Read the columns of a row from a line of a spool file.

    Raises:
        ValueError, KeyError: The line is damaged.
    """
    values: Mapping[str, Any] = json.loads(line)
    embedding = base64.b64decode(values["embedding"], validate=True)
    return {**values, "time": datetime.fromisoformat(values["time"]), "embedding": embedding}

"""Outputs of an exported graph for stored images, as the service computes them, and the reference for drift."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import batched
from typing import TYPE_CHECKING

import numpy as np

from pneumo.pipeline.data.manifest import Dataset, Row
from pneumo.serving.contracts.arrays import Float32
from pneumo.serving.contracts.cores import available_cores
from pneumo.serving.images.decode import read_stored
from pneumo.serving.images.descriptors import compute_descriptors
from pneumo.serving.images.preparation import Preparation, to_input
from pneumo.serving.images.thumbnails import make_thumbnails
from pneumo.serving.model.calibration import calibrate_logits
from pneumo.serving.model.outlier_score import ImageFeatures, OutlierScorer
from pneumo.serving.model.predictor import open_session

if TYPE_CHECKING:
    import pandas as pd

_BATCH = 32


@dataclass(frozen=True)
class GraphOutputs:
    """Outputs of a graph for N images, from their file bytes on.

    Attributes:
        rows: The images in the manifest.
        logits: [N, K].
        features: Features of the out-of-distribution score.
        descriptors: Descriptors of each image by name; they need no network.
    """

    rows: tuple[Row, ...]
    logits: Float32
    features: ImageFeatures
    descriptors: list[dict[str, float]]


def run_graph(graph: bytes, dataset: Dataset, rows: Sequence[Row], preparation: Preparation) -> GraphOutputs:
    """Run a graph over stored images as the service does: from their bytes.

    Raises:
        InputError: An image is missing, damaged or not the imported one.
    """
    session = open_session(graph, available_cores())
    logits, embeddings, thumbnails, descriptors = [], [], [], []
    for part in batched(rows, _BATCH):
        inputs = []
        for row in part:
            content = dataset.path(row).read_bytes()
            dataset.check(row, content)
            picture = replace(read_stored(content, preparation), width=row.width, height=row.height)
            inputs.append(to_input(picture.gray, preparation))
            descriptors.append(asdict(compute_descriptors(picture, picture.gray)))
        batch = np.stack(inputs)
        batch_logits, batch_embedding = session.run(["logits", "embedding"], {"image": batch})
        logits.append(batch_logits)
        embeddings.append(batch_embedding)
        thumbnails.append(make_thumbnails(batch))
    features = ImageFeatures(np.concatenate(embeddings), np.concatenate(thumbnails))
    return GraphOutputs(tuple(rows), np.concatenate(logits), features, descriptors)


def make_reference(
    parts: Sequence[GraphOutputs], outlier_scorer: OutlierScorer, positive: int | None, temperature: float
) -> "pd.DataFrame":
    """Return the reference for drift: descriptors, whitened embedding, probabilities and out-of-distribution score.

    `positive` is the column of the positive class, None with more than two. Patients have numbers, not names: drift
    needs only to know which images are of one patient.
    """
    import pandas as pd

    names = dict.fromkeys(row.patient for part in parts for row in part.rows)
    patients = {name: number for number, name in enumerate(names)}
    frames = []
    for part in parts:
        frame = pd.DataFrame(part.descriptors)
        frame.insert(0, "split", [row.split.name.lower() for row in part.rows])
        frame.insert(1, "label", [row.label for row in part.rows])
        frame.insert(2, "patient_number", [patients[row.patient] for row in part.rows])
        probabilities = calibrate_logits(part.logits, temperature)
        frame["probability"] = probabilities.max(axis=1) if positive is None else probabilities[:, positive]
        frame["probabilities"] = list(probabilities)
        frame["outlier_score"] = outlier_scorer.score(part.features.embeddings, part.features.thumbnails)
        frame["embedding"] = list(outlier_scorer.embedding.project(part.features.embeddings).astype(np.float32))
        frames.append(frame)
    return pd.concat(frames, ignore_index=True)

"""Run a bundle with ONNX Runtime: image bytes to predictions."""

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnxruntime

from pneumo.serving.contracts.arrays import Float32, Float64
from pneumo.serving.contracts.cores import available_cores, integers_overflow
from pneumo.serving.contracts.errors import InputError, first_line
from pneumo.serving.contracts.schemas import ImagePrediction
from pneumo.serving.contracts.setting_types import MAX_PIXELS
from pneumo.serving.images.decode import prepare, read_stored
from pneumo.serving.images.preparation import to_input
from pneumo.serving.images.thumbnails import make_thumbnails
from pneumo.serving.images.types import Picture
from pneumo.serving.model.bundle import EMBEDDING_SPACE, MODEL, Bundle, BundleError
from pneumo.serving.model.calibration import build_prediction_sets, calibrate_logits, find_certain
from pneumo.serving.model.graph_check import find_objection
from pneumo.serving.model.outlier_score import OutlierScorer

BATCH = 8
"""Images that go through the network at once: 32 were no faster at 224 px and took 2.5 times the memory."""

MAPS = "maps"
"""The graph's optional output of class activation maps (see `pneumo.pipeline.export.cam`)."""

MAPS_POINT = "maps_point"
"""Key of the graph's metadata: `true` if the maps mark the regions that the network uses."""


@dataclass(frozen=True)
class Outputs:
    """Outputs of the network for N images, and their thumbnails.

    Attributes:
        logits: float32 [N, K], columns in the order of the classes.
        embedding: float32 [N, D].
        thumbnails: float64 [N, SIDE, SIDE], see `pneumo.serving.images.thumbnails`.
    """

    logits: Float32
    embedding: Float32
    thumbnails: Float64


class Predictor:
    """A loaded and warm bundle; threads may share it.

    Attributes:
        bundle: The bundle.
        outlier_scorer: Computes the out-of-distribution score.
        has_maps: Whether the network returns class activation maps.
        maps_point: Whether the export found that they mark the regions that the network uses.
    """

    def __init__(self, bundle: Bundle, threads: int | None = None) -> None:
        """Load the network and the embedding space, and check their checksums.

        Args:
            bundle: The bundle to run.
            threads: Threads per network run; by default the available cores.

        Raises:
            BundleError: A file changed, or the network's outputs do not fit the bundle.
        """
        self.bundle = bundle
        model, space = bundle.read(MODEL), bundle.read(EMBEDDING_SPACE)
        try:
            self.outlier_scorer = OutlierScorer.from_bytes(space)
        except InputError as error:
            raise BundleError(f"{bundle.folder / EMBEDDING_SPACE}: {error}") from None
        try:
            self._session = open_session(model, threads or available_cores())
            preparation = bundle.info.preparation
            shape = (2, preparation.channels, preparation.height, preparation.width)
            black = np.zeros(shape, dtype=np.float32)
            self.has_maps = any(output.name == MAPS for output in self._session.get_outputs())
            self.maps_point = self._session.get_modelmeta().custom_metadata_map.get(MAPS_POINT) == "true"
            outputs, maps = self.run_with_maps(black) if self.has_maps else (self.run(black), None)
        except BundleError:
            raise
        except Exception as error:  # ONNX Runtime raises many kinds that share no base
            reason = first_line(error)
            raise BundleError(f"{bundle.folder / MODEL}: does not run: {reason}; export the model again") from None
        expected = ((2, len(bundle.info.classes)), (2, self.outlier_scorer.embedding.dimensions))
        shapes = (outputs.logits.shape, outputs.embedding.shape)
        if shapes != expected:
            given, needed = (f"logits {logits} and embedding {embedding}" for logits, embedding in (shapes, expected))
            reason = f"the graph gives {given} for two images; the bundle needs {needed}"
            raise BundleError(f"{bundle.folder / MODEL}: {reason}; export the model again")
        if maps is not None and (maps.ndim != 4 or maps.shape[:2] != expected[0]):
            reason = (
                f"the graph gives maps {maps.shape} for two images; the bundle needs {expected[0]}, height and width"
            )
            raise BundleError(f"{bundle.folder / MODEL}: {reason}; export the model again")

    def run(self, batch: Float32) -> Outputs:
        """Run the network on prepared images, float32 [N, C, H, W] in [0, 1].

        Raises:
            BundleError: The network returned values that are not finite.
        """
        logits, embedding = self._run(["logits", "embedding"], batch)
        return Outputs(logits, embedding, make_thumbnails(batch))

    def run_with_maps(self, batch: Float32) -> tuple[Outputs, Float32]:
        """Run a network that `has_maps`, as `run` does; also return maps of logits, float32 [N, K, h, w].

        The mean of a class's map is its logit.
        """
        logits, embedding, maps = self._run(["logits", "embedding", MAPS], batch)
        return Outputs(logits, embedding, make_thumbnails(batch)), maps

    def _run(self, names: list[str], batch: Float32) -> list[Float32]:
        outputs: list[Float32] = self._session.run(names, {"image": batch})
        if not all(np.isfinite(values).all() for values in outputs):
            raise BundleError(f"{self.bundle.folder / MODEL}: values that are not finite; export the model again")
        return outputs

    def prepare(self, data: bytes, *, max_pixels: int = MAX_PIXELS) -> Float32:
        """Turn the bytes of an image file into the network's input, float32 [C, H, W], or raise an `ImageError`."""
        return prepare(data, self.bundle.info.preparation, max_pixels=max_pixels)

    def predict(self, inputs: Sequence[Float32]) -> list[ImagePrediction]:
        """Predict prepared images, each float32 [C, H, W], `BATCH` at a time; the caller adds file names."""
        predictions: list[ImagePrediction] = []
        for start in range(0, len(inputs), BATCH):
            chunk = inputs[start : start + BATCH]
            began = time.perf_counter()
            outputs = self.run(np.stack(chunk))
            share = (time.perf_counter() - began) * 1000 / len(chunk)
            predictions += self.interpret_outputs(outputs, elapsed_ms=share)
        return predictions

    def interpret_outputs(self, outputs: Outputs, *, elapsed_ms: float) -> list[ImagePrediction]:
        """Turn the network's outputs into predictions: calibrated, with certainty and out-of-distribution score."""
        info = self.bundle.info
        probabilities = calibrate_logits(outputs.logits, info.temperature)
        threshold = None
        if info.positive_class is None:
            columns = labels = probabilities.argmax(axis=1)
        else:
            threshold, positive = info.thresholds["default"], info.classes.index(info.positive_class)
            columns = np.full(len(probabilities), positive)
            labels = np.where(probabilities[:, positive] >= threshold, positive, 1 - positive)
        scores = self.outlier_scorer.score(outputs.embedding, outputs.thumbnails)
        inside = scores <= info.outlier.limit
        certain = find_certain(build_prediction_sets(probabilities, info.conformal.limit), labels) & inside
        return [
            ImagePrediction(
                filename=None,
                label=info.classes[label],
                probability=float(row[column]),
                probabilities=dict(zip(info.classes, row.tolist(), strict=True)),
                threshold=threshold,
                certainty="certain" if is_certain else "uncertain",
                in_distribution=bool(is_inside),
                outlier_score=float(score),
                elapsed_ms=elapsed_ms,
            )
            for row, column, label, is_certain, is_inside, score in zip(
                probabilities, columns, labels, certain, inside, scores, strict=True
            )
        ]

    def project(self, embedding: Float32) -> Float32:
        """Whiten an embedding, float32 [D], as reference and log keep it: float32 [P], P at most 32."""
        return np.asarray(self.outlier_scorer.embedding.project(embedding[None])[0], dtype=np.float32)

    def list_remarks(self, picture: Picture) -> list[str]:
        """Return the remarks on a file, and that its patient is of another age than those trained on, if so."""
        population = self.bundle.info.population
        if picture.age is None or population is None or not population.excludes_age(picture.age):
            return list(picture.remarks)
        return [
            *picture.remarks,
            f"the patient's age is not among those that the model was trained on ({population.describe_ages()})",
        ]

    def predict_bytes(
        self, data: bytes, filename: str | None = None, *, max_pixels: int = MAX_PIXELS
    ) -> ImagePrediction:
        """Predict one image file, or raise an `ImageError`."""
        began = time.perf_counter()
        picture = read_stored(data, self.bundle.info.preparation, max_pixels=max_pixels)
        prepared = to_input(picture.gray, self.bundle.info.preparation)
        decoding = (time.perf_counter() - began) * 1000
        return name_prediction(self.predict([prepared])[0], filename, decoding, self.list_remarks(picture))


def name_prediction(
    prediction: ImagePrediction, filename: str | None, decoding_ms: float, remarks: Sequence[str]
) -> ImagePrediction:
    """Return a prediction with its file name, the time of decoding and the remarks about the file added."""
    elapsed_ms = round(prediction.elapsed_ms + decoding_ms, 3)
    return prediction.model_copy(update={"filename": filename, "elapsed_ms": elapsed_ms, "remarks": list(remarks)})


def open_session(model: bytes, threads: int) -> onnxruntime.InferenceSession:
    """Load an ONNX graph as the service runs it.

    Args:
        model: The graph.
        threads: Threads per run. Several processes on the same cores get cores / processes each (docs/benchmarks.md),
            since ONNX Runtime knows of no other process, nor of a container's quota.

    Raises:
        InputError: The graph is more than data (`pneumo.serving.model.graph_check`).
    """
    if objection := find_objection(model):
        raise InputError(f"refused: {objection}")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.enable_mem_pattern = False  # a plan per batch size: 19 MiB more for EfficientNet-Lite0, and no faster
    # Threads that spin while they wait take the cores from decoding and from neighbours: EfficientNet-Lite0 at 224 px,
    # on two busy cores, did 27 to 52 images/s with spinning and 58 to 127 without. The arena stays (without it batches
    # of 8 took 1.6 times as long); it grows with the largest batch, which `BATCH` bounds.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if integers_overflow():  # else an INT8 graph would answer otherwise than in its evaluation; slow, so only then
        options.add_session_config_entry("session.x64quantprecision", "1")
    # A second barrier behind the check above: without it, external data would be looked for in the working directory.
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", os.devnull)
    options.log_severity_level = 3  # errors only: warnings name nodes of the graph, which does not help an operator
    return onnxruntime.InferenceSession(model, sess_options=options, providers=["CPUExecutionProvider"])

"""Make a quantised graph on some validation images, judge it on the others, and refuse it or tell of it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pneumo.pipeline.data.manifest import Dataset, Row
from pneumo.pipeline.decisions import Decisions
from pneumo.pipeline.evaluation.cases import Scores
from pneumo.pipeline.evaluation.results import Bootstrap
from pneumo.pipeline.export.int8 import graph as graphs
from pneumo.pipeline.export.int8.acceptance import AcceptanceLimits, list_objections, measure_difference, measure_speeds
from pneumo.pipeline.export.int8.sensitivity import choose_float_layers, log_odds_change, rms
from pneumo.pipeline.export.int8.wording import describe_change
from pneumo.pipeline.runs.provenance import processor
from pneumo.pipeline.runs.reporter import SILENT, Reporter
from pneumo.serving.contracts.errors import CheckFailedError, InputError
from pneumo.serving.images.preparation import Preparation
from pneumo.serving.images.types import Gray
from pneumo.serving.model.bundle import Quantization

CALIBRATION_IMAGES = 128
_CALIBRATION_SHARE = 1 / 3


@dataclass(frozen=True)
class Sample:
    """Validation images, N of them.

    Attributes:
        rows: Where they come from.
        images: Model inputs, uint8 [H, W, C] each.
        logits: What the float graph says of them, [N, K].
    """

    rows: Sequence[Row]
    images: Sequence[Gray]
    logits: NDArray[np.floating]

    @classmethod
    def read(
        cls, dataset: Dataset, rows: Sequence[Row], preparation: Preparation, logits: NDArray[np.floating]
    ) -> "Sample":
        """Read images as the model takes them; `logits` [N, K] are what the float graph says of them.

        Raises:
            InputError: An image is missing, damaged or changed since the import.
        """
        from pneumo.pipeline.data.training_images import read_images

        return cls(rows, read_images(dataset, rows, preparation), logits)

    def select(self, indices: NDArray[np.int64]) -> "Sample":
        """Some of the images."""
        return Sample([self.rows[i] for i in indices], [self.images[i] for i in indices], self.logits[indices])


def quantize(
    graph: bytes,
    sample: Sample,
    classes: list[str],
    positive: str | None,
    decisions: Decisions,
    limits: AcceptanceLimits,
    reporter: Reporter = SILENT,
) -> tuple[bytes, Quantization]:
    """Quantise the convolutions of a graph, as many as do not hurt.

    Ranges and the layers left in float are chosen by some of the images, and what counts is how the result does on
    the images of all other patients.

    Temperature, threshold and conformal limit stay those of the float graph, which the metrics were measured with: on
    chest X-rays, fitted anew they differed little and no answer to a test image was better. What is familiar must be
    learned from the quantised graph, since its embeddings lie 1 to 2 % further out (docs/benchmarks.md).

    Args:
        graph: The float graph, ONNX, with `image` in, `logits` and `embedding` out, and whatever else.
        sample: Images that no weight was fitted on.
        classes: Class names, in column order.
        positive: The positive class with two classes, None with more.
        decisions: Of the float graph.
        limits: What it is refused for.
        reporter: Receives progress.

    Returns:
        The quantised graph and what it changed.

    Raises:
        InputError: Too few patients, or a class without images to judge by.
        CheckFailedError: No convolutions, or it changes too much, or it is not faster.
    """
    import onnxruntime

    making, judging = split_sample(sample)
    model = graphs.fold_batch_norms(graph)
    nodes = graphs.list_convolutions(model)
    if not nodes:
        raise CheckFailedError("INT8 was refused: the graph has no convolutions to quantise; no bundle was written")
    reporter.message(f"finding ranges on {len(making.rows)} validation images ...")
    ranges = graphs.calibrate_ranges(model, making.images)
    chosen = choose_float_layers(model, ranges, nodes, making.images, making.logits, decisions.temperature, reporter)
    reporter.message(f"judging the graph on {len(judging.rows)} other validation images ...")
    logits = graphs.run_graph(chosen.graph, judging.images)
    found = measure_difference(
        predict_scores(judging, judging.logits, classes),
        predict_scores(judging, logits, classes),
        classes,
        decisions,
        None if positive is None else classes.index(positive),
        Bootstrap(),
    )
    if found is None:
        raise InputError(
            f"the {len(judging.rows)} validation images left to judge INT8 by miss a class; take more validation images"
        )
    quantization = Quantization(
        method=graphs.METHOD,
        calibration_images=len(making.rows),
        images=len(judging.rows),
        patients=len({row.patient for row in judging.rows}),
        integer_nodes=len(chosen.integers),
        float_nodes=chosen.floats,
        auroc=found.auroc,
        decisions=found.decisions,
        certainty=found.certainty,
        max_probability_difference=found.max_probability_difference,
        log_odds=rms(log_odds_change(logits, judging.logits, decisions.temperature)),
        speed=measure_speeds(graph, chosen.graph, judging.images),
        processor=processor(),
        runtime=f"onnxruntime {onnxruntime.__version__}",
    )
    if reasons := list_objections(quantization, limits):
        raise CheckFailedError(
            f"INT8 was refused: {'; '.join(reasons)}; {len(judging.rows)} validation images, {len(chosen.floats)} of "
            f"{len(nodes)} convolutions in float; no bundle was written"
        )
    ratios = ", ".join(f"{speed.ratio:.2f} with a batch of {speed.batch}" for speed in quantization.speed)
    reporter.message(
        f"INT8: AUROC {describe_change(found.auroc, '+.4f')}, "
        f"decisions that are others {describe_change(found.decisions, '.1%')}, "
        f"speed {ratios}"
    )
    return chosen.graph, quantization


def split_sample(sample: Sample) -> tuple[Sample, Sample]:
    """Divide images by patient: for making, at most a third and not many more than CALIBRATION_IMAGES, and for judging.

    Raises:
        InputError: Fewer than two patients.
    """
    patients = sorted({row.patient for row in sample.rows})
    if len(patients) < 2:
        raise InputError(f"{len(patients)} validation patients; INT8 takes two at least, to be made and judged by")
    number = {patient: place for place, patient in enumerate(np.random.default_rng(0).permutation(patients))}
    places = np.array([number[row.patient] for row in sample.rows])
    images = np.cumsum(np.bincount(places))  # of the first patients
    wanted = min(CALIBRATION_IMAGES, len(places) * _CALIBRATION_SHARE)
    taken = max(1, int(np.searchsorted(images, wanted, side="right")))
    return sample.select(np.flatnonzero(places < taken)), sample.select(np.flatnonzero(places >= taken))


def predict_scores(sample: Sample, logits: NDArray[np.floating], classes: list[str]) -> Scores:
    """What some graph says of a sample, logits [N, K], as metrics take it."""
    return Scores(
        image=[row.image for row in sample.rows],
        split=np.array([row.split.name.lower() for row in sample.rows], dtype=np.str_),
        patient=np.array([row.patient for row in sample.rows], dtype=np.str_),
        truth=np.array([classes.index(row.label) for row in sample.rows], dtype=np.int64),
        logits=np.asarray(logits, dtype=np.float64),
    )

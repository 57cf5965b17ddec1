"""Quantise a graph on some validation images, judge it on the others, and accept or refuse it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pneumo.pipeline.data.manifest import Row
from pneumo.pipeline.evaluation.cases import Scores
from pneumo.pipeline.evaluation.results import Bootstrap
from pneumo.pipeline.export.int8 import graph as graphs
from pneumo.pipeline.export.int8.acceptance import (
    AcceptanceLimits,
    ClassDecisions,
    list_objections,
    measure_difference,
    measure_speeds,
)
from pneumo.pipeline.export.int8.sensitivity import CalibratedGraph, choose_float_layers, log_odds_change, rms
from pneumo.pipeline.export.int8.wording import describe_change, describe_speed
from pneumo.pipeline.runs.provenance import read_processor
from pneumo.pipeline.runs.reporter import SILENT, Reporter
from pneumo.serving.contracts.errors import CheckFailedError, InputError
from pneumo.serving.images.types import Gray
from pneumo.serving.model.bundle import Quantization

CALIBRATION_IMAGES = 128
_CALIBRATION_SHARE = 1 / 3


@dataclass(frozen=True)
class Sample:
    """Validation images: rows, model inputs uint8 [H, W, C], and logits of the float graph [N, K]."""

    rows: Sequence[Row]
    images: Sequence[Gray]
    logits: NDArray[np.floating]

    def select(self, indices: NDArray[np.int64]) -> "Sample":
        """Return some of the images."""
        return Sample([self.rows[i] for i in indices], [self.images[i] for i in indices], self.logits[indices])


def quantize(
    graph: bytes, sample: Sample, rules: ClassDecisions, limits: AcceptanceLimits, reporter: Reporter = SILENT
) -> tuple[bytes, Quantization]:
    """Quantise the convolutions of a float graph, except for the most harmful ones, and return it with its changes.

    Some of the images choose ranges and the layers left in float. The images of all other patients judge the result.

    Temperature, threshold and conformal limits stay those of the float graph, which the metrics were measured with: on
    chest X-rays, fitted again they differed little and improved no answer to a test image. The out-of-distribution
    score must be learned from the quantised graph, whose embeddings lie 1 to 2% further out (docs/benchmarks.md).

    Raises:
        InputError: Too few patients, or a class without images to judge by.
        CheckFailedError: The graph has no convolutions, or is beyond the limits.
    """
    import onnxruntime

    making, judging = split_sample(sample)
    model = graphs.fold_batch_norms(graph)
    nodes = graphs.list_convolutions(model)
    if not nodes:
        raise CheckFailedError("INT8 was refused: the graph has no convolutions to quantise; no bundle was written")
    reporter.message(f"finding ranges on {len(making.rows)} validation images ...")
    calibrated = CalibratedGraph(model, graphs.calibrate_ranges(model, making.images), nodes)
    temperature = rules.decisions.temperature
    quantized, floats = choose_float_layers(calibrated, making.images, making.logits, temperature, reporter)
    reporter.message(f"judging the graph on {len(judging.rows)} other validation images ...")
    logits = graphs.run_graph(quantized, judging.images)
    before, after = (Scores.from_rows(judging.rows, each, rules.classes) for each in (judging.logits, logits))
    difference = measure_difference(before, after, rules, Bootstrap())
    if difference is None:
        raise InputError(
            f"the {len(judging.rows)} validation images left to judge INT8 by miss a class; use more validation images"
        )
    quantization = Quantization(
        method=graphs.METHOD,
        calibration_images=len(making.rows),
        images=len(judging.rows),
        patients=len({row.patient for row in judging.rows}),
        integer_nodes=len(nodes) - len(floats),
        float_nodes=floats,
        auroc=difference.auroc,
        decisions=difference.decisions,
        certainty=difference.certainty,
        max_probability_difference=difference.max_probability_difference,
        log_odds=rms(log_odds_change(logits, judging.logits, temperature)),
        speed=measure_speeds(graph, quantized, judging.images),
        processor=read_processor(),
        runtime=f"onnxruntime {onnxruntime.__version__}",
    )
    if objections := list_objections(quantization, limits):
        raise CheckFailedError(
            f"INT8 was refused: {'; '.join(objections)}; {len(judging.rows)} validation images, {len(floats)} "
            f"of {len(nodes)} convolutions in float; no bundle was written"
        )
    reporter.message(
        f"INT8: AUROC {describe_change(difference.auroc, '+.4f')}, images with another predicted class "
        f"{describe_change(difference.decisions, '.1%')}, speed-up {describe_speed(quantization, ', ')}"
    )
    return quantized, quantization


def split_sample(sample: Sample) -> tuple[Sample, Sample]:
    """Split images by patient: at most a third, and about CALIBRATION_IMAGES, to quantise with, the others to judge by.

    Raises:
        InputError: Fewer than two patients.
    """
    patients = sorted({row.patient for row in sample.rows})
    if len(patients) < 2:
        raise InputError(f"{len(patients)} validation patients; INT8 needs at least two, to be quantised and judged by")
    number = {patient: place for place, patient in enumerate(np.random.default_rng(0).permutation(patients))}
    places = np.array([number[row.patient] for row in sample.rows])
    images = np.cumsum(np.bincount(places))  # of the first patients
    wanted = min(CALIBRATION_IMAGES, len(places) * _CALIBRATION_SHARE)
    taken = max(1, int(np.searchsorted(images, wanted, side="right")))
    return sample.select(np.flatnonzero(places < taken)), sample.select(np.flatnonzero(places >= taken))

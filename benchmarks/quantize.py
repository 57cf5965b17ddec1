"""Compare the choices in quantising a bundle on real validation images: speed, size, changed answers.

    python benchmarks/quantize.py RUN/bundle data

Two tables: how ranges are found and what integers are used, with every convolution in integers; and how many of the
convolutions that hurt most are left in float. Ranges and the order of layers come from some validation images, what
changed from those of all other patients. Speed is the ratio of processor time on one thread, both graphs in turns.

With `--shifts N` a third: N of those images under the simulated changes of the stress test, where an image may leave
the ranges that calibration saw. That takes some minutes more.
"""

import argparse
import copy
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pneumo.pipeline.data import manifest
from pneumo.pipeline.data.manifest import Split
from pneumo.pipeline.data.training_images import read_images
from pneumo.pipeline.evaluation.cases import Scores
from pneumo.pipeline.evaluation.results import Bootstrap, Metrics
from pneumo.pipeline.evaluation.stress.shifts import list_shifts
from pneumo.pipeline.export.int8 import Sample, graph
from pneumo.pipeline.export.int8.acceptance import ClassDecisions, Difference, measure_difference, measure_speeds
from pneumo.pipeline.export.int8.quantization import split_sample
from pneumo.pipeline.export.int8.sensitivity import (
    CalibratedGraph,
    choose_float_layers,
    group_neighbours,
    log_odds_change,
    rms,
)
from pneumo.pipeline.runs.reporter import SILENT
from pneumo.serving.images import preparation
from pneumo.serving.images.types import Gray
from pneumo.serving.model.bundle import MODEL, Bundle, BundleInfo

METHODS = {"least to greatest": {}, "99.99 % percentile": {"percentile": 99.99}, "entropy": {}}
INTEGERS = {
    "uint8, zero point": ("QUInt8", False, False),
    "int8, symmetric": ("QInt8", True, False),
    "uint8, weights of 7 bits": ("QUInt8", False, True),
}
LEFT = (0, 1, 2, 3, 4, 5, 8)


class Judge:
    """Says what a graph changes."""

    def __init__(self, info: BundleInfo, before: bytes, making: Sample, judging: Sample) -> None:
        self.info, self.before, self.making, self.judging = info, before, making, judging
        self.decisions = Metrics.model_validate(info.metrics).decisions
        self.rules = ClassDecisions(info.classes, info.positive_class, self.decisions)

    def compare(self, old: np.ndarray, new: np.ndarray, sample: Sample) -> Difference:
        before, after = (Scores.from_rows(sample.rows, logits, self.info.classes) for logits in (old, new))
        found = measure_difference(before, after, self.rules, Bootstrap(resamples=2))
        assert found, "a class is missing"
        return found

    def row(self, name: str, after: bytes) -> str:
        logits = graph.run_graph(after, self.judging.images)
        found = self.compare(self.judging.logits, logits, self.judging)
        odds = rms(log_odds_change(logits, self.judging.logits, self.decisions.temperature))
        ratios = " / ".join(f"{each.ratio:.2f}" for each in measure_speeds(self.before, after, self.judging.images))
        return (
            f"| {name} | {odds:.3f} | {found.max_probability_difference:.3f} | {found.decisions.value:.1%} "
            f"| {found.auroc.value:+.4f} | {ratios} |"
        )


def header(first: str) -> str:
    columns = [first, "log odds, rms", "largest probability", "decisions", "AUROC", "speed, batch 1 / 8"]
    return f"\n| {' | '.join(columns)} |\n|{' --- |' * len(columns)}"


def ranges_by(method: str, model: Any, images: Sequence[Gray]) -> Any:
    """Like `pneumo.pipeline.export.int8.graph.calibrate_ranges`, by another method.

    Histograms take whole batches only, and one at a time, since every tensor of them is kept.
    """
    from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, create_calibrator

    class Reader(CalibrationDataReader):
        def __init__(self, images: Sequence[Gray]) -> None:
            self.batches = graph.make_batches(images)

        def get_next(self) -> Any:
            batch = next(self.batches, None)
            return None if batch is None else {"image": batch}

    kinds = (CalibrationMethod.MinMax, CalibrationMethod.Percentile, CalibrationMethod.Entropy)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        path.write_bytes(model.SerializeToString())
        calibrator = create_calibrator(
            path,
            ["Conv", "Clip", "Relu"],
            augmented_model_path=str(Path(folder) / "augmented.onnx"),
            calibrate_method=kinds[list(METHODS).index(method)],
            extra_options=METHODS[method],
        )
        for start in range(0, len(images) // graph.BATCH * graph.BATCH, graph.BATCH):
            calibrator.collect_data(Reader(images[start : start + graph.BATCH]))
        return calibrator.compute_data()


def integers_by(kind: str, model: Any, ranges: Any, nodes: Sequence[str]) -> bytes:
    """Like `pneumo.pipeline.export.int8.graph.quantize_graph`, with other integers."""
    from onnxruntime.quantization import QDQQuantizer, QuantType

    activations, symmetric, narrow = INTEGERS[kind]
    outputs = {name for node in model.graph.node if node.name in nodes for name in node.output}
    behind = [node.name for node in model.graph.node if node.op_type in ("Clip", "Relu") and node.input[0] in outputs]
    quantizer = QDQQuantizer(
        copy.deepcopy(model),
        True,
        narrow,
        QuantType.QInt8,
        QuantType[activations],
        ranges,
        [*nodes, *behind],
        [],
        ["Conv", "Clip", "Relu"],
        {"ActivationSymmetric": symmetric},
    )
    quantizer.quantize_model()
    return bytes(quantizer.model.model.SerializeToString())


def order_of(judge: Judge, model: Any, ranges: Any, nodes: Sequence[str]) -> list[list[str]]:
    """Groups of layers, what changes the logits most first."""
    images, logits = judge.making.images[:64], judge.making.logits[:64]

    def alone(group: list[str]) -> float:
        found = graph.run_graph(graph.quantize_graph(model, ranges, group), images)
        return rms(log_odds_change(found, logits, judge.decisions.temperature))

    return sorted(group_neighbours(nodes), key=alone, reverse=True)


def shifted(judge: Judge, after: bytes, number: int, dataset: manifest.Dataset) -> None:
    chosen = np.random.default_rng(0).permutation(len(judge.judging.rows))[:number]
    sample = judge.judging.select(np.sort(chosen))
    how = judge.info.preparation
    whole = how.model_copy(update={"height": how.size, "width": how.size, "channels": 1})
    stored = [pixels[:, :, 0] for pixels in read_images(dataset, sample.rows, whole)]
    rows = []
    for shift in (None, *list_shifts()):
        changed = [
            shift.apply(gray, row.image) if shift else gray for gray, row in zip(stored, sample.rows, strict=True)
        ]
        small = [preparation.resize(gray, how.height, how.width) for gray in changed]
        images = [np.repeat(gray[:, :, None], how.channels, axis=2) for gray in small]
        old, new = graph.run_graph(judge.before, images), graph.run_graph(after, images)
        found = judge.compare(old, new, sample)
        odds = rms(log_odds_change(new, old, judge.decisions.temperature))
        rows.append((found.auroc.value, found.decisions.value, odds, shift.title if shift else "as they are"))
    print(f"\n{len(sample.rows)} images, as they are and under {len(rows) - 1} changes\n")
    print("| change | AUROC | decisions | log odds, rms |\n| --- | --- | --- | --- |")
    worst = {min(rows), max(rows, key=lambda row: row[1]), max(rows, key=lambda row: row[2]), rows[0]}
    for auroc, decisions, odds, name in [*(row for row in rows if row in worst)]:
        print(f"| {name} | {auroc:+.4f} | {decisions:.1%} | {odds:.3f} |")
    auroc, decisions, odds = np.mean([row[:3] for row in rows[1:]], axis=0)
    print(f"| mean of all changes | {auroc:+.4f} | {decisions:.1%} | {odds:.3f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path, help="A float bundle.")
    parser.add_argument("data", type=Path, help="The data set that it was trained on.")
    parser.add_argument("--methods", nargs="*", choices=list(METHODS), default=list(METHODS))
    parser.add_argument("--left", type=int, nargs="*", default=LEFT, help="How many groups of layers stay in float.")
    parser.add_argument("--shifts", type=int, default=0, help="Images to put through the stress test's changes.")
    options = parser.parse_args()
    bundle, dataset = Bundle.open(options.bundle), manifest.read_dataset(options.data)
    before = bundle.read(MODEL)
    rows = dataset.select(Split.VALIDATION)
    images = read_images(dataset, rows, bundle.info.preparation)
    sample = Sample(rows, images, graph.run_graph(before, images))
    judge = Judge(bundle.info, before, *split_sample(sample))
    model = graph.fold_batch_norms(before)
    nodes = graph.list_convolutions(model)
    print(
        f"{bundle.info.id}: {len(nodes)} convolutions, {len(judge.making.rows)} images to find ranges, "
        f"{len(judge.judging.rows)} others to judge by"
    )
    print(header("ranges (seconds); integers"))
    for method in options.methods:
        began = time.perf_counter()
        ranges = ranges_by(method, model, judge.making.images)
        name = f"{method} ({time.perf_counter() - began:.0f})"
        for kind in INTEGERS:
            print(judge.row(f"{name}; {kind}", integers_by(kind, model, ranges, nodes)), flush=True)
    ranges = graph.calibrate_ranges(model, judge.making.images)
    if options.left:
        groups = order_of(judge, model, ranges, nodes)
        print(header("convolutions in float"))
        for count in options.left:
            back = {name for group in groups[:count] for name in group}
            after = graph.quantize_graph(model, ranges, [name for name in nodes if name not in back])
            print(judge.row(f"{len(back)} of {len(nodes)}", after), flush=True)
    if options.shifts:
        temperature = judge.decisions.temperature
        images, logits = judge.making.images, judge.making.logits
        calibrated = CalibratedGraph(model, ranges, nodes)
        quantized, _ = choose_float_layers(calibrated, images, logits, temperature, SILENT)
        shifted(judge, quantized, options.shifts, dataset)


if __name__ == "__main__":
    main()

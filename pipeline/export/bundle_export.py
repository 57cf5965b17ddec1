"""From a run to a bundle: an ONNX graph, proven equal to the Ludwig model from the stored file bytes on."""

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pneumo.pipeline.data.manifest import Dataset, Row, Split
from pneumo.pipeline.data.training_images import ludwig_frame, name_for_ludwig, read_images
from pneumo.pipeline.decisions.outlier_limit import OutlierLimit, sample_rows
from pneumo.pipeline.evaluation import read_metrics
from pneumo.pipeline.evaluation.cases import positive_column, read_predictions
from pneumo.pipeline.evaluation.run_dataset import read_run_dataset
from pneumo.pipeline.evaluation.stress import stress_test
from pneumo.pipeline.export.bundle_folder import write_bundle_folder
from pneumo.pipeline.export.cam import NoMapsError, add_cam_output
from pneumo.pipeline.export.cam_agreement import AGREEMENT, measure_cam_agreement
from pneumo.pipeline.export.graph_outputs import GraphOutputs, make_reference, run_graph
from pneumo.pipeline.export.int8 import AcceptanceLimits, Sample, quantize
from pneumo.pipeline.export.int8.acceptance import ClassDecisions
from pneumo.pipeline.export.model_card import render_card
from pneumo.pipeline.ludwig import inference, runtime
from pneumo.pipeline.runs.reporter import SILENT, Reporter
from pneumo.pipeline.runs.run import Run, RunInfo, Status
from pneumo.serving.contracts.errors import CheckFailedError, InputError
from pneumo.serving.images.preparation import Preparation
from pneumo.serving.model.bundle import (
    EMBEDDING_SPACE,
    BundleInfo,
    Conformal,
    Outlier,
    Parity,
    compute_digest,
    seal_bundle,
)
from pneumo.serving.model.calibration import calibrate_logits
from pneumo.serving.model.graph_check import find_objection

if TYPE_CHECKING:
    import torch

    from pneumo.pipeline.ludwig.protocols import LudwigModel

TOLERANCE = 1e-4
"""Largest difference in probability between ONNX Runtime and Ludwig."""

PARITY_IMAGES = 64
"""Fewest real images, if there are as many, that are compared with Ludwig: a smaller data set is compared whole."""
MAP_IMAGES = 128
"""Fewest real images, if there are as many, for the proof of activation maps and their agreement with occlusion."""
_BATCH = 32


def export_run(
    run: Run, *, out: Path | None = None, int8: AcceptanceLimits | None = None, reporter: Reporter = SILENT
) -> Path:
    """Write a run's bundle and return its folder.

    Args:
        run: A trained and evaluated run.
        out: Folder of the bundle, which is replaced if it holds a bundle; None for `bundle` in the run's folder, or
            `bundle-int8` for INT8.
        int8: Limits within which the graph is quantised; None for a float graph.
        reporter: Receives progress.

    Raises:
        InputError: The run is not finished, its data set is gone or has changed, or `out` holds something else.
        CheckFailedError: ONNX Runtime and Ludwig disagree, or the quantised graph and the float one.
    """
    info = run.info()
    if info.status is not Status.DONE:
        raise InputError(
            f"{run.name}: {info.status.value}, not done; finish it with `pneumo train --resume {run.name}`"
        )
    metrics = read_metrics(run)
    decisions = metrics.decisions
    dataset = read_run_dataset(info)
    target = out or run.folder / ("bundle-int8" if int8 else "bundle")
    with write_bundle_folder(target) as partial:
        graph = partial / "model.onnx"
        runtime.load_ludwig(reporter)
        preparation = Preparation.model_validate(info.preparation)
        rules = ClassDecisions(info.classes, info.positive, decisions)
        with runtime.log_to_file(run.log):
            members = [(inference.load_model(member), member.info()) for member in run.list_members()]
            networks = [inference.prepare_network(model, own) for model, own in members]
            columns = [[own.classes.index(name) for name in info.classes] for _, own in members]
            with reporter.waiting("writing the graph"):
                write_graph(inference.join_networks(networks, columns), preparation, graph)
        _add_maps(graph, info, dataset, reporter)
        graph.write_bytes(describe_graph(graph.read_bytes(), preparation, rules))
        with reporter.waiting("checking the graph against Ludwig"), runtime.log_to_file(run.log):
            compared = run_graph(graph.read_bytes(), dataset, _parity_rows(dataset), preparation)
            parity = _check_parity(run, members[0][0], dataset, compared)
        validation = sample_rows(dataset.select(Split.VALIDATION))
        held_out = run_graph(graph.read_bytes(), dataset, validation, preparation)
        quantization = None
        if int8:
            sample = Sample(validation, read_images(dataset, validation, preparation), held_out.logits)
            content, quantization = quantize(graph.read_bytes(), sample, rules, int8, reporter)
            graph.write_bytes(content)
            held_out = run_graph(graph.read_bytes(), dataset, validation, preparation)
        training = run_graph(graph.read_bytes(), dataset, sample_rows(dataset.select(Split.TRAIN)), preparation)
        guard = OutlierLimit.fit(training.features, held_out.features, quantile=decisions.outlier_quantile)
        (partial / EMBEDDING_SPACE).write_bytes(guard.outlier_scorer.to_bytes())
        positive = positive_column(info.classes, info.positive)
        parts = [_replace_logits(run, part) if info.members else part for part in (training, held_out)]
        reference = make_reference(parts, guard.outlier_scorer, positive, decisions.temperature)
        reference.to_parquet(partial / "reference.parquet", index=False)
        shutil.copyfile(run.config, partial / "config.yaml")
        if (stress := run.folder / stress_test.FILE).is_file():  # the model card shows it
            shutil.copyfile(stress, partial / stress_test.FILE)
        name, version = name_bundle(run)
        digest = hashlib.sha256(metrics.model_dump_json().encode())
        for file in sorted(partial.iterdir()):
            digest.update(f"{file.name} {compute_digest(file)}\n".encode())
        if quantization:  # its measurements, such as the speed, differ each time
            version += "-int8"
            digest.update(quantization.model_dump_json().encode())
        bundle = BundleInfo(
            name=name,
            version=f"{version}-{digest.hexdigest()[:8]}",  # another version if the content changed
            classes=info.classes,
            positive_class=info.positive,
            preparation=preparation,
            temperature=decisions.temperature,
            thresholds={} if decisions.threshold is None else {"default": decisions.threshold},
            policy=decisions.policy,
            conformal=Conformal(
                level=decisions.conformal_level, limit=list(decisions.limits_by_class(info.classes).values())
            ),
            outlier=Outlier(limit=guard.limit, quantile=decisions.outlier_quantile),
            metrics=metrics.model_dump(mode="json"),
            data_fingerprint=info.data_fingerprint,
            population=dataset.info.population,
            provenance={"run": run.name, "source": dataset.info.source}
            | {key: getattr(info, key) for key in ("git_commit", "seed", "versions")},
            parity=parity,
            quantization=quantization,
        )
        (partial / "card.md").write_text(render_card(bundle, dataset.info, run), encoding="utf-8")
        seal_bundle(partial, bundle)
    reporter.message(
        f"ONNX Runtime and Ludwig agree to {parity.max_probability_difference:.1e} on {parity.images} images"
    )
    return target


def name_bundle(run: Run) -> tuple[str, str]:
    """Return name and version of a run's bundle: `smoke` and `<time>-1a2b` for the run `<time>-smoke-1a2b`."""
    began, _, rest = run.name.partition("-")
    name, _, tail = rest.rpartition("-")
    return (name, f"{began}-{tail}") if name else (run.name, "1")


def write_graph(network: "torch.nn.Module", preparation: Preparation, path: Path) -> None:
    """Export a network to ONNX: `image` [N, C, H, W] in, `logits` [N, K] and `embedding` [N, D] out, for any N.

    Metadata of nodes, which holds names of source files, is removed.

    Raises:
        CheckFailedError: The graph would be more than data (`pneumo.serving.model.graph_check`).
    """
    import onnx
    import torch

    example = torch.zeros(2, preparation.channels, preparation.height, preparation.width)
    with torch.no_grad():  # with gradients, convolutions would compute frozen batch norms
        program = torch.onnx.export(
            network.to("cpu"),
            (example,),
            dynamo=True,
            external_data=False,
            dynamic_shapes={"image": {0: torch.export.Dim("batch")}},
            input_names=["image"],
            output_names=["logits", "embedding"],
        )
    assert program is not None  # torch's dynamo exporter returns a program
    graph = program.model_proto
    del graph.metadata_props[:]
    for holder in (graph.graph, *graph.functions):
        for item in (holder, *holder.node, *getattr(holder, "value_info", ()), *getattr(holder, "initializer", ())):
            item.ClearField("metadata_props")
            item.ClearField("doc_string")
    onnx.checker.check_model(graph)
    content = graph.SerializeToString()
    if objection := find_objection(content):
        raise CheckFailedError(f"the exported graph was refused: {objection}; no bundle was written")
    path.write_bytes(content)


def describe_graph(graph: bytes, preparation: Preparation, rules: ClassDecisions) -> bytes:
    """Return a graph whose metadata hold, as JSON, what a user without pneumo needs: they may have no other file."""
    import onnx

    model = onnx.load_from_string(graph)
    entries = {
        "classes": rules.classes,
        "positive_class": rules.positive,
        "preparation": preparation.model_dump(mode="json"),
        "temperature": rules.decisions.temperature,
        "threshold": rules.decisions.threshold,
        "conformal_limits": rules.decisions.limits_by_class(rules.classes),
    }
    kept = [
        entry for entry in model.metadata_props if entry.key not in entries
    ]  # a recalibrated graph has them already
    del model.metadata_props[:]
    model.metadata_props.extend(kept)
    for key, value in entries.items():
        model.metadata_props.add(key=key, value=json.dumps(value))
    return bytes(model.SerializeToString())


def _add_maps(path: Path, info: RunInfo, dataset: Dataset, reporter: Reporter) -> None:
    """Give a graph the output `maps`, proven on real images, if its logits allow that.

    Maps are in the graph itself, though ONNX Runtime computes every output of a graph: they took 0.1 to 0.7% of the
    time of its nodes (EfficientNet-Lite0 at 128 and 224 px, and six of them in one graph; batches of 1 and 8).
    """
    import onnx

    rows = dataset.select(Split.VALIDATION) or dataset.select(Split.TRAIN)
    chosen = rows[:: max(1, len(rows) // MAP_IMAGES)]  # evenly, since rows lie by class
    pixels = np.stack(read_images(dataset, chosen, Preparation.model_validate(info.preparation)))
    images = pixels.transpose(0, 3, 1, 2).astype(np.float32) / np.float32(255)
    try:
        graph = add_cam_output(onnx.load(path), images[:: len(images) // _BATCH or 1])
    except NoMapsError as error:
        reporter.message(f"no class activation maps ({error}): heat maps will be computed by occlusion")
        return
    shown = None if info.positive is None else info.classes.index(info.positive)
    agreement = measure_cam_agreement(graph, images, shown)
    measured = "too few images to measure their agreement" if agreement is None else f"agreement {agreement:.2f}"
    method = "occlusion" if agreement is None or agreement < AGREEMENT else "these maps"
    reporter.message(f"class activation maps are exact ({measured} with occlusion): heat maps will use {method}")
    path.write_bytes(graph.SerializeToString())


def _parity_rows(dataset: Dataset) -> tuple[Row, ...]:
    """Return validation images, filled up to PARITY_IMAGES with test and then training images.

    The check compares arithmetic, not quality, so that any image will do.
    """
    rows = dataset.select(Split.VALIDATION)[: 4 * PARITY_IMAGES]
    others = (*dataset.select(Split.TEST), *dataset.select(Split.TRAIN))
    return (*rows, *others[: max(0, PARITY_IMAGES - len(rows))])


def _replace_logits(run: Run, outputs: GraphOutputs) -> GraphOutputs:
    """Return outputs with the out-of-fold logits of an ensemble's run: its members were trained on the images."""
    frame = read_predictions(run)
    logits = dict(zip(frame["image"], frame["logits"], strict=True))
    return replace(outputs, logits=np.stack([logits[row.image] for row in outputs.rows]).astype(np.float32))


def _check_parity(run: Run, model: "LudwigModel", dataset: Dataset, outputs: GraphOutputs) -> Parity:
    """Compare a graph's outputs with Ludwig's own predict, which gets arrays as in training.

    The reference of an ensemble is the mean of the logits that its members' Ludwig models give.

    Raises:
        CheckFailedError: A probability differs by more than `TOLERANCE`.
    """
    info = run.info()
    images = read_images(dataset, outputs.rows, Preparation.model_validate(info.preparation))
    if info.members:
        theirs = calibrate_logits(inference.predict_members(run, images), 1.0)
    else:
        frame = ludwig_frame(outputs.rows, images, image=info.image, label=info.label)
        answers, _ = model.predict(dataset=frame[[info.image]], batch_size=_BATCH, skip_save_predictions=True)
        columns = [f"{info.label}_probabilities_{name_for_ludwig(name)}" for name in info.classes]
        theirs = np.stack([answers[column].to_numpy(float) for column in columns], 1)
    difference = float(np.abs(calibrate_logits(outputs.logits, 1.0) - theirs).max())
    if not difference <= TOLERANCE:
        raise CheckFailedError(
            f"{info.name}: ONNX Runtime and Ludwig differ by {difference:.2e} in probability on "
            f"{len(outputs.rows)} images, more than {TOLERANCE:.0e}; no bundle was written"
        )
    return Parity(images=len(outputs.rows), max_probability_difference=difference, tolerance=TOLERANCE)

"""From a run to a bundle: an ONNX graph, proven equal to the Ludwig model from the stored file bytes on."""

import hashlib
import os
import secrets
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pneumo.pipeline.data import manifest
from pneumo.pipeline.data.manifest import Dataset, Row, Split
from pneumo.pipeline.decisions.outlier_limit import OutlierLimit, spread
from pneumo.pipeline.evaluation import read_metrics
from pneumo.pipeline.evaluation.stress import stress_test
from pneumo.pipeline.export.cam import NoMapsError, add_cam_output
from pneumo.pipeline.export.cam_agreement import AGREEMENT, measure_cam_agreement
from pneumo.pipeline.export.int8 import AcceptanceLimits, Sample, quantize
from pneumo.pipeline.export.model_card import render_card
from pneumo.pipeline.ludwig import inference, runtime
from pneumo.pipeline.runs.reporter import SILENT, Reporter
from pneumo.pipeline.runs.run import Run, RunInfo, Status
from pneumo.serving.contracts.errors import CheckFailedError, InputError
from pneumo.serving.images.decode import read_gray
from pneumo.serving.images.descriptors import compute_descriptors
from pneumo.serving.images.preparation import Preparation, to_input
from pneumo.serving.images.thumbnails import make_thumbnails
from pneumo.serving.model.bundle import (
    EMBEDDING_SPACE,
    Bundle,
    BundleInfo,
    Conformal,
    Outlier,
    Parity,
    compute_digest,
    seal_bundle,
)
from pneumo.serving.model.calibration import calibrate_logits
from pneumo.serving.model.outlier_score import ImageFeatures, OutlierScorer

if TYPE_CHECKING:
    import torch

TOLERANCE = 1e-4
"""Largest difference in probability between ONNX Runtime and Ludwig."""

PARITY_IMAGES = 64
MAP_IMAGES = 128
"""Real images, as many at least where there are, that activation maps are proven and judged on."""
_BATCH = 32


@dataclass(frozen=True)
class _Seen:
    """What the exported graph says about some images, from their file bytes on: logits [N, K], embedding [N, D].

    Beside it what needs no network: thumbnails [N, SIDE, SIDE] and descriptors.
    """

    rows: tuple[Row, ...]
    logits: NDArray[np.float32]
    embedding: NDArray[np.float32]
    thumbnails: NDArray[np.float64]
    descriptors: list[dict[str, float]]

    @property
    def known(self) -> ImageFeatures:
        """What the out-of-distribution score takes."""
        return ImageFeatures(self.embedding, self.thumbnails)


def export_run(
    run: Run,
    *,
    out: Path | None = None,
    tolerance: float = TOLERANCE,
    int8: AcceptanceLimits | None = None,
    reporter: Reporter = SILENT,
) -> Path:
    """Write a run's bundle.

    Args:
        run: A trained and evaluated run.
        out: Where to; `bundle` in the run's folder where None, `bundle-int8` for INT8. A bundle that is there is
            replaced.
        tolerance: Largest difference in probability between the float graph and Ludwig that is accepted.
        int8: Quantise the graph, within these limits.
        reporter: Receives progress.

    Returns:
        The bundle's folder.

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
    dataset = _dataset(info)
    target = out or run.folder / ("bundle-int8" if int8 else "bundle")
    if target.exists() and any(target.iterdir()) and not (target / "bundle.json").is_file():
        raise InputError(f"{target}: holds something that is not a bundle; choose another --out")
    partial = target.with_name(f".{target.name}-{os.getpid()}-{secrets.token_hex(2)}")
    partial.mkdir(parents=True)
    try:
        runtime.load_ludwig(reporter)
        preparation = Preparation.model_validate(info.preparation)
        with runtime.log_to_file(run.log):
            model = inference.load_model(run)
            reporter.message("writing the graph ...")
            write_graph(inference.prepare_network(model, info), preparation, partial / "model.onnx")
        _add_maps(partial / "model.onnx", info, dataset, reporter)
        reporter.message("checking the graph against Ludwig ...")
        compared = _look(partial / "model.onnx", dataset, _parity_rows(dataset), preparation)
        with runtime.log_to_file(run.log):
            parity = _check_parity(model, info, dataset, compared, tolerance)
        held_out = _look(partial / "model.onnx", dataset, spread(dataset.select(Split.VALIDATION)), preparation)
        quantization = None
        if int8:
            sample = Sample.read(dataset, held_out.rows, preparation, held_out.logits)
            graph = (partial / "model.onnx").read_bytes()
            graph, quantization = quantize(graph, sample, info.classes, info.positive, decisions, int8, reporter)
            (partial / "model.onnx").write_bytes(graph)
            held_out = _look(partial / "model.onnx", dataset, held_out.rows, preparation)
        training = _look(partial / "model.onnx", dataset, spread(dataset.select(Split.TRAIN)), preparation)
        guard = OutlierLimit.fit(training.known, held_out.known, quantile=decisions.outlier_quantile)
        outlier_scorer = guard.outlier_scorer
        (partial / EMBEDDING_SPACE).write_bytes(outlier_scorer.to_bytes())
        _write_reference(
            partial / "reference.parquet", (training, held_out), outlier_scorer, info, decisions.temperature
        )
        shutil.copyfile(run.config, partial / "config.yaml")
        if (found := run.folder / stress_test.FILE).is_file():  # the card tells of it
            shutil.copyfile(found, partial / stress_test.FILE)
        name, version = identity(run)
        content = hashlib.sha256(metrics.model_dump_json().encode())
        for file in sorted(partial.iterdir()):
            content.update(f"{file.name} {compute_digest(file)}\n".encode())
        if quantization:  # what it was judged by, such as its speed, differs each time
            version += "-int8"
            content.update(quantization.model_dump_json().encode())
        sealed = BundleInfo(
            name=name,
            version=f"{version}-{content.hexdigest()[:8]}",  # exported again after a change, it is another version
            classes=info.classes,
            positive_class=info.positive,
            preparation=preparation,
            temperature=decisions.temperature,
            thresholds={} if decisions.threshold is None else {"default": decisions.threshold},
            policy=decisions.policy,
            conformal=Conformal(level=decisions.conformal_level, limit=decisions.conformal_limit),
            outlier=Outlier(limit=guard.limit, quantile=decisions.outlier_quantile),
            metrics=metrics.model_dump(mode="json"),
            data_fingerprint=info.data_fingerprint,
            provenance={
                "run": run.name,
                "git_commit": info.git_commit,
                "seed": info.seed,
                "versions": info.versions,
            },
            parity=parity,
            quantization=quantization,
        )
        (partial / "card.md").write_text(render_card(sealed, dataset.info, run), encoding="utf-8")
        seal_bundle(partial, sealed)
        Bundle.open(partial)
        _replace(partial, target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    reporter.message(
        f"ONNX Runtime and Ludwig agree to {parity.max_probability_difference:.1e} on {parity.images} images"
    )
    return target


def identity(run: Run) -> tuple[str, str]:
    """Name and version of a run's bundle: `20260102T030405Z-smoke-1a2b` is `smoke`, `20260102T030405Z-1a2b`."""
    began, _, rest = run.name.partition("-")
    name, _, tail = rest.rpartition("-")
    return (name, f"{began}-{tail}") if name else (run.name, "1")


def write_graph(network: "torch.nn.Module", preparation: Preparation, path: Path) -> None:
    """Export a network to ONNX: `image` [N, C, H, W] in, `logits` [N, K] and `embedding` [N, D] out, any N.

    Node metadata, which holds names of source files, is removed.
    """
    import onnx
    import torch

    example = torch.zeros(2, preparation.channels, preparation.height, preparation.width)
    with torch.no_grad():  # with gradients, frozen batch norms would be computed by their convolutions
        program = torch.onnx.export(
            network.to("cpu"),
            (example,),
            dynamo=True,
            external_data=False,
            dynamic_shapes={"image": {0: torch.export.Dim("batch")}},
            input_names=["image"],
            output_names=["logits", "embedding"],
        )
    if program is None:  # torch's signature allows it, its dynamo exporter never does it
        raise CheckFailedError("torch exported nothing")
    graph = program.model_proto
    del graph.metadata_props[:]
    for holder in (graph.graph, *graph.functions):
        for item in (holder, *holder.node, *getattr(holder, "value_info", ()), *getattr(holder, "initializer", ())):
            del item.metadata_props[:]
            if hasattr(item, "doc_string"):
                item.doc_string = ""
    onnx.checker.check_model(graph)
    path.write_bytes(graph.SerializeToString())


def _add_maps(path: Path, info: RunInfo, dataset: Dataset, reporter: Reporter) -> None:
    """Give a graph the output `maps`, proven on real images, where its logits allow that.

    They lie in the graph itself, though ONNX Runtime computes every output that a graph has: they took 0.1 to 0.7 % of
    the time of its nodes (EfficientNet-Lite0 at 128 and 224 px, and six of them in one graph; batches of 1 and 8).
    """
    import onnx

    from pneumo.pipeline.data.training_images import read_images

    rows = dataset.select(Split.VALIDATION) or dataset.select(Split.TRAIN)
    chosen = rows[:: max(1, len(rows) // MAP_IMAGES)]  # evenly, since rows lie by class
    pixels = np.stack(read_images(dataset, chosen, Preparation.model_validate(info.preparation)))
    images = pixels.transpose(0, 3, 1, 2).astype(np.float32) / np.float32(255)
    try:
        graph = add_cam_output(onnx.load(path), images[:: len(images) // _BATCH or 1])
    except NoMapsError as error:
        reporter.message(f"no class activation maps ({error}): heat maps will be made by occlusion")
        return
    shown = None if info.positive is None else info.classes.index(info.positive)
    agreement = measure_cam_agreement(graph, images, shown)
    found = "too few images to tell their agreement" if agreement is None else f"agreement {agreement:.2f}"
    method = "occlusion" if agreement is None or agreement < AGREEMENT else "them"
    reporter.message(f"class activation maps are exact ({found} with occlusion): heat maps will be made by {method}")
    path.write_bytes(graph.SerializeToString())


def _dataset(info: RunInfo) -> Dataset:
    try:
        dataset = manifest.read_dataset(Path(info.data))
    except InputError as error:
        raise InputError(f"{info.name}: its data set cannot be read: {error}") from None
    if len(dataset.rows) < PARITY_IMAGES:
        raise InputError(
            f"{info.data}: {len(dataset.rows)} images; the check against Ludwig takes at least {PARITY_IMAGES}"
        )
    if dataset.info.fingerprint != info.data_fingerprint:
        raise InputError(
            f"{info.data}: not the data set that {info.name} was trained on (its fingerprint differs); "
            "import that one again"
        )
    return dataset


def _look(graph: Path, dataset: Dataset, rows: tuple[Row, ...], preparation: Preparation) -> _Seen:
    """Run the exported graph over stored images as the service would: from their bytes."""
    import onnxruntime

    session = onnxruntime.InferenceSession(graph.read_bytes(), providers=["CPUExecutionProvider"])
    logits, embeddings, small, descriptors = [], [], [], []
    for start in range(0, len(rows), _BATCH):
        inputs = []
        for row in rows[start : start + _BATCH]:
            content = dataset.path(row).read_bytes()
            dataset.check(row, content)
            picture = read_gray(content)
            inputs.append(to_input(picture.gray, preparation))
            original = asdict(compute_descriptors(picture, picture.gray))
            descriptors.append(original | {"width": row.width, "height": row.height, "aspect": row.width / row.height})
        batch = np.stack(inputs)
        batch_logits, batch_embedding = session.run(["logits", "embedding"], {"image": batch})
        logits.append(batch_logits)
        embeddings.append(batch_embedding)
        small.append(make_thumbnails(batch))
    return _Seen(rows, np.concatenate(logits), np.concatenate(embeddings), np.concatenate(small), descriptors)


def _parity_rows(dataset: Dataset) -> tuple[Row, ...]:
    """Validation images; where they are fewer than PARITY_IMAGES, test and then training images fill up.

    What is compared is arithmetic, not quality, so that any image will do.
    """
    rows = dataset.select(Split.VALIDATION)[: 4 * PARITY_IMAGES]
    others = (*dataset.select(Split.TEST), *dataset.select(Split.TRAIN))
    return (*rows, *others[: max(0, PARITY_IMAGES - len(rows))])


def _check_parity(model: Any, info: RunInfo, dataset: Dataset, seen: _Seen, tolerance: float) -> Parity:
    """Compare what the graph says with Ludwig's own predict, which is given arrays as in training.

    Raises:
        CheckFailedError: A probability differs by more than `tolerance`.
    """
    from pneumo.pipeline.data.training_images import ludwig_frame, read_images

    images = read_images(dataset, seen.rows, Preparation.model_validate(info.preparation))
    frame = ludwig_frame(seen.rows, images, image=info.image, label=info.label)
    answers, _ = model.predict(dataset=frame[[info.image]], batch_size=_BATCH, skip_save_predictions=True)
    theirs = np.stack([answers[f"{info.label}_probabilities_{name}"].to_numpy(float) for name in info.classes], 1)
    difference = float(np.abs(calibrate_logits(seen.logits, 1.0) - theirs).max())
    if not difference <= tolerance:
        raise CheckFailedError(
            f"{info.name}: ONNX Runtime and Ludwig differ by {difference:.2e} in probability on "
            f"{len(seen.rows)} images, more than {tolerance:.0e}; no bundle was written"
        )
    return Parity(images=len(seen.rows), max_probability_difference=difference, tolerance=tolerance)


def _write_reference(
    path: Path, seen: tuple[_Seen, ...], outlier_scorer: OutlierScorer, info: RunInfo, temperature: float
) -> None:
    """Descriptors, whitened embedding, probabilities, outlier score of known images: what drift is measured against.

    Patients are numbered, not named: which images are of one patient is all that drift needs to know.
    """
    import pandas as pd

    names = dict.fromkeys(row.patient for part in seen for row in part.rows)
    patients = {name: number for number, name in enumerate(names)}
    parts = []
    for part in seen:
        frame = pd.DataFrame(part.descriptors)
        frame.insert(0, "split", [row.split.name.lower() for row in part.rows])
        frame.insert(1, "label", [row.label for row in part.rows])
        frame.insert(2, "patient_number", [patients[row.patient] for row in part.rows])
        probabilities = calibrate_logits(part.logits, temperature)
        frame["probability"] = (
            probabilities.max(axis=1) if info.positive is None else probabilities[:, info.classes.index(info.positive)]
        )
        frame["probabilities"] = list(probabilities)
        frame["outlier_score"] = outlier_scorer.score(part.embedding, part.thumbnails)
        frame["embedding"] = list(outlier_scorer.embedding.project(part.embedding).astype(np.float32))
        parts.append(frame)
    pd.concat(parts, ignore_index=True).to_parquet(path, index=False)


def _replace(partial: Path, target: Path) -> None:
    if target.exists():
        old = target.with_name(f"{partial.name}-old")
        target.rename(old)
        partial.rename(target)
        shutil.rmtree(old)
    else:
        partial.rename(target)

import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import onnxruntime
import pandas as pd
import pytest
import torch

from pneumo.pipeline.data import manifest
from pneumo.pipeline.data.manifest import Dataset, Split
from pneumo.pipeline.export import bundle_export as exporting
from pneumo.pipeline.export.bundle_export import export_run, name_bundle
from pneumo.pipeline.runs.reporter import Reporter
from pneumo.pipeline.runs.run import Run
from pneumo.serving.contracts.errors import CheckFailedError, InputError
from pneumo.serving.images.decode import prepare
from pneumo.serving.images.types import Decode
from pneumo.serving.model.bundle import Bundle
from pneumo.serving.model.calibration import calibrate_logits
from pneumo.serving.model.predictor import Predictor


def test_a_bundle_holds_all_of_the_contract(exported: Path, trained: Run, dataset: Dataset) -> None:
    bundle = Bundle.open(exported)

    assert set(bundle.info.files) == {
        "model.onnx",
        "embedding_space.npz",
        "reference.parquet",
        "config.yaml",
        "card.md",
    }
    assert bundle.info.classes == ["NORMAL", "PNEUMONIA"]
    assert bundle.info.positive_class == "PNEUMONIA"
    assert bundle.info.preparation.height == 32
    assert bundle.info.preparation.decode is dataset.info.decode is Decode.SCALED
    assert bundle.info.data_fingerprint == trained.info().data_fingerprint
    assert bundle.info.provenance["run"] == trained.name
    assert (exported / "config.yaml").read_bytes() == trained.config.read_bytes()


def test_parity_with_ludwig_is_measured_and_written(exported: Path) -> None:
    parity = Bundle.open(exported).info.parity

    assert parity.images >= 64
    assert 0 <= parity.max_probability_difference <= 1e-4


@pytest.mark.usefixtures("ready_graph")
def test_a_run_of_few_images_is_compared_with_ludwig_on_all_of_them(
    trained: Run, dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = replace(dataset, rows=dataset.rows[::8])
    assert few.select(Split.TRAIN)
    assert few.select(Split.VALIDATION)
    monkeypatch.setattr(exporting, "read_run_dataset", lambda info: few)
    bundle = Bundle.open(export_run(trained, out=tmp_path / "bundle"))
    assert bundle.info.parity.images == len(few.rows) == 25
    assert 0 <= bundle.info.parity.max_probability_difference <= 1e-4
    assert "25 images" in (bundle.folder / "card.md").read_text()


def test_the_graph_takes_any_batch_and_gives_logits_and_embedding(exported: Path) -> None:
    session = onnxruntime.InferenceSession(exported / "model.onnx", providers=["CPUExecutionProvider"])

    assert [item.name for item in session.get_inputs()] == ["image"]
    for count in (1, 2, 7):
        logits, embedding = session.run(None, {"image": np.zeros((count, 1, 32, 32), np.float32)})
        assert logits.shape == (count, 2)
        assert embedding.shape == (count, 16)
    assert not (logits >= 0).all() or not np.allclose(logits.sum(axis=1), 1)  # no softmax inside


def test_the_graph_names_no_source_file(exported: Path) -> None:
    content = (exported / "model.onnx").read_bytes()

    assert b".py" not in content
    assert b"site-packages" not in content
    onnx.checker.check_model(onnx.load_from_string(content))


def test_the_graph_says_how_to_use_it(exported: Path) -> None:
    session = onnxruntime.InferenceSession(exported / "model.onnx", providers=["CPUExecutionProvider"])
    told = {key: json.loads(value) for key, value in session.get_modelmeta().custom_metadata_map.items()}
    info = Bundle.open(exported).info

    assert told == {
        "classes": info.classes,
        "positive_class": info.positive_class,
        "preparation": info.preparation.model_dump(mode="json"),
        "temperature": info.temperature,
        "threshold": info.thresholds["default"],
        "conformal_limits": dict(zip(info.classes, info.conformal.limit, strict=True)),
    }


@pytest.mark.parametrize("flaw", ["external data", "domain 'mine'"])
def test_a_graph_that_is_more_than_data_is_not_written(
    exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flaw: str
) -> None:
    graph = onnx.load(exported / "model.onnx")
    if flaw == "external data":
        graph.graph.initializer[0].external_data.add(key="location", value=".env")
    else:
        graph.graph.node[0].domain = "mine"
    monkeypatch.setattr("onnx.checker.check_model", lambda model: None)
    monkeypatch.setattr("torch.onnx.export", lambda *_, **__: SimpleNamespace(model_proto=graph))

    with pytest.raises(CheckFailedError, match=f"exported graph was refused.*{flaw}.*no bundle was written"):
        exporting.write_graph(torch.nn.Identity(), Bundle.open(exported).info.preparation, tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []


def test_the_bundle_gives_the_probabilities_of_the_run(exported: Path, trained: Run, dataset: Dataset) -> None:
    bundle = Bundle.open(exported)
    predictor = Predictor(bundle)
    frame = pd.read_parquet(trained.predictions)
    rows = dataset.select(Split.TEST)
    inputs = np.stack([prepare(dataset.path(row).read_bytes(), bundle.info.preparation) for row in rows])

    ours = calibrate_logits(predictor.run(inputs).logits, bundle.info.temperature)

    logits = np.stack(frame[frame["split"] == "test"]["logits"].to_list())
    np.testing.assert_allclose(ours, calibrate_logits(logits, bundle.info.temperature), atol=1e-5)


def test_the_reference_holds_what_drift_needs_and_no_image(exported: Path, dataset: Dataset) -> None:
    reference = pd.read_parquet(exported / "reference.parquet")

    assert set(reference["split"]) == {"train", "validation"}
    assert len(reference) == len(dataset.select(Split.TRAIN)) + len(dataset.select(Split.VALIDATION))
    assert {"mean", "contrast", "probability", "outlier_score", "embedding"} <= set(reference.columns)
    assert not {"image", "source", "patient"} & set(reference.columns)
    rows = (*dataset.select(Split.TRAIN), *dataset.select(Split.VALIDATION))
    numbers = {(row.patient, int(number)) for row, number in zip(rows, reference["patient_number"], strict=True)}
    assert len(numbers) == len({row.patient for row in rows}) == reference["patient_number"].nunique()
    held_out = reference[reference["split"] == "validation"]
    assert (held_out["outlier_score"] > Bundle.open(exported).info.outlier.limit).mean() <= 0.05


def test_an_export_replaces_a_bundle_by_the_same_as_before_and_says_that_it_has_no_maps(
    exported: Path, trained: Run, tmp_path: Path
) -> None:
    old = tmp_path / "old"
    shutil.copytree(exported, old)
    (old / "config.yaml").write_text("old", encoding="utf-8")
    said: list[str] = []

    again = Bundle.open(export_run(trained, out=old, reporter=Reporter(said.append)))

    assert again.digest == Bundle.open(exported).digest
    assert not Predictor(again).has_maps
    assert [line for line in said if "no class activation maps" in line and "by occlusion" in line]
    assert [path.name for path in tmp_path.iterdir()] == ["old"]


def test_what_is_no_bundle_is_not_replaced(trained: Run, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("years of work", encoding="utf-8")
    with pytest.raises(InputError, match="not a bundle"):
        export_run(trained, out=mine)
    assert (mine / "thesis.txt").read_text(encoding="utf-8") == "years of work"
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_a_graph_that_disagrees_with_ludwig_is_no_bundle(
    exported: Path, trained: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def falsified(network: object, preparation: object, path: Path) -> None:
        graph = onnx.load(exported / "model.onnx")
        weights = max(graph.graph.initializer, key=lambda item: np.prod(item.dims))
        weights.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(weights) * 1.05, weights.name))
        onnx.save(graph, path)

    monkeypatch.setattr(exporting, "write_graph", falsified)

    with pytest.raises(CheckFailedError, match=r"differ by .* in probability"):
        export_run(trained, out=tmp_path / "bundle")
    assert list(tmp_path.iterdir()) == []


def test_a_run_whose_data_changed_is_not_exported(trained: Run, dataset: Dataset, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    shutil.copytree(dataset.folder, folder)
    other = dataset.info.model_copy(update={"fingerprint": "0" * 64})
    manifest.write_dataset(folder, dataset.rows, other)
    run = Run(tmp_path / trained.name)
    shutil.copytree(trained.folder, run.folder)
    run.save(trained.info().model_copy(update={"data": str(folder)}))

    with pytest.raises(InputError, match="fingerprint differs"):
        export_run(run)


def test_a_run_that_was_not_evaluated_is_not_exported(trained: Run, tmp_path: Path) -> None:
    run = Run(tmp_path / "bare")
    run.folder.mkdir()
    run.save(trained.info())

    with pytest.raises(InputError, match="not evaluated yet"):
        export_run(run)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("20260102T030405Z-smoke-1a2b", ("smoke", "20260102T030405Z-1a2b")),
        ("20260102T030405Z-my-model-1a2b", ("my-model", "20260102T030405Z-1a2b")),
        ("odd", ("odd", "1")),
    ],
)
def test_a_bundle_is_named_after_its_config_and_run(name: str, expected: tuple[str, str]) -> None:
    assert name_bundle(Run(Path(name))) == expected


def test_the_card_says_what_the_model_is_and_is_not(exported: Path) -> None:
    card = (exported / "card.md").read_text(encoding="utf-8")
    metrics = json.loads((exported / "bundle.json").read_text(encoding="utf-8"))["metrics"]

    assert "not a medical device" in card
    assert f"{metrics['splits']['test']['metrics']['auroc']['value']:.3f}" in card
    assert "PNEUMONIA from NORMAL" in card

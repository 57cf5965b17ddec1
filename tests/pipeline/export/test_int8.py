import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from pneumo.pipeline.data.manifest import Dataset, Row, Split
from pneumo.pipeline.decisions import Decisions
from pneumo.pipeline.evaluation.cases import Scores
from pneumo.pipeline.evaluation.results import Bootstrap
from pneumo.pipeline.export.bundle_export import export_run
from pneumo.pipeline.export.int8 import AcceptanceLimits, Sample, graph, quantize, sensitivity
from pneumo.pipeline.export.int8.acceptance import (
    ClassDecisions,
    list_objections,
    measure_difference,
    measure_speeds,
)
from pneumo.pipeline.export.int8.quantization import CALIBRATION_IMAGES, split_sample
from pneumo.pipeline.export.int8.wording import describe_quantization
from pneumo.pipeline.runs.reporter import Reporter
from pneumo.pipeline.runs.run import Run
from pneumo.serving.contracts.errors import CheckFailedError, InputError
from pneumo.serving.model.bundle import Bundle, Figure, Quantization, Speed
from pneumo.serving.model.predictor import Predictor
from tests.support.cases import make_decisions

SIZE = 32
CLASSES = ["NORMAL", "PNEUMONIA"]
ANYTHING = AcceptanceLimits(auroc=1, decisions=1, speed=0)


def network(*, layers: int = 4, channels: int = 8, wild: tuple[int, ...] = (), seed: int = 0) -> bytes:
    """Convolutions with batch norm and clip, the mean over the image, and a linear layer: a chain of `layers`.

    In the layers named in `wild` one channel is a thousand times the others, which are brought back by the next layer:
    a range for the whole tensor then leaves next to nothing for the others. There is a third output, `maps`.
    """
    random = np.random.default_rng(seed)
    weights: dict[str, np.ndarray] = {"low": np.array(0.0), "high": np.array(6.0)}
    nodes, inputs = [], 1
    for layer in range(layers):
        kernel = random.normal(0, (2 / inputs / 9) ** 0.5, (channels, inputs, 3, 3))
        if layer in wild:
            kernel[0] *= 1000
        if layer - 1 in wild:
            kernel[:, 0] /= 1000
        weights |= {f"kernel{layer}": kernel, f"scale{layer}": np.ones(channels), f"zero{layer}": np.zeros(channels)}
        source = f"active{layer - 1}" if layer else "image"
        norm = [f"convolved{layer}", f"scale{layer}", f"zero{layer}", f"zero{layer}", f"scale{layer}"]
        nodes += [
            helper.make_node("Conv", [source, f"kernel{layer}"], [f"convolved{layer}"], f"conv{layer}", pads=[1] * 4),
            helper.make_node("BatchNormalization", norm, [f"normal{layer}"]),
            helper.make_node("Relu", [f"normal{layer}"], [f"active{layer}"]),
        ]
        inputs = channels
    head = random.normal(0, 200, (channels, 2))  # logits of about -2 to 2
    head[:, 0] = 0
    weights |= {"head": head, "bias": np.zeros(2), "map_kernel": head.T[:, :, None, None]}
    last = f"active{layers - 1}"
    nodes += [
        helper.make_node("GlobalAveragePool", [last], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["embedding"]),
        helper.make_node("Gemm", ["embedding", "head", "bias"], ["logits"]),
        helper.make_node("Conv", [last, "map_kernel"], ["maps"], "map_conv"),
    ]
    shapes: dict[str, list[Any]] = {"logits": ["N", 2], "embedding": ["N", channels], "maps": ["N", 2, "H", "W"]}
    made = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 1, SIZE, SIZE])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()],
        [numpy_helper.from_array(array.astype(np.float32), name) for name, array in weights.items()],
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    helper.set_model_props(model, {"maps_point": "true"})
    onnx.checker.check_model(model)
    return model.SerializeToString()


def pictures(count: int, seed: int = 0) -> list[np.ndarray]:
    """Blobs of many sizes and strengths, uint8 [SIZE, SIZE, 1]."""
    random = np.random.default_rng(seed)
    rows, columns = np.mgrid[:SIZE, :SIZE]
    found = []
    for _ in range(count):
        y, x, width = random.uniform(8, 24), random.uniform(8, 24), random.uniform(2, 12)
        blob = random.uniform(50, 255) * np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / width**2)
        found.append((blob + random.uniform(0, 20, blob.shape)).clip(0, 255).astype(np.uint8)[:, :, None])
    return found


def row(number: int, patient: str, label: str) -> Row:
    return Row(f"images/{number}.png", label, Split.VALIDATION, patient, f"{number}.png", "0" * 64, SIZE, SIZE)


def sample_of(content: bytes, count: int = 90, seed: int = 0) -> Sample:
    """Images with a label that the network mostly agrees with, two a patient."""
    images = pictures(count, seed)
    logits = graph.run_graph(content, images)
    margins = logits[:, 1] - np.median(logits[:, 1]) + np.random.default_rng(seed).normal(0, logits[:, 1].std(), count)
    rows = [row(number, f"p{number // 2}", CLASSES[int(margin > 0)]) for number, margin in enumerate(margins)]
    return Sample(rows, images, logits)


def decisions_for(logits: np.ndarray) -> Decisions:
    middle = float(1 / (1 + np.exp(-np.median(logits[:, 1] - logits[:, 0]))))
    return make_decisions(threshold=middle, conformal_limit=0.5)


def rules_for(logits: np.ndarray) -> ClassDecisions:
    return ClassDecisions(CLASSES, "PNEUMONIA", decisions_for(logits))


def made(content: bytes, limits: AcceptanceLimits = ANYTHING, **how: Any) -> tuple[bytes, Quantization]:
    sample = sample_of(content)
    return quantize(content, sample, rules_for(sample.logits), limits, **how)


def operators(content: bytes) -> list[str]:
    return [node.op_type for node in onnx.load_from_string(content).graph.node]


@pytest.fixture(scope="module")
def easy() -> tuple[bytes, bytes, Quantization]:
    """A network that integers do not hurt: float graph, quantised graph, what it changed."""
    content = network()
    return content, *made(content)


def test_every_convolution_of_an_easy_network_computes_in_integers(easy) -> None:
    _, quantised, told = easy
    assert told.float_nodes == []
    assert told.integer_nodes == 4
    options = onnxruntime.SessionOptions()
    model = onnx.load_from_string(quantised)
    weights = [item for item in model.graph.initializer if item.data_type == TensorProto.INT8 and len(item.dims) == 4]
    assert len(weights) == 4
    assert onnxruntime.InferenceSession(quantised, options, providers=["CPUExecutionProvider"])


def test_inputs_outputs_and_metadata_are_kept_and_batch_norm_is_folded(easy) -> None:
    content, quantised, _ = easy
    before, after = (
        onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"]) for graph in (content, quantised)
    )
    assert [(item.name, item.type) for item in after.get_outputs()] == [
        (item.name, item.type) for item in before.get_outputs()
    ]
    assert after.get_modelmeta().custom_metadata_map["maps_point"] == "true"
    assert "BatchNormalization" not in operators(quantised)
    for count in (1, 5):
        outputs = after.run(None, {"image": np.zeros((count, 1, SIZE, SIZE), np.float32)})
        assert [len(output) for output in outputs] == [count] * 3


def test_what_the_logits_do_not_depend_on_stays_in_float(easy) -> None:
    content, quantised, _ = easy
    assert graph.list_convolutions(graph.fold_batch_norms(content)) == ["conv0", "conv1", "conv2", "conv3"]
    model = onnx.load_from_string(quantised)
    conv = next(node for node in model.graph.node if node.name == "map_conv")
    assert conv.input[1] in {item.name for item in model.graph.initializer if item.data_type == TensorProto.FLOAT}


def test_the_figures_are_those_of_the_images_that_took_no_part_in_making(easy) -> None:
    content, quantised, told = easy
    sample = sample_of(content)
    making, judging = split_sample(sample)
    assert (told.calibration_images, told.images) == (len(making.rows), len(judging.rows))
    assert told.patients == len({each.patient for each in judging.rows})
    before, after = judging.logits[:, 1], graph.run_graph(quantised, judging.images)[:, 1]
    assert told.log_odds == pytest.approx(float(np.sqrt(np.mean((after - before) ** 2))), rel=1e-4)
    assert told.log_odds > 0
    chances = [1 / (1 + np.exp(-logits.astype(float))) for logits in (before, after)]
    assert told.max_probability_difference == pytest.approx(float(np.abs(chances[0] - chances[1]).max()), rel=1e-4)
    cut = decisions_for(sample.logits).threshold
    assert told.decisions.value == pytest.approx(float(((chances[0] >= cut) != (chances[1] >= cut)).mean()))


def test_quantising_again_gives_the_same_graph(easy) -> None:
    content, quantised, _ = easy
    assert made(content)[0] == quantised


def test_the_layer_that_hurts_is_left_in_float() -> None:
    heard: list[str] = []
    content = network(layers=6, wild=(2,))
    _, told = made(content, ANYTHING, reporter=Reporter(heard.append))
    assert {"conv2", "conv3"} & set(told.float_nodes)
    assert not {"conv0", "conv5"} & set(told.float_nodes)
    assert told.integer_nodes + len(told.float_nodes) == 6
    assert any("all 6 convolutions in integers" in line for line in heard)
    assert heard[-1].startswith("INT8: AUROC ")
    whole = graph.fold_batch_norms(content)
    sample = sample_of(content)
    ranges = graph.calibrate_ranges(whole, split_sample(sample)[0].images)
    plain = graph.run_graph(graph.quantize_graph(whole, ranges, graph.list_convolutions(whole)), sample.images)
    assert told.log_odds < 0.7 * sensitivity.rms(sensitivity.log_odds_change(plain, sample.logits, 1.0))


def test_the_quantiser_logs_nothing(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    model = onnx.load_from_string(network(layers=1))
    scale = next(item for item in model.graph.initializer if item.name == "scale0")
    zero = next(item for item in model.graph.initializer if item.name == "zero0")
    scale.CopyFrom(numpy_helper.from_array(np.array([1e-10] * 8, np.float32), "scale0"))  # channels that do nothing
    zero.CopyFrom(numpy_helper.from_array(np.ones(8, np.float32), "zero0"))
    folded = graph.fold_batch_norms(model.SerializeToString())
    graph.quantize_graph(folded, graph.calibrate_ranges(folded, pictures(8)), ["conv0"])
    assert caplog.records == []
    logging.getLogger("other").info("still heard")
    assert len(caplog.records) == 1


def test_calibration_images_decide_the_ranges() -> None:
    model = graph.fold_batch_norms(network())
    dark = graph.calibrate_ranges(model, [image // 8 for image in pictures(8)])
    bright = graph.calibrate_ranges(model, pictures(8))
    assert dark["image"].range_value[1] < 0.2 * bright["image"].range_value[1]


def test_a_graph_that_changes_answers_is_refused_with_figures() -> None:
    with pytest.raises(CheckFailedError) as caught:
        made(network(layers=6, wild=(1, 2, 3)), AcceptanceLimits(auroc=0, decisions=0, speed=0))
    message = str(caught.value)
    assert caught.value.exit_code == 1
    assert "\n" not in message
    assert "INT8 was refused: AUROC changes by" in message
    assert "of images changes, more than 0.0%" in message
    assert "no bundle was written" in message


def test_a_graph_that_is_not_faster_is_refused_and_the_processor_named(easy) -> None:
    with pytest.raises(CheckFailedError, match=r"a batch of [18] is .* times as fast on .+, less than 1000"):
        made(easy[0], AcceptanceLimits(speed=1000))


def test_a_graph_without_convolutions_is_refused() -> None:
    shapes: dict[str, list[Any]] = {"image": ["N", 1, SIZE, SIZE], "embedding": ["N", SIZE * SIZE], "logits": ["N", 2]}
    info = {name: helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()}
    nodes = [
        helper.make_node("Flatten", ["image"], ["embedding"]),
        helper.make_node("MatMul", ["embedding", "head"], ["logits"]),
    ]
    head = numpy_helper.from_array(np.ones((SIZE * SIZE, 2), np.float32), "head")
    flat = helper.make_graph(nodes, "flat", [info["image"]], [info["logits"], info["embedding"]], [head])
    content = helper.make_model(flat, opset_imports=[helper.make_opsetid("", 17)], ir_version=9).SerializeToString()
    with pytest.raises(CheckFailedError, match="no convolutions"):
        made(content)


@given(st.lists(st.integers(1, 9), min_size=2, max_size=120), st.randoms(use_true_random=False))
def test_no_patient_is_on_both_sides(images_of: list[int], random: Any) -> None:
    patients = [f"p{number}" for number, images in enumerate(images_of) for _ in range(images)]
    random.shuffle(patients)
    rows = [row(number, patient, "NORMAL") for number, patient in enumerate(patients)]
    logits = np.arange(len(rows), dtype=float)[:, None]
    sides = split_sample(Sample(rows, [np.zeros((1, 1, 1), np.uint8)] * len(rows), logits))
    named = [{each.patient for each in side.rows} for side in sides]
    assert named[0]
    assert named[1]
    assert not named[0] & named[1]
    assert len(sides[0].rows) + len(sides[1].rows) == len(rows)
    assert len(sides[0].rows) <= max(len(rows) / 3, max(images_of))
    assert len(sides[0].rows) <= max(CALIBRATION_IMAGES, max(images_of))
    for side in sides:
        assert [rows[int(number)] for number in side.logits[:, 0]] == list(side.rows)


def test_one_patient_is_too_few() -> None:
    sample = Sample([row(0, "p", "NORMAL")], pictures(1), np.zeros((1, 2)))
    with pytest.raises(InputError, match="at least two"):
        split_sample(sample)


def test_images_of_one_class_cannot_judge(easy) -> None:
    content = easy[0]
    sample = sample_of(content)
    rows = [row(number, f"p{number}", "NORMAL") for number in range(len(sample.rows))]
    with pytest.raises(InputError, match="miss a class"):
        quantize(content, Sample(rows, sample.images, sample.logits), rules_for(sample.logits), ANYTHING)


def scores(logits: np.ndarray, truth: np.ndarray) -> Scores:
    count = len(truth)
    return Scores(
        image=[str(number) for number in range(count)],
        split=np.full(count, "validation"),
        patient=np.array([f"p{number // 2}" for number in range(count)]),
        truth=truth,
        logits=logits,
    )


def test_the_interval_of_a_change_is_paired_and_narrower_than_that_of_an_auroc() -> None:
    random = np.random.default_rng(0)
    truth = random.integers(0, 2, 400)
    logits = np.stack([np.zeros(400), random.normal(2 * truth - 1, 1)], axis=1)
    moved = logits + np.stack([np.zeros(400), random.normal(0, 0.2, 400)], axis=1)
    found = measure_difference(scores(logits, truth), scores(moved, truth), rules_for(logits), Bootstrap(resamples=200))
    assert found is not None
    assert found.auroc.low <= found.auroc.value <= found.auroc.high
    assert 0 < found.auroc.high - found.auroc.low < 0.03  # that of the AUROC itself is 0.06 wide
    assert 0 < found.decisions.low < found.decisions.value < found.decisions.high < 0.1


def test_where_no_decision_changes_the_bound_is_exact() -> None:
    truth = np.arange(60) % 2
    logits = np.stack([np.zeros(60), 4.0 * truth - 2], axis=1)
    found = measure_difference(
        scores(logits, truth), scores(logits * 1.01, truth), rules_for(logits), Bootstrap(resamples=50)
    )
    assert found is not None
    assert (found.decisions.value, found.decisions.low) == (0, 0)
    assert found.decisions.high == pytest.approx(1 - 0.025 ** (1 / 30))  # 30 patients


def test_several_classes_are_compared_by_the_mean_auroc_and_the_largest_probability() -> None:
    random = np.random.default_rng(0)
    truth = random.integers(0, 3, 300)
    logits = random.normal(0, 1, (300, 3)) + 2 * np.eye(3)[truth]
    rules = ClassDecisions(["a", "b", "c"], None, make_decisions(threshold=None))
    other = logits[:, [1, 0, 2]]
    found = measure_difference(scores(logits, truth), scores(other, truth), rules, Bootstrap(resamples=50))
    assert found is not None
    assert found.auroc.value < -0.2
    assert found.decisions.value == pytest.approx(float((logits.argmax(1) != other.argmax(1)).mean()))


@given(st.integers(1, 400))
def test_groups_hold_every_layer_once_in_order_and_are_never_too_many(count: int) -> None:
    names = [str(number) for number in range(count)]
    groups = sensitivity.group_neighbours(names)
    assert [name for group in groups for name in group] == names
    assert len(groups) <= sensitivity.GROUPS


@pytest.mark.parametrize("temperature", [0.5, 2.0])
def test_a_change_of_log_odds_is_calibrated_and_the_same_for_any_common_shift(temperature: float) -> None:
    before = np.array([[0.0, 1.0], [2.0, -1.0]])
    after = before + np.array([[0.0, 0.5], [3.0, 3.0]])
    change = sensitivity.log_odds_change(after, before, temperature)
    np.testing.assert_allclose(change, [0.5 / temperature, 0])


def test_two_graphs_are_timed_alone_and_in_a_batch(easy) -> None:
    found = measure_speeds(easy[0], easy[0], pictures(3))
    assert [speed.batch for speed in found] == [1, 8]
    assert all(speed.ratio > 0 for speed in found)


def quantization(**changes: Any) -> Quantization:
    given_: dict[str, Any] = {
        "method": "static",
        "calibration_images": 100,
        "images": 200,
        "patients": 90,
        "integer_nodes": 47,
        "float_nodes": ["stem", "first"],
        "auroc": Figure(value=-0.0012, low=-0.003, high=0.001),
        "decisions": Figure(value=0.005, low=0.0, high=0.012),
        "certainty": 0.02,
        "max_probability_difference": 0.07,
        "log_odds": 0.19,
        "speed": [Speed(batch=1, ratio=1.8), Speed(batch=8, ratio=2.1)],
        "processor": "a processor",
        "runtime": "onnxruntime 1",
    }
    return Quantization.model_validate(given_ | changes)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, []),
        ({"auroc": Figure(value=-0.006)}, ["AUROC changes by -0.0060, more than 0.005"]),
        ({"auroc": Figure(value=0.006)}, ["AUROC changes by +0.0060, more than 0.005"]),
        (
            {"decisions": Figure(value=0.02, low=0.01, high=0.03)},
            ["the predicted class of 2.0% (1.0% to 3.0%) of images changes, more than 1.0%"],
        ),
        (
            {"speed": [Speed(batch=1, ratio=1.05), Speed(batch=8, ratio=2)]},
            ["a batch of 1 is 1.05 times as fast on a processor, less than 1.1"],
        ),
    ],
)
def test_each_limit_refuses_alone(changes: dict[str, Any], expected: list[str]) -> None:
    assert list_objections(quantization(**changes), AcceptanceLimits()) == expected


def test_the_card_tells_what_changed_and_on_what_machine() -> None:
    text = "\n".join(describe_quantization(quantization()))
    assert "2 of 49 convolutions" in text
    assert "-0.0012 (-0.0030 to +0.0010)" in text
    assert "0.5% (0.0% to 1.2%)" in text
    assert "1.80 with a batch of 1 and 2.10 with a batch of 8 (a processor" in text


def read_metadata(folder: Path) -> dict[str, str]:
    session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
    return dict(session.get_modelmeta().custom_metadata_map)


@pytest.fixture(scope="module")
def int8(trained: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model's bundle in integers, whatever that changes."""
    return export_run(trained, out=tmp_path_factory.mktemp("int8") / "bundle", int8=AcceptanceLimits(1, 1, 0))


def test_a_quantised_bundle_keeps_float_parity_and_its_own_figures_apart(int8: Path, exported: Path) -> None:
    ours, plain = Bundle.open(int8).info, Bundle.open(exported).info
    assert ours.parity == plain.parity
    assert ours.metrics == plain.metrics
    assert (ours.temperature, ours.thresholds, ours.conformal) == (plain.temperature, plain.thresholds, plain.conformal)
    assert plain.quantization is None
    assert ours.quantization is not None
    assert ours.quantization.integer_nodes == 1
    assert "-int8-" in ours.version
    assert read_metadata(int8) == read_metadata(exported)
    assert ours.files["model.onnx"] != plain.files["model.onnx"]
    card = (int8 / "card.md").read_text(encoding="utf-8")
    assert "8-bit integers" in card
    assert "8-bit integers" not in (exported / "card.md").read_text(encoding="utf-8")


def test_a_quantised_bundle_predicts_and_finds_its_own_images_familiar(int8: Path, dataset: Dataset) -> None:
    predictor = Predictor(Bundle.open(int8))
    inputs = [predictor.prepare(dataset.path(each).read_bytes()) for each in dataset.select(Split.VALIDATION)]
    said = predictor.predict(inputs)
    assert np.mean([each.in_distribution for each in said]) >= 0.95
    assert b".py" not in (int8 / "model.onnx").read_bytes()


@pytest.mark.usefixtures("ready_graph")
def test_the_command_refuses_what_is_not_faster_in_one_line(
    trained: Run, tmp_path: Path, pneumo: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = [Speed(batch=1, ratio=0.9)]
    monkeypatch.setattr("pneumo.pipeline.export.int8.quantization.measure_speeds", lambda *_: slow)
    monkeypatch.setattr("pneumo.pipeline.export.int8.quantization.measure_difference", same)
    outcome = pneumo("export", trained.folder, "--out", tmp_path / "bundle", "--quantize", "int8")
    assert outcome.code == 1
    assert "INT8 was refused: a batch of 1 is 0.90 times as fast" in outcome.err.splitlines()[-1]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("ready_graph")
def test_the_command_tells_what_changed(
    trained: Run, tmp_path: Path, pneumo: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pneumo.pipeline.export.int8.quantization.measure_speeds", lambda *_: [Speed(batch=1, ratio=2)])
    monkeypatch.setattr("pneumo.pipeline.export.int8.quantization.measure_difference", same)
    outcome = pneumo("export", trained.folder, "--out", tmp_path / "bundle", "--quantize", "int8", "--json")
    assert outcome.code == 0
    document = json.loads(outcome.out)
    assert document["quantization"]["speed"] == [{"batch": 1, "ratio": 2.0}]
    assert document["parity"]["images"] >= 64
    assert Bundle.open(tmp_path / "bundle").info.quantization is not None


def same(before: Scores, after: Scores, *rest: Any) -> Any:
    return measure_difference(before, before, *rest)

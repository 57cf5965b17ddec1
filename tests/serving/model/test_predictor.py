import io
import json
import threading

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from pneumo.serving.contracts.cores import available_cores
from pneumo.serving.contracts.errors import ImageError
from pneumo.serving.contracts.population import Population
from pneumo.serving.images.decode import prepare
from pneumo.serving.images.thumbnails import SIDE
from pneumo.serving.model.bundle import Bundle, BundleError, Conformal, seal_bundle
from pneumo.serving.model.outlier_score import EmbeddingSpace, OutlierScorer
from pneumo.serving.model.predictor import BATCH, Outputs, Predictor
from tests.support.bundles import make_bundle
from tests.support.dicoms import make_dicom

CHILDREN = Population(ages=(1, 5))


@pytest.fixture(scope="module")
def predictor(bundle) -> Predictor:
    return Predictor(bundle, threads=1)


def judged(
    predictor: Predictor, logit: float, embedding: np.ndarray | None = None, thumbnail: np.ndarray | None = None
):
    known = predictor.outlier_scorer
    place = known.embedding.mean if embedding is None else embedding
    small = known.thumbnail.mean if thumbnail is None else thumbnail
    outputs = Outputs(
        logits=np.array([[0, logit]], dtype=np.float32),
        embedding=np.asarray(place, dtype=np.float32)[None],
        thumbnails=small.reshape(1, SIDE, SIDE),
    )
    return predictor.interpret_outputs(outputs, elapsed_ms=1.0)[0]


def test_the_probability_is_the_calibrated_sigmoid_of_the_networks_logit(predictor, png):
    session = onnxruntime.InferenceSession(predictor.bundle.folder / "model.onnx")
    (logits,) = session.run(["logits"], {"image": prepare(png, predictor.bundle.info.preparation)[None]})
    prediction = predictor.predict_bytes(png, "a.png")
    assert prediction.probability == pytest.approx(1 / (1 + np.exp(-logits[0, 1] / 1.5)), abs=1e-6)
    assert prediction.probabilities["PNEUMONIA"] == prediction.probability
    assert sum(prediction.probabilities.values()) == pytest.approx(1)
    assert prediction.filename == "a.png"
    assert prediction.elapsed_ms > 0


def test_the_positive_class_is_said_from_the_threshold_on(predictor):
    at_threshold = 1.5 * np.log(0.4 / 0.6)
    assert judged(predictor, at_threshold + 1e-3).label == "PNEUMONIA"
    assert judged(predictor, at_threshold - 1e-3).label == "NORMAL"
    assert judged(predictor, 0).threshold == 0.4


def test_an_answer_that_its_conformal_set_rules_out_is_uncertain(tmp_path):
    bundle = make_bundle(tmp_path / "b", thresholds={"default": 0.05}, conformal=Conformal(level=0.9, limit=[0.3, 0.9]))
    prediction = judged(Predictor(bundle), -3.0)
    assert prediction.label == "PNEUMONIA"
    assert prediction.probabilities["NORMAL"] > 0.7  # so that the set is NORMAL alone
    assert prediction.certainty == "uncertain"
    both = judged(Predictor(bundle), -1.6)
    assert 0.7 < both.probabilities["NORMAL"] < 0.9
    assert both.certainty == "uncertain"  # the limit of PNEUMONIA is wider, so that the set holds both


def test_a_probability_of_exactly_the_threshold_is_positive(tmp_path):
    bundle = make_bundle(tmp_path / "b", thresholds={"default": 0.5})
    assert judged(Predictor(bundle), 0.0).label == "PNEUMONIA"


def test_the_probability_is_of_the_positive_class_also_where_that_is_the_first(tmp_path):
    bundle = make_bundle(tmp_path / "b", positive_class="NORMAL")
    prediction = judged(Predictor(bundle), 3.0)
    assert prediction.label == "PNEUMONIA"
    assert prediction.probability == prediction.probabilities["NORMAL"] < 0.2


@pytest.mark.parametrize(("logit", "expected"), [(6, "certain"), (-6, "certain"), (0, "uncertain")])
def test_certain_means_that_exactly_one_class_cannot_be_ruled_out(predictor, logit, expected):
    assert judged(predictor, logit).certainty == expected


def test_an_embedding_or_a_thumbnail_beyond_the_limit_is_not_in_distribution(predictor):
    near = judged(predictor, 0)
    assert near.in_distribution
    assert near.outlier_score < 1
    space, small = predictor.outlier_scorer.embedding, predictor.outlier_scorer.thumbnail
    assert judged(predictor, 6).certainty == "certain"
    for far in (
        judged(predictor, 6, embedding=space.mean + 1000 * space.basis[:, 0]),
        judged(predictor, 6, thumbnail=small.mean + 1000 * small.basis[:, 0]),
    ):
        assert not far.in_distribution
        assert far.outlier_score > 2
        assert far.certainty == "uncertain"


@pytest.mark.parametrize(
    ("age", "population", "is_told"),
    [
        ("064Y", CHILDREN, True),
        ("006M", CHILDREN, True),
        ("005Y", CHILDREN, False),
        ("018M", CHILDREN, False),
        (None, CHILDREN, False),
        ("064Y", None, False),
        ("064Y", Population(sites=["Home"]), False),
    ],
)
def test_a_patient_of_another_age_than_those_trained_on_is_told_of_in_a_remark(tmp_path, age, population, is_told):
    data = make_dicom(np.arange(4096, dtype=np.uint16).reshape(64, 64), PatientAge=age, Modality="CR")
    remarks = Predictor(make_bundle(tmp_path / "b", population=population)).predict_bytes(data).remarks
    expected = ["the patient's age is not among those that the model was trained on (1 to 5 years)"] if is_told else []
    assert [remark for remark in remarks if "age" in remark.split(" is ")[0]] == expected
    assert not any("64" in remark for remark in remarks)


def test_the_thumbnail_that_is_judged_is_the_images_own(predictor, png):
    batch = predictor.prepare(png)[None]
    (expected,) = predictor.interpret_outputs(predictor.run(batch), elapsed_ms=1.0)
    assert predictor.predict_bytes(png).outlier_score == pytest.approx(expected.outlier_score)
    flat = predictor.interpret_outputs(predictor.run(np.full_like(batch, 0.5)), elapsed_ms=1.0)[0]
    assert flat.outlier_score != expected.outlier_score


def test_a_bundle_without_thumbnails_is_judged_by_its_embedding_alone(own_bundle):
    space = OutlierScorer.from_bytes(own_bundle.read("embedding_space.npz")).embedding
    predictor = Predictor(reseal(own_bundle, embedding_space__npz=OutlierScorer(space).to_bytes()))
    outputs = predictor.run(np.zeros((1, 1, 28, 28), dtype=np.float32))
    (said,) = predictor.interpret_outputs(outputs, elapsed_ms=1.0)
    assert said.outlier_score == pytest.approx(space.score(outputs.embedding)[0])


def test_three_classes_say_the_most_probable_and_have_no_threshold(tmp_path, png):
    bundle = make_bundle(tmp_path / "b", classes=["A", "B", "C"], positive_class=None, thresholds={})
    prediction = Predictor(bundle).predict_bytes(png)
    assert prediction.label == max(prediction.probabilities, key=prediction.probabilities.get)
    assert prediction.probability == max(prediction.probabilities.values())
    assert prediction.threshold is None
    assert list(prediction.probabilities) == ["A", "B", "C"]


def test_colour_models_take_the_gray_image_three_times(tmp_path, png):
    preparation = {"size": 32, "height": 28, "width": 28, "channels": 3}
    predictor = Predictor(make_bundle(tmp_path / "b", preparation=preparation))
    assert predictor.prepare(png).shape == (3, 28, 28)
    assert 0 <= predictor.predict_bytes(png).probability <= 1


@pytest.mark.parametrize("count", [0, 1, BATCH, BATCH + 3])
def test_images_of_a_batch_are_predicted_as_alone_and_in_order(predictor, pngs, count):
    alone = [predictor.predict_bytes(data).probability for data in pngs[:count]]
    together = predictor.predict([predictor.prepare(data) for data in pngs[:count]])
    assert [prediction.probability for prediction in together] == pytest.approx(alone, abs=1e-6)


def test_threads_may_share_a_predictor(predictor, pngs):
    expected = [predictor.predict_bytes(data).probability for data in pngs]
    found: dict[int, list[float]] = {}

    def work(number: int) -> None:
        found[number] = [predictor.predict_bytes(data).probability for data in pngs]

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert list(found.values()) == [expected] * 4


def test_a_bad_image_is_an_image_error(predictor):
    with pytest.raises(ImageError):
        predictor.predict_bytes(b"text")


def test_pixels_beyond_the_limit_are_refused(predictor, png):
    with pytest.raises(ImageError) as caught:
        predictor.predict_bytes(png, max_pixels=100)
    assert caught.value.reason == "too-large"


def test_the_network_runs_on_the_cores_this_process_may_use(bundle):
    assert Predictor(bundle)._session.get_session_options().intra_op_num_threads == available_cores()
    assert Predictor(bundle, threads=3)._session.get_session_options().intra_op_num_threads == 3


def reseal(bundle: Bundle, **files: bytes) -> Bundle:
    for name, content in files.items():
        (bundle.folder / name.replace("__", ".")).write_bytes(content)
    seal_bundle(bundle.folder, bundle.info)
    return Bundle.open(bundle.folder)


@pytest.mark.parametrize(
    ("content", "reason"), [(b"no network", "refused: no ONNX graph, or a damaged one"), (b"", "does not run")]
)
def test_a_model_that_is_no_onnx_is_a_bundle_error(own_bundle, content, reason):
    with pytest.raises(BundleError, match=rf"model\.onnx: {reason}.*export the model again"):
        Predictor(reseal(own_bundle, model__onnx=content))


def test_an_embedding_space_of_another_network_is_a_bundle_error(own_bundle):
    space = EmbeddingSpace.fit(np.random.default_rng(0).normal(size=(20, 9)))
    with pytest.raises(BundleError, match=r"logits \(2, 2\) and embedding \(2, 6\)"):
        Predictor(reseal(own_bundle, embedding_space__npz=OutlierScorer(space).to_bytes()))


def test_a_damaged_embedding_space_is_a_bundle_error(own_bundle):
    with pytest.raises(BundleError, match="not an embedding space"):
        Predictor(reseal(own_bundle, embedding_space__npz=b"PK"))


def test_an_input_that_the_network_does_not_take_is_a_bundle_error(own_bundle):
    preparation = {"size": 32, "height": 28, "width": 28, "channels": 3}
    seal_bundle(
        own_bundle.folder,
        type(own_bundle.info).model_validate(own_bundle.info.model_dump() | {"preparation": preparation}),
    )
    with pytest.raises(BundleError, match="does not run"):
        Predictor(Bundle.open(own_bundle.folder))


def test_a_network_that_gives_no_numbers_is_a_bundle_error(own_bundle):
    nodes = [
        helper.make_node("GlobalAveragePool", ["image"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("Log", ["flat"], ["logarithm"]),  # of a black image: minus infinity
        helper.make_node("Concat", ["logarithm", "logarithm"], ["logits"], axis=1),
        helper.make_node("MatMul", ["flat", "six"], ["embedding"]),
    ]
    graph = helper.make_graph(
        nodes,
        "nan",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 1, "H", "W"])],
        [
            helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 2]),
            helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["N", 6]),
        ],
        [numpy_helper.from_array(np.ones((1, 6), np.float32), "six")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    with pytest.raises(BundleError, match="not finite"):
        Predictor(reseal(own_bundle, model__onnx=model.SerializeToString()))


def test_a_prepared_copy_of_an_image_gets_the_same_probability(predictor, png):
    from pneumo.serving.images.decode import read_gray
    from pneumo.serving.images.preparation import encode_png, fit

    preparation = predictor.bundle.info.preparation
    stored = encode_png(fit(read_gray(png).gray, preparation.size, preparation.fit))
    assert Image.open(io.BytesIO(stored)).size == (32, 32)
    assert predictor.predict_bytes(stored).probability == predictor.predict_bytes(png).probability


def test_predictions_are_valid_json(predictor, png):
    assert json.loads(predictor.predict_bytes(png).model_dump_json())["label"] in ("NORMAL", "PNEUMONIA")

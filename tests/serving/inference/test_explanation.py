import base64
import dataclasses
import io
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from pneumo.serving.contracts.arrays import Float32
from pneumo.serving.contracts.errors import ImageError
from pneumo.serving.contracts.schemas import ModelName
from pneumo.serving.images.preparation import Preparation, encode_png
from pneumo.serving.images.types import Decode, Fit
from pneumo.serving.inference.explanation import (
    GRID,
    PATCH,
    NoMapsError,
    UnknownClassError,
    explain_image,
    measure_evidence,
)
from pneumo.serving.model.bundle import BundleError
from pneumo.serving.model.heatmap import LONGEST
from pneumo.serving.model.predictor import BATCH, Outputs, Predictor
from tests.support.bundles import make_bundle, make_network

NAME = ModelName(name="tiny", version="1", positive_class="PNEUMONIA")
METHODS = ("cam", "occlusion")


def preparation(how: Fit = Fit.SQUASH, **changes: Any) -> Preparation:
    return Preparation(size=64, fit=how, height=48, width=48, **changes)


def make_predictor(folder: Path, method: str, **changes: Any) -> Predictor:
    """A network that finds what is bright, with maps or without."""
    network = make_network(1, len(changes.get("classes", "AB")), 0, maps=method == "cam", bright=True)
    return Predictor(make_bundle(folder / method, network=network, **{"preparation": preparation()} | changes))


@pytest.fixture(scope="module", params=METHODS)
def predictor(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    """Two classes, by each method."""
    return make_predictor(tmp_path_factory.mktemp("bundle"), request.param)


@pytest.fixture(scope="module")
def mapping(tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    """Random weights with maps."""
    network = make_network(1, 2, 3, maps=True)
    return Predictor(make_bundle(tmp_path_factory.mktemp("bundle") / "maps", network=network))


def film_with_blob(height: int, width: int, top: int, left: int, side: int = 40) -> NDArray[np.uint8]:
    film = np.full((height, width), 10, dtype=np.uint8)
    film[top : top + side, left : left + side] = 250
    return film


def brightest(values: NDArray[np.float32]) -> tuple[float, float]:
    """The middle of the quarter of what is hot that is hottest, in parts of height and width."""
    values = np.nan_to_num(values, nan=-np.inf)
    rows, columns = np.nonzero(values >= values.max() - 0.25 * abs(values.max()))
    return (rows.mean() + 0.5) / values.shape[0], (columns.mean() + 0.5) / values.shape[1]


@given(seed=st.integers(0, 2**32 - 1), scale=st.floats(0, 1))
def test_a_class_activation_map_sums_to_how_far_the_class_lies_above_its_limit(
    mapping: Predictor, seed: int, scale: float
) -> None:
    info = mapping.bundle.info
    image = (np.random.default_rng(seed).random((1, 28, 28)) * scale).astype(np.float32)

    values = measure_evidence(mapping, image).values[1]

    probability = mapping.predict([image])[0].probability
    threshold = info.thresholds["default"]
    if 1e-9 < probability < 1 - 1e-9:
        above = np.log(probability / (1 - probability)) - np.log(threshold / (1 - threshold))
        np.testing.assert_allclose(values.mean(dtype=np.float64) / PATCH, above, atol=1e-3)


@given(seed=st.integers(0, 2**32 - 1))
def test_what_is_said_to_be_positive_has_evidence_somewhere(mapping: Predictor, seed: int) -> None:
    random = np.random.default_rng(seed)
    image = (random.random((1, 28, 28)) * random.random()).astype(np.float32)
    label = mapping.predict([image])[0].label

    evidence = measure_evidence(mapping, image).values[mapping.bundle.info.classes.index(label)]

    assert evidence.max() >= 0


def test_the_mean_of_maps_is_the_logits(mapping: Predictor) -> None:
    images = np.random.default_rng(0).random((5, 1, 28, 28), dtype=np.float32)

    outputs, maps = mapping.run_with_maps(images)

    np.testing.assert_allclose(maps.mean(axis=(2, 3)), outputs.logits, atol=1e-4)
    np.testing.assert_array_equal(outputs.logits, mapping.run(images).logits)


@pytest.mark.parametrize("at", [(0, 0), (1, 6), (4, 3), (6, 6)])
def test_a_heat_map_is_hottest_where_the_network_looks(predictor: Predictor, at: tuple[int, int]) -> None:
    image = np.full((1, 48, 48), 0.05, dtype=np.float32)
    image[:, at[0] * 6 : at[0] * 6 + 12, at[1] * 6 : at[1] * 6 + 12] = 0.9

    found = measure_evidence(predictor, image)

    assert brightest(found.values[1]) == pytest.approx(((at[0] + 1) / 8, (at[1] + 1) / 8), abs=0.07)


def test_a_network_with_maps_gives_them_and_one_without_is_occluded(tmp_path: Path) -> None:
    for method in METHODS:
        predictor = make_predictor(tmp_path, method)
        assert predictor.has_maps == (method == "cam")
        assert measure_evidence(predictor, np.zeros((1, 48, 48), dtype=np.float32)).method == method


def test_maps_that_were_not_found_to_point_are_shown_only_where_they_are_asked_for(tmp_path: Path) -> None:
    model = onnx.load_from_string(make_network(1, 2, 0, maps=True))
    del model.metadata_props[:]
    predictor = Predictor(make_bundle(tmp_path / "pointless", network=model.SerializeToString()))
    image = np.zeros((1, 28, 28), dtype=np.float32)

    assert measure_evidence(predictor, image).method == "occlusion"
    assert measure_evidence(predictor, image, "cam").method == "cam"


def test_a_method_may_be_asked_for(tmp_path: Path, png: bytes) -> None:
    with_maps, without = (make_predictor(tmp_path, method) for method in METHODS)

    assert explain_image(with_maps, png, method="occlusion").method == "occlusion"
    assert explain_image(with_maps, png, method="cam").method == "cam"
    with pytest.raises(NoMapsError, match="ask for method=occlusion"):
        explain_image(without, png, method="cam")


def test_occlusion_costs_64_images_beside_the_image_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    predictor = make_predictor(tmp_path, "occlusion")
    sizes = []
    run = predictor.run

    def counted(batch: Float32) -> Outputs:
        sizes.append(len(batch))
        return run(batch)

    monkeypatch.setattr(predictor, "run", counted)
    measure_evidence(predictor, np.zeros((1, 48, 48), dtype=np.float32))

    assert sum(sizes) == GRID**2 + 1 == 65
    assert max(sizes) <= BATCH


def test_what_makes_a_clear_no_clearer_is_no_evidence(tmp_path: Path) -> None:
    predictor = make_predictor(tmp_path, "occlusion")
    image = np.full((1, 48, 48), 0.002, dtype=np.float32)
    image[:, 20:28, 20:28] = 0.35

    assert predictor.predict([image])[0].probability < 0.1
    assert measure_evidence(predictor, image).values[1].max() < 0.1
    assert measure_evidence(predictor, image).values[0].min() < -0.2  # it speaks against NORMAL, which is said


def test_covering_what_is_gray_already_changes_nothing(tmp_path: Path) -> None:
    predictor = make_predictor(tmp_path, "occlusion")

    values = measure_evidence(predictor, np.full((1, 48, 48), 0.5, dtype=np.float32)).values[1]

    np.testing.assert_allclose(values, 0, atol=1e-4)


@pytest.mark.parametrize("sides", [(8, 8), (9, 31), (48, 20)])
def test_occlusion_covers_every_pixel_of_any_input(sides: tuple[int, int], tmp_path: Path) -> None:
    shape = Preparation(size=64, height=sides[0], width=sides[1])
    predictor = make_predictor(tmp_path, "occlusion", preparation=shape)
    one = np.zeros((1, *sides), dtype=np.float32)

    for row, column in [(0, 0), (sides[0] // 2, sides[1] // 2), (sides[0] - 1, sides[1] - 1)]:
        image = one.copy()
        image[0, row, column] = 1
        values = measure_evidence(predictor, image).values[1]
        assert values.max() > 0
        hot = np.unravel_index(values.argmax(), values.shape)
        assert abs((hot[0] + 0.5) / GRID - (row + 0.5) / sides[0]) < 0.2
        assert abs((hot[1] + 0.5) / GRID - (column + 0.5) / sides[1]) < 0.2


def test_a_map_for_one_of_two_classes_is_a_map_against_the_other(mapping: Predictor) -> None:
    image = np.random.default_rng(0).random((1, 28, 28), dtype=np.float32)

    normal, pneumonia = measure_evidence(mapping, image).values

    np.testing.assert_allclose(normal, -pneumonia, atol=1e-3)


def test_a_threshold_of_0_or_1_gives_finite_evidence(tmp_path: Path) -> None:
    for number, threshold in enumerate((0.0, 1.0)):
        predictor = make_predictor(tmp_path / str(number), "cam", thresholds={"default": threshold})
        values = measure_evidence(predictor, np.full((1, 48, 48), 0.02, dtype=np.float32)).values[1]
        assert np.isfinite(values).all()
        assert (values.mean() > 0) == (threshold == 0)


@pytest.mark.parametrize("how", Fit)
@pytest.mark.parametrize("shape", [(150, 240), (240, 150), (200, 200)])
@pytest.mark.parametrize("method", METHODS)
def test_the_hottest_place_of_the_film_is_where_it_is_bright(
    method: str, how: Fit, shape: tuple[int, int], tmp_path: Path
) -> None:
    predictor = make_predictor(tmp_path, method, preparation=preparation(how))
    top, left = shape[0] // 2 + 10, shape[1] // 2 - 60

    found = explain_image(predictor, encode_png(film_with_blob(*shape, top, left)))

    assert (found.method, found.evidence.shape, found.film.shape) == (method, shape, shape)
    row, column = brightest(found.evidence)
    assert row * shape[0] == pytest.approx(top + 20, abs=14)
    assert column * shape[1] == pytest.approx(left + 20, abs=14)
    assert np.isnan(found.evidence).any() == (how is Fit.CROP and shape[0] != shape[1])


def test_a_turned_photograph_is_explained_upright(predictor: Predictor) -> None:
    buffer = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise
    Image.fromarray(film_with_blob(150, 240, 100, 10)).save(buffer, "PNG", exif=exif)

    found = explain_image(predictor, buffer.getvalue())

    assert found.film.shape == (240, 150)
    assert found.film[30, 30] == 250
    row, column = brightest(found.evidence)
    assert (row * 240, column * 150) == pytest.approx((30, 30), abs=12)


def test_an_image_without_evidence_is_shown_as_it_is(tmp_path: Path) -> None:
    predictor = make_predictor(tmp_path, "cam")
    dark = np.full((60, 80), 2, dtype=np.uint8)

    found = explain_image(predictor, encode_png(dark))

    assert found.prediction.label == "NORMAL"
    drawn = np.asarray(Image.open(io.BytesIO(found.overlay())))
    np.testing.assert_array_equal(drawn, np.repeat(dark[..., None], 3, axis=2))


def test_colours_are_measured_by_how_clear_the_answer_is_and_never_by_the_image_alone(predictor: Predictor) -> None:
    found = explain_image(predictor, encode_png(film_with_blob(96, 96, 0, 48, 48)))
    weak = dataclasses.replace(found, margin=0.01, evidence=found.evidence * 0.01)

    full = found.margin / 4  # what a sixteenth of the image holds where the colour is strongest
    np.testing.assert_allclose(found.heat * full, found.evidence, rtol=1e-4)
    assert found.margin > 2
    np.testing.assert_allclose(weak.heat * 0.5, weak.evidence, rtol=1e-4)  # as if its margin were 2


def test_the_margin_is_how_far_an_image_lies_above_the_limit(predictor: Predictor) -> None:
    bright, dark = np.full((1, 48, 48), 0.2, dtype=np.float32), np.zeros((1, 48, 48), dtype=np.float32)

    probability = predictor.predict([bright])[0].probability

    above = np.log(probability / (1 - probability)) - np.log(0.4 / 0.6)
    assert measure_evidence(predictor, bright).margins[1] == pytest.approx(np.log1p(np.exp(above)), rel=1e-3)
    assert 0 < measure_evidence(predictor, dark).margins[1] < 0.1


@pytest.mark.parametrize("decode", Decode)
@pytest.mark.parametrize("method", METHODS)
def test_an_explained_image_is_predicted_as_it_always_is(method: str, decode: Decode, tmp_path: Path) -> None:
    predictor = make_predictor(tmp_path, method, preparation=preparation(decode=decode))
    film = np.random.default_rng(0).integers(0, 60, (900, 700)).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(film).save(buffer, "JPEG")

    explained = explain_image(predictor, buffer.getvalue(), filename="a.jpg").prediction
    plain = predictor.predict_bytes(buffer.getvalue(), "a.jpg")

    same = {"elapsed_ms": 0.0}
    assert explained.model_copy(update=same) == plain.model_copy(update=same)
    assert explained.elapsed_ms > 0


def test_the_heat_map_is_of_the_class_that_is_asked_for(predictor: Predictor) -> None:
    png = encode_png(film_with_blob(60, 60, 0, 0, 30))

    default, normal = explain_image(predictor, png), explain_image(predictor, png, class_name="NORMAL")

    assert (default.class_name, normal.class_name) == ("PNEUMONIA", "NORMAL")
    assert brightest(default.evidence) == pytest.approx((0.25, 0.25), abs=0.1)
    assert default.evidence[10, 10] > 0 > normal.evidence[10, 10]
    assert normal.prediction.label == default.prediction.label == "PNEUMONIA"


@pytest.mark.parametrize("method", METHODS)
def test_with_more_than_two_classes_the_label_is_explained(method: str, tmp_path: Path) -> None:
    classes = ["NORMAL", "BACTERIA", "VIRUS"]
    predictor = make_predictor(tmp_path, method, classes=classes, positive_class=None, thresholds={})
    bright = encode_png(film_with_blob(96, 96, 0, 48, 48))

    found = explain_image(predictor, bright)

    assert found.class_name == found.prediction.label == "VIRUS"
    assert brightest(found.evidence) == pytest.approx((0.25, 0.75), abs=0.1)


def test_an_unknown_class_is_named_with_those_that_are_known(predictor: Predictor, png: bytes) -> None:
    with pytest.raises(UnknownClassError, match="class 'FRACTURE' is not one of NORMAL, PNEUMONIA"):
        explain_image(predictor, png, class_name="FRACTURE")


def test_what_is_no_image_is_refused(predictor: Predictor) -> None:
    with pytest.raises(ImageError, match="not an image"):
        explain_image(predictor, b"a letter")
    with pytest.raises(ImageError, match="is more than 100 pixels"):
        explain_image(predictor, encode_png(np.zeros((11, 10), dtype=np.uint8)), max_pixels=100)


def test_a_page_gets_film_and_heat_of_the_same_size(predictor: Predictor) -> None:
    found = explain_image(predictor, encode_png(film_with_blob(1500, 1200, 700, 200, 300)))

    answer = found.to_response("abc", NAME, "a notice")

    assert (answer.request_id, answer.model, answer.prediction) == ("abc", NAME, found.prediction)
    assert (answer.class_name, answer.method) == (found.class_name, found.method)
    film, heat = (Image.open(io.BytesIO(base64.b64decode(part))) for part in (answer.film, answer.heat))
    assert film.size == heat.size == (round(1200 * LONGEST / 1500), LONGEST)
    assert film.mode == "L"
    assert answer.peak == pytest.approx(found.heat.max())
    assert answer.margin == found.margin
    assert answer.notice == "a notice"


def test_maps_that_do_not_fit_the_bundle_are_refused(tmp_path: Path) -> None:
    model = onnx.load_from_string(make_network(1, 2, 0))
    model.graph.node.append(onnx.helper.make_node("Identity", ["active"], ["maps"]))  # a map a feature, not a class
    model.graph.output.append(onnx.helper.make_tensor_value_info("maps", onnx.TensorProto.FLOAT, ["N", 6, "H", "W"]))
    bundle = make_bundle(tmp_path / "odd", network=model.SerializeToString())

    with pytest.raises(BundleError, match=r"gives maps \(2, 6, 28, 28\) for two images; the bundle needs \(2, 2\)"):
        Predictor(bundle)

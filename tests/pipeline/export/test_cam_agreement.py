"""Small networks that find what is bright, with maps that mark it and maps that do not."""

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from pneumo.pipeline.export.cam_agreement import AGREEMENT, measure_cam_agreement
from tests.support.bundles import make_network


def network(classes: int = 2) -> Any:
    model = onnx.load_from_string(make_network(1, classes, 0, maps=True, bright=True))
    del model.metadata_props[:]
    return model


def mirrored_maps() -> Any:
    """Maps whose means are the logits as before, but that lie the wrong way round."""
    model = network()
    for node in model.graph.node:
        for index, name in enumerate(node.output):
            node.output[index] = "straight" if name == "maps" else name
    for name, value in {"start": -1, "end": -1000, "axis": 3, "step": -1}.items():
        model.graph.initializer.append(helper.make_tensor(name, onnx.TensorProto.INT64, [1], [value]))
    model.graph.node.append(helper.make_node("Slice", ["straight", "start", "end", "axis", "step"], ["maps"]))
    return model


def images_with_light(count: int, *, light: float = 0.9) -> Any:
    """Dark images with a bright square at the left."""
    images = np.random.default_rng(0).uniform(0.01, 0.03, (count, 1, 4, 4)).repeat(8, axis=2).repeat(10, axis=3)
    images = images.astype(np.float32)
    for number in range(count):
        top = number % 4 * 8
        images[number, :, top : top + 8, :10] = light
    return images


def written(model: Any) -> dict[str, str]:
    return {entry.key: entry.value for entry in model.metadata_props}


@pytest.mark.parametrize(("classes", "shown"), [(2, 1), (3, None), (3, 2)])
def test_maps_that_mark_what_the_network_looks_at_agree_with_occlusion(classes: int, shown: int | None) -> None:
    model = network(classes)

    agreement = measure_cam_agreement(model, images_with_light(16), shown)

    assert agreement == pytest.approx(1, abs=0.1)
    assert written(model) == {"maps_point": "true"}


def test_maps_that_mark_something_else_do_not_point_exact_as_they_are() -> None:
    model = mirrored_maps()

    agreement = measure_cam_agreement(model, images_with_light(16), 1)

    assert agreement is not None
    assert agreement < AGREEMENT
    assert written(model) == {"maps_point": "false"}


def test_of_too_few_images_that_are_said_to_be_of_the_class_nothing_is_told() -> None:
    model = network()
    images = np.concatenate([images_with_light(7), images_with_light(20, light=0.02)])  # the dark ones are NORMAL

    assert measure_cam_agreement(model, images, 1) is None
    assert written(model) == {"maps_point": "false"}


def test_an_image_that_is_the_same_all_over_gives_no_agreement() -> None:
    model = network()

    assert measure_cam_agreement(model, np.full((8, 1, 32, 40), 0.9, dtype=np.float32), 1) == pytest.approx(0, abs=0.01)
    assert written(model) == {"maps_point": "false"}

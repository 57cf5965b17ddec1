"""Graphs of real encoders with random weights, and of hand-made networks whose answer is known."""

from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pneumo.pipeline.export.bundle_export import write_graph
from pneumo.pipeline.export.cam import NoMapsError, add_cam_output
from pneumo.serving.images.preparation import Preparation

SIDE = 64
SHAPE: dict[str, Any] = {"height": SIDE, "width": SIDE, "num_channels": 1}
SMALL = {"type": "backbone", "network": "test_resnet"}

Write = Callable[..., Any]


def images(count: int = 4, seed: int = 0, *, side: int = SIDE) -> Any:
    return np.random.default_rng(seed).random((count, 1, side, side), dtype=np.float32)


def run(model: Any, given: Any) -> tuple[Any, Any]:
    """Logits and maps."""
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    logits, maps = session.run(["logits", "maps"], {"image": given})
    return logits, maps


@pytest.fixture(scope="module")
def write(ludwig: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Write:
    """Export an encoder, or any network that gives features [N, D], with one linear layer as Ludwig's decoders are."""
    import torch

    folder = tmp_path_factory.mktemp("graphs")

    def make(features: Any, width: int, *, classes: int = 2, head: Any = None) -> Any:
        class Network(torch.nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.features = features
                self.head = head or torch.nn.Linear(width, 1 if classes == 2 else classes)

            def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
                found = self.features(image)
                found = found["encoder_output"] if isinstance(found, dict) else found
                logits = self.head(found)
                if classes == 2:
                    logits = torch.cat([torch.zeros_like(logits), logits], dim=1)
                return logits, found

        path = folder / "model.onnx"
        write_graph(Network().eval(), Preparation(size=SIDE, height=SIDE, width=SIDE), path)
        return onnx.load(path)

    torch.manual_seed(0)
    return make


@pytest.fixture(scope="module")
def lite(write: Write) -> Any:
    """EfficientNet-Lite0 with an average of its weights, and maps."""
    from pneumo.pipeline.ludwig.encoders.efficientnet_lite import EfficientNetLite

    model = write(EfficientNetLite(pretrained=False, weight_average=0.9, **SHAPE), 1280)
    return add_cam_output(model, images())


@pytest.fixture(scope="module")
def ensemble(write: Write) -> Any:
    """Members of three sizes and kinds, one with two views, and maps."""
    from pneumo.pipeline.ludwig.encoders.ensemble import Ensemble, EnsembleConfig

    members = [
        SMALL | {"views": 2, "normalization": "standardize"},
        SMALL | {"size": 96},
        SMALL | {"network": "test_efficientnet", "size": 40},
    ]
    encoder = Ensemble(EnsembleConfig(members=members, **SHAPE))
    return add_cam_output(write(encoder, int(encoder.output_shape[0])), images())


@settings(max_examples=30)
@given(seed=st.integers(0, 2**32 - 1), scale=st.floats(0, 1), count=st.integers(1, 3))
@pytest.mark.slow
@pytest.mark.parametrize("network", ["lite", "ensemble"])
def test_the_mean_of_a_map_is_the_logit_for_any_input(
    request: pytest.FixtureRequest, network: str, seed: int, scale: float, count: int
) -> None:
    logits, maps = run(request.getfixturevalue(network), images(count, seed) * np.float32(scale))

    assert maps.shape[:2] == logits.shape == (count, 2)
    np.testing.assert_allclose(maps.mean(axis=(2, 3), dtype=np.float64), logits, atol=1e-4)


@pytest.mark.slow
def test_maps_differ_over_the_image_and_the_negative_class_of_a_binary_output_has_none(lite: Any) -> None:
    _, maps = run(lite, images())

    assert maps.shape == (4, 2, SIDE // 32, SIDE // 32)
    assert not maps[:, 0].any()
    assert (np.ptp(maps[:, 1], axis=(1, 2)) > 0).all()


@pytest.mark.slow
def test_maps_have_the_size_of_the_finest_member(ensemble: Any) -> None:
    _, maps = run(ensemble, images())

    assert maps.shape == (4, 2, 3, 3)  # of the member that sees 96 pixels


@pytest.fixture(scope="module")
def plain(write: Write) -> Any:
    """A small network with several linear layers and three classes, without maps."""
    import torch
    from torch import nn

    from pneumo.pipeline.ludwig.encoders.backbone import Backbone

    head = nn.Sequential(nn.Linear(96, 20), nn.Dropout(0.5), nn.BatchNorm1d(20), nn.Linear(20, 3))
    with torch.no_grad():
        norm: Any = head[2]
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2)
    return write(Backbone(network="test_resnet", **SHAPE), 96, classes=3, head=head)


def test_what_was_there_before_stays_as_it_was(plain: Any) -> None:
    mapped = add_cam_output(plain, images())

    both = []
    for model in (plain, mapped):
        session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        both.append(session.run(["logits", "embedding"], {"image": images()}))
    for before, after in zip(*both, strict=True):
        np.testing.assert_allclose(after, before, atol=1e-6)
    onnx.checker.check_model(mapped, full_check=True)
    assert [item.name for item in plain.graph.output] == ["logits", "embedding"]
    assert add_cam_output(plain, images()).SerializeToString() == mapped.SerializeToString()


def test_several_linear_layers_are_one_and_three_classes_have_three_maps(plain: Any) -> None:
    logits, maps = run(add_cam_output(plain, images()), images())

    assert maps.shape[1] == 3
    np.testing.assert_allclose(maps.mean(axis=(2, 3)), logits, atol=1e-4)


class _Bright:
    """Networks whose features are what is bright, in cells of 8 x 8 pixels."""

    @staticmethod
    def make(forward: Callable[[Any, Any], Any]) -> Any:
        import torch

        class Network(torch.nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.cells = torch.nn.Conv2d(1, 1, 8, stride=8, bias=False)
                torch.nn.init.constant_(self.cells.weight, 1.0)

            def forward(self, image: Any) -> Any:
                return forward(self.cells, image)

        return Network()

    @staticmethod
    def head() -> Any:
        import torch

        layer = torch.nn.Linear(1, 1)
        torch.nn.init.constant_(layer.weight, 1.0)
        return layer


def blob() -> Any:
    """One image that is bright in the second row and third column of cells."""
    image = np.zeros((1, 1, SIDE, SIDE), dtype=np.float32)
    image[:, :, 8:16, 16:24] = 1
    return image


def hottest(maps: Any) -> tuple[int, int]:
    row, column = np.unravel_index(maps[0, 1].argmax(), maps.shape[2:])
    return int(row), int(column)


def test_a_nonlinear_head_has_none_even_where_it_is_almost_linear_on_the_images(write: Write) -> None:
    from torch import nn

    head = nn.Sequential(nn.Linear(1, 8), nn.Hardtanh(-50, 50), nn.Linear(8, 1))  # on images it never saturates

    with pytest.raises(NoMapsError, match="not linear"):
        add_cam_output(write(_Bright.make(lambda cells, x: cells(x).mean((2, 3))), 1, head=head), images())


def test_a_map_lies_as_the_image_does_and_that_of_the_mirror_image_is_turned_back(write: Write) -> None:
    def both(cells: Any, x: Any) -> Any:
        return (cells(x).mean((2, 3)) + 2 * cells(x.flip(3)).mean((2, 3))) / 3

    model = add_cam_output(write(_Bright.make(both), 1, head=_Bright.head()), images())
    logits, maps = run(model, blob())

    assert hottest(maps) == (1, 2)
    assert maps[0, 1].max() - np.median(maps[0, 1]) == pytest.approx(64, rel=1e-3)  # both views, on one place
    np.testing.assert_allclose(maps.mean(axis=(2, 3)), logits, atol=1e-4)


def test_a_coarse_map_is_laid_on_a_fine_one_by_area(write: Write) -> None:
    from torch.nn import functional

    def both(cells: Any, x: Any) -> Any:
        fine = cells(x).mean((2, 3))
        return fine + functional.avg_pool2d(cells(x[:, :, :48, :48]), 2).mean((2, 3))

    model = add_cam_output(write(_Bright.make(both), 1, head=_Bright.head()), images())
    logits, maps = run(model, blob())

    assert maps.shape[2:] == (8, 8)
    np.testing.assert_allclose(maps.mean(axis=(2, 3)), logits, atol=1e-4)


@pytest.mark.parametrize(
    ("forward", "width", "reason"),
    [
        (lambda cells, x: cells(x).flatten(1), 64, "more than globally averaged"),
        pytest.param(
            lambda cells, x: cells(x).mean((2, 3)) + x.amax((2, 3)),
            1,
            "more than globally averaged",
            marks=pytest.mark.slow,
        ),
        (lambda cells, x: cells(x + x.flip(3)).mean((2, 3)), 1, "mixed before"),
        (lambda cells, x: cells(x.flip(2)).mean((2, 3)), 1, "cannot follow"),
        pytest.param(lambda cells, x: cells(x).mean((2, 3)) ** 2, 1, "not linear", marks=pytest.mark.slow),
    ],
)
def test_what_is_no_sum_of_averages_over_the_image_has_no_maps(
    forward: Callable[[Any, Any], Any], width: int, reason: str, write: Write
) -> None:
    with pytest.raises(NoMapsError, match=reason):
        add_cam_output(write(_Bright.make(forward), width), images())

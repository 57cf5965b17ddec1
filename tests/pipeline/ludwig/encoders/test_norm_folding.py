"""Frozen batch norm as a part of the convolution before it: the same numbers, and left alone where it is none."""

import copy
import pickle
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest


@pytest.fixture(autouse=True)
def seeded(ludwig: ModuleType) -> None:
    import torch

    torch.manual_seed(3)


def lite() -> Any:
    import timm

    return timm.create_model("tf_efficientnet_lite0", num_classes=0)


def resnet() -> Any:
    import torchvision

    return torchvision.models.resnet18()


def densenet() -> Any:
    """Here most norms come before their convolution, and some after one whose output goes elsewhere too."""
    import timm

    return timm.create_model("densenet121", num_classes=0)


def with_bias() -> Any:
    from torch import nn

    return nn.Sequential(nn.Conv2d(3, 4, 3, stride=2), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1), nn.Flatten())


def trained(network: Any) -> Any:
    """With batch norms that do something, as after training, and in float64: rounding must not hide a difference."""
    import torch

    for norm in network.modules():
        if isinstance(norm, torch.nn.BatchNorm2d):
            for values in (norm.running_mean, norm.bias.data):
                values.normal_(0, 0.1)
            for values in (norm.running_var, norm.weight.data):
                values.uniform_(0.5, 1.5)
    return network.eval()


def answers(network: Any, images: Any) -> tuple[Any, list[Any]]:
    """Features and the gradients of all parameters."""
    network.zero_grad()
    features = network(images)
    features.square().sum().backward()
    return features.detach(), [parameter.grad for parameter in network.parameters()]


def shared() -> Any:
    """One convolution and its norm, used twice."""
    from torch import nn

    step = nn.Sequential(nn.Conv2d(3, 3, 3), nn.BatchNorm2d(3))
    return nn.Sequential(step, nn.ReLU(), step, nn.AdaptiveAvgPool2d(1), nn.Flatten())


NETWORKS = {lite: 49, resnet: 20, densenet: 59, with_bias: 1, shared: 1}


@pytest.mark.parametrize(
    ("make", "folded"),
    [
        pytest.param(make, folded, id=make.__name__, marks=[pytest.mark.slow] if make is densenet else [])
        for make, folded in NETWORKS.items()
    ],
)
def test_features_and_gradients_are_those_of_the_network_as_it_was_built(make: Callable[[], Any], folded: int) -> None:
    import torch

    from pneumo.pipeline.ludwig.encoders.norm_folding import fold_frozen_norms

    built = trained(make())
    ours = copy.deepcopy(built)
    assert fold_frozen_norms(ours, 3, (32, 32)) == folded
    images = torch.rand(2, 3, 32, 32, dtype=torch.float64)
    features, gradients = answers(built.double(), images)

    for network in (ours, copy.deepcopy(ours), pickle.loads(pickle.dumps(ours))):
        assert list(network.state_dict()) == list(built.state_dict())
        found, slopes = answers(network.double(), images)
        torch.testing.assert_close(found, features)
        torch.testing.assert_close(slopes, gradients)


def test_the_passes_of_frozen_norms_are_spared_where_gradients_flow_and_nowhere_else(monkeypatch: Any) -> None:
    import torch

    from pneumo.pipeline.ludwig.encoders.norm_folding import fold_frozen_norms

    network = trained(resnet())
    fold_frozen_norms(network, 3, (32, 32))
    calls: list[int] = []
    passes = torch.nn.functional.batch_norm

    def normalise(*given: Any, **options: Any) -> Any:
        calls.append(1)
        return passes(*given, **options)

    monkeypatch.setattr(torch.nn.functional, "batch_norm", normalise)
    images = torch.rand(2, 3, 32, 32)
    network(images)
    assert not calls
    with torch.no_grad():
        network(images)
    assert len(calls) == 20
    network.train()(images)
    assert len(calls) == 40


def forked() -> Any:
    """Add the output of the convolution to its norm's."""
    import torch

    class Forked(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.convolution, self.norm = torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4)

        def forward(self, images: Any) -> Any:
            convolved = self.convolution(images)
            return (self.norm(convolved) + convolved).mean(dim=(2, 3))

    return Forked()


def twice() -> Any:
    """Give the output of one convolution to two norms."""
    import torch

    class Twice(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.convolution = torch.nn.Conv2d(3, 4, 3)
            self.norms = torch.nn.ModuleList([torch.nn.BatchNorm2d(4) for _ in range(2)])

        def forward(self, images: Any) -> Any:
            convolved = self.convolution(images)
            return (self.norms[0](convolved) - self.norms[1](convolved).relu()).mean(dim=(2, 3))

    return Twice()


def circular() -> Any:
    """Pad in a way that a convolution alone does not."""
    from torch import nn

    convolution = nn.Conv2d(3, 4, 3, padding=1, padding_mode="circular")
    return nn.Sequential(convolution, nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1), nn.Flatten())


def by_name() -> Any:
    """Give the norm its input by keyword."""
    import torch

    class ByName(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.convolution, self.norm = torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4)

        def forward(self, images: Any) -> Any:
            return self.norm(input=self.convolution(images)).mean(dim=(2, 3))

    return ByName()


@pytest.mark.parametrize("make", [forked, twice, circular, by_name])
def test_what_cannot_be_folded_stays_as_it_was_built(make: Callable[[], Any]) -> None:
    import torch

    from pneumo.pipeline.ludwig.encoders.norm_folding import fold_frozen_norms

    network = trained(make())
    images = torch.rand(2, 3, 16, 16)
    before = network(images)
    assert fold_frozen_norms(network.train(), 3, (16, 16)) == 0  # as an encoder gives it
    assert torch.equal(network.eval()(images), before)


def test_folding_draws_no_random_number() -> None:
    import torch

    from pneumo.pipeline.ludwig.encoders.norm_folding import fold_frozen_norms

    network = trained(resnet())
    before = torch.get_rng_state()
    fold_frozen_norms(network, 3, (32, 32))
    assert torch.equal(torch.get_rng_state(), before)

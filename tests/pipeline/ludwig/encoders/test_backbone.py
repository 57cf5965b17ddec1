from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from pneumo.serving.contracts.errors import InputError, MachineError


def make(library: str = "timm", name: str = "test_resnet", **options: Any) -> Any:
    from pneumo.pipeline.ludwig.encoders.backbone import Backbone

    return Backbone(library=library, network=name, **{"height": 64, "width": 64, "num_channels": 1} | options)


def vectors(encoder: Any, channels: int = 1) -> Any:
    import torch

    with torch.no_grad():
        return encoder.eval()(torch.rand(2, channels, 64, 64))["encoder_output"]


@pytest.fixture(autouse=True)
def offline(ludwig: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Empty caches, and no way out."""
    import huggingface_hub.constants
    import huggingface_hub.file_download

    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("asked the internet")

    monkeypatch.setattr("socket.socket.connect", refuse)


@pytest.mark.parametrize(
    ("library", "name", "length"),
    [
        ("timm", "test_resnet", 96),
        ("timm", "mobilenetv3_small_050", 1024),
        ("torchvision", "resnet18", 512),
        ("torchvision", "mobilenet_v3_small", 1024),
        ("torchvision", "squeezenet1_0", None),
    ],
)
def test_a_network_gives_its_features_for_one_channel_and_three(library: str, name: str, length: int | None) -> None:
    if length is None:
        with pytest.raises(InputError, match="has no linear layer at its end"):
            make(library, name)
        return
    encoder = make(library, name)

    assert vectors(encoder).shape == (2, length)
    assert vectors(encoder, channels=3).shape == (2, length)
    assert encoder.output_shape[0] == length


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "resnet81"}, r"'resnet81' is not in timm; did you mean 'resnet"),
        ({"library": "torchvision", "name": "resnet81"}, r"is not in torchvision; did you mean 'resnet18'"),
        ({"library": "torchvision", "name": "fcn_resnet50"}, r"is not in torchvision"),
        ({"name": "vit_tiny_patch16_224"}, r"takes no image of 64 x 64 pixels \(state size"),
        ({"name": "vgg11", "drop_path": 0.1}, r"takes no drop_path"),
        ({"library": "torchvision", "name": "resnet18", "drop_path": 0.1}, r"drop_path works with library: timm"),
        ({"name": "resnet10t", "weights": "cached"}, r"models--timm--resnet10t.*python -c"),
    ],
)
def test_what_cannot_be_built_is_one_line_with_a_fix(options: dict[str, Any], message: str) -> None:
    with pytest.raises((InputError, MachineError), match=message) as caught:
        make(**options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("library", "name"), [("timm", "resnet18"), ("torchvision", "resnet18")])
def test_an_empty_cache_says_where_it_looked_and_how_to_fill_it(library: str, name: str, tmp_path: Path) -> None:
    with pytest.raises(MachineError) as caught:
        make(library, name, weights="cached")

    assert str(tmp_path) in str(caught.value)
    assert f"import {library}; " in str(caught.value)


@pytest.mark.parametrize("ending", [".pth", ".safetensors"])
@pytest.mark.parametrize(("library", "name"), [("timm", "test_resnet"), ("torchvision", "mobilenet_v3_small")])
def test_a_file_with_a_classifier_fills_the_whole_network(library: str, name: str, ending: str, tmp_path: Path) -> None:
    import timm
    import torch
    import torchvision
    from safetensors.torch import save_file

    theirs = timm.create_model(name) if library == "timm" else torchvision.models.get_model(name)
    file = tmp_path / f"weights{ending}"
    if ending == ".pth":
        torch.save({"state_dict": {f"module.{key}": part for key, part in theirs.state_dict().items()}}, file)
    else:
        save_file(theirs.state_dict(), file)

    encoder = make(library, name, weights=str(file))

    stored = theirs.state_dict()
    assert all(torch.equal(part, stored[key]) for key, part in encoder.backbone.state_dict().items())


def test_weights_bring_their_scaling_and_random_ones_have_half_and_half(tmp_path: Path) -> None:
    import torch
    import torchvision

    file = tmp_path / "weights.pth"
    torch.save(torchvision.models.resnet18().state_dict(), file)

    assert make("torchvision", "resnet18").mean.flatten().tolist() == [0.5, 0.5, 0.5]
    encoder = make("torchvision", "resnet18", weights=str(file))
    assert encoder.mean.flatten().tolist() == pytest.approx([0.485, 0.456, 0.406])
    assert encoder.deviation.flatten().tolist() == pytest.approx([0.229, 0.224, 0.225])
    file.unlink()
    loaded = make("torchvision", "resnet18", weights=str(file), saved_weights_in_checkpoint=True)
    assert torch.equal(loaded.mean, encoder.mean)  # Ludwig's own checkpoint needs no file, and scales alike


def test_a_file_in_the_librarys_cache_is_found(tmp_path: Path) -> None:
    import torch
    import torchvision

    theirs = torchvision.models.resnet18()
    folder = tmp_path / "torch" / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    url = torchvision.models.ResNet18_Weights.DEFAULT.url
    torch.save(theirs.state_dict(), folder / url.rpartition("/")[2])

    encoder = make("torchvision", "resnet18", weights="cached")

    assert torch.equal(encoder.backbone.conv1.weight, theirs.conv1.weight)


@pytest.mark.parametrize("library", ["timm", "torchvision"])
def test_a_file_that_lacks_tensors_or_is_none_is_refused(library: str, tmp_path: Path) -> None:
    import timm
    import torch

    name = "test_vit" if library == "timm" else "resnet18"
    options = {"height": 160, "width": 160} if library == "timm" else {}
    other, junk = tmp_path / "other.pth", tmp_path / "junk.pth"
    torch.save(timm.create_model("test_resnet").state_dict(), other)
    junk.write_bytes(b"no weights")

    with pytest.raises(InputError, match=r"other\.pth lacks \d+ of its \d+ tensors"):
        make(library, name, weights=str(other), **options)
    with pytest.raises(InputError, match="not a file of weights"):
        make(library, name, weights=str(junk), **options)
    with pytest.raises(MachineError, match="no such file"):
        make(library, name, weights=str(tmp_path / "missing.pth"), **options)

import builtins
import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from pneumo.serving.contracts.errors import InputError, MachineError

installed = pytest.mark.skipif(
    importlib.util.find_spec("torchxrayvision") is None, reason="torchxrayvision is not installed (extra xrv)"
)


def make(**options: Any) -> Any:
    from pneumo.pipeline.ludwig.encoders.xrv_densenet import XrvDenseNet

    return XrvDenseNet(**{"height": 64, "width": 64, "num_channels": 1, "dropout": 0.0} | options).eval()


def test_without_the_package_it_says_what_to_install(ludwig: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *arguments: Any, **options: Any) -> Any:
        if name.startswith("torchxrayvision"):
            raise ImportError(name)
        return real(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", without)

    with pytest.raises(MachineError, match=r"pip install '\.\[xrv\]'"):
        make()


@installed
@pytest.mark.parametrize("whole", [True, False])
def test_a_file_as_the_project_releases_them_gives_its_features(
    ludwig: ModuleType, tmp_path: Path, whole: bool
) -> None:
    import torch
    from torchxrayvision.models import DenseNet

    theirs = DenseNet(weights=None).eval()
    torch.save(theirs if whole else theirs.state_dict(), tmp_path / "weights.pt")
    pixels = torch.rand(2, 1, 64, 64)

    encoder = make(weights=str(tmp_path / "weights.pt"))

    with torch.no_grad():
        expected = theirs.features2((2 * pixels - 1) * 1024)  # the package's own scaling
        torch.testing.assert_close(encoder(pixels)["encoder_output"], expected, rtol=1e-4, atol=1e-3)
        three = encoder(pixels.expand(-1, 3, -1, -1))["encoder_output"]
        torch.testing.assert_close(three, expected, rtol=1e-4, atol=1e-3)
    assert encoder.output_shape == torch.Size([1024])


@installed
def test_weights_that_are_none_are_refused(ludwig: ModuleType, tmp_path: Path) -> None:
    import torch

    torch.save({"features.conv0.weight": torch.zeros(1)}, tmp_path / "other.pt")
    (tmp_path / "junk.pt").write_bytes(b"junk")

    for name in ("other.pt", "junk.pt"):
        with pytest.raises(InputError, match=f"{name}: not the weights of its DenseNet-121"):
            make(weights=str(tmp_path / name))
    with pytest.raises(MachineError, match="no such file; download one from"):
        make(weights=str(tmp_path / "missing.pt"))

"""Networks of timm and torchvision with weights that are on this machine: nothing here uses the internet."""

import difflib
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from pneumo.pipeline.ludwig.encoders.weight_sources import CACHED, DOWNLOAD, Source
from pneumo.serving.contracts.errors import InputError, MachineError, join_lines

_HALF = (0.5, 0.5, 0.5)


@dataclass(frozen=True)
class Network:
    """A network without classifier, and the pixels in [0, 1] that it takes: less the mean, over the deviation."""

    network: torch.nn.Module  # maps [N, channels, H, W] to [N, features]
    mean: tuple[float, ...] = _HALF
    deviation: tuple[float, ...] = _HALF
    features: int = 0  # unknown if 0
    channels: int = 3  # 3: one channel is repeated; 1: three channels are averaged


def from_timm(name: str, *, weights: str | None, load: bool, drop_path: float) -> Network:
    """Build a network of timm.

    Args:
        name: timm's name, such as `resnet18` or `convnext_tiny.fb_in22k`.
        weights: A file, `CACHED` or `DOWNLOAD` (from the library's cache either way), or None for random weights.
        load: Load the weights; if False, the file need not exist.
        drop_path: Stochastic depth.

    Raises:
        InputError: timm has no such network, it has no stochastic depth, or the weights do not fit it.
        MachineError: The weights are not on this machine.
    """
    import timm

    place = f"encoder backbone: {name!r}"
    if not timm.is_model(name):
        names = timm.list_models() if "." not in name else timm.list_pretrained()
        raise InputError(f"{place} is not in timm{_suggest_name(name, names)}")
    options: dict[str, Any] = {"drop_path_rate": drop_path} if drop_path else {}
    try:
        network = timm.create_model(name, pretrained=False, num_classes=0, **options)
    except TypeError as error:
        raise InputError(f"{place} takes no drop_path; leave it out ({error})") from None
    if weights is None:
        return Network(network)
    if load:  # not timm's own loading: without a classifier it keeps random weights for tensors that a file lacks
        _load(network, _find_file(weights, Source.of_timm, name), place)
    stated: Any = network.pretrained_cfg
    return Network(network, tuple(stated["mean"]), tuple(stated["std"]))


def from_torchvision(name: str, *, weights: str | None, load: bool, drop_path: float) -> Network:
    """Build a classifier of torchvision without its last layer; arguments and errors are those of `from_timm`."""
    import torchvision.models

    place = f"encoder backbone: {name!r}"
    names = torchvision.models.list_models(module=torchvision.models)
    if name not in names:
        raise InputError(f"{place} is not in torchvision{_suggest_name(name, names)}")
    if drop_path:
        raise InputError(f"{place}: drop_path works with library: timm only; leave it out")
    options = {"aux_logits": False} if name in ("googlenet", "inception_v3") else {}
    network = torchvision.models.get_model(name, weights=None, **options)
    last, layer = list(network.named_modules())[-1]
    if not isinstance(layer, torch.nn.Linear):
        raise InputError(f"{place} has no linear layer at its end to remove; choose another network")
    built = Network(network)
    if weights is not None:
        stated = torchvision.models.get_model_weights(name).DEFAULT
        if load:
            _load(network, _find_file(weights, Source.of_torchvision, name), place, last)
        transforms = stated.transforms()
        built = Network(network, tuple(transforms.mean), tuple(transforms.std))
    parent, _, child = last.rpartition(".")
    setattr(network.get_submodule(parent), child, torch.nn.Identity())
    return built


def _load(network: torch.nn.Module, file: Path, place: str, excluded: str | None = None) -> None:
    """Load a file into every tensor of a network except those of the layer `excluded`."""
    stored = _read(file)
    names = [name for name in network.state_dict() if excluded is None or not name.startswith(f"{excluded}.")]
    missing = [name for name in names if name not in stored]
    if missing:
        raise InputError(f"{place}: {file} lacks {len(missing)} of its {len(names)} tensors, such as {missing[0]}")
    try:
        network.load_state_dict({name: stored[name] for name in names}, strict=False)
    except RuntimeError as error:
        raise InputError(f"{place}: {file} does not fit it: {join_lines(error)}") from None


def _find_file(weights: str, get_source: Callable[[str], Source], name: str) -> Path:
    if weights in (CACHED, DOWNLOAD):
        return get_source(name).require()
    path = Path(weights).expanduser()
    if not path.is_file():
        raise MachineError(
            f"encoder backbone: weights {weights}: no such file; give a path, {DOWNLOAD}, {CACHED} or null"
        )
    return path


def _read(path: Path) -> dict[str, torch.Tensor]:
    """Return the tensors of a checkpoint by name, without the wrappers of training scripts."""
    from timm.models import load_state_dict

    try:
        stored = load_state_dict(str(path), use_ema=False)
    except Exception as error:  # its readers raise many kinds
        raise InputError(f"encoder backbone: {path}: not a file of weights: {join_lines(error)}") from None
    # torchvision renamed the layers of its DenseNets and kept the files
    rename = re.compile(r"(denselayer\d+\.(?:norm|relu|conv))\.([12])\.")
    return {rename.sub(r"\1\2.", name): tensor for name, tensor in stored.items()}


def _suggest_name(name: str, names: list[str]) -> str:
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    return f"; did you mean {near[0]!r}?" if near else ""

"""Networks of timm and torchvision with weights that are on this machine: nothing here asks the internet."""

import difflib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from pneumo.serving.contracts.errors import InputError, MachineError

CACHED = "cached"
_HALF = (0.5, 0.5, 0.5)


@dataclass(frozen=True)
class Network:
    """A network without classifier, and how it wants its pixels.

    Attributes:
        network: Maps [N, 3, H, W] to [N, features].
        mean: Subtracted from each channel in [0, 1].
        deviation: Divided by afterwards.
    """

    network: torch.nn.Module
    mean: tuple[float, ...]
    deviation: tuple[float, ...]


def from_timm(name: str, *, weights: str | None, load: bool, drop_path: float) -> Network:
    """Build a network of timm.

    Args:
        name: As timm calls it, such as `resnet18` or `convnext_tiny.fb_in22k`.
        weights: A file, `CACHED`, or None for random ones.
        load: Whether to load them; when false the file need not be there.
        drop_path: Stochastic depth.

    Raises:
        InputError: timm has no such network, it has no stochastic depth, or the weights do not fit it.
        MachineError: The weights are not there.
    """
    import timm

    place = f"encoder backbone: {name!r}"
    if not timm.is_model(name):
        known = timm.list_models() if "." not in name else timm.list_pretrained()
        raise InputError(f"{place} is not in timm{_suggest_name(name, known)}")
    options: dict[str, Any] = {"drop_path_rate": drop_path} if drop_path else {}
    try:
        network = timm.create_model(name, pretrained=False, num_classes=0, **options)
    except TypeError as error:
        raise InputError(f"{place} takes no drop_path; leave it out ({error})") from None
    if weights is not None and load:
        # not timm's own loading: without a classifier it keeps random weights for what a file lacks
        _fill(network, _timm_cache(name) if weights == CACHED else _file(weights), place)
    if weights is None:
        return Network(network, _HALF, _HALF)
    stated: Any = network.pretrained_cfg
    return Network(network, tuple(stated["mean"]), tuple(stated["std"]))


def from_torchvision(name: str, *, weights: str | None, load: bool, drop_path: float) -> Network:
    """Build a classifier of torchvision and take its last layer off.

    Args:
        name: As torchvision calls it, such as `densenet121`.
        weights: A file, `CACHED`, or None for random ones.
        load: Whether to load them; when false the file need not be there.
        drop_path: Must be 0: torchvision's networks take none.

    Raises:
        InputError: torchvision has no such classifier, or the weights do not fit it.
        MachineError: The weights are not there.
    """
    import torchvision.models

    place = f"encoder backbone: {name!r}"
    known = torchvision.models.list_models(module=torchvision.models)
    if name not in known:
        raise InputError(f"{place} is not in torchvision{_suggest_name(name, known)}")
    if drop_path:
        raise InputError(f"{place}: drop_path works with library: timm only; leave it out")
    options = {"aux_logits": False} if name in ("googlenet", "inception_v3") else {}
    network = torchvision.models.get_model(name, weights=None, **options)
    last, layer = list(network.named_modules())[-1]
    if not isinstance(layer, torch.nn.Linear):
        raise InputError(f"{place} has no linear layer at its end to take off; choose another network")
    if weights is not None and load:
        file = _torchvision_cache(name) if weights == CACHED else _file(weights)
        _fill(network, file, place, besides=f"{last}.")
    parent, _, child = last.rpartition(".")
    setattr(network.get_submodule(parent), child, torch.nn.Identity())
    if weights is None:
        return Network(network, _HALF, _HALF)
    look = torchvision.models.get_model_weights(name).DEFAULT.transforms()
    return Network(network, tuple(look.mean), tuple(look.std))


def _fill(network: torch.nn.Module, file: Path, place: str, besides: str = "") -> None:
    """Load a file into every tensor of a network but those whose names begin with `besides`."""
    stored = _read(file)
    ours = [name for name in network.state_dict() if not (besides and name.startswith(besides))]
    lacking = [name for name in ours if name not in stored]
    if lacking:
        raise InputError(f"{place}: {file} lacks {len(lacking)} of its {len(ours)} tensors, such as {lacking[0]}")
    try:
        network.load_state_dict({name: stored[name] for name in ours}, strict=False)
    except RuntimeError as error:
        raise InputError(f"{place}: {file} does not fit it: {_first_lines(error)}") from None


def _file(weights: str) -> Path:
    path = Path(weights).expanduser()
    if not path.is_file():
        raise MachineError(f"encoder backbone: weights {weights}: no such file; give a path, {CACHED!r} or null")
    return path


def _timm_cache(name: str) -> Path:
    """Where timm has put a network's weights at an earlier download."""
    import timm
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.constants import HF_HUB_CACHE

    stated: Any = timm.get_pretrained_cfg(name)
    places = []
    if stated is not None and stated.hf_hub_id:
        names = [stated.hf_hub_filename] if stated.hf_hub_filename else ["model.safetensors", "pytorch_model.bin"]
        for file in names:
            found = try_to_load_from_cache(stated.hf_hub_id, file)
            if isinstance(found, str):
                return Path(found)
        places.append(f"{HF_HUB_CACHE}/models--{stated.hf_hub_id.replace('/', '--')}")
    if stated is not None and stated.url:
        found = Path(torch.hub.get_dir(), "checkpoints", Path(stated.url).name)
        if found.is_file():
            return found
        places.append(str(found))
    if not places:
        raise InputError(f"encoder backbone: timm has no weights for {name!r}; set weights: null, or name another")
    raise _not_cached(name, places, f"import timm; timm.create_model('{name}', pretrained=True)")


def _torchvision_cache(name: str) -> Path:
    import torchvision.models

    url = torchvision.models.get_model_weights(name).DEFAULT.url
    path = Path(torch.hub.get_dir(), "checkpoints", Path(url).name)
    if not path.is_file():
        fill = f"import torchvision; torchvision.models.get_model('{name}', weights='DEFAULT')"
        raise _not_cached(name, [str(path)], fill)
    return path


def _not_cached(name: str, places: list[str], fill: str) -> MachineError:
    return MachineError(
        f"encoder backbone: no weights of {name!r} in {' or '.join(places)}; fill it where there is internet with "
        f'`python -c "{fill}"`, or set weights: to a file or null'
    )


def _read(path: Path) -> dict[str, torch.Tensor]:
    """Tensors of a checkpoint by name; wrappers of training scripts are taken off."""
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            stored: Any = load_file(path)
        else:
            stored = torch.load(path, weights_only=True, map_location="cpu")
    except Exception as error:  # both readers raise many kinds
        raise InputError(f"encoder backbone: {path}: not a file of weights: {_first_lines(error)}") from None
    for wrapper in ("state_dict", "model"):
        if isinstance(stored, dict) and isinstance(stored.get(wrapper), dict):
            stored = stored[wrapper]
    if not isinstance(stored, dict):
        raise InputError(f"encoder backbone: {path}: holds no tensors by name; save the network's state_dict()")
    names = {str(name).removeprefix("module."): tensor for name, tensor in stored.items()}
    # torchvision renamed the layers of its DenseNets and kept the files
    return {
        re.sub(r"(denselayer\d+\.(?:norm|relu|conv))\.([12])\.", r"\1\2.", name): part for name, part in names.items()
    }


def _suggest_name(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"; did you mean {near[0]!r}?" if near else ""


def _first_lines(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (": ".join(lines[:2]) if lines else type(error).__name__)[:300]

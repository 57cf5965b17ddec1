"""A convolution and the frozen batch norm behind it, computed as one convolution while a network trains.

With statistics that stay, batch norm is a scale and a shift of each channel: w * x, scaled by s and shifted by b, is
(s w) * x + b (Jacob et al., Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only
Inference, 2018, section 3.2). Scaling the few weights spares a pass over all activations, forward and backward.
Weights, scale and shift stay parameters of their own, get the same gradients but for rounding, and keep their names.
"""

import copy
from functools import partial
from typing import Any

import torch
from torch.nn import functional

_TOLERANCE = 1e-3


def fold_frozen_norms(network: torch.nn.Module, channels: int, size: tuple[int, int]) -> int:
    """Let each convolution whose output goes to a batch norm, and nowhere else, do that norm's work when it is frozen.

    Only where gradients are computed: evaluation and export run the network as it was built.

    Args:
        network: Changed in place; a network whose structure is not understood stays as it is.
        channels: What it takes.
        size: Height and width of what it takes.

    Returns:
        How many batch norms are folded.
    """
    trial = _randomised(network)
    draws = torch.Generator().manual_seed(0)
    images = torch.rand(1, channels, *size, generator=draws)
    with torch.no_grad():
        pairs = _pairs(trial, images)
        expected = trial(images)
    for convolution, norm in pairs:
        _fold(trial.get_submodule(convolution), trial.get_submodule(norm))
    with torch.enable_grad():
        if not torch.allclose(trial(images), expected, rtol=_TOLERANCE, atol=_TOLERANCE * float(expected.abs().max())):
            return 0
    for convolution, norm in pairs:
        _fold(network.get_submodule(convolution), network.get_submodule(norm))
    return len(pairs)


def _randomised(network: torch.nn.Module) -> torch.nn.Module:
    """A copy in evaluation mode whose batch norms all do something, so that a wrong pair shows in what comes out."""
    trial = copy.deepcopy(network).eval().requires_grad_(False)
    draws = torch.Generator().manual_seed(0)
    norms: list[Any] = [module for module in trial.modules() if _is_norm(module)]
    for norm in norms:
        for values in (norm.running_mean, norm.bias.data):
            values.copy_(torch.rand(values.shape, generator=draws) - 0.5)
        for values in (norm.running_var, norm.weight.data):
            values.copy_(torch.rand(values.shape, generator=draws) + 0.5)
    return trial


def _pairs(network: torch.nn.Module, images: torch.Tensor) -> list[tuple[str, str]]:
    """Names of convolutions and of the batch norms that take their outputs."""
    came: dict[int, tuple[str, torch.Tensor]] = {}  # tensors are kept, so that no two have the same id
    pairs = []

    def leave(name: str, _module: Any, _inputs: Any, output: torch.Tensor) -> None:
        came[id(output)] = (name, output)

    def enter(name: str, _module: Any, inputs: tuple[torch.Tensor, ...]) -> None:
        if inputs and id(inputs[0]) in came:
            pairs.append((came[id(inputs[0])][0], name))

    handles = []
    for name, module in network.named_modules():
        if _is_convolution(module):
            handles.append(module.register_forward_hook(partial(leave, name)))
        elif _is_norm(module):
            handles.append(module.register_forward_pre_hook(partial(enter, name)))
    network(images)
    for handle in handles:
        handle.remove()
    return list(dict.fromkeys(pairs))


def _is_convolution(module: torch.nn.Module) -> bool:
    """Whether `_convolve` may compute what it does: PyTorch's own, or timm's with TensorFlow's padding."""
    return type(module) is torch.nn.Conv2d or type(module).__name__ == "Conv2dSame"


def _is_norm(module: Any) -> bool:
    """Whether it is a batch norm with statistics and parameters: PyTorch's own, or timm's with an activation."""
    known = type(module) is torch.nn.BatchNorm2d or type(module).__name__ == "BatchNormAct2d"
    return known and module.running_mean is not None and module.weight is not None


def _fold(convolution: Any, norm: Any) -> None:
    convolution.forward = partial(_convolve, convolution, norm)
    norm.forward = partial(_pass_on, norm)


def _folded(norm: Any) -> bool:
    return torch.is_grad_enabled() and not norm.training


def _convolve(convolution: Any, norm: Any, images: torch.Tensor) -> torch.Tensor:
    """What the convolution does, and where gradients flow past frozen statistics what its batch norm does as well."""
    if not _folded(norm):
        output: torch.Tensor = type(convolution).forward(convolution, images)
        return output
    scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
    shift = norm.bias - norm.running_mean * scale
    if convolution.bias is not None:
        shift = shift + convolution.bias * scale
    weight = convolution.weight * scale.view(-1, 1, 1, 1)
    padding = convolution.padding
    if type(convolution) is not torch.nn.Conv2d:
        from timm.layers.padding import pad_same

        images, padding = pad_same(images, weight.shape[-2:], convolution.stride, convolution.dilation), 0
    return functional.conv2d(
        images, weight, shift, convolution.stride, padding, convolution.dilation, convolution.groups
    )


def _pass_on(norm: Any, images: torch.Tensor) -> torch.Tensor:
    """What the batch norm does, without the part that its convolution has done."""
    if not _folded(norm):
        output: torch.Tensor = type(norm).forward(norm, images)
        return output
    if type(norm) is torch.nn.BatchNorm2d:
        return images
    activated: torch.Tensor = norm.act(norm.drop(images))
    return activated

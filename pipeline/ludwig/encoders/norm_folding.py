"""Compute a convolution and the frozen batch norm after it as one convolution while a network trains.

With fixed statistics, batch norm scales and shifts each channel: w * x, scaled by s and shifted by b, is (s w) * x + b
(Jacob et al., Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference, 2018,
section 3.2). Scaling the few weights spares a pass over all activations, forward and backward. Weights, scale and
shift stay separate parameters, get the same gradients but for rounding, and keep their names.
"""

import copy
from functools import partial
from typing import Any, TypeGuard

import torch
from torch.nn import BatchNorm2d, Conv2d, functional

_TOLERANCE = 1e-3


def fold_frozen_norms(network: torch.nn.Module, channels: int, size: tuple[int, int]) -> int:
    """Fold each batch norm into its convolution, if the convolution's output goes to that norm only.

    It applies while the norm is frozen and gradients are computed. Evaluation and export run the network as built. The
    network is changed in place; one whose structure is not understood stays as it is. `channels` and `size` (height,
    width) are those of its images. Return the number of folded batch norms.
    """
    trial = _randomise(network)
    images = torch.rand(1, channels, *size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        pairs = _find_pairs(trial, images)
        expected = trial(images)
    for convolution, norm in pairs:
        _fold(trial.get_submodule(convolution), trial.get_submodule(norm))
    with torch.enable_grad():
        if not torch.allclose(trial(images), expected, rtol=_TOLERANCE, atol=_TOLERANCE * float(expected.abs().max())):
            return 0
    for convolution, norm in pairs:
        _fold(network.get_submodule(convolution), network.get_submodule(norm))
    return len(pairs)


def _randomise(network: torch.nn.Module) -> torch.nn.Module:
    """Return a copy in evaluation mode with random batch norms, so that a wrong pair changes the output."""
    trial = copy.deepcopy(network).eval().requires_grad_(False)
    draws = torch.Generator().manual_seed(0)
    for norm in filter(_is_norm, trial.modules()):
        for around_zero in (norm.running_mean, norm.bias.data):
            around_zero.copy_(torch.rand(around_zero.shape, generator=draws) - 0.5)
        for around_one in (norm.running_var, norm.weight.data):
            around_one.copy_(torch.rand(around_one.shape, generator=draws) + 0.5)
    return trial


def _find_pairs(network: torch.nn.Module, images: torch.Tensor) -> list[tuple[str, str]]:
    """Return the names of convolutions and of the batch norms that take their outputs."""
    outputs: dict[int, tuple[str, torch.Tensor]] = {}  # tensors are kept, so that no two have the same id
    pairs = []

    def record_output(name: str, _module: object, _inputs: object, output: torch.Tensor) -> None:
        outputs[id(output)] = (name, output)

    def match_input(name: str, _module: object, inputs: tuple[torch.Tensor, ...]) -> None:
        if inputs and id(inputs[0]) in outputs:
            pairs.append((outputs[id(inputs[0])][0], name))

    handles = []
    for name, module in network.named_modules():
        if type(module) is Conv2d or type(module).__name__ == "Conv2dSame":  # timm's, with TensorFlow's padding
            handles.append(module.register_forward_hook(partial(record_output, name)))
        elif _is_norm(module):
            handles.append(module.register_forward_pre_hook(partial(match_input, name)))
    network(images)
    for handle in handles:
        handle.remove()
    return list(dict.fromkeys(pairs))


def _is_norm(module: Any) -> TypeGuard[Any]:
    """Return whether it is a batch norm with statistics and parameters: torch's, or timm's with an activation."""
    if type(module) is BatchNorm2d or type(module).__name__ == "BatchNormAct2d":
        return module.running_mean is not None and module.weight is not None
    return False


def _fold(convolution: Any, norm: Any) -> None:
    convolution.forward = partial(_convolve, convolution, norm)
    norm.forward = partial(_skip_norm, norm)


def _convolve(convolution: Conv2d, norm: Any, images: torch.Tensor) -> torch.Tensor:
    """Convolve; if gradients flow past frozen statistics, apply the batch norm as well."""
    if norm.training or not torch.is_grad_enabled():
        return type(convolution).forward(convolution, images)
    scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
    shift = norm.bias - norm.running_mean * scale
    if convolution.bias is not None:
        shift = shift + convolution.bias * scale
    weight = convolution.weight * scale.view(-1, 1, 1, 1)
    padding: Any = convolution.padding
    if type(convolution) is not Conv2d:
        from timm.layers.padding import pad_same

        images, padding = pad_same(images, weight.shape[-2:], convolution.stride, convolution.dilation), 0  # type: ignore[arg-type]
    return functional.conv2d(
        images, weight, shift, convolution.stride, padding, convolution.dilation, convolution.groups
    )


def _skip_norm(norm: BatchNorm2d, images: torch.Tensor) -> torch.Tensor:
    """Apply a batch norm without the part that its convolution has applied."""
    if norm.training or not torch.is_grad_enabled():
        return type(norm).forward(norm, images)
    return images if type(norm) is BatchNorm2d else norm.act(norm.drop(images))  # type: ignore[operator]

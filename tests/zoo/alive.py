"""Random parameters under which a masked network of any depth still depends on its input, and calmly.

A deep random network either forgets its input, so that any constant would pass for it, or is chaotic, so that
rounding decides its output. One pass over a batch sets every layer on what really reaches it: convolutions and
linear layers vary by one about the bias that was drawn for them, BatchNorm has the batch's statistics, perturbed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from .masks import LAYERS, weights_of_layers

_BIAS = 0.4  # deviation of biases and of affine weights
_SCALE = 0.5  # mean of layer scales
_SHIFT = 0.5  # mean of a norm's bias: most units away from the kink of their activation, or rounding errors grow
_STATISTICS = 0.3  # deviation of the perturbation of BatchNorm's statistics
_QUIET = 0.1  # of a layer's mean variance: a channel that hardly varies is not made as loud as the others
_BRANCH_SCALES = ("layer_scale", "skipinit_gain", "gain")  # nothing, or next to it, in fresh networks
_NOTHING = 1e-3
_SILENT = 1e-4  # less is rounding, which must not be made loud


def images(batch: int, size: int, generator: torch.Generator) -> Tensor:
    """(batch, 3, size, size): noise about a random colour; noise alone would not survive pooling."""
    colour = torch.randn(batch, 3, 1, 1, generator=generator)
    return 0.7 * colour + 0.7 * torch.randn(batch, 3, size, size, generator=generator)


def revive_zero_layers(model: nn.Module) -> None:
    """Layers that a builder leaves at zero, or next to it (the heads of vision transformers), get random weights."""
    with torch.no_grad():
        for weight in weights_of_layers(model).values():
            if float(weight.abs().max()) < _NOTHING:
                nn.init.trunc_normal_(weight, std=0.02)


def bring_to_life(model: nn.Module, batch: Tensor, generator: torch.Generator) -> None:
    """Random affine parameters, then scales and statistics by one pass of `batch`, layer after layer."""
    bring_to_life_by(model, lambda: model(batch), generator)


def bring_to_life_by(model: nn.Module, run: Callable[[], object], generator: torch.Generator) -> None:
    """The same, by whatever `run` puts through the model."""

    def on_layer(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        return _equalise(module, output)

    def on_norm(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        _calibrate(module, inputs[0], generator)

    with torch.no_grad():
        for module in model.modules():
            _randomise(module, generator)
        handles = [m.register_forward_hook(on_layer) for m in model.modules() if type(m) in LAYERS]
        handles += [m.register_forward_pre_hook(on_norm) for m in model.modules() if _has_statistics(m)]
        try:
            run()
        finally:
            for handle in handles:
                handle.remove()


def _has_statistics(module: nn.Module) -> bool:
    """BatchNorm, and torchvision's frozen one, which holds buffers only."""
    return getattr(module, "running_mean", None) is not None


def _randomise(module: nn.Module, generator: torch.Generator) -> None:
    shift = _SHIFT if _has_statistics(module) or isinstance(module, nn.LayerNorm | nn.GroupNorm) else 0.0
    for name, parameter in (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)):
        if name in _BRANCH_SCALES and float(parameter.abs().max()) < _NOTHING:
            parameter.copy_(_SCALE + _BIAS * _SCALE * torch.randn(parameter.shape, generator=generator))
        elif parameter.ndim == 1 and ("bias" in name or name == "weight"):
            mean = shift if "bias" in name else 1.0
            parameter.copy_(mean + _BIAS * torch.randn(parameter.shape, generator=generator))


def _equalise(layer: Any, output: Tensor) -> Tensor:
    """Ablated channels keep their bias, which is the constant that must not get lost."""
    channel = output.ndim - 1 if isinstance(layer, nn.Linear) else 1
    along = [-1 if j == channel else 1 for j in range(output.ndim)]
    bias = layer.bias.reshape(along) if layer.bias is not None else output.new_zeros(())
    product = output - bias
    mean = product.mean([j for j in range(output.ndim) if j != channel], keepdim=True)
    squeezed = output.ndim == 4 and output.shape[2:] == (1, 1)  # what varies there would switch gates on and off
    if layer.bias is None or squeezed:
        mean = torch.zeros_like(mean)
    deviation = float((product - mean).std())
    if deviation < _SILENT:
        return output
    layer.weight.div_(deviation)
    if layer.bias is not None:
        layer.bias.sub_(mean.reshape(-1) / deviation)
    return (product - mean) / deviation + bias


def _calibrate(norm: Any, x: Tensor, generator: torch.Generator) -> None:
    """Before it runs, since timm's norms also activate."""
    others = [j for j in range(x.ndim) if j != 1]
    variance = x.var(others, correction=0)
    variance = variance.clamp(min=max(_QUIET * float(variance.mean()), 1e-3))
    noise = torch.randn(2, len(variance), generator=generator)
    norm.running_mean.copy_(x.mean(others) + _STATISTICS * variance.sqrt() * noise[0])
    norm.running_var.copy_(variance * torch.exp(_STATISTICS * noise[1]))

"""The sparsity patterns of the sweep."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from sparsefx.training.budget import allocate
from sparsefx.training.distributions import erdos_renyi_kernel
from sparsefx.training.initial_masks import random_mask

from .models import RESIDUAL_BLOCKS

_SHARE = 0.3
_DENSITY = 0.05

Patterns = dict[str, Tensor]
LAYERS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d, nn.Linear)


def weights_of_layers(model: nn.Module) -> dict[str, Tensor]:
    """Weights of convolutions and linear layers, packed attention projections among them, by name."""
    found = {f"{name}.weight": m.weight for name, m in model.named_modules() if isinstance(m, LAYERS)}
    for name, m in model.named_modules():
        if isinstance(m, nn.MultiheadAttention):
            found[f"{name}.in_proj_weight"] = m.in_proj_weight
    return found


def zero_filters(model: nn.Module, generator: torch.Generator) -> Patterns:
    """30% of the filters of every layer."""
    return {n: _rows(w, torch.rand(len(w), generator=generator) >= _SHARE) for n, w in weights_of_layers(model).items()}


def zero_columns(model: nn.Module, generator: torch.Generator) -> Patterns:
    """30% of the input columns of every layer that has more than three inputs per group."""
    return {
        name: (torch.rand(w.shape[1], generator=generator) >= _SHARE)
        .reshape(1, -1, *[1] * (w.ndim - 2))
        .expand(w.shape)
        for name, w in weights_of_layers(model).items()
        if w.shape[1] > 3
    }


def unstructured(model: nn.Module, generator: torch.Generator) -> Patterns:
    """95% of all weights, spread over the layers as sparse training does: depthwise filters stay (nearly) dense.

    With 5% of nine weights, most of them would be zero, and little of the input would reach the output.
    """
    weights = weights_of_layers(model)
    sizes = {name: weight.numel() for name, weight in weights.items()}
    nonzeros = round(_DENSITY * sum(sizes.values()))
    counts = allocate(erdos_renyi_kernel(weights, nonzeros), sizes, nonzeros)
    return {name: random_mask(weight.shape, counts[name], generator) for name, weight in weights.items()}


def zero_layer(model: nn.Module, generator: torch.Generator) -> Patterns:
    """One layer entirely zero: the middle one of those that a shortcut leads past, or of all where there is none.

    Behind a layer that everything has to pass, every norm would be calibrated on a constant, and enlarge rounding.
    """
    weights = weights_of_layers(model)
    names = list(weights)
    passed = {f"{block}.{name}" for block, m in _residual_blocks(model) for name in weights_of_layers(m)}
    middle = len(names) // 2
    name = min((n for n in names if n in passed or not passed), key=lambda n: abs(names.index(n) - middle))
    return {name: torch.zeros(weights[name].shape, dtype=torch.bool)}


def zero_branch(model: nn.Module, generator: torch.Generator) -> Patterns:
    """All layers of a residual block in the middle zero; nothing where the model has no such block."""
    blocks = _residual_blocks(model)
    if not blocks:
        return {}
    name, block = blocks[len(blocks) // 2]
    return {f"{name}.{n}": torch.zeros(w.shape, dtype=torch.bool) for n, w in weights_of_layers(block).items()}


def _residual_blocks(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """The blocks whose shortcut is their input itself."""
    return [(n, m) for n, m in model.named_modules() if type(m).__name__ in RESIDUAL_BLOCKS and _adds_input(m)]


def _adds_input(block: nn.Module) -> bool:
    strided = any(max(m.stride) > 1 for m in block.modules() if isinstance(m, nn.Conv2d))
    projected = any(getattr(block, name, None) is not None for name in ("downsample", "proj"))
    adds = all(getattr(block, name, True) for name in ("use_res_connect", "apply_residual"))
    return not strided and not projected and adds


MASKS: dict[str, Callable[[nn.Module, torch.Generator], Patterns]] = {
    "filters 30%": zero_filters,
    "columns 30%": zero_columns,
    "unstructured 95%": unstructured,
    "one layer zero": zero_layer,
    "branch zero": zero_branch,
}


def _rows(weight: Tensor, kept: Tensor) -> Tensor:
    return kept.reshape(-1, *[1] * (weight.ndim - 1)).expand(weight.shape)


def apply(model: nn.Module, patterns: Patterns) -> None:
    """Zero the masked weights, in place; the others grow so that the layer's variance stays."""
    weights = weights_of_layers(model)
    with torch.no_grad():
        for name, pattern in patterns.items():
            density = float(pattern.double().mean())
            weights[name].mul_(pattern / max(density, 1e-9) ** 0.5)

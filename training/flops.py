"""Multiply-accumulates of convolutions and linear layers, and what sparsity leaves of them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from ..passes.capture import evaluation_mode
from .layers import SPARSIFIED_TYPES
from .weight_layout import WeightLayout


def layer_macs(model: nn.Module, example_inputs: tuple[Any, ...]) -> dict[str, int]:
    """Multiply-accumulates of one sample by weight name, measured on one forward pass in evaluation mode.

    Borders count in full, biases not at all; a layer that runs twice counts twice.
    """
    macs: dict[str, int] = defaultdict(int)

    def count(name: str) -> Any:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            assert isinstance(module.weight, Tensor)
            visited = inputs[0] if WeightLayout.of(module).output_axis else output
            macs[name] += visited[0].numel() * prod(module.weight.shape[1:])

        return hook

    layers = [(n, m) for n, m in model.named_modules() if isinstance(m, SPARSIFIED_TYPES)]
    handles = [module.register_forward_hook(count(f"{name}.weight".lstrip("."))) for name, module in layers]
    try:
        with evaluation_mode(model), torch.no_grad():
            model(*example_inputs)
    finally:
        for handle in handles:
            handle.remove()
    return dict(macs)


def theoretical_flops(macs: Mapping[str, int], densities: Mapping[str, float]) -> float:
    """2 * sum of density * multiply-accumulates: what remains where every zero is skipped (Chase, Table 4)."""
    return 2 * sum(densities.get(name, 1.0) * count for name, count in macs.items())


def dense_hardware_flops(macs: Mapping[str, int], masks: Mapping[str, Tensor]) -> float:
    """FLOPs where only whole filters and whole input columns are skipped ("GPU-supported", Chase, Table 4).

    For layers with their outputs on axis 0 and one group; a layer without a mask counts in full.
    """
    return 2 * sum(count * (live_share(masks[name]) if name in masks else 1.0) for name, count in macs.items())


def live_share(mask: Tensor) -> float:
    """(live filters / filters) * (live input columns / input columns) of a mask with its outputs on axis 0."""
    grid = WeightLayout().grid(mask)[0]
    return float(grid.flatten(1).any(1).float().mean() * grid.any(2).any(0).float().mean())

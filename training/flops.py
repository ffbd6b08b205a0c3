"""Multiply-accumulates of convolutions and linear layers, and what sparsity leaves of them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from math import prod
from typing import Any

from torch import Tensor, nn

from .layer_runs import watch_layers
from .weight_layout import WeightLayout


def layer_macs(model: nn.Module, example_inputs: tuple[Any, ...]) -> dict[str, int]:
    """Multiply-accumulates of one sample by weight name, measured on one forward pass in evaluation mode.

    Borders count in full, biases not at all; a layer that runs twice counts twice.
    """

    def macs(module: nn.Module, given: Tensor, output: Tensor) -> int:
        assert isinstance(module.weight, Tensor)
        visited = given if WeightLayout.of(module).output_axis else output
        return visited[0].numel() * prod(module.weight.shape[1:])

    return _counted(model, example_inputs, macs)


def convolution_outputs(model: nn.Module, example_inputs: tuple[Any, ...]) -> dict[str, int]:
    """Output values of one sample by weight name, of convolutions only; measured as layer_macs is."""

    def outputs(module: nn.Module, given: Tensor, output: Tensor) -> int:
        return 0 if isinstance(module, nn.Linear) else output[0].numel()

    return _counted(model, example_inputs, outputs)


def _counted(
    model: nn.Module, example_inputs: tuple[Any, ...], figure: Callable[[nn.Module, Tensor, Tensor], int]
) -> dict[str, int]:
    """A figure of every layer by weight name, summed over one forward pass."""
    totals: dict[str, int] = defaultdict(int)

    def count(name: str, module: nn.Module, given: Tensor, output: Tensor) -> None:
        totals[name] += figure(module, given, output)

    watch_layers(model, example_inputs, count)
    return dict(totals)


def theoretical_flops(macs: Mapping[str, int], densities: Mapping[str, float]) -> float:
    """2 * sum of density * multiply-accumulates: what remains where every zero is skipped (Chase, Table 4)."""
    return 2 * sum(densities.get(name, 1.0) * count for name, count in macs.items())


def srigl_flops(macs: Mapping[str, int], densities: Mapping[str, float], outputs: Mapping[str, int]) -> float:
    """The same and one operation per output of a convolution, as SRigL counts inference (Table 5)."""
    return theoretical_flops(macs, densities) + sum(outputs.values())


def iee_training_cost(sparse: float, dense: float, *, stages: tuple[int, int, int], share: float) -> float:
    """Average FLOPs of a training step for one sample (IEE, appendix 3).

    `sparse` and `dense` are those of a forward pass, `stages` H, J and Q, `share` the part of training with updates.
    With H = J = Q and 3/4 it is (11 * sparse + dense) / 4.
    """
    estimation, improvement, exploration = stages
    exploited = (estimation + improvement) * 3 * sparse
    cycle = (exploited + exploration * (2 * sparse + dense)) / sum(stages)
    return share * cycle + (1 - share) * 3 * sparse


def rigl_training_cost(sparse: float, dense: float, *, interval: int) -> float:
    """Average FLOPs of a training step for one sample; each `interval`-th has dense gradients (RigL, appendix H)."""
    return ((interval - 1) * 3 * sparse + 2 * sparse + dense) / interval


def dense_hardware_flops(macs: Mapping[str, int], masks: Mapping[str, Tensor]) -> float:
    """FLOPs where only whole filters and whole input columns are skipped ("GPU-supported", Chase, Table 4).

    For layers with their outputs on axis 0 and one group; a layer without a mask counts in full.
    """
    return 2 * sum(count * (live_share(masks[name]) if name in masks else 1.0) for name, count in macs.items())


def live_share(mask: Tensor) -> float:
    """(live filters / filters) * (live input columns / input columns) of a mask with its outputs on axis 0."""
    grid = WeightLayout().grid(mask)[0]
    return float(grid.flatten(1).any(1).float().mean() * grid.any(2).any(0).float().mean())

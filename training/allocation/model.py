"""The budget problem of a model by itself, without training."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from ..channels import CoupledChannels, groups_of
from ..layers import LayerPatterns, bare_model, choose_layers
from .kinds import kinds_of
from .layer import layers_of
from .network import NetworkCosts
from .table import Costs, as_costs


def network_costs(
    model: nn.Module, example_inputs: tuple[Any, ...], costs: Costs = None, *, choices: int = 64
) -> NetworkCosts:
    """What a model costs at every number of coupled channels, all that can be removed included.

    `costs` is a latency table, the path of one, or another LayerCosts; FLOPs by default. Raises CaptureError where the
    model cannot be captured, MaskError where it has no layer with weights, TableError where the table has not all.
    """
    bare = bare_model(model)
    chosen = choose_layers(bare, torch.optim.SGD(bare.parameters(), lr=1.0), LayerPatterns())
    groups = groups_of(bare, example_inputs)
    channels = CoupledChannels(groups, chosen.layers, chosen.aliases, prune_skip=True, prune_first=True)
    return NetworkCosts(layers_of(bare, example_inputs), kinds_of(channels), as_costs(costs), choices=choices)

"""Weights of +-1 under random masks: whole filters, filters with the columns that read them, and single weights."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from tests.helpers import MakeInputs, deviation, randomise, run

from .channels import channel_sets, columns
from .nets import OracleNet

_ATTEMPTS = 30


def filters(net: OracleNet, generator: torch.Generator) -> None:
    """A random share of every layer's filters; at least one is left."""
    for name in net.layers():
        weight = net.layer(name).weight
        share = 0.2 + 0.5 * _uniform(generator)
        kept = torch.rand(len(weight), generator=generator) >= share
        kept[int(torch.randint(len(weight), (1,), generator=generator))] = True
        weight[~kept] = 0.0


def filters_and_columns(net: OracleNet, generator: torch.Generator) -> None:
    """Whole channels: the filters of all summed layers, and the columns that read them."""
    gone = {s for s in channel_sets(net) if _uniform(generator) < 0.4}
    for channels in gone:
        for name, index in channels:
            net.layer(name).weight[index] = 0.0
    for name in net.reads:
        weight, groups = net.layer(name).weight, getattr(net.layer(name), "groups", 1)
        for column, channels in enumerate(columns(net, name)):
            if channels in gone:
                rows = len(weight) // groups
                group, index = divmod(column, weight.shape[1])
                weight[group * rows : (group + 1) * rows, index] = 0.0


def unstructured(net: OracleNet, generator: torch.Generator) -> None:
    """Single weights: one to three are left per filter on average."""
    for name in net.layers():
        weight = net.layer(name).weight
        density = (1.0 + 2.0 * _uniform(generator)) / weight[0].numel()
        weight *= torch.rand(weight.shape, generator=generator) < density


MASKS: dict[str, Callable[[OracleNet, torch.Generator], None]] = {
    "filters": filters,
    "filters and columns": filters_and_columns,
    "unstructured": unstructured,
}


def draw_weights(net: OracleNet, mask: str, make_inputs: MakeInputs, generator: torch.Generator) -> None:
    """New signs, masked, and random normalisations, until the output depends on the input."""
    with torch.no_grad():
        for _ in range(_ATTEMPTS):
            for name in [*net.layers(), "head"]:
                net.layer(name).weight.copy_(_signs(net.layer(name).weight, generator))
            MASKS[mask](net, generator)
            randomise(net, lambda: net(*make_inputs(16)), generator)
            if _varies(net, make_inputs):
                return
    raise RuntimeError(f"{_ATTEMPTS} masks ({mask}) in a row left an output that hardly varies")


def _varies(net: nn.Module, make_inputs: MakeInputs) -> bool:
    return all(deviation(output).varies for output in run(net, make_inputs(16)))


def _signs(like: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randint(2, like.shape, generator=generator).to(like.dtype) * 2 - 1


def _uniform(generator: torch.Generator) -> float:
    return float(torch.rand(1, generator=generator))

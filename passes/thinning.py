"""Layers with channels that do nothing there, although they stay in the tensors around them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch.fx import GraphModule, Node

from .channels.arrays import Indices, Mask
from .channels.rules import OperatorRule
from .channels.rules.call import Contraction
from .channels.trace import GraphTrace
from .graph import add_constant


@dataclass(frozen=True)
class Thinning:
    """The inputs or the outputs of a layer, counted per group of a grouped layer; those that are live have weights."""

    contraction: Contraction
    live: Mask  # (groups, channels)

    @property
    def node(self) -> Node:
        return self.contraction.node

    @property
    def weight(self) -> Node:
        assert self.contraction.weight is not None
        return self.contraction.weight

    @property
    def layer(self) -> str:
        return self.contraction.layer

    @property
    def full(self) -> int:
        return int(self.live.shape[1])

    @property
    def least(self) -> int:
        """The fewest channels that every group can keep."""
        return max(1, int(self.live.sum(axis=1).max()))

    def kept(self, width: int) -> Mask:
        """The live channels, and in every group the first others until they are `width`."""
        chosen = np.argsort(~self.live, axis=1, kind="stable")[:, : max(width, self.least)]
        kept = np.zeros_like(self.live)
        np.put_along_axis(kept, chosen, True, axis=1)
        return kept


Width = Callable[[Thinning], int]  # how many channels a layer keeps in every group; fewer than `least` count as that


def least_width(thinning: Thinning) -> int:
    return thinning.least


def thin_inputs(graph_module: GraphModule, rules: Mapping[str, OperatorRule] | None = None) -> list[Thinning]:
    """Layers that could read fewer channels, in the graph's order."""
    return _thinner(Thinning(c, _any(c.kernel.edges, 1)) for c in layers(graph_module, rules))


def thin_outputs(graph_module: GraphModule, rules: Mapping[str, OperatorRule] | None = None) -> list[Thinning]:
    """Layers that could compute fewer channels, in the graph's order."""
    return _thinner(Thinning(c, _any(c.kernel.edges, 2)) for c in layers(graph_module, rules))


def layers(graph_module: GraphModule, rules: Mapping[str, OperatorRule] | None = None) -> list[Contraction]:
    """Every layer whose weight is a constant."""
    return [c for c in GraphTrace(graph_module, rules).contractions if c.weight is not None]


def pick(source: Node, axis: int, indices: Indices, before: Node, name: str) -> Node:
    """A new node in front of `before`: `source` at these indices of an axis, held by a constant called like `name`."""
    owner = before.graph.owning_module
    assert owner is not None
    constant = add_constant(owner, before, name, torch.from_numpy(indices))
    with before.graph.inserting_before(before):
        return before.graph.call_function(torch.ops.aten.index_select.default, (source, axis, constant))


def _any(edges: Mask, axis: int) -> Mask:
    return np.asarray(edges.any(axis=axis))


def _thinner(thinnings: Iterable[Thinning]) -> list[Thinning]:
    return [thinning for thinning in thinnings if thinning.least < thinning.full]

"""The widths of a network that can be chosen: channel groups that one number decides, and the sizes that follow.

Channels that the same layers produce, one index in each, are interchangeable as far as time goes: how many of them
stay is a width. Of a width w the first w channels stay.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.fx import GraphModule

from ...passes.channels.analysis import connected_components
from ...passes.channels.arrays import Indices, Mask
from ...passes.channels.compaction import Compaction
from ...passes.channels.rules import OperatorRule
from ...passes.channels.rules.call import Contraction
from ...passes.channels.trace import GraphTrace
from ...passes.errors import TableError
from ...passes.graph import PATTERN, copy_graph, set_constant
from ...passes.remove_channels import RemoveChannels

Sizes = dict[tuple[str, int], int]  # (node, axis) of a graph -> size


@dataclass(frozen=True)
class WidthGroup:
    """A width: `name` is that of its first layer; `producers` and `consumers` are layers by name; `full` channels."""

    name: str
    producers: tuple[str, ...]
    consumers: tuple[str, ...]
    full: int
    channels: tuple[int, ...]  # labels of the flow's elements, in the order in which channels stay


class WidthSpace:
    """All widths of a prepared graph.

    Not among them: channels that are pinned (outputs, a residual stream behind a LayerNorm), attention heads, and
    grouped convolutions, whose groups must stay equal.
    """

    def __init__(self, graph_module: GraphModule, rules: Mapping[str, OperatorRule] | None = None) -> None:
        self.graph_module, self.rules = graph_module, rules
        self._trace = GraphTrace(graph_module, rules)
        self._label = connected_components(self._trace.flow.size, self._trace.flow.couplings)
        self.contractions = tuple(c for c in self._trace.contractions if c.weight is not None)
        self.layers = tuple(c.layer for c in self.contractions)
        self.groups = self._find()

    def group(self, name: str) -> WidthGroup:
        """The width that a layer's outputs belong to; TableError where it has none."""
        for group in self.groups:
            if name in group.producers:
                return group
        raise TableError(f"layer {name!r} has no width to choose; widths are {', '.join(g.name for g in self.groups)}")

    def complete(self, widths: Mapping[str, int]) -> dict[str, int]:
        """A width for every group, full where none is given; layers of one group must agree. Raises TableError."""
        chosen: dict[str, int] = {}
        for layer, width in widths.items():
            group = self.group(layer)
            if not 1 <= width <= group.full:
                raise TableError(f"the width of {layer} must be between 1 and {group.full}, found {width}")
            if chosen.setdefault(group.name, int(width)) != width:
                raise TableError(
                    f"{layer} and {group.name} share their channels: both must have width {chosen[group.name]}, "
                    f"found {width}"
                )
        return {g.name: chosen.get(g.name, g.full) for g in self.groups}

    def sizes(self, widths: Mapping[str, int]) -> Sizes:
        """The fixed sizes of all values of the graph at these widths."""
        compaction = Compaction(self._kept(widths))
        return {
            (node.name, axis): size
            for node in self.graph_module.graph.nodes
            for value in self._trace.values(node)[:1]
            for axis, size in enumerate(compaction.axis_sizes(value))
            if isinstance(size, int)
        }

    def cut(self, widths: Mapping[str, int]) -> GraphModule:
        """A copy of the graph with these widths, whose outputs are other numbers: for measuring only."""
        copied = GraphModule(self.graph_module, copy_graph(self.graph_module.graph))
        copied.meta = dict(self.graph_module.meta)
        removed = ~self._kept(widths)
        nodes = {node.name: node for node in copied.graph.nodes}
        for c in self._trace.contractions:
            if c.weight is not None:
                weight, pattern = _without(c, removed[c.inputs.elements.reshape(-1)])
                set_constant(nodes[c.weight.name], weight)
                nodes[c.weight.name].meta[PATTERN] = pattern
        RemoveChannels(self.rules)(copied)
        return copied

    def _kept(self, widths: Mapping[str, int]) -> Mask:
        removed = [c for g in self.groups for c in g.channels[widths.get(g.name, g.full) :]]
        return ~np.isin(self._label, np.array(removed, np.int64))

    def _find(self) -> tuple[WidthGroup, ...]:
        barred = self._barred()
        producers: dict[int, list[str]] = defaultdict(list)
        consumers: dict[int, list[str]] = defaultdict(list)
        depthwise: set[str] = set()
        for c in self._trace.contractions:
            if c.weight is None:
                continue
            name = c.layer
            if c.kernel.groups > 1 and c.kernel.inputs == 1:
                depthwise.add(name)
            for label in self._label[c.outputs.elements.reshape(-1)].tolist():
                producers[label].append(name)
            for label in dict.fromkeys(self._label[c.inputs.elements.reshape(-1)].tolist()):
                consumers[label].append(name)
        members: dict[tuple[str, ...], list[int]] = defaultdict(list)
        for label, names in producers.items():
            if label not in barred and len(set(names)) == len(names) and not set(names) <= depthwise:
                members[tuple(names)].append(label)
        return tuple(
            WidthGroup(
                next(n for n in names if n not in depthwise),
                names,
                tuple(dict.fromkeys(n for label in labels[:1] for n in consumers[label])),
                len(labels),
                tuple(labels),
            )
            for names, labels in members.items()
            if len(labels) > 1 and self._is_free(labels)
        )

    def _barred(self) -> set[int]:
        """Labels of what is pinned, and of what grouped convolutions read or write."""
        grouped = [c for c in self._trace.contractions if c.kernel.groups > 1 and c.kernel.inputs > 1]
        elements = [pin.elements for pin in self._trace.flow.pins]
        elements += [v.elements for c in grouped for v in (c.inputs, c.outputs)]
        return {int(label) for part in elements for label in np.unique(self._label[part.reshape(-1)])}

    def _is_free(self, labels: list[int]) -> bool:
        """Whether tensors stay rectangular without the second half of a group's channels."""
        kept = ~np.isin(self._label, np.array(labels[len(labels) // 2 :], np.int64))
        missing: list[Indices] = [constraint.missing(kept) for constraint in self._trace.flow.constraints]
        return not any(len(m) for m in missing)


def _without(contraction: Contraction, removed: Mask) -> tuple[Tensor, Tensor]:
    """A weight with zeros where it reads removed inputs, and the pattern by which all other weights count as live."""
    kernel = contraction.kernel
    columns = torch.from_numpy(removed).reshape(kernel.groups, 1, kernel.inputs, 1)
    pattern = (~columns).expand(kernel.weight.shape)
    parts = (kernel.weight * pattern, pattern.contiguous())
    weight, live = (kernel.layout.from_canonical(part, kernel.window).contiguous() for part in parts)
    return weight, live

"""Channel groups of a model: which channels of which weights are kept or removed together.

Training methods that remove channels ask here, instead of knowing architectures by heart.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from torch import Tensor
from torch.fx import GraphModule

from ..graph import origin_of
from .analysis import connected_components
from .arrays import Indices
from .rules import OperatorRule
from .rules.call import Contraction
from .trace import GraphTrace


@dataclass(frozen=True)
class WeightSlice:
    """The weights of one channel: `weight[index]` of the parameter called `parameter`."""

    parameter: str
    index: tuple[int | slice, ...]
    depthwise: bool = False

    def of(self, weight: Tensor) -> Tensor:
        return weight[self.index]


@dataclass(frozen=True)
class ChannelGroup:
    """Coupled channels: the filters that produce them and the input columns that read them.

    `entries` are those of one-dimensional parameters and buffers: of BatchNorms, biases, scales of channels. `pinned`
    is the reason why the group can never be removed (an input, an output, a norm over channels ...).
    """

    producers: tuple[WeightSlice, ...]
    consumers: tuple[WeightSlice, ...]
    pinned: str | None
    entries: tuple[WeightSlice, ...] = ()

    @property
    def is_internal(self) -> bool:
        """Whether a single layer produces it (depthwise layers hand channels on, they do not count)."""
        return self.pinned is None and sum(not producer.depthwise for producer in self.producers) == 1


def channel_groups(graph_module: GraphModule, rules: Mapping[str, OperatorRule] | None = None) -> list[ChannelGroup]:
    """The channel groups of a captured graph, in the order in which their first producer runs."""
    trace = GraphTrace(graph_module, rules)
    label = connected_components(trace.flow.size, trace.flow.couplings)
    pinned: dict[int, str] = {}
    for pin in trace.flow.pins:
        for g in np.unique(label[pin.elements]).tolist():
            pinned.setdefault(g, pin.reason)
    producers: dict[int, list[WeightSlice]] = defaultdict(list)
    consumers: dict[int, list[WeightSlice]] = defaultdict(list)
    for contraction in trace.contractions:
        if contraction.weight is None:
            continue
        for index, g in enumerate(label[contraction.outputs.elements.reshape(-1)].tolist()):
            producers[g].append(_output_slice(contraction, index))
        for index, g in enumerate(label[contraction.inputs.elements.reshape(-1)].tolist()):
            consumers[g].append(_input_slice(contraction, index))
    entries = _entries(trace, label)
    return [ChannelGroup(tuple(p), tuple(consumers[g]), pinned.get(g), tuple(entries[g])) for g, p in producers.items()]


def _entries(trace: GraphTrace, label: Indices) -> dict[int, list[WeightSlice]]:
    """Of constants with one axis, by group: what is combined with channels one by one, and biases."""
    entries: dict[int, list[WeightSlice]] = defaultdict(list)
    places = [(node, value.elements) for node, value in trace.constants() if value.elements.ndim == 1]
    places += [(c.bias, c.outputs.elements.reshape(-1)) for c in trace.contractions if c.bias is not None]
    for node, elements in places:
        for index, g in enumerate(label[elements].tolist()):
            entries[g].append(WeightSlice(origin_of(node), (index,)))
    return entries


def _parameter(contraction: Contraction) -> str:
    assert contraction.weight is not None
    return origin_of(contraction.weight)


def _is_depthwise(contraction: Contraction) -> bool:
    return contraction.kernel.groups > 1 and contraction.kernel.inputs == 1


def _output_slice(contraction: Contraction, index: int) -> WeightSlice:
    kernel = contraction.kernel
    if kernel.layout.output_axis == 0:
        return WeightSlice(_parameter(contraction), (index,), _is_depthwise(contraction))
    group, output = divmod(index, kernel.outputs)
    rows = slice(group * kernel.inputs, (group + 1) * kernel.inputs)
    return WeightSlice(_parameter(contraction), (rows, output), _is_depthwise(contraction))


def _input_slice(contraction: Contraction, index: int) -> WeightSlice:
    kernel = contraction.kernel
    if kernel.layout.output_axis == 1:
        return WeightSlice(_parameter(contraction), (index,), _is_depthwise(contraction))
    group, column = divmod(index, kernel.inputs)
    rows = slice(group * kernel.outputs, (group + 1) * kernel.outputs)
    return WeightSlice(_parameter(contraction), (rows, column), _is_depthwise(contraction))

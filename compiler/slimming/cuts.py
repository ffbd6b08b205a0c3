"""What a cut of the graph means for a module: new parameters and buffers, and which channels they keep."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor
from torch.fx import Node

from ...passes.channels.analysis import ChannelAnalysis
from ...passes.channels.arrays import Indices, Mask
from ...passes.channels.rules.call import Contraction
from ...passes.channels.rules.indexing import axis_mask
from ...passes.channels.transfer import CONSTANT
from ...passes.graph import bind, constant_of, origin_of
from ...passes.layer_weights import cut_weight


@dataclass(frozen=True)
class TensorCut:
    """What becomes of one parameter or buffer.

    `kept` has the original indices that are left, per axis; of a grouped convolution's weight counted over all
    groups. `narrow` cuts any tensor of the original shape alike. `silent` marks weights of the new tensor that belong
    to an output of known value: a filter of zeros, whose value is in the bias.
    """

    value: Tensor
    kept: tuple[Indices, ...]
    narrow: Callable[[Tensor], Tensor]
    silent: Tensor | None = None


@dataclass(frozen=True)
class Cuts:
    """All that changes: tensors by name, biases that layers are given, and groups of convolutions by weight."""

    tensors: Mapping[str, TensorCut]
    biases: Mapping[str, Tensor]
    groups: Mapping[str, int]


def find_cuts(analysis: ChannelAnalysis, names: Mapping[str, str]) -> Cuts:
    """The cuts that an analysis made in its graph; `names` has the module's tensors, each by its first name."""
    tensors: dict[str, TensorCut] = {}
    biases: dict[str, Tensor] = {}
    groups: dict[str, int] = {}
    for node, value in analysis.trace.constants():
        if (name := names.get(origin_of(node))) is not None:
            kept = tuple(_indices(axis_mask(analysis.compaction, value, j)) for j in range(len(value.axes)))
            tensors[name] = TensorCut(constant_of(node), kept, partial(analysis.compaction.cut, value=value))
    for contraction in analysis.trace.contractions:
        weight = names.get(origin_of(contraction.weight)) if contraction.weight is not None else None
        if weight is None:
            continue
        layer, arguments = _LayerCut.of(contraction, analysis), bind(contraction.node)
        tensors[weight] = layer.weight()
        if "groups" in arguments:
            groups[weight] = arguments["groups"]
        bias = arguments.get(contraction.bias_name or "")
        if isinstance(bias, Node) and contraction.bias is None:
            biases[origin_of(bias)] = constant_of(bias)
        elif isinstance(bias, Node):
            tensors[names[origin_of(bias)]] = layer.bias(bias)
    return Cuts(tensors, biases, groups)


@dataclass(frozen=True)
class _LayerCut:
    contraction: Contraction
    inputs: Mask  # (groups, inputs)
    outputs: Mask  # (groups, outputs)

    @staticmethod
    def of(contraction: Contraction, analysis: ChannelAnalysis) -> _LayerCut:
        kernel, mask = contraction.kernel, analysis.compaction.mask
        return _LayerCut(
            contraction,
            mask(contraction.inputs).reshape(kernel.groups, kernel.inputs),
            mask(contraction.outputs).reshape(kernel.groups, kernel.outputs),
        )

    def weight(self) -> TensorCut:
        kernel, node = self.contraction.kernel, self.contraction.weight
        assert node is not None
        value = constant_of(node)
        axes = [_indices(self.outputs), _indices(self.inputs)]
        if kernel.layout.output_axis == 1:
            axes.reverse()
        window = [np.arange(size) for size in kernel.window]
        return TensorCut(value, (*axes, *window), self._narrow, self._silent(value))

    def bias(self, node: Node) -> TensorCut:
        kept = torch.from_numpy(_indices(self.outputs))
        return TensorCut(constant_of(node), (kept.numpy(),), lambda tensor: tensor[kept])

    def _narrow(self, tensor: Tensor) -> Tensor:
        kernel = self.contraction.kernel
        canonical = kernel.layout.to_canonical(tensor, kernel.groups)
        return kernel.layout.from_canonical(
            cut_weight(canonical, self.inputs, self.outputs), kernel.window
        ).contiguous()

    def _silent(self, value: Tensor) -> Tensor:
        kernel = self.contraction.kernel
        constant = (self.contraction.outputs.state == CONSTANT).reshape(kernel.groups, kernel.outputs, 1, 1)
        shape = (kernel.groups, kernel.outputs, kernel.inputs, kernel.taps)
        spread = torch.from_numpy(np.broadcast_to(constant, shape).copy())
        return self._narrow(kernel.layout.from_canonical(spread, kernel.window))


def _indices(mask: Mask) -> Indices:
    return np.flatnonzero(mask)

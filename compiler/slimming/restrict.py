"""What a module's own forward cannot follow: pins and ties under which every cut is one of parameters alone.

A forward calls every layer, reads every parameter at all of its places, and computes sizes its own way. So
(1) no tensor becomes empty, (2) a parameter that is read at several places is cut alike at all of them and takes over
no constants, (3) what is no parameter or buffer of the module stays, (4) a mean over channels, which would have to be
rescaled, and nn.MultiheadAttention, which insists on its sizes, stay, and (5) so does what forward turned out to fix.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn

from ...passes.channels.constraints import NotEmpty
from ...passes.channels.flow import Pin
from ...passes.channels.rules.call import Contraction
from ...passes.channels.trace import GraphTrace
from ...passes.channels.transfer import CONSTANT, LIVE
from ...passes.graph import origin_of
from .sites import ModuleTensors, Site, Sites

_SHARED = "a parameter that is read at several places"
_NO_BIAS = "its layer cannot take over constants"
_FOREIGN = "a tensor that is no parameter or buffer of the model"
_ATTENTION = "nn.MultiheadAttention fixes its sizes"


@dataclass(frozen=True)
class Restriction:
    """Restricts a traced graph to what a module can follow; `fixed` has the reasons to keep nodes as they are."""

    tensors: ModuleTensors
    fixed: Mapping[str, str]

    def __call__(self, trace: GraphTrace) -> None:
        sites = Sites.find(trace, self.tensors)
        for contraction in trace.contractions:
            self._restrict_layer(trace, contraction, sites)
        for shared in sites.of.values():
            _tie(trace, shared)
        for node, value in trace.constants():
            tensor = self.tensors.by_name.get(origin_of(node))
            if tensor is None or not tensor.is_floating_point():
                trace.flow.pin(value, _FOREIGN)
            trace.flow.require_product(value)
        self._keep_fixed(trace)
        trace.flow.constraints += [NotEmpty(value.elements) for value in trace.flow.values]

    def _restrict_layer(self, trace: GraphTrace, contraction: Contraction, sites: Sites) -> None:
        inputs, outputs = contraction.inputs, contraction.outputs
        reason = self._whole(contraction)
        if reason is None and not sites.absorbs(contraction):
            nonzero = (inputs.state != LIVE) & ~inputs.is_zero()
            trace.flow.pins.append(Pin(inputs.elements[nonzero], _NO_BIAS))
            reason = _NO_BIAS if _computes_constants(contraction) else None
        if reason is not None:
            trace.flow.pin(inputs, reason)
            trace.flow.pin(outputs, reason)

    def _whole(self, contraction: Contraction) -> str | None:
        """Why all channels of a layer stay, None where they need not."""
        if contraction.weight is None:
            return "a mean over channels cannot be rescaled in forward"
        name = origin_of(contraction.weight)
        if name not in self.tensors.by_name:
            return _FOREIGN
        if contraction.bias is not None and origin_of(contraction.bias) not in self.tensors.by_name:
            return _FOREIGN
        parents = [name.rpartition(".")[0].rpartition(".")[0], name.rpartition(".")[0]]
        inside = any(isinstance(self.tensors.model.get_submodule(p), nn.MultiheadAttention) for p in parents)
        return _ATTENTION if inside else None

    def _keep_fixed(self, trace: GraphTrace) -> None:
        for node in trace.nodes():
            if node.name in self.fixed:
                for touched in (node, *node.all_input_nodes):
                    for value in trace.values(touched):
                        trace.flow.pin(value, self.fixed[node.name])


def _computes_constants(contraction: Contraction) -> bool:
    """Whether an output is constant although it has weights: it would become a bias."""
    edges = contraction.kernel.edges.any(axis=2).reshape(-1)
    return bool(((contraction.outputs.state.reshape(-1) == CONSTANT) & edges).any())


def _tie(trace: GraphTrace, sites: list[Site]) -> None:
    """A tensor with several readers is cut alike for all; where its axes mean different things, not at all."""
    first, others = sites[0], sites[1:]
    if all(first.alike(other) for other in others):
        for other in others:
            for a, b in zip(first.elements, other.elements, strict=True):
                trace.flow.couple(a, b)
        return
    for site in sites:
        for elements in site.elements:
            trace.flow.pins.append(Pin(elements.reshape(-1), _SHARED))

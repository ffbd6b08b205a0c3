"""What the passes kept of a masked network, channel by channel, against what the oracle says."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch.fx import GraphModule

from sparsefx.compiler.pipeline import PipelineResult
from sparsefx.passes.channels.analysis import NEEDED
from sparsefx.passes.channels.rules.call import Contraction
from sparsefx.passes.graph import INDICES, ORIGIN

from .channels import ChannelSet, columns, family
from .patching import Oracle
from .smallest import Carriers

Reasons = dict[int, str | None]  # original channel that is left -> why


@dataclass(frozen=True)
class Layer:
    """One layer of the rewritten graph: its original output channels and input columns that are left."""

    outputs: Reasons
    inputs: Reasons


@dataclass(frozen=True)
class Outcome:
    """Kept channel sets, those that the oracle needs, and the recorded reasons of the others."""

    kept: frozenset[ChannelSet]
    needed: frozenset[ChannelSet]
    reasons: dict[ChannelSet, str | None]  # of kept ones that are not needed
    torn: tuple[ChannelSet, ...]  # kept in one layer and removed from another

    @property
    def carriers(self) -> frozenset[ChannelSet]:
        """Kept beyond need."""
        return self.kept - self.needed


def compare(oracle: Oracle, graph_module: GraphModule, result: PipelineResult) -> Outcome:
    """Match the layers left in the rewritten graph with the network's, by the names of their weights."""
    layers = _layers(graph_module, result)
    readers = {name: columns(oracle.net, name) for name in oracle.net.reads if name in layers}
    kept, reasons, torn = set(), {}, []
    needed = frozenset(oracle.needed())
    for channels in oracle.sets:
        places = [(layers[name].outputs, index) for name, index in channels if name in layers]
        places += [(layers[n].inputs, sets.index(channels)) for n, sets in readers.items() if channels in sets]
        stays = [index in left for left, index in places]
        if any(stays) and not all(stays):
            torn.append(channels)
        if any(stays):
            kept.add(channels)
            if channels not in needed:
                reasons[channels] = next(left[index] for left, index in places if index in left)
    return Outcome(frozenset(kept), needed, reasons, tuple(torn))


def _layers(graph_module: GraphModule, result: PipelineResult) -> dict[str, Layer]:
    """The layers that are left, by name."""
    nodes = set(graph_module.graph.nodes)
    layers: dict[str, Layer] = {}
    for contraction in result.analysis.trace.contractions:
        if contraction.weight is not None and contraction.node in nodes:
            name = str(contraction.weight.meta[ORIGIN]).removesuffix(".weight")
            assert name not in layers, f"{name} is called twice"
            layers[name] = _layer(contraction, result)
    return layers


def _layer(contraction: Contraction, result: PipelineResult) -> Layer:
    indices = contraction.node.meta.get(INDICES)
    sides = []
    for side, value in (("outputs", contraction.outputs), ("inputs", contraction.inputs)):
        elements = value.elements.reshape(-1)
        original = getattr(indices, side) if indices is not None else np.arange(elements.size)
        sides.append({int(i): result.analysis.reason(int(e)) for i, e in zip(original, elements, strict=True)})
    return Layer(*sides)


def complaints(outcome: Outcome, oracle: Oracle) -> list[str]:
    """What is wrong with the kept channels: some lost, torn, or kept without need and without a reason."""
    wrong = [f"{channels} is kept in one layer and removed from another" for channels in outcome.torn]
    wrong += [f"{channels} is needed, but removed" for channels in outcome.needed - outcome.kept]
    wrong += [f"{c} is kept without need: {why}" for c, why in outcome.reasons.items() if why in (None, NEEDED)]
    removed = [channels for channels in oracle.sets if channels not in outcome.kept]
    if oracle.is_needed([channel for channels in removed for channel in channels]):
        wrong.append("all removed channels together change the output")
    return wrong


def wrong_counts(outcome: Outcome, carriers: Carriers, *, fewest: bool) -> list[str]:
    """Tensors that are read together keep as many carriers as their readers call for, neither more nor less.

    With `fewest` that is the fewest that will do. Else every reader may have its own: of constants that vary over
    positions, one reader's choice can turn out needless by what another chooses later.
    """
    wrong = []
    for names in carriers.read_together():
        kept = {channels for channels in outcome.kept if family(channels) not in names or channels in outcome.needed}
        found = sum(family(channels) in names for channels in outcome.carriers)
        least = most = carriers.fewest(names, kept)
        if not fewest:
            most = max(least, carriers.one_reader_each(names, kept, outcome.carriers))
        if not least <= found <= most:
            wrong.append(f"{found} carriers among {sorted(names)}, their readers call for {least} to {most}")
    return wrong

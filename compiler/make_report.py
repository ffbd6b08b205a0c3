"""Compare the captured graph with the slim one, layer by layer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from torch.fx import GraphModule, Node

from ..passes.channels.analysis import NEEDED, ChannelAnalysis
from ..passes.channels.rules.call import Contraction
from ..passes.channels.transfer import CONSTANT
from ..passes.graph import INDICES, LAYER
from .cost import LayerCost, layer_costs, parameter_count, weight_nonzeros
from .layer_groups import layer_groups
from .pipeline import PipelineResult
from .report import LayerReport, Report, Totals

_TIED = "tied to channels of other layers that are needed (a sum, a product, a concatenation)"


def make_report(model: str, before: GraphModule, after: GraphModule, result: PipelineResult) -> Report:
    """Compare the captured graph with the slim one."""
    old, new = layer_costs(before), {cost.node: cost for cost in layer_costs(after)}
    contractions = {c.node.name: c for c in result.analysis.trace.contractions}
    nodes = {node.name: node for node in after.graph.nodes}
    names = {cost.node: name for name, cost in zip(_distinct_names(old), old, strict=True)}
    nonzeros = weight_nonzeros(before), weight_nonzeros(after)
    layers = tuple(
        _layer(
            names[cost.node],
            cost,
            new.get(cost.node),
            (nonzeros[0].get(cost.node, 0), nonzeros[1].get(cost.node, 0)),
            nodes.get(cost.node),
            contractions.get(cost.node),
            result.analysis,
        )
        for cost in old
    )
    weighted = [layer for layer in layers if layer.shape_before]
    totals = Totals(
        parameter_count(before),
        parameter_count(after),
        sum(cost.macs for cost in old),
        sum(cost.macs for cost in new.values()),
        sum(cost.outputs for cost in old),
        sum(len(layer.kept_outputs) for layer in weighted),
    )
    groups = layer_groups(result.analysis, names)
    return Report(model, layers, totals, dict(result.analysis.trace.unknown), result.steps, groups)


def engine_layers(graph_module: GraphModule, layers: Sequence[LayerReport]) -> tuple[str, ...]:
    """The layers with a weight of a built graph, in its order; a condensed layer runs after what is fused into it."""
    names = {layer.node: layer.name for layer in layers if layer.shape_after}
    nodes = [str(node.meta.get(LAYER, node.name)) for node in graph_module.graph.nodes if node.op == "call_function"]
    return tuple(names[node] for node in nodes if node in names)


def _distinct_names(costs: Sequence[LayerCost]) -> list[str]:
    """Layer names; a module that is called several times gets a number per call."""
    seen: Counter[str] = Counter()
    total = Counter(cost.layer for cost in costs)
    names = []
    for cost in costs:
        seen[cost.layer] += 1
        names.append(cost.layer if total[cost.layer] == 1 else f"{cost.layer}#{seen[cost.layer]}")
    return names


def _layer(
    name: str,
    old: LayerCost,
    new: LayerCost | None,
    nonzeros: tuple[int, int],
    node: Node | None,
    contraction: Contraction | None,
    analysis: ChannelAnalysis,
) -> LayerReport:
    kept_outputs: Sequence[int] = range(old.outputs) if new is not None else ()
    kept_inputs: Sequence[int] = ()
    if contraction is not None:
        kept_outputs, kept_inputs = _kept(node or contraction.node, contraction)
    return LayerReport(
        name,
        old.node,
        old.operator,
        old.weight_shape,
        new.weight_shape if new is not None else None,
        old.parameters,
        new.parameters if new is not None else 0,
        old.macs,
        new.macs if new is not None else 0,
        old.outputs,
        *nonzeros,
        tuple(kept_outputs),
        tuple(kept_inputs),
        _staying(contraction, analysis, kept_outputs) if contraction is not None else {},
    )


def _kept(node: Node, contraction: Contraction) -> tuple[list[int], list[int]]:
    indices = node.meta.get(INDICES)
    if indices is None:
        return list(range(contraction.outputs.size)), list(range(contraction.inputs.size))
    return indices.outputs.tolist(), indices.inputs.tolist()


def _staying(contraction: Contraction, analysis: ChannelAnalysis, computed: Sequence[int]) -> dict[str, int]:
    """Output channels that are constant or that nothing depends on, and why they are still computed there."""
    outputs, elements = contraction.outputs, contraction.outputs.elements.reshape(-1)
    useless = ((outputs.state == CONSTANT) | ~outputs.demand).reshape(-1)
    useless &= np.isin(_kept(contraction.node, contraction)[0], computed)
    reasons = [analysis.reason(int(e)) for e in elements[useless]]
    return dict(Counter(_TIED if reason == NEEDED else reason for reason in reasons if reason is not None))

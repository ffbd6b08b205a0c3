"""Remove every channel that the sparsity pattern makes useless, exactly.

A channel group goes when (1) no output depends on it, or (2) it does not depend on the input, and every layer that
sums over it can take over its constant: into the bias where the layer sees no border, else through carriers
(channels/carriers.py). It stays where an operator without a rule, an output, or a norm over channels touches it,
and where its removal would leave a tensor that is not rectangular.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor
from torch.fx import GraphModule, Node
from torch.fx.passes.infra.pass_base import PassResult

from .base import GraphPass
from .channels.analysis import ChannelAnalysis, analyse_channels
from .channels.carriers import Absorption
from .channels.rules import OperatorRule, Rewrite
from .channels.rules.call import Contraction
from .channels.transfer import CONSTANT, Value
from .errors import PassError
from .graph import add_constant, constant_of, rebind, set_constant
from .indices import narrow_indices
from .layer_weights import cut_weight, set_layer_weight

_MOST_ROUNDS = 100  # two or three are usual


class RemoveChannels(GraphPass):
    """Removes channels; `rules` adds rows to the operator table, by name (`aten::relu`, `mylib::op`).

    `least` has, for layers by name, how many output channels should stay though more could go.
    After a run, `analysis` holds what was found in the graph as it came, `final_analysis` what in the rewritten one.
    """

    def __init__(self, rules: Mapping[str, OperatorRule] | None = None, least: Mapping[str, int] | None = None) -> None:
        super().__init__()
        self.rules = rules
        self.least = least
        self.analysis: ChannelAnalysis | None = None
        self.final_analysis: ChannelAnalysis | None = None

    def call(self, graph_module: GraphModule) -> PassResult:
        """Remove until there is nothing left to remove: smaller sizes can make more of a graph understood."""
        modified = super().call(graph_module).modified
        self.analysis = self.final_analysis
        for _ in range(_MOST_ROUNDS):
            if not modified or not super().call(graph_module).modified:
                return PassResult(graph_module, modified)
        raise PassError(f"RemoveChannels still finds channels to remove after {_MOST_ROUNDS} rounds; please report it")

    def rewrite(self, graph_module: GraphModule) -> bool:
        analysis = analyse_channels(graph_module, self.rules, self.least)
        self.final_analysis = analysis
        return cut_channels(graph_module, analysis)


def cut_channels(graph_module: GraphModule, analysis: ChannelAnalysis) -> bool:
    """Rewrite a graph to the channels that its analysis keeps; tells whether any went."""
    if not any(analysis.compaction.changed(v) for n in graph_module.graph.nodes for v in analysis.trace.values(n)):
        return False
    contractions = {c.node: c for c in analysis.trace.contractions}
    alive = [n for n in graph_module.graph.nodes if _is_alive(n, analysis)]
    for node in alive:
        rule = analysis.trace.rule_of(node)
        if node.op == "get_attr":
            _cut_constant(node, analysis)
        elif node not in contractions and rule is not None and rule.rewrite is not None:
            rule.rewrite(Rewrite(node, analysis.trace.lookup, analysis.compaction))
    for node in alive:  # last, because they may insert nodes, which the analysis has no values of
        if node in contractions:
            _rewrite_contraction(contractions[node], analysis)
    return True


def _is_alive(node: Node, analysis: ChannelAnalysis) -> bool:
    """Whether anything of the node's values is left; nodes of which nothing is left become dead code."""
    values = analysis.trace.values(node)
    return not values or any(analysis.compaction.any(value) for value in values)


def _cut_constant(node: Node, analysis: ChannelAnalysis) -> None:
    values = analysis.trace.values(node)
    if values and analysis.compaction.changed(values[0]):
        set_constant(node, analysis.compaction.cut(constant_of(node), values[0]))


def _rewrite_contraction(contraction: Contraction, analysis: ChannelAnalysis) -> None:
    inputs, outputs = analysis.compaction.mask(contraction.inputs), analysis.compaction.mask(contraction.outputs)
    absorptions = analysis.plans[contraction.node].absorptions
    untouched = inputs.all() and outputs.all() and not any(len(a.removed) for a in absorptions)
    if contraction.weight is None:
        _rewrite_mean(contraction, int(inputs.sum()), absorptions)
    elif not untouched:
        _rewrite_weights(contraction, inputs.reshape(-1), outputs.reshape(-1), absorptions)


def _rewrite_weights(
    contraction: Contraction, inputs: np.ndarray, outputs: np.ndarray, absorptions: tuple[Absorption, ...]
) -> None:
    node, kernel = contraction.node, contraction.kernel
    assert contraction.weight is not None
    kept_in = inputs.reshape(kernel.groups, kernel.inputs)
    kept_out = outputs.reshape(kernel.groups, kernel.outputs)
    weight = kernel.weight.double().clone()
    bias = torch.from_numpy(kernel.bias.copy())
    for absorption in absorptions:
        _absorb(weight[absorption.group], bias[absorption.group], absorption)
    _write_constant_outputs(weight, bias, contraction.outputs, kernel.groups)
    original = constant_of(contraction.weight)
    set_layer_weight(contraction, cut_weight(weight, kept_in, kept_out), original.dtype, kept_in, kept_out)
    cut_bias = bias.reshape(-1)[torch.from_numpy(np.flatnonzero(outputs))].to(original.dtype)
    if contraction.bias is not None:
        set_constant(contraction.bias, cut_bias)
    elif cut_bias.any():
        _add_bias(contraction, cut_bias)
    if "groups" in {a.name for a in node.target._schema.arguments}:  # type: ignore[union-attr]
        rebind(node, groups=int(kept_out.any(axis=1).sum()))
    narrow_indices(node, outputs, inputs)


def _add_bias(contraction: Contraction, value: Tensor) -> None:
    node, weight = contraction.node, contraction.weight
    assert weight is not None and node.graph.owning_module is not None
    bias = add_constant(node.graph.owning_module, weight, str(weight.target).removesuffix("weight") + "bias", value)
    if contraction.bias_name is not None:
        rebind(node, **{contraction.bias_name: bias})
        return
    readers = list(node.users)  # a plain product has no bias argument
    with node.graph.inserting_after(node):
        shifted = node.graph.call_function(torch.ops.aten.add.Tensor, (node, bias))
    for reader in readers:
        reader.replace_input_with(node, shifted)


def _absorb(weight: Tensor, bias: Tensor, absorption: Absorption) -> None:
    """Hand the removed inputs of one group, weight (outputs, inputs, taps), over to bias and carriers."""
    if not len(absorption.removed):
        return
    columns = weight[:, torch.from_numpy(absorption.removed)]
    bias += columns.sum(dim=2) @ torch.from_numpy(absorption.offset)
    taken_over = torch.einsum("oit,ic->oct", columns, torch.from_numpy(absorption.coefficient))
    weight[:, torch.from_numpy(absorption.carriers)] += taken_over


def _write_constant_outputs(weight: Tensor, bias: Tensor, outputs: Value, groups: int) -> None:
    """Outputs of one known value become a zero filter with that value as its bias."""
    constant = torch.from_numpy(outputs.state.reshape(groups, -1) == CONSTANT)
    values = torch.from_numpy(np.nan_to_num(outputs.constant).reshape(groups, -1))
    weight[constant] = 0.0
    bias[constant] = values[constant]


def _rewrite_mean(contraction: Contraction, kept: int, absorptions: tuple[Absorption, ...]) -> None:
    """mean over C channels = mean over the kept ones * kept / C + sum of the removed constants / C."""
    node, total = contraction.node, contraction.inputs.size
    constant = sum(float(a.offset.sum()) for a in absorptions) / total
    graph, readers = node.graph, list(node.users)
    if kept == total:
        return
    with graph.inserting_after(node):
        scaled = graph.call_function(torch.ops.aten.mul.Tensor, (node, kept / total))
    with graph.inserting_after(scaled):
        shifted = graph.call_function(torch.ops.aten.add.Tensor, (scaled, constant))
    for reader in readers:
        reader.replace_input_with(node, shifted)

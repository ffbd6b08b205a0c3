"""The pass that cuts a captured graph as far as a module can follow."""

from __future__ import annotations

from collections.abc import Mapping

from torch.fx import GraphModule, Node

from ...passes.base import GraphPass
from ...passes.channels.analysis import ChannelAnalysis, analyse_channels
from ...passes.channels.rules import OperatorRule
from ...passes.channels.rules.reduction import total_of_any_size
from ...passes.remove_channels import cut_channels
from .cuts import Cuts, find_cuts
from .restrict import Restriction

_ANY_SIZE = {"aten::sum": OperatorRule(total_of_any_size)}


class CutChannels(GraphPass):
    """Removes channels once, within a restriction; with `measure` as in `analyse_channels`."""

    def __init__(
        self, restriction: Restriction, rules: Mapping[str, OperatorRule] | None = None, *, measure: bool = False
    ) -> None:
        super().__init__()
        self._restriction = restriction
        self._rules = {**({} if measure else _ANY_SIZE), **(rules or {})}
        self._measure = measure
        self._analysis: ChannelAnalysis | None = None

    @property
    def analysis(self) -> ChannelAnalysis:
        assert self._analysis is not None, "run the pass first"
        return self._analysis

    def rewrite(self, graph_module: GraphModule) -> bool:
        self._analysis = analyse_channels(graph_module, self._rules, restrict=self._restriction, measure=self._measure)
        return cut_channels(graph_module, self._analysis)

    def cuts(self) -> Cuts:
        """What the cut means for the module's tensors."""
        return find_cuts(self.analysis, self._restriction.tensors.first_names)

    def changed_nodes(self) -> set[str]:
        """Names of the nodes that have, or read, a tensor of which something went."""
        trace, compaction = self.analysis.trace, self.analysis.compaction

        def changed(node: Node) -> bool:
            return any(compaction.changed(value) for value in trace.values(node))

        return {n.name for n in trace.nodes() if any(changed(m) for m in (n, *n.all_input_nodes))}

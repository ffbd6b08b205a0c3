"""Find the first layer that deviates, by going through the pipeline again, step by step."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from ..passes.base import GraphPass
from ..passes.channels.analysis import ChannelAnalysis
from ..passes.channels.compaction import spread
from ..passes.channels.rules import OperatorRule
from ..passes.graph import ORIGIN, STANDS_FOR, is_constant
from ..passes.reference import Float64Interpreter, flat_inputs
from ..passes.remove_channels import RemoveChannels
from .masked_model import MaskedModel, keep_graph, run_graph_float64
from .pipeline import run_pipeline
from .report import Step
from .sampling import Sample, tensors_of

# (graph, inputs) -> for nodes inside an engine, in order: the node, its exact value, the engine's value
InsideEngine = Callable[[GraphModule, Sequence[Tensor]], Sequence[tuple[Node, Tensor, Tensor]]]


class _Found(Exception):  # noqa: N818 - it ends a search, nothing is wrong
    """Carries the place of the first deviation out of the pipeline."""


def first_deviation(
    reference: MaskedModel,
    sample: Sample,
    limit: float,
    rules: Mapping[str, OperatorRule] | None,
    inside_engine: InsideEngine | None,
) -> str:
    """Where a compiled model first leaves the masked model: a step of the pipeline and a layer, in words.

    `limit` is the largest error, relative to the largest entry of a tensor, that still counts as rounding.
    """
    want, inputs = reference.run_float64(sample.args, sample.kwargs), tensors_of(sample)
    graph = keep_graph(reference.graph)
    if _deviates(want, run_graph_float64(graph, inputs), limit):
        return "the capture: the exported graph does not follow the model"
    try:
        run_pipeline(graph, rules, _Search(graph, want, inputs, limit))
    except _Found as found:
        return str(found)
    for node, exact, value in inside_engine(graph, inputs) if inside_engine is not None else ():
        if _error(exact, value) > limit:
            return f"the engine, at {layer_name(node)}"
    return "the engine, at its outputs"


class _Search:
    """Observes the pipeline and raises _Found after the first pass that changes the outputs."""

    def __init__(self, graph: GraphModule, want: Sequence[Tensor], inputs: Sequence[Tensor], limit: float) -> None:
        self.graph, self.want, self.inputs, self.limit = graph, want, inputs, limit
        self.previous = graph

    def before(self, graph_pass: GraphPass) -> None:
        self.previous = keep_graph(self.graph)

    def after(self, graph_pass: GraphPass, step: Step) -> None:
        if step.modified and _deviates(self.want, run_graph_float64(self.graph, self.inputs), self.limit):
            raise _Found(f"the pass {step.name}, at {self._first_node(graph_pass)}")

    def _first_node(self, graph_pass: GraphPass) -> str:
        """The first node that differs from its counterpart in the graph before the pass, where that matters."""
        old, new = _node_values(self.previous, self.inputs), _node_values(self.graph, self.inputs)
        analysis = graph_pass.analysis if isinstance(graph_pass, RemoveChannels) else None
        for node in self.graph.graph.nodes:
            want, have = old.get(node.meta.get(STANDS_FOR), old.get(node.name)), new.get(node.name)
            if node.op != "call_function" or want is None or have is None:
                continue
            if analysis is not None:
                want, have = _demanded_part(node, want, have, analysis)
            if want.shape != have.shape:
                continue  # several rounds of removal: only the first one's indices are at hand
            if _error(want, have) > self.limit:
                return layer_name(node)
        return "the outputs"


def _demanded_part(node: Node, want: Tensor, have: Tensor, analysis: ChannelAnalysis) -> tuple[Tensor, Tensor]:
    """Both tensors without removed channels, and zero where no output depends on the channel."""
    values = analysis.trace.values(node)
    if len(values) != 1:
        return want, have
    demanded = spread(torch.from_numpy(values[0].demand.astype(float)), values[0], tuple(want.shape))
    cut = analysis.compaction.cut
    return cut(want * demanded, values[0]), have * cut(demanded, values[0])


def _node_values(graph: GraphModule, inputs: Sequence[Tensor]) -> dict[str, Tensor]:
    interpreter = Float64Interpreter(graph, garbage_collect_values=False)
    interpreter.run_flat(flat_inputs(graph, inputs))
    return {node.name: value for node, value in interpreter.env.items() if isinstance(value, Tensor)}


def _deviates(want: Sequence[Tensor], have: Sequence[Tensor], limit: float) -> bool:
    return any(_error(w, h) > limit for w, h in zip(want, have, strict=True))


def _error(want: Tensor, have: Tensor) -> float:
    """Largest difference, relative to the largest entry."""
    if want.shape != have.shape:
        return float("inf")
    if not want.numel():
        return 0.0
    want, have = want.double(), have.double()
    difference = torch.where(want == have, 0.0, (want - have).abs()).nan_to_num(nan=torch.inf)
    return float(difference.max() / want.abs().nan_to_num().max().clamp_min(1e-30))


def layer_name(node: Node) -> str:
    """The layer that a node belongs to, by its weight or its module, with the node's own name."""
    weights = [n.meta[ORIGIN] for n in node.all_input_nodes if is_constant(n) and ORIGIN in n.meta]
    paths = [path for path, _ in (node.meta.get("nn_module_stack") or {}).values()]
    module = weights[0].rpartition(".")[0] if weights else (paths[-1] if paths else "")
    return f"layer {module} (node {node.name})" if module else f"node {node.name}"

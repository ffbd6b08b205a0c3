"""What the layers of a whole engine take in their places, by ONNX Runtime's profile of its own session."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from ...passes.errors import TargetError
from .engine_nodes import END, plain_name
from .session import OnnxRuntimeSession

REST = ""  # the name of what is no layer's
_WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_CONDENSED = "Condensed"  # how operators of condensed layers begin
_FUSED = ("Relu", "Clip", "Sigmoid", "Tanh", "LeakyRelu", "HardSigmoid", "Gelu")


class LayerClock:
    """A session with a profile beside the one that is timed. `layers` are the names of the layers in order.

    Raises TargetError where the file has other layers than these, so that times would get wrong names.
    """

    def __init__(self, session: OnnxRuntimeSession, layers: Sequence[str], folder: Path) -> None:
        self._layer_of = _layer_names(session.model, layers)
        self._layers = layers
        self.session = session.profiled(folder / "profile")

    def seconds(self) -> dict[str, list[float]]:
        """Seconds in every run, by layer, and of what is no layer's as REST; ends the profile."""
        nodes: dict[str, list[float]] = defaultdict(list)
        for event in json.loads(self.session.end_profile().read_text()):
            if event.get("name", "").endswith(END):
                nodes[event["name"].removesuffix(END)].append(event["dur"] * 1e-6)
        runs = min(map(len, nodes.values()), default=0)
        times = {name: [0.0] * runs for name in [*self._layers, REST]}
        for node, seconds in nodes.items():
            name = self._layer_of.get(plain_name(node).partition("/")[0], REST)
            times[name] = [a + b for a, b in zip(times[name], seconds, strict=False)]
        return times


def _layer_names(model: Path, names: Sequence[str]) -> dict[str, str]:
    """The layer of every node, by the names that its time may have: the node's, its result's, those of what is fused.

    Layers with a constant weight stand in the file in the order in which the graph has them.
    """
    import onnx

    graph = onnx.load(str(model), load_external_data=False).graph
    constants = {tensor.name for tensor in graph.initializer}
    found = [
        n
        for n in graph.node
        if n.op_type.startswith(_CONDENSED) or (n.op_type in _WEIGHTED and n.input[1] in constants)
    ]
    if len(found) != len(names):
        raise TargetError(f"{model.name} has {len(found)} layers with a weight, the report has {len(names)}")
    of = {value: layer for node, layer in zip(found, names, strict=True) for value in (node.name, node.output[0])}
    for node in graph.node:  # in order: what is fused into a layer takes its name on
        biased = node.op_type == "Add" and any(value in constants for value in node.input)
        layer = next((of[value] for value in node.input if value in of), None)
        if layer is not None and (node.op_type in _FUSED or biased):
            of[node.name] = of[node.output[0]] = layer
    return of

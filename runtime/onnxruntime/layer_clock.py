"""What the layers of a whole engine take in their places, by ONNX Runtime's profile of its own session."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...passes.errors import TargetError
from .engine_nodes import END, plain_name
from .session import OnnxRuntimeSession

_RUN = "model_run"  # the event of a whole run
REST = ""  # the name of what is no layer's
_WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_CONDENSED = "Condensed"  # how operators of condensed layers begin
_FUSED = ("Relu", "Clip", "Sigmoid", "Tanh", "LeakyRelu", "HardSigmoid", "Gelu")


@dataclass(frozen=True)
class Layer:
    """A layer with a weight of so many numbers, zeros included."""

    name: str
    size: int


class LayerClock:
    """A session with a profile beside the one that is timed. `layers` are the file's, in order.

    Raises TargetError where the file has other layers than these, so that times would get wrong names.
    """

    def __init__(self, session: OnnxRuntimeSession, layers: Sequence[Layer], folder: Path) -> None:
        self._layer_of = _layer_names(session.model, layers)
        self.session = session.profiled(folder / "profile")

    def seconds(self) -> dict[str, NDArray[np.float64]]:
        """Seconds in every run, by layer, and of what is no layer's as REST; ends the profile.

        A layer that the profile does not name, since it was fused into something else, is left out.
        """
        nodes: dict[str, list[float]] = defaultdict(list)
        events = json.loads(self.session.end_profile().read_text())
        for event in events:
            if event.get("name", "").endswith(END):
                nodes[event["name"].removesuffix(END)].append(event["dur"] * 1e-6)
        runs = sum(event.get("name") == _RUN for event in events)
        times = {REST: np.zeros(runs)}
        for node, seconds in nodes.items():
            name = self._layer_of.get(plain_name(node).partition("/")[0], REST)
            times[name] = times.get(name, 0.0) + _per_run(seconds, runs)
        return times


def _per_run(seconds: list[float], runs: int) -> NDArray[np.float64]:
    """What runs as often in every run, several times perhaps; the mean of anything else, loops for example."""
    times = np.array(seconds)
    return times.reshape(runs, -1).sum(1) if len(times) % runs == 0 else np.full(runs, times.sum() / runs)


def _layer_names(model: Path, layers: Sequence[Layer]) -> dict[str, str]:
    """The layer of every node, by the names that its time may have: its own, its result's, that of what is fused."""
    import onnx

    graph = onnx.load(str(model), load_external_data=False).graph
    constants = {tensor.name: math.prod(tensor.dims) for tensor in graph.initializer}
    sizes = [(node, size) for node in graph.node if (size := _weight_size(node, constants)) is not None]
    if [size for _, size in sizes] != [layer.size for layer in layers]:
        raise TargetError(f"the layers in {model.name} are not those of its report: it is of another version")
    of = {v: layer.name for (node, _), layer in zip(sizes, layers, strict=True) for v in (node.name, node.output[0])}
    for node in graph.node:  # in order: what is fused into a layer takes its name on
        biased = node.op_type == "Add" and any(value in constants for value in node.input)
        known = next((of[value] for value in node.input if value in of), None)
        if known is not None and (node.op_type in _FUSED or biased):
            of[node.name] = of[node.output[0]] = known
    return of


def _weight_size(node: Any, constants: Mapping[str, int]) -> int | None:
    """The numbers in a layer's weight, were it dense; None where the node is no layer."""
    if node.op_type.startswith(_CONDENSED):
        return int(math.prod(next(a.ints for a in node.attribute if a.name == "shape")))
    return constants.get(node.input[1]) if node.op_type in _WEIGHTED else None

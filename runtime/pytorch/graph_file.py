"""Captured graphs as files: the operators in JSON, the constants in safetensors. Nothing is unpickled.

Only ATen's operators, ours, and arithmetic on sizes are written, and only those are read.
"""

from __future__ import annotations

import json
import operator
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.fx import Graph, GraphModule, Node

from ...passes import operators  # noqa: F401 - defines torch.ops.sparsefx
from ...passes.errors import TargetError
from ...passes.graph import constant_of

GRAPH_FILE, CONSTANTS_FILE = "model.graph.json", "model.safetensors"
_SCHEMA = 1
_NAMESPACES = ("aten", "sparsefx")
_REFUSED = ("aten::from_file",)  # touches other files
_FUNCTIONS: dict[str, Callable[..., Any]] = {  # on sizes, and on operators with several results
    name: getattr(operator, name)
    for name in (
        "add",
        "sub",
        "mul",
        "floordiv",
        "truediv",
        "mod",
        "neg",
        "pow",
        "getitem",
        "eq",
        "ge",
        "gt",
        "le",
        "lt",
    )
} | {name: getattr(torch, name) for name in ("sym_max", "sym_min", "sym_int", "sym_float", "sym_ite", "sym_not")}
_NAMES = {function: name for name, function in _FUNCTIONS.items()}
_WORDS = {torch.dtype: "dtype", torch.memory_format: "memory_format", torch.layout: "layout"}


def write_graph(graph_module: GraphModule, folder: Path) -> None:
    """Write a graph of flat tensors. Raises TargetError, naming the node, where it calls anything else."""
    constants: dict[str, Tensor] = {}
    names: dict[Any, str] = {}  # by what tells tensors apart
    nodes = []
    for node in graph_module.graph.nodes:
        row: dict[str, Any] = {"op": node.op, "name": node.name}
        if node.op == "get_attr":
            tensor = constant_of(node)
            key = tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype
            row["target"] = names.setdefault(key, f"c{len(names)}")
            constants[row["target"]] = tensor
        elif node.op == "call_function":
            row["target"] = _written_target(node)
            row["kwargs"] = {key: _written(node, value) for key, value in node.kwargs.items()}
        if node.op in ("call_function", "output"):
            row["args"] = [_written(node, value) for value in node.args]
        nodes.append(row)
    (folder / GRAPH_FILE).write_text(json.dumps({"schema": _SCHEMA, "nodes": nodes}))
    save_file({name: t.clone().contiguous() for name, t in constants.items()}, folder / CONSTANTS_FILE)


def read_graph(folder: Path, device: torch.device) -> GraphModule:
    """The graph with its constants on the device. Raises TargetError where a file holds something else."""
    try:
        described = json.loads((folder / GRAPH_FILE).read_text())
        constants = load_file(folder / CONSTANTS_FILE, device=str(device))
        if described["schema"] != _SCHEMA:
            raise ValueError(f"schema {described['schema']}, this version reads {_SCHEMA}")
        return _Reader(device, constants).module(described["nodes"])
    except TargetError:
        raise
    except Exception as error:
        raise TargetError(f"{folder / GRAPH_FILE} cannot be read: {type(error).__name__}: {error}") from error


class _Reader:
    """Builds the graph that rows describe."""

    def __init__(self, device: torch.device, constants: dict[str, Tensor]) -> None:
        self._device, self._constants = device, constants
        self._nodes: dict[str, Node] = {}

    def module(self, rows: list[dict[str, Any]]) -> GraphModule:
        graph, root = Graph(), torch.nn.Module()
        for name, tensor in self._constants.items():
            root.register_buffer(name, tensor)
        for row in rows:
            self._nodes[row["name"]] = self._node(graph, row)
        graph.lint()
        return GraphModule(root, graph)

    def _node(self, graph: Graph, row: dict[str, Any]) -> Node:
        match row["op"]:
            case "placeholder":
                return graph.placeholder(row["name"])
            case "get_attr":
                if row["target"] not in self._constants:
                    raise ValueError(f"constant {row['target']} is missing")
                return graph.get_attr(row["target"])
            case "output":
                return cast(Node, graph.output(self._read(row["args"][0])))
            case "call_function":
                args = tuple(self._read(value) for value in row["args"])
                kwargs = {key: self._read(value) for key, value in row["kwargs"].items()}
                return graph.call_function(_read_target(row["target"]), args, kwargs)
        raise ValueError(f"unknown kind of node {row['op']!r}")

    def _read(self, value: Any) -> Any:
        if isinstance(value, list):
            return [self._read(entry) for entry in value]
        if not isinstance(value, dict):
            return value
        ((kind, name),) = value.items()
        if kind == "node":
            return self._nodes[name]
        if kind == "device":
            return self._device
        found = getattr(torch, name)
        if kind not in _WORDS.values() or not isinstance(found, tuple(_WORDS)):
            raise ValueError(f"unknown value {value}")
        return found


def _written(node: Node, value: Any) -> Any:
    if isinstance(value, Node):
        return {"node": value.name}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list | tuple):
        return [_written(node, entry) for entry in value]
    if isinstance(value, torch.device):
        return {"device": ""}  # all is on the device that the graph is read for
    word = next((word for kind, word in _WORDS.items() if isinstance(value, kind)), None)
    if word is None:
        raise TargetError(f"node {node.name} has an argument of type {type(value).__name__}, which cannot be saved")
    return {word: str(value).removeprefix("torch.")}


def _written_target(node: Node) -> str:
    target = node.target
    if isinstance(target, torch._ops.OpOverload) and target.namespace in _NAMESPACES:
        return f"{target._schema.name}.{target._overloadname}"
    if target not in _NAMES:
        raise TargetError(f"node {node.name} calls {target}, which cannot be saved; only ATen's operators can")
    return _NAMES[target]


def _read_target(name: str) -> Any:
    if name in _FUNCTIONS:
        return _FUNCTIONS[name]
    qualified, _, overload = name.rpartition(".")
    namespace, _, short = qualified.partition("::")
    if namespace not in _NAMESPACES or qualified in _REFUSED:
        raise TargetError(f"the graph calls {name}; only ATen's operators and ours are run")
    return getattr(getattr(getattr(torch.ops, namespace), short), overload)

"""Read an ONNX file into a torch.fx GraphModule whose nodes are the table's functions."""

from __future__ import annotations

import inspect
import operator
import re
from collections import Counter
from collections.abc import Iterator
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.inliner
import torch
from onnx import AttributeProto, ModelProto, NodeProto, TensorProto, numpy_helper
from torch import Tensor, nn
from torch.fx import Graph, GraphModule, Node

from ...passes.errors import CaptureError
from .axes import OPERATORS as ALONG_AXES
from .axes import linear
from .elementwise import OPERATORS as ELEMENTWISE
from .movement import OPERATORS as MOVEMENT
from .operator import Operator
from .values import numbers
from .windows import OPERATORS as WINDOWS

OPERATORS: dict[str, Operator] = {
    **ELEMENTWISE,
    **MOVEMENT,
    **WINDOWS,
    **ALONG_AXES,
}
SOURCE = "onnx_file"  # GraphModule.meta: the file that the module was read from
FIXED_BATCH = "onnx_fixed_batch"  # GraphModule.meta: whether the file fixes the first axis of an input
_OLDEST, _NEWEST = 7, 26  # versions of ONNX's operator set
_LARGEST_SIZES = 64  # integer constants up to so long are sizes, axes or indices


def read_onnx(path: str | PathLike[str]) -> GraphModule:
    """The file as a module in float32 with the file's inputs and outputs by name; weights keep their names.

    Several outputs come as a dict. Raises CaptureError for a file that is damaged or of another kind, and for
    operators that are not in the table, naming all of them.
    """
    path = Path(path)
    model = _load(path)
    _check(model, path)
    reader = _Reader(model, path)
    module = reader.read()
    module.meta[SOURCE], module.meta[FIXED_BATCH] = path, reader.fixed_batch
    return module


def _load(path: Path) -> ModelProto:
    if not path.is_file():
        raise CaptureError(f"there is no file {path}")
    try:
        model = onnx.load(path)
        onnx.checker.check_model(str(path))
    except Exception as error:  # protobuf, the checker and a missing file of weights have no class in common
        reason = str(error).strip().split("\n")[0]
        raise CaptureError(f"{path} cannot be read as an ONNX file: {type(error).__name__}: {reason}") from error
    return onnx.inliner.inline_local_functions(model) if model.functions else model


def _check(model: ModelProto, path: Path) -> None:
    version = _opset(model)
    if not _OLDEST <= version <= _NEWEST:
        raise CaptureError(
            f"{path} uses version {version} of ONNX's operators; versions {_OLDEST} to {_NEWEST} are read. "
            "Convert it with onnx.version_converter.convert_version, or export the model anew"
        )
    unknown = Counter(
        f"{node.domain}::{node.op_type}" if node.domain else node.op_type
        for node in model.graph.node
        if node.domain not in ("", "ai.onnx") or node.op_type not in (*OPERATORS, "Constant")
    )
    if unknown:
        names = ", ".join(f"{name} ({count})" for name, count in sorted(unknown.items()))
        raise CaptureError(
            f"{path} has operators that cannot be read: {names}. Compile the PyTorch model that it was exported from, "
            "or save that with torch.export.save and pass the .pt2 file"
        )


def _opset(model: ModelProto) -> int:
    return next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 1)


class _Reader:
    def __init__(self, model: ModelProto, path: Path) -> None:
        self._model, self._path, self._opset = model, path, _opset(model)
        self._root, self._graph = nn.Module(), Graph()
        self._tensors = {t.name: t for t in model.graph.initializer}
        self._constants = {n.output[0]: n.attribute[0] for n in model.graph.node if n.op_type == "Constant"}
        self._nodes = [n for n in model.graph.node if n.op_type != "Constant"]
        self._uses = Counter(name for n in self._nodes for name in n.input)
        self._uses.update(output.name for output in model.graph.output)
        self._values: dict[str, Any] = {}
        self._inputs = [i for i in model.graph.input if i.name not in self._tensors]
        self._kernels = set(self._kernels_of_products())

    @property
    def fixed_batch(self) -> bool:
        shapes = [i.type.tensor_type.shape.dim for i in self._inputs]
        return any(shape and shape[0].HasField("dim_value") for shape in shapes)

    def read(self) -> GraphModule:
        for value in self._inputs:
            self._values[value.name] = self._graph.placeholder(_identifier(value.name))
        for node in self._nodes:
            if node.output[0] not in self._values:
                self._add(node)
        outputs = {o.name: self._value(o.name) for o in self._model.graph.output}
        self._graph.output(next(iter(outputs.values())) if len(outputs) == 1 else outputs)
        self._graph.lint()
        return GraphModule(self._root, self._graph, "OnnxModel")

    def _add(self, node: NodeProto) -> None:
        row = OPERATORS[node.op_type]
        if node.op_type == "MatMul" and node.input[1] in self._kernels:
            return self._add_linear(node)
        attributes = {**_attributes(node), **row.fixed}
        accepted = inspect.signature(row.run).parameters
        attributes |= {k: v for k, v in (("opset", self._opset), ("outputs", len(node.output))) if k in accepted}
        arguments = tuple(
            self._numbers(name) if i in row.literal else self._value(name) for i, name in enumerate(node.input)
        )
        try:
            inspect.signature(row.run).bind(*arguments, **attributes)
        except TypeError as error:
            raise CaptureError(f"{self._path}: node {node.name or node.output[0]} ({node.op_type}): {error}") from error
        result = self._graph.call_function(row.run, arguments, attributes)
        for i, name in enumerate(node.output):
            self._values[name] = self._graph.call_function(operator.getitem, (result, i)) if row.several else result
        return None

    def _add_linear(self, node: NodeProto) -> None:
        """A product with a constant matrix, with the addition behind it where that adds a bias."""
        bias, output = None, node.output[0]
        users = [n for n in self._nodes if output in n.input]
        if len(users) == 1 and users[0].op_type == "Add" and self._uses[output] == 1:
            other = next(name for name in users[0].input if name != output)
            if self._is_vector(other, self._tensors[node.input[1]].dims[1]):
                bias, output = self._value(other), users[0].output[0]
        arguments = (self._value(node.input[0]), self._value(node.input[1]), bias)
        self._values[output] = self._graph.call_function(linear, arguments)

    def _is_vector(self, name: str, length: int) -> bool:
        return name in self._tensors and list(self._tensors[name].dims) == [length]

    def _kernels_of_products(self) -> Iterator[str]:
        """Matrices that every use multiplies from the right: they are stored transposed, as linear layers do."""
        for name in {n.input[1] for n in self._nodes if n.op_type == "MatMul"} & self._tensors.keys():
            uses = [n for n in self._nodes if name in n.input]
            right = all(n.op_type == "MatMul" and n.input[1] == name and n.input[0] != name for n in uses)
            if right and self._uses[name] == len(uses) and len(self._tensors[name].dims) == 2:
                yield name

    def _value(self, name: str) -> Any:
        """The fx node of a value; None for an input that is left out."""
        if not name:
            return None
        if name not in self._values:
            self._values[name] = self._constant(name)
        return self._values[name]

    def _numbers(self, name: str) -> Any:
        """The numbers of a constant; whatever it is where it is none."""
        known = name in self._tensors or name in self._constants
        return self._array(name).tolist() if known else self._value(name)

    def _array(self, name: str) -> np.ndarray[Any, Any]:
        if name in self._tensors:
            return numpy_helper.to_array(self._tensors[name], base_dir=str(self._path.parent))
        return _constant_array(self._constants[name])

    def _constant(self, name: str) -> Any:
        array = self._array(name)
        if array.dtype in (np.int64, np.int32) and array.ndim < 2 and array.size <= _LARGEST_SIZES:
            return self._graph.call_function(numbers, (array.reshape(-1).tolist(), list(array.shape)))
        if array.dtype == np.float32 and array.ndim == 0:
            return float(array)
        tensor = torch.from_numpy(np.array(array))
        return self._parameter(name, tensor.t().contiguous() if name in self._kernels else tensor)

    def _parameter(self, name: str, tensor: Tensor) -> Node:
        """A parameter (or buffer, of integers) where the name's dots say, or as near as Python allows."""
        parts = [_identifier(part) for part in name.split(".") if part]
        module = self._root
        for part in parts[:-1]:
            if not hasattr(module, part):
                module.add_module(part, nn.Module())
            module = getattr(module, part)
            assert isinstance(module, nn.Module)
        last = parts[-1] if not hasattr(module, parts[-1]) else f"{parts[-1]}_"
        if tensor.is_floating_point():
            module.register_parameter(last, nn.Parameter(tensor))
        else:
            module.register_buffer(last, tensor)
        return self._graph.get_attr(".".join([*parts[:-1], last]))


def _attributes(node: NodeProto) -> dict[str, Any]:
    values = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    return {name: _plain(value) for name, value in values.items()}


def _plain(value: Any) -> Any:
    """An attribute as fx can write it down; the tensor of one number as that number and its type."""
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, TensorProto):
        return numpy_helper.to_array(value).reshape(-1)[0].item(), value.data_type
    return list(value) if not isinstance(value, str | int | float) else value


def _constant_array(attribute: AttributeProto) -> np.ndarray[Any, Any]:
    value = onnx.helper.get_attribute_value(attribute)
    if isinstance(value, TensorProto):
        return numpy_helper.to_array(value)
    return np.array(value, dtype=np.float32 if "float" in attribute.name else np.int64)


def _identifier(name: str) -> str:
    name = re.sub(r"\W", "_", name)
    return name if not name[:1].isdigit() else f"_{name}"

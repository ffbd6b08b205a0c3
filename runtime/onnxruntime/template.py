"""One lowered model that stands for all widths of a network, so that a choice of widths costs no export.

Lowered are the full model and a probe, a model with other widths. Every size and every whole number (of a constant or
an attribute, such as groups) that differs between the two files is tied to a size of the graph that differs in the same
way; for other widths that size says what to write. A second probe checks it; where it does not hold, every choice is
lowered by itself. The numbers in the weights are the full model's, repeated: they decide no time.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...passes.signature import Signature
from ..latency.widths import Sizes, WidthSpace
from .lower import lower_to_onnx

_Numbers = dict[tuple[str, int], int]  # (constant, axis), or (constant or attribute, ~place) -> size or whole number
_INT, _INTS = 2, 7  # kinds of attributes in ONNX's AttributeProto
_MOST_ENTRIES = 64  # of whole numbers in a constant that may be sizes


class EngineTemplate:
    """ONNX models of a prepared graph by widths. Raises TargetError where the graph has no ONNX form."""

    def __init__(self, space: WidthSpace, signature: Signature) -> None:
        self._space, self._signature = space, signature
        full = {g.name: g.full for g in space.groups}
        self._full = self._lower(full)
        self._constants = _constants(self._full)
        self.layers = _layers(self._full, space.layers)
        self._ties: dict[tuple[str, int], tuple[str, int]] | None = {}
        if full:
            self._ties = self._tie(full)

    @property
    def is_exact(self) -> bool:
        """Whether widths cost no export."""
        return self._ties is not None

    def model(self, widths: Mapping[str, int]) -> Any:
        """The ONNX model at these widths (all of them, by group)."""
        import onnx
        from onnx import numpy_helper

        if self._ties is None:
            return self._lower(widths)
        numbers = self._numbers(self._space.sizes(widths))
        model = onnx.ModelProto()
        model.CopyFrom(self._skeleton)
        for name, array in self._constants.items():
            model.graph.initializer.append(numpy_helper.from_array(_resized(name, array, numbers), name))
        for name, attribute in _attributes(model):
            if attribute.ints:
                attribute.ints[:] = [numbers[name, ~place] for place in range(len(attribute.ints))]
            else:
                attribute.i = numbers[name, ~0]
        return model

    def write(self, widths: Mapping[str, int], folder: Path) -> Path:
        """The model as a file in `folder`."""
        import onnx

        path, model = folder / "template.onnx", self.model(widths)
        onnx.save(model, str(path), save_as_external_data=model.ByteSize() > 2**30)
        return path

    @cached_property
    def _skeleton(self) -> Any:
        """The model without constants and noted shapes."""
        import onnx

        bare = onnx.ModelProto()
        bare.CopyFrom(self._full)
        del bare.graph.initializer[:]
        del bare.graph.value_info[:]
        return bare

    def _tie(self, full: Mapping[str, int]) -> dict[tuple[str, int], tuple[str, int]] | None:
        probes = [_probe(full, step) for step in (1, 2)]
        found = [_numbers(model, _constants(model)) for model in map(self._lower, probes)]
        ties = _ties(
            _numbers(self._full, self._constants), found[0], self._space.sizes(full), self._space.sizes(probes[0])
        )
        if ties is None:
            return None
        self._ties = ties
        return ties if self._numbers(self._space.sizes(probes[1])) == found[1] else None

    def _numbers(self, sizes: Sizes) -> _Numbers:
        assert self._ties is not None
        return _numbers(self._full, self._constants) | {place: sizes[tied] for place, tied in self._ties.items()}

    def _lower(self, widths: Mapping[str, int]) -> Any:
        import onnx

        changed = any(widths[g.name] != g.full for g in self._space.groups)
        graph = self._space.cut(widths) if changed else self._space.graph_module
        with tempfile.TemporaryDirectory(prefix="sparsefx-") as folder:
            return onnx.load(str(lower_to_onnx(graph, self._signature, Path(folder))))


def _probe(full: Mapping[str, int], step: int) -> dict[str, int]:
    """Widths that differ from the full ones, differently for groups that are equally wide."""
    seen: dict[int, int] = {}
    widths = {}
    for name, width in full.items():
        seen[width] = seen.get(width, 0) + 1
        widths[name] = max(1, width - step * seen[width] - (step - 1))
    return widths


def _constants(model: Any) -> dict[str, NDArray[Any]]:
    from onnx import numpy_helper

    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def _attributes(model: Any) -> list[tuple[str, Any]]:
    """All attributes of whole numbers, with a name for each."""
    return [
        (f"{node.name}:{attribute.name}", attribute)
        for node in model.graph.node
        for attribute in node.attribute
        if attribute.type in (_INT, _INTS)
    ]


def _numbers(model: Any, constants: Mapping[str, NDArray[Any]]) -> _Numbers:
    numbers: _Numbers = {
        (name, ~place): int(number)
        for name, attribute in _attributes(model)
        for place, number in enumerate(attribute.ints or [attribute.i])
    }
    for name, array in constants.items():
        if array.dtype == np.int64 and array.size <= _MOST_ENTRIES:
            numbers |= {(name, ~place): int(number) for place, number in enumerate(array.reshape(-1))}
        else:
            numbers |= {(name, axis): size for axis, size in enumerate(array.shape)}
    return numbers


def _ties(
    full: _Numbers, probe: _Numbers, sizes: Sizes, probed: Sizes
) -> dict[tuple[str, int], tuple[str, int]] | None:
    """For every number that changes a size that changes alike; None where one has none, or the files are no pair."""
    if full.keys() != probe.keys():
        return None
    by_change = {(size, probed[place]): place for place, size in reversed(sizes.items()) if place in probed}
    changes = {place: (number, probe[place]) for place, number in full.items() if number != probe[place]}
    if any(change not in by_change for change in changes.values()):
        return None
    return {place: by_change[change] for place, change in changes.items()}


def _resized(name: str, array: NDArray[Any], numbers: _Numbers) -> NDArray[Any]:
    if (name, ~0) in numbers:
        return np.array([numbers[name, ~i] for i in range(array.size)], np.int64).reshape(array.shape)
    shape = tuple(numbers[name, axis] for axis in range(array.ndim))
    return array if shape == array.shape else np.resize(array.reshape(-1), shape)


def _layers(model: Any, names: tuple[str, ...]) -> dict[str, str]:
    """Layers by the names that an engine may give them: those of their results, up to what is fused into them.

    Layers with a constant weight stand in the file in the order in which the graph has them.
    """
    constants = {tensor.name for tensor in model.graph.initializer}
    found = [n for n in model.graph.node if n.op_type in _WEIGHTED and n.input[1] in constants]
    if len(found) != len(names):
        return {}
    of = {value: layer for node, layer in zip(found, names, strict=True) for value in (node.name, node.output[0])}
    for node in model.graph.node:  # in order: what follows a layer takes its name on
        if node.op_type in _FUSED:
            layer = next((of[value] for value in node.input if value in of), None)
            if layer is not None and node.op_type != "Add":
                of[node.output[0]] = of[node.name] = layer
    return of


_WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_FUSED = ("Relu", "Clip", "Sigmoid", "Tanh", "LeakyRelu", "HardSigmoid")

"""One lowered model that stands for all widths of a network, so that a choice of widths costs no export.

Lowered are the full model and two probes, models with random widths. Every size and every whole number (of a constant
or an attribute, such as groups) that differs between the files is tied to a size of the graph that is alike in all of
them; for other widths that size says what to write. Where there is none, or several that are not the same size at all
widths, every choice is lowered by itself. Numbers in the weights are the full model's, repeated: they decide no time.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...passes.signature import Signature
from ..latency.widths import Sizes, WidthSpace
from .lower import lower_to_onnx

Place = tuple[str, int]
_Numbers = dict[Place, int]  # (constant, axis), or (constant or attribute, ~place) -> size or whole number
_Ties = dict[Place, Place | None]  # number of a file -> size of the graph
_NOTED, _UNKNOWN = "=", 0  # behind the names of values whose sizes are noted; a size that is not
_PROBES, _CHECKS = 2, 4  # widths that are lowered, and widths that only tell sizes apart
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
        self._ties: _Ties | None = {}
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
        for name, sizes in _noted(model):
            for axis, size in sizes:
                if numbers[name, axis] == _UNKNOWN:
                    size.Clear()
                else:
                    size.dim_value = numbers[name, axis]
        return model

    def write(self, widths: Mapping[str, int], folder: Path) -> Path:
        """The model as a file in `folder`."""
        import onnx

        path, model = folder / "template.onnx", self.model(widths)
        onnx.save(model, str(path), save_as_external_data=model.ByteSize() > 2**30)
        return path

    @cached_property
    def _skeleton(self) -> Any:
        """The model without constants."""
        import onnx

        bare = onnx.ModelProto()
        bare.CopyFrom(self._full)
        del bare.graph.initializer[:]
        return bare

    def _tie(self, full: Mapping[str, int]) -> _Ties | None:
        probes = [_probe(full, seed) for seed in range(_PROBES)]
        models = [self._full, *map(self._lower, probes)]
        others = [_probe(full, _PROBES + seed) for seed in range(_CHECKS)]
        sizes = [self._space.sizes(widths) for widths in (full, *probes, *others)]
        return _ties([_numbers(model, _constants(model)) for model in models], sizes)

    def _numbers(self, sizes: Sizes) -> _Numbers:
        assert self._ties is not None
        tied = {place: _UNKNOWN if size is None else sizes[size] for place, size in self._ties.items()}
        return _numbers(self._full, self._constants) | tied

    def _lower(self, widths: Mapping[str, int]) -> Any:
        import onnx

        changed = any(widths[g.name] != g.full for g in self._space.groups)
        graph = self._space.cut(widths) if changed else self._space.graph_module
        with tempfile.TemporaryDirectory(prefix="sparsefx-") as folder:
            return onnx.load(str(lower_to_onnx(graph, self._signature, Path(folder))))


def _probe(full: Mapping[str, int], seed: int) -> dict[str, int]:
    """Random widths below the full ones, different for groups that are equally wide, as far as there are so many."""
    random = np.random.default_rng(seed)
    left: dict[int, list[int]] = {}
    widths = {}
    for name, width in full.items():
        if not left.get(width):
            left[width] = random.permutation(np.arange(1, width)).tolist() if width > 1 else [1]
        widths[name] = int(left[width].pop())
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


def _noted(model: Any) -> list[tuple[str, list[tuple[int, Any]]]]:
    """Fixed sizes that the file notes for values inside; fusions in the engine rely on them."""
    return [
        (value.name + _NOTED, [(axis, d) for axis, d in enumerate(value.type.tensor_type.shape.dim) if d.dim_value])
        for value in model.graph.value_info
    ]


def _numbers(model: Any, constants: Mapping[str, NDArray[Any]]) -> _Numbers:
    numbers: _Numbers = {
        (name, ~place): int(number)
        for name, attribute in _attributes(model)
        for place, number in enumerate(attribute.ints or [attribute.i])
    }
    numbers |= {(name, axis): size.dim_value for name, sizes in _noted(model) for axis, size in sizes}
    for name, array in constants.items():
        if array.dtype == np.int64 and array.size <= _MOST_ENTRIES:
            numbers |= {(name, ~place): int(number) for place, number in enumerate(array.reshape(-1))}
        else:
            numbers |= {(name, axis): size for axis, size in enumerate(array.shape)}
    return numbers


def _ties(numbers: Sequence[_Numbers], sizes: Sequence[Sizes]) -> _Ties | None:
    """For every number that differs between the files a size that is alike in all of them.

    `sizes` goes on with widths that were not lowered: None where sizes that are alike in the files differ there, where
    a number has no size, and where the files are no variants of one another.
    """
    if len({frozenset(p for p in found if not p[0].endswith(_NOTED)) for found in numbers}) > 1:
        return None
    count = len(numbers)
    alike: dict[tuple[int, ...], dict[tuple[int, ...], Place]] = {}
    for place in sizes[0]:
        values = tuple(found[place] for found in sizes)
        alike.setdefault(values[:count], {}).setdefault(values[count:], place)
    ties: _Ties = {}
    for place in numbers[0]:
        values = tuple(found.get(place, _UNKNOWN) for found in numbers)
        if len(set(values)) > 1:
            candidates = list(alike.get(values, {}).values())
            if len(candidates) != 1 and not place[0].endswith(_NOTED):
                return None
            ties[place] = candidates[0] if len(candidates) == 1 else None  # what is only noted need not be known
    return ties


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

"""The range of sizes that an engine is built for: smallest, typical and largest, for each dynamic size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.fx import GraphModule

from ...passes.channels.axes import size_of
from ...passes.errors import TargetError
from ...passes.graph import SIZE_NAMES, tensor_meta
from ...passes.signature import Signature

MAX_BATCH = 32  # where the caller names none
_WIDER = 2  # a size without an upper bound goes up to this many times the example's
_UNBOUNDED = 2**31 - 1

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Range:
    """A dynamic size: what the engine takes at least and at most, and what it is tuned for."""

    least: int
    typical: int
    most: int


@dataclass(frozen=True)
class Profile:
    """`ranges` by the size's name; `shapes` by input: the smallest, the typical and the largest shape."""

    ranges: Mapping[str, Range]
    shapes: Mapping[str, tuple[Shape, Shape, Shape]]


def find_profile(
    graph_module: GraphModule, signature: Signature, inputs: Sequence[Tensor], max_batch: int | None
) -> Profile:
    """The profile of a graph whose typical inputs are `inputs`; a leading size is a batch, up to `max_batch`.

    Raises TargetError where `max_batch` is below 1.
    """
    if max_batch is not None and max_batch < 1:
        raise TargetError(f"max_batch must be at least 1, found {max_batch}")
    metas = [meta for n in graph_module.graph.nodes if n.op == "placeholder" and (meta := tensor_meta(n)) is not None]
    names = graph_module.meta.get(SIZE_NAMES, {})
    ranges: dict[Any, Range] = {}
    for meta, tensor in zip(metas, inputs, strict=True):
        for axis, size in enumerate(meta.shape):
            symbol = size_of(size)
            if isinstance(symbol, int) or not symbol.is_Symbol or symbol in ranges:
                continue
            typical = int(tensor.shape[axis])
            ranges[symbol] = _batch_range(typical, max_batch) if axis == 0 else _size_range(size, typical)
    shapes = {spec.name: _shapes(meta.shape, ranges) for spec, meta in zip(signature.inputs, metas, strict=True)}
    return Profile({names.get(str(s), str(s)): found for s, found in ranges.items()}, shapes)


def _batch_range(typical: int, max_batch: int | None) -> Range:
    most = max(MAX_BATCH, typical) if max_batch is None else max_batch
    return Range(1, min(typical, most), most)


def _size_range(size: Any, typical: int) -> Range:
    """From the bounds that the user's Dim gave."""
    bounds = size.node.shape_env.bound_sympy(size_of(size))
    least, most = (int(b) if b.is_Integer and int(b) < _UNBOUNDED else None for b in (bounds.lower, bounds.upper))
    return Range(max(least or 1, 1), typical, _WIDER * typical if most is None else most)


def _shapes(sizes: Sequence[Any], ranges: Mapping[Any, Range]) -> tuple[Shape, Shape, Shape]:
    """The three shapes of one input; sizes that follow from others are computed."""

    def at(which: str) -> Shape:
        values = {symbol: getattr(found, which) for symbol, found in ranges.items()}
        return tuple(s if isinstance(s := size_of(size), int) else int(s.subs(values)) for size in sizes)

    return at("least"), at("typical"), at("most")

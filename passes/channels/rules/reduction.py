"""Operators along axes: sums, means, extrema, softmax and norms. Over channels they mix; else they do not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..arrays import Constants
from ..axes import Axes, is_static
from ..transfer import LIVE, POSITIONAL, Value
from .call import Call, OperatorRule, Result
from .contraction import mean_over_channels
from .elementwise import pointwise

Function = Callable[[Sequence[Constants]], Constants] | None


def _dims(call: Call, name: str = "dim") -> list[int]:
    """The axes an operator works along; all where none are given."""
    rank = len(call.shape_of(_operand_name(call)))
    given: Any = call.arguments.get(name)
    if given is None or given == []:
        return list(range(rank))
    return sorted({d % rank for d in (given if isinstance(given, list | tuple) else [given])})


def _operand_name(call: Call) -> str:
    return "self" if "self" in call.arguments else "input"


def _tracked_dimensions(value: Value, dims: Sequence[int]) -> list[int]:
    numbers = [j for j, axis in enumerate(value.axes) for f in axis if f.tracked]
    return [d for d, j in enumerate(numbers) if j in dims]


def _reduced_axes(call: Call, value: Value, dims: Sequence[int]) -> Axes:
    if call.arguments.get("keepdim"):
        return tuple(() if j in dims else axis for j, axis in enumerate(value.axes))
    return tuple(axis for j, axis in enumerate(value.axes) if j not in dims)


def reduce(call: Call, function: Function) -> Value:
    """One value out of all along some axes; `function` of a uniform one where it is known."""
    operand, dims = call.value(_operand_name(call)), _dims(call)
    mixed = _tracked_dimensions(operand, dims)
    axes = _reduced_axes(call, operand, dims)
    if mixed:
        return call.flow.mix(operand, mixed, axes, f"{call.operator} over channels")
    dynamic = not all(is_static(f.size) for j in dims for f in operand.axes[j])
    moved = call.flow.reinterpret(operand, axes)
    return call.flow.elementwise([moved], call.shape, function, unknown=LIVE if dynamic else POSITIONAL)


def _same(constants: Sequence[Constants]) -> Constants:
    return constants[0]


def extremum(call: Call) -> Result:
    """Of a uniform channel: the same value; with the indices where the operator returns them."""
    if "other" in call.arguments:
        return pointwise(call)
    value = reduce(call, _same)
    return value if len(call.shapes) == 1 else (value, reduce(call, None))


def unknown_reduction(call: Call) -> Result:
    return reduce(call, None)


def total(call: Call) -> Result:
    """A uniform channel's sum is its value times the count, where the count is static."""
    operand, dims = call.value("self"), _dims(call)
    sizes = [f.size for j in dims for f in operand.axes[j]]
    count = int(np.prod([s for s in sizes if is_static(s)], dtype=np.int64))
    known = all(is_static(s) for s in sizes)
    return reduce(call, (lambda c: c[0] * count) if known else None)


def total_of_any_size(call: Call) -> Result:
    """A sum that must not rest on how many positions were captured: of zeros zero, else of unknown value."""
    return reduce(call, lambda c: np.where(c[0] == 0.0, 0.0, np.nan))


def mean(call: Call) -> Result:
    """Over positions a uniform channel keeps its value; over channels it is a contraction."""
    operand, dims = call.value("self"), _dims(call)
    if _tracked_dimensions(operand, dims):
        return mean_over_channels(call, operand, dims) or reduce(call, None)
    return reduce(call, _same)


def softmax(call: Call) -> Result:
    value = along(call)
    if isinstance(value, Value):
        value.sums_to_one = call.operator.endswith("softmax") and call["dim"] % len(call.shape) == len(call.shape) - 1
    return value


def along(call: Call) -> Result:
    """Same shape, but each index along `dim` can change every other one."""
    operand = call.value_of(call.operands()[0])
    dims = _dims(call)
    mixed = _tracked_dimensions(operand, dims)
    if mixed:
        values = [call.flow.mix(operand, mixed, operand.axes, f"{call.operator} over channels") for _ in call.shapes]
    else:
        values = [call.flow.elementwise([operand], shape, None) for shape in call.shapes]
    return values[0] if len(values) == 1 else tuple(values)


def last_axes_norm(call: Call) -> Result:
    """Layer and RMS normalisation over the last axes: every channel changes the statistics."""
    operand = call.value("input")
    rank = len(operand.axes)
    dims = range(rank - len(call["normalized_shape"]), rank)
    return _norm(call, operand, _tracked_dimensions(operand, dims))


def group_norm(call: Call) -> Result:
    operand = call.value("input")
    return _norm(call, operand, list(range(len(operand.shape))))


def _norm(call: Call, operand: Value, mixed: list[int]) -> Value:
    name = call.operator.removeprefix("aten::").removeprefix("native_")
    for affine in ("weight", "bias"):
        if call.arguments.get(affine) is not None:
            call.tensor(affine)  # a constant belongs to mixed axes, which stay whole
    if mixed:
        return call.flow.mix(operand, mixed, operand.axes, f"{name} over channels")
    return call.flow.elementwise([operand], call.shape, None)


def _tuple_of(rule: Callable[[Call], Result]) -> Callable[[Call], Result]:
    """The first output by `rule`; statistics that follow it are not described."""
    return lambda call: (_single(rule(call)), *[None] * (len(call.shapes) - 1))


def _single(result: Result) -> Value | None:
    return result[0] if isinstance(result, tuple) else result


RULES: dict[str, OperatorRule] = {
    "aten::mean": OperatorRule(mean),
    "aten::sum": OperatorRule(total),
    **{f"aten::{n}": OperatorRule(extremum) for n in ("amax", "amin", "max", "min", "median", "nanmedian")},
    **{
        f"aten::{n}": OperatorRule(unknown_reduction)
        for n in ("var", "std", "prod", "argmax", "argmin", "any", "all", "logsumexp", "linalg_vector_norm", "norm")
    },
    "aten::softmax": OperatorRule(softmax),
    "aten::_softmax": OperatorRule(softmax),
    "aten::log_softmax": OperatorRule(along),
    "aten::_log_softmax": OperatorRule(along),
    **{f"aten::{n}": OperatorRule(along) for n in ("cumsum", "cumprod", "logcumsumexp", "cummax", "cummin", "sort")},
    "aten::layer_norm": OperatorRule(last_axes_norm),
    "aten::native_layer_norm": OperatorRule(_tuple_of(last_axes_norm)),
    "aten::rms_norm": OperatorRule(last_axes_norm),
    "aten::group_norm": OperatorRule(group_norm),
    "aten::native_group_norm": OperatorRule(_tuple_of(group_norm)),
}

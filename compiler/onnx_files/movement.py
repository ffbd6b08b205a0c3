"""ONNX operators that move data, and those that compute sizes."""

from __future__ import annotations

import builtins
from typing import Any

import numpy as np
import torch
from onnx import TensorProto
from torch import Tensor
from torch.nn import functional as F

from ...passes.errors import CaptureError
from .operator import Operator
from .types import TORCH_TYPES
from .values import Numbers, Value, alike, as_tensor, integers, is_numbers, numbers

_LARGEST = 2**31 - 1  # ONNX writes "to the end" as any number from here on


def shape(x: Value, *, start: int = 0, end: int | None = None) -> Numbers:
    sizes = list(x.shape)[start:end]
    return numbers(sizes, (len(sizes),))


def size(x: Value) -> Numbers:
    return numbers([x.numel() if isinstance(x, Tensor) else x.size], ())


def reshape(x: Value, sizes: Value, *, allowzero: int = 0) -> Value:
    """A size of 0 is that of the operand, unless `allowzero`."""
    given = integers(sizes)
    if is_numbers(x):
        return x.reshape([int(s) for s in given])
    wanted = [x.shape[j] if isinstance(s, int) and s == 0 and not allowzero else s for j, s in enumerate(given)]
    return as_tensor(x).reshape(wanted)


def flatten(x: Tensor, *, axis: int = 1) -> Tensor:
    """A matrix: the axes in front of `axis`, and the others."""
    axis = axis % x.ndim if axis != x.ndim else axis
    if axis == 0:
        return x.reshape(1, -1)
    return x.flatten(axis).flatten(0, axis - 1) if axis < x.ndim else x.reshape(-1, 1)


def transpose(x: Value, *, perm: list[int] | None = None) -> Value:
    order = list(perm) if perm is not None else list(reversed(range(x.ndim)))
    return x.permute(order) if isinstance(x, Tensor) else np.transpose(x, order)


def squeeze(x: Value, operand: Value = None, *, axes: list[int] | None = None) -> Value:
    """Axes are an operand, before opset 13 an attribute."""
    if operand is None and axes is None:
        return x.squeeze()
    dims = tuple(d % x.ndim for d in (integers(operand) if operand is not None else axes or []))
    return torch.squeeze(x, dims) if isinstance(x, Tensor) else np.squeeze(x, dims)


def unsqueeze(x: Value, operand: Value = None, *, axes: list[int] | None = None) -> Value:
    """Axes count in the result."""
    dims = integers(operand) if operand is not None else list(axes or [])
    rank = np.ndim(x) if not isinstance(x, Tensor) else x.ndim
    for dim in sorted(d % (rank + len(dims)) for d in dims):
        x = as_tensor(x).unsqueeze(dim) if not is_numbers(x) else np.expand_dims(x, dim)
    return x


def expand(x: Value, sizes: Value) -> Tensor:
    """Broadcast both ways: the operand may be larger than the sizes."""
    given, tensor = integers(sizes), as_tensor(x)
    rank = builtins.max(len(given), tensor.ndim)
    own, wanted = [1] * (rank - tensor.ndim) + list(tensor.shape), [1] * (rank - len(given)) + given
    return tensor.expand([o if isinstance(w, int) and w == 1 else w for o, w in zip(own, wanted, strict=True)])


def tile(x: Value, repeats: Value) -> Value:
    return as_tensor(x).repeat(*integers(repeats))


def concat(*values: Value, axis: int) -> Value:
    if all(is_numbers(v) for v in values):
        return np.concatenate(values, axis)
    return torch.cat(alike(*values), axis)


def split(
    x: Value,
    sizes: Value = None,
    *,
    axis: int = 0,
    split: list[int] | None = None,
    num_outputs: int | None = None,
    outputs: int,
) -> tuple[Value, ...]:
    """Sizes are an operand, before opset 13 an attribute; without them parts are equal, the last one smaller."""
    parts = integers(sizes) if sizes is not None else split
    if is_numbers(x):
        edges = np.cumsum(parts)[:-1] if parts else outputs
        return tuple(np.split(x, edges, axis))
    return tuple(torch.split(x, parts if parts else -(-x.shape[axis] // outputs), axis))


def slice_axes(
    x: Value, starts: Value = None, ends: Value = None, axes: Value = None, steps: Value = None, **attributes: Any
) -> Value:
    """Bounds are operands, before opset 10 attributes."""
    if starts is None:
        starts, ends, axes = (attributes.get(name) for name in ("starts", "ends", "axes"))
    first, last = ([*_list(v)] for v in (starts, ends))
    dims = _list(axes) if axes is not None else list(range(len(first)))
    strides = _list(steps) if steps is not None else [1] * len(first)
    for dim, a, b, step in zip(dims, first, last, strides, strict=True):
        x = _slice(x, dim % x.ndim, a, b, step)
    return x


def _slice(x: Value, dim: int, start: Any, end: Any, step: int) -> Value:
    if is_numbers(x):
        return x[(*[slice(None)] * dim, slice(_bound(start, step), _bound(end, step), step))]
    if step < 0:
        if step != -1 or start not in (-1, x.shape[dim] - 1) or not isinstance(end, int) or end > -_LARGEST:
            raise CaptureError(f"a Slice with step {step} from {start} to {end} is read only where it reverses an axis")
        return torch.flip(x, [dim])
    index: list[Any] = [slice(None)] * dim + [slice(start, None if _open(end) else end, step)]
    return x[tuple(index)]


def _open(end: Any) -> bool:
    return isinstance(end, int) and end >= _LARGEST


def _bound(bound: Any, step: int) -> Any:
    return None if isinstance(bound, int) and abs(bound) >= _LARGEST else bound


def _list(value: Value) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else integers(value)


def gather(x: Value, indices: Value, *, axis: int = 0) -> Value:
    """Whole slices along one axis; negative indices count from its end."""
    if is_numbers(x):
        return _as_array(np.take(x, indices.astype(int), axis))
    if is_numbers(indices) and indices.ndim == 0:
        return x.select(axis, indices.item())
    index = as_tensor(indices % x.shape[axis] if is_numbers(indices) else indices, x)
    if x.ndim == 2 and axis % x.ndim == 0 and x.is_floating_point() and not is_numbers(indices):
        return F.embedding(index, x)
    if not is_numbers(indices):
        index = torch.where(index < 0, index + x.shape[axis], index)
    picked = torch.index_select(x, axis, index.reshape(-1))
    axis %= x.ndim
    return picked.reshape(*x.shape[:axis], *index.shape, *x.shape[axis + 1 :]) if index.ndim != 1 else picked


def _as_array(value: Any) -> Numbers:
    return value if isinstance(value, np.ndarray) else numbers([value], ())


def gather_elements(x: Tensor, indices: Value, *, axis: int = 0) -> Tensor:
    return torch.gather(x, axis, as_tensor(indices, x))


def pad(
    x: Tensor,
    amounts: Value = None,
    fill: Value = None,
    axes: Value = None,
    *,
    mode: str = "constant",
    pads: list[int] | None = None,
    value: float = 0.0,
) -> Tensor:
    """Amounts are an operand, before opset 11 an attribute: first those in front of every axis, then those behind."""
    given = integers(amounts) if amounts is not None else list(pads or [])
    dims = [d % x.ndim for d in integers(axes)] if axes is not None else list(range(x.ndim))
    before, after = given[: len(dims)], given[len(dims) :]
    both = {d: (a, b) for d, a, b in zip(dims, before, after, strict=True)}
    flat = [p for d in reversed(range(x.ndim)) for p in both.get(d, (0, 0))]
    while len(flat) > 2 and all(isinstance(p, int) and p == 0 for p in flat[-2:]):
        flat = flat[:-2]
    if mode == "constant":
        number = float(fill) if fill is not None else value
        return F.pad(x, flat, value=number)
    modes = {"reflect": "reflect", "edge": "replicate", "wrap": "circular"}
    return F.pad(x, flat, mode=modes[mode])


def depth_to_space(x: Tensor, *, blocksize: int, mode: str = "DCR") -> Tensor:
    n, c, h, w = x.shape
    if mode == "CRD":
        return F.pixel_shuffle(x, blocksize)
    parts = x.reshape(n, blocksize, blocksize, c // blocksize**2, h, w).permute(0, 3, 4, 1, 5, 2)
    return parts.reshape(n, c // blocksize**2, h * blocksize, w * blocksize)


def space_to_depth(x: Tensor, *, blocksize: int) -> Tensor:
    n, c, h, w = x.shape
    parts = x.reshape(n, c, h // blocksize, blocksize, w // blocksize, blocksize).permute(0, 3, 5, 1, 2, 4)
    return parts.reshape(n, c * blocksize**2, h // blocksize, w // blocksize)


def constant_of_shape(sizes: Value, *, value: tuple[Any, int] = (0.0, TensorProto.FLOAT)) -> Value:
    """`value` is a number and its type."""
    given, number, dtype = integers(sizes), value[0], TORCH_TYPES[value[1]]
    if not dtype.is_floating_point and all(isinstance(s, int) for s in given) and len(given) < 2:
        return numbers([number] * int(np.prod(given)), given)
    return torch.full(given, number, dtype=dtype)


def range_of(start: Value, limit: Value, delta: Value) -> Value:
    bounds = [v.item() if is_numbers(v) else v for v in (start, limit, delta)]
    return torch.arange(*bounds)


def trilu(x: Tensor, k: Value = None, *, upper: int = 1) -> Tensor:
    diagonal = 0 if k is None else integers(k)[0]
    return torch.triu(x, diagonal) if upper else torch.tril(x, diagonal)


def cumsum(x: Tensor, axis: Value, *, exclusive: int = 0, reverse: int = 0) -> Tensor:
    (dim,) = integers(axis)
    summed = torch.flip(torch.cumsum(torch.flip(x, [dim]), dim), [dim]) if reverse else torch.cumsum(x, dim)
    return summed - x if exclusive else summed


def eye_like(x: Tensor, *, dtype: int | None = None, k: int = 0) -> Tensor:
    kind = x.dtype if dtype is None else TORCH_TYPES[dtype]
    return torch.ones(x.shape, dtype=kind).triu(k).tril(k)


OPERATORS: dict[str, Operator] = {
    "Shape": Operator(shape),
    "Size": Operator(size),
    "Reshape": Operator(reshape),
    "Flatten": Operator(flatten),
    "Transpose": Operator(transpose),
    "Squeeze": Operator(squeeze),
    "Unsqueeze": Operator(unsqueeze),
    "Expand": Operator(expand),
    "Tile": Operator(tile),
    "Concat": Operator(concat),
    "Split": Operator(split, several=True),
    "Slice": Operator(slice_axes),
    "Gather": Operator(gather),
    "GatherElements": Operator(gather_elements),
    "Pad": Operator(pad),
    "DepthToSpace": Operator(depth_to_space),
    "SpaceToDepth": Operator(space_to_depth),
    "ConstantOfShape": Operator(constant_of_shape),
    "Range": Operator(range_of),
    "Trilu": Operator(trilu),
    "CumSum": Operator(cumsum),
    "EyeLike": Operator(eye_like),
}

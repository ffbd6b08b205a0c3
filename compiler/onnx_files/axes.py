"""ONNX operators along axes: products, normalisation, softmax, reductions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ...passes.errors import CaptureError
from .operator import Operator
from .values import Value, as_tensor, integers, is_numbers

_REDUCTIONS: dict[str, Callable[..., Tensor]] = {
    "ReduceMean": torch.mean,
    "ReduceSum": torch.sum,
    "ReduceMax": torch.amax,
    "ReduceMin": torch.amin,
    "ReduceL1": lambda x, dim, keepdim: x.abs().sum(dim, keepdim=keepdim),
    "ReduceL2": lambda x, dim, keepdim: x.square().sum(dim, keepdim=keepdim).sqrt(),
    "ReduceSumSquare": lambda x, dim, keepdim: x.square().sum(dim, keepdim=keepdim),
    "ReduceLogSum": lambda x, dim, keepdim: x.sum(dim, keepdim=keepdim).log(),
    "ReduceLogSumExp": torch.logsumexp,
}
_EXTREMA: dict[str, Callable[..., Tensor]] = {"ArgMax": torch.argmax, "ArgMin": torch.argmin}


def reduce(
    x: Value,
    operand: Value = None,
    *,
    function: str,
    axes: list[int] | None = None,
    keepdims: int = 1,
    noop_with_empty_axes: int = 0,
) -> Value:
    """Axes are an operand, before opset 18 (13 for sums) an attribute; all axes where none are given."""
    dims = integers(operand) if operand is not None else list(axes or [])
    if not dims and noop_with_empty_axes:
        return x
    if is_numbers(x) and function == "ReduceProd":
        return np.prod(x, keepdims=bool(keepdims), axis=tuple(dims) or None)
    tensor = as_tensor(x)
    dims = dims or list(range(tensor.ndim))
    if function == "ReduceProd":
        for dim in sorted((d % tensor.ndim for d in dims), reverse=True):
            tensor = tensor.prod(dim, keepdim=bool(keepdims))
        return tensor
    return _REDUCTIONS[function](tensor, dims, keepdim=bool(keepdims))


def arg_extremum(x: Tensor, *, function: str, axis: int = 0, keepdims: int = 1, select_last_index: int = 0) -> Tensor:
    if select_last_index:
        raise CaptureError(f"an {function} with select_last_index is not read")
    return _EXTREMA[function](x, axis, keepdim=bool(keepdims))


def top_k(
    x: Tensor, k: Value = None, *, axis: int = -1, largest: int = 1, sorted: int = 1, **old: Any
) -> tuple[Tensor, Tensor]:
    count = integers(k)[0] if k is not None else old["k"]
    values, indices = torch.topk(x, count, axis, bool(largest), bool(sorted))
    return values, indices


def softmax(x: Tensor, *, function: str, axis: int | None = None, opset: int) -> Tensor:
    """Before opset 13 over all axes from `axis` on together."""
    apply = F.softmax if function == "Softmax" else F.log_softmax
    if opset >= 13:
        return apply(x, -1 if axis is None else axis)
    first = (1 if axis is None else axis) % x.ndim
    if first == x.ndim - 1:
        return apply(x, -1)
    return apply(x.flatten(first), -1).reshape(x.shape)


def matmul(a: Value, b: Value) -> Tensor:
    return torch.matmul(as_tensor(a), as_tensor(b))


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """A product with a constant matrix, which the reader stores transposed."""
    return F.linear(x, weight, bias)


def gemm(
    a: Tensor,
    b: Tensor,
    c: Value = None,
    *,
    alpha: float = 1.0,
    beta: float = 1.0,
    transA: int = 0,  # noqa: N803, as ONNX has it
    transB: int = 0,  # noqa: N803
) -> Tensor:
    a, b = a.t() if transA else a, b if transB else b.t()
    if c is None:
        return F.linear(a, b) * alpha if alpha != 1.0 else F.linear(a, b)
    if alpha == beta == 1.0 and isinstance(c, Tensor) and c.ndim == 1 and c.shape[0] == b.shape[0]:
        return F.linear(a, b, c)
    product: Tensor = alpha * F.linear(a, b) + beta * c
    return product


def batch_norm(
    x: Tensor,
    scale: Tensor,
    shift: Tensor,
    mean: Tensor,
    variance: Tensor,
    *,
    epsilon: float = 1e-5,
    training_mode: int = 0,
    **training: Any,
) -> Tensor:
    if training_mode:
        raise CaptureError("a BatchNormalization in training mode; export the model in evaluation mode")
    return F.batch_norm(x, mean, variance, scale, shift, eps=epsilon)


def layer_norm(
    x: Tensor, scale: Tensor, shift: Tensor | None = None, *, axis: int = -1, epsilon: float = 1e-5, stash_type: int = 1
) -> Tensor:
    sizes = list(x.shape[axis % x.ndim :])
    return F.layer_norm(x, sizes, scale.expand(sizes), None if shift is None else shift.expand(sizes), epsilon)


def rms_norm(x: Tensor, scale: Tensor, *, axis: int = -1, epsilon: float = 1e-5, stash_type: int = 1) -> Tensor:
    return F.rms_norm(x, list(x.shape[axis % x.ndim :]), scale, epsilon)


def group_norm(
    x: Tensor, scale: Tensor, shift: Tensor, *, num_groups: int, epsilon: float = 1e-5, stash_type: int = 1
) -> Tensor:
    return F.group_norm(x, num_groups, scale, shift, epsilon)


def lp_norm(x: Tensor, *, axis: int = -1, p: int = 2) -> Tensor:
    normalised: Tensor = x / torch.linalg.vector_norm(x, p, dim=axis, keepdim=True)
    return normalised


def einsum(*operands: Tensor, equation: str) -> Tensor:
    return torch.einsum(equation, *operands)


OPERATORS: dict[str, Operator] = {
    **{name: Operator(reduce, {"function": name}) for name in (*_REDUCTIONS, "ReduceProd")},
    **{name: Operator(arg_extremum, {"function": name}) for name in _EXTREMA},
    **{name: Operator(softmax, {"function": name}) for name in ("Softmax", "LogSoftmax")},
    "TopK": Operator(top_k, several=True),
    "MatMul": Operator(matmul),
    "Gemm": Operator(gemm),
    "BatchNormalization": Operator(batch_norm),
    "LayerNormalization": Operator(layer_norm),
    "RMSNormalization": Operator(rms_norm),
    "GroupNormalization": Operator(group_norm),
    "LpNormalization": Operator(lp_norm),
    "Einsum": Operator(einsum),
}

"""The condensed operators: their schemas, and bodies that say what they compute.

A condensed layer holds the non-zeros of its weight row by row: row n has `columns[starts[n]:starts[n + 1]]`, in rising
order, and their `values`. With a constant fan-in (SRigL, section 3) all rows are equally long. The bodies here build
the dense weight; faster ones are registered from above (sparsefx.runtime.kernels.operators).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"none": lambda y: y, "relu": F.relu, "gelu": F.gelu}


def linear_body(
    x: Tensor,
    values: Tensor,
    columns: Tensor,
    starts: Tensor,
    bias: Tensor | None,
    residual: Tensor | None,
    activation: str,
) -> Tensor:
    """activation(x W^T + bias + residual): x (..., inputs), result and residual (..., outputs).

    values (non-zeros,) of x's type, columns (non-zeros,) and starts (outputs + 1,) integers, bias (outputs,).
    """
    weight = dense_weight(values, columns, starts, x.shape[-1])
    return _finished(F.linear(x, weight, bias), residual, activation)


def conv2d_body(
    x: Tensor,
    values: Tensor,
    columns: Tensor,
    starts: Tensor,
    bias: Tensor | None,
    residual: Tensor | None,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    activation: str,
) -> Tensor:
    """activation(conv2d(x, W) + bias + residual): x (n, channels, height, width), residual of the result's shape.

    Columns count (channel of the group, kernel row, kernel column); padding is (height, width), on both sides.
    """
    shape = (starts.shape[0] - 1, x.shape[1] // groups, *kernel)
    weight = dense_weight(values, columns, starts, shape[1] * shape[2] * shape[3]).reshape(shape)
    y = F.conv2d(x, weight, bias, list(stride), list(padding), list(dilation), groups)
    return _finished(y, residual, activation)


def compressed_rows(weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Values, columns (int32) and starts (int64) of a weight's non-zeros; its first axis are the rows."""
    matrix = weight.flatten(1)
    kept = matrix != 0
    starts = torch.cat([kept.new_zeros(1, dtype=torch.int64), kept.sum(1).cumsum(0)])
    return matrix[kept], kept.nonzero()[:, 1].int(), starts


def dense_weight(values: Tensor, columns: Tensor, starts: Tensor, inputs: int) -> Tensor:
    """The dense weight (outputs, inputs) of the non-zeros."""
    outputs = starts.shape[0] - 1
    rows = torch.repeat_interleave(torch.arange(outputs, device=starts.device), starts.diff())
    return values.new_zeros(outputs, inputs).index_put((rows, columns.long()), values)


def _finished(y: Tensor, residual: Tensor | None, activation: str) -> Tensor:
    y = ACTIVATIONS[activation](y if residual is None else y + residual)
    return y.contiguous()


condensed_linear = torch.library.custom_op("sparsefx::condensed_linear", linear_body, mutates_args=())
condensed_conv2d = torch.library.custom_op("sparsefx::condensed_conv2d", conv2d_body, mutates_args=())


@condensed_linear.register_fake
def _linear_shape(x: Tensor, values: Tensor, columns: Tensor, starts: Tensor, *rest: Any) -> Tensor:
    return x.new_empty((*x.shape[:-1], starts.shape[0] - 1))


@condensed_conv2d.register_fake
def _conv2d_shape(
    x: Tensor,
    values: Tensor,
    columns: Tensor,
    starts: Tensor,
    bias: Tensor | None,
    residual: Tensor | None,
    *shape: Any,
) -> Tensor:
    kernel, stride, padding, dilation, *_ = shape
    sizes = [(x.shape[2 + i] + 2 * padding[i] - dilation[i] * (kernel[i] - 1) - 1) // stride[i] + 1 for i in range(2)]
    return x.new_empty((x.shape[0], starts.shape[0] - 1, *sizes))

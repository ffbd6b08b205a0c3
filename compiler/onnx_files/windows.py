"""ONNX operators over windows: convolution, pooling, resizing."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ...passes.errors import CaptureError
from .operator import Operator
from .values import Value, integers

_CONVOLUTIONS = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_TRANSPOSED = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}
_MAX_POOLS = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
_AVERAGE_POOLS: dict[int, Callable[..., Tensor]] = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}


def conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    auto_pad: str = "NOTSET",
    dilations: Sequence[int] | None = None,
    group: int = 1,
    kernel_shape: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Tensor:
    n = x.ndim - 2
    strides, dilations = list(strides or [1] * n), list(dilations or [1] * n)
    x, padding = _padded(x, auto_pad, pads, list(weight.shape[2:]), strides, dilations, 0.0)
    return _CONVOLUTIONS[n](x, weight, bias, strides, padding, dilations, group)


def conv_transpose(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    auto_pad: str = "NOTSET",
    dilations: Sequence[int] | None = None,
    group: int = 1,
    kernel_shape: Sequence[int] | None = None,
    output_padding: Sequence[int] | None = None,
    output_shape: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Tensor:
    n = x.ndim - 2
    pads = list(pads or [0] * 2 * n)
    if auto_pad not in ("NOTSET", "VALID") or output_shape is not None or pads[:n] != pads[n:]:
        raise CaptureError("a ConvTranspose with auto_pad, output_shape or uneven pads is not read")
    return _TRANSPOSED[n](
        x, weight, bias, strides or [1] * n, pads[:n], output_padding or [0] * n, group, dilations or [1] * n
    )


def max_pool(
    x: Tensor,
    *,
    kernel_shape: Sequence[int],
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    dilations: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    storage_order: int = 0,
    strides: Sequence[int] | None = None,
) -> Tensor:
    n = x.ndim - 2
    kernel, strides, dilations = list(kernel_shape), list(strides or [1] * n), list(dilations or [1] * n)
    padded, padding = _padded(x, auto_pad, pads, kernel, strides, dilations, -math.inf)
    if padded is not x and ceil_mode:
        raise CaptureError("a MaxPool with uneven pads and ceil_mode is not read")
    return _MAX_POOLS[n](padded, kernel, strides, padding, dilations, bool(ceil_mode))


def average_pool(
    x: Tensor,
    *,
    kernel_shape: Sequence[int],
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    count_include_pad: int = 0,
    dilations: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Tensor:
    n = x.ndim - 2
    kernel, strides = list(kernel_shape), list(strides or [1] * n)
    if dilations is not None and any(d != 1 for d in dilations):
        raise CaptureError("an AveragePool with dilations is not read")
    padded, padding = _padded(x, auto_pad, pads, kernel, strides, [1] * n, 0.0)
    if padded is not x and (ceil_mode or not count_include_pad):
        raise CaptureError("an AveragePool with uneven pads that do not count, or with ceil_mode, is not read")
    return _AVERAGE_POOLS[n](padded, kernel, strides, padding, bool(ceil_mode), bool(count_include_pad))


def _padded(
    x: Tensor,
    auto_pad: str,
    pads: Sequence[int] | None,
    kernel: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
    fill: float,
) -> tuple[Tensor, list[int]]:
    """The operand and an even padding; an uneven one is put around the operand."""
    n = len(kernel)
    amounts = list(pads or [0] * 2 * n)
    if auto_pad in ("SAME_UPPER", "SAME_LOWER"):
        amounts = _same(x, kernel, strides, dilations, upper=auto_pad == "SAME_UPPER")
    before, after = amounts[:n], amounts[n:]
    if before == after:
        return x, before
    return F.pad(x, [p for d in reversed(range(n)) for p in (before[d], after[d])], value=fill), [0] * n


def _same(
    x: Tensor, kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int], *, upper: bool
) -> list[int]:
    """Padding that makes ceil(size / stride) positions; the odd one goes behind, or in front."""
    before, after = [], []
    for size, k, s, d in zip(x.shape[2:], kernel, strides, dilations, strict=True):
        total = max((-(-size // s) - 1) * s + d * (k - 1) + 1 - size, 0)
        small, large = total // 2, total - total // 2
        before.append(small if upper else large)
        after.append(large if upper else small)
    return before + after


def global_average_pool(x: Tensor) -> Tensor:
    return x.mean(list(range(2, x.ndim)), keepdim=True)


def global_max_pool(x: Tensor) -> Tensor:
    return x.amax(list(range(2, x.ndim)), keepdim=True)


def resize(
    x: Tensor,
    roi: Value = None,
    scales: Value = None,
    sizes: Value = None,
    *,
    coordinate_transformation_mode: str = "half_pixel",
    mode: str = "nearest",
    nearest_mode: str = "round_prefer_floor",
    cubic_coeff_a: float = -0.75,
    **options: Any,
) -> Tensor:
    """The cases that torch's own `interpolate` is exported to; others are told by the comparison with ONNX Runtime."""
    corners = coordinate_transformation_mode == "align_corners"
    kinds = {1: {"linear": "linear"}, 2: {"linear": "bilinear", "cubic": "bicubic"}, 3: {"linear": "trilinear"}}
    n = x.ndim - 2
    if mode != "nearest" and mode not in kinds.get(n, {}):
        raise CaptureError(f"a Resize of {n} axes with mode {mode} is not read")
    options_of_mode = {"mode": "nearest"} if mode == "nearest" else {"mode": kinds[n][mode], "align_corners": corners}
    if sizes is not None:
        return F.interpolate(x, size=integers(sizes)[2:], **options_of_mode)
    if not isinstance(scales, list):
        raise CaptureError("a Resize with computed scales is not read")
    if any(float(f) != 1.0 for f in scales[:2]):
        raise CaptureError(f"a Resize of the batch or of channels is not read, found scales {scales}")
    return F.interpolate(x, scale_factor=[float(f) for f in scales[2:]], **options_of_mode)


def lrn(x: Tensor, *, size: int, alpha: float = 1e-4, beta: float = 0.75, bias: float = 1.0) -> Tensor:
    return F.local_response_norm(x, size, alpha, beta, bias)


def instance_norm(x: Tensor, scale: Tensor, shift: Tensor, *, epsilon: float = 1e-5) -> Tensor:
    return torch.instance_norm(x, scale, shift, None, None, True, 0.0, epsilon, False)


OPERATORS: dict[str, Operator] = {
    "Conv": Operator(conv),
    "ConvTranspose": Operator(conv_transpose),
    "MaxPool": Operator(max_pool),
    "AveragePool": Operator(average_pool),
    "GlobalAveragePool": Operator(global_average_pool),
    "GlobalMaxPool": Operator(global_max_pool),
    "Resize": Operator(resize, literal=(2,)),
    "LRN": Operator(lrn),
    "InstanceNormalization": Operator(instance_norm),
}

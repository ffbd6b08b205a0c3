"""Bodies of the condensed operators for CUDA tensors in float32, float16 and bfloat16."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from ....passes import operators
from .launch import TYPES, Window
from .layers import Conv2dLayer, LinearLayer
from .tools import find_gpu, import_triton

_layers = WeakTensorKeyDictionary()  # by the tensor of values: the layers made of it, by all else that matters


@functools.cache
def use_cuda_kernels() -> None:
    """Run `condensed_linear` and `condensed_conv2d` by our kernels wherever all their tensors are on a GPU.

    For the whole process. Which form a layer runs in is measured when it is first called with so many samples.
    Raises TargetError where there is no GPU, or no Triton.
    """
    find_gpu()
    import_triton()
    operators.condensed_linear.register_kernel("cuda")(linear)
    operators.condensed_conv2d.register_kernel("cuda")(conv2d)


def linear(
    x: Tensor,
    values: Tensor,
    columns: Tensor,
    starts: Tensor,
    bias: Tensor | None,
    residual: Tensor | None,
    activation: str,
    **how: Any,
) -> Tensor:
    """As `condensed_linear`; `how` goes to the layer: the form, or how it is measured."""
    if not _is_ours(x, values, bias, residual):
        return operators.linear_body(x, values, columns, starts, bias, residual, activation)
    shape = (starts.shape[0] - 1, x.shape[-1])
    layer = _made((values, columns, starts), shape, lambda: LinearLayer(columns, starts, shape))
    beside = None if residual is None else residual.reshape(-1, shape[0]).contiguous()
    y: Tensor = layer(x.reshape(-1, shape[1]).contiguous(), values.contiguous(), bias, beside, activation, **how)
    return y.reshape(*x.shape[:-1], shape[0])


def conv2d(
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
    **how: Any,
) -> Tensor:
    """As `condensed_conv2d`; `how` as for `linear`."""
    if not _is_ours(x, values, bias, residual):
        return operators.conv2d_body(
            x, values, columns, starts, bias, residual, kernel, stride, padding, dilation, groups, activation
        )
    shape = (starts.shape[0] - 1, x.shape[1] // groups, *kernel)
    window = Window(_pair(kernel), _pair(stride), _pair(padding), _pair(dilation), groups)
    layer = _made((values, columns, starts), (*shape, window), lambda: Conv2dLayer(columns, starts, shape, window))
    beside = None if residual is None else residual.contiguous()
    y: Tensor = layer(x.contiguous(), values.contiguous(), bias, beside, activation, **how)
    return y


def _made(constants: tuple[Tensor, ...], settings: tuple[object, ...], make: Callable[[], Any]) -> Any:
    """The layer of these tensors, made when they are first seen and whenever one of them has changed."""
    values = constants[0]
    key = (tuple(map(_state, constants)), settings)
    known = _layers.get(values)  # type: ignore[no-untyped-call]
    if known is None:
        known = _layers[values] = {}
    if key not in known:
        known[key] = make()
    return known[key]


def _state(tensor: Tensor) -> tuple[int, int]:
    """What changes with a tensor's content; tensors of inference mode cannot be written to outside it."""
    return tensor.data_ptr(), -1 if tensor.is_inference() else tensor._version


def _is_ours(x: Tensor, *others: Tensor | None) -> bool:
    return x.dtype in TYPES and all(other is None or other.dtype == x.dtype for other in others)


def _pair(sizes: Sequence[int]) -> tuple[int, int]:
    return int(sizes[0]), int(sizes[1])

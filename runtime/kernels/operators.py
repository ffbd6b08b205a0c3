"""Fast bodies for the condensed operators, on the CPU and in float32."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from ...passes import operators
from .layers import CompressedRows, CondensedConv2d, CondensedLinear
from .library import library

Layer = CondensedLinear | CondensedConv2d

_layers = WeakTensorKeyDictionary()  # by the tensor of values: the packed layers made of it, by all else that matters


@functools.cache
def use_kernels() -> None:
    """Run `condensed_linear` and `condensed_conv2d` by our kernels wherever all their tensors are float32 on the CPU.

    For the whole process, on torch's number of threads. Raises TargetError where there is no C++ compiler; the
    operators' own bodies, which are dense, go on to work then.
    """
    library()
    operators.condensed_linear.register_kernel("cpu")(_linear)
    operators.condensed_conv2d.register_kernel("cpu")(_conv2d)


def _linear(
    x: Tensor,
    values: Tensor,
    columns: Tensor,
    starts: Tensor,
    bias: Tensor | None,
    residual: Tensor | None,
    activation: str,
) -> Tensor:
    if not _float32(x, values, bias, residual):
        return operators.linear_body(x, values, columns, starts, bias, residual, activation)

    def pack(matrix: CompressedRows, threads: int) -> Layer:
        return CondensedLinear(matrix, _array(bias), activation=activation, threads=threads)

    layer = _packed(pack, (values, columns, starts, bias), x.shape[-1], (activation,))
    flat = x.reshape(-1, x.shape[-1])
    beside = None if residual is None else _array(residual.reshape(-1, residual.shape[-1]))
    y = layer(_array(flat), beside)
    return torch.from_numpy(y).reshape(*x.shape[:-1], y.shape[1])


def _conv2d(
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
    if activation == "gelu" or not _float32(x, values, bias, residual):
        return operators.conv2d_body(
            x, values, columns, starts, bias, residual, kernel, stride, padding, dilation, groups, activation
        )
    shape = {"stride": tuple(stride), "padding": tuple(padding), "dilation": tuple(dilation), "groups": groups}

    def pack(matrix: CompressedRows, threads: int) -> Layer:
        pixels = x.shape[2] * x.shape[3] // (stride[0] * stride[1])
        options: dict[str, Any] = {**shape, "activation": activation, "pixels": pixels, "threads": threads}
        return CondensedConv2d(matrix, tuple(kernel), _array(bias), **options)

    inputs = x.shape[1] // groups * kernel[0] * kernel[1]
    layer = _packed(pack, (values, columns, starts, bias), inputs, (activation, *shape.values(), *x.shape[2:]))
    return torch.from_numpy(layer(_array(x), _array(residual)))


def _packed(
    pack: Callable[[CompressedRows, int], Layer],
    constants: tuple[Tensor, Tensor, Tensor, Tensor | None],
    inputs: int,
    settings: tuple[object, ...],
) -> Layer:
    """The layer of these tensors, packed when they are first seen and whenever one of them has changed."""
    values, columns, starts = constants[:3]
    threads = torch.get_num_threads()
    key = (tuple(map(_state, constants)), inputs, threads, settings)
    known = _layers.get(values)  # type: ignore[no-untyped-call]
    if known is None:
        known = _layers[values] = {}
    if key not in known:
        matrix = CompressedRows(
            (len(starts) - 1, inputs), starts.long().numpy(), columns.int().numpy(), values.detach().numpy()
        )
        known[key] = pack(matrix, threads)
    layer: Layer = known[key]
    return layer


def _state(tensor: Tensor | None) -> tuple[int, int] | None:
    """What changes with a tensor's content; tensors of inference mode cannot be written to outside it."""
    if tensor is None:
        return None
    return tensor.data_ptr(), -1 if tensor.is_inference() else tensor._version


def _float32(*tensors: Tensor | None) -> bool:
    return all(tensor is None or tensor.dtype == torch.float32 for tensor in tensors)


def _array(tensor: Tensor | None) -> Any:
    return None if tensor is None else tensor.detach().numpy()

"""Sparse layers on the CPU, from NumPy array to NumPy array."""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ...passes.errors import TargetError
from .library import KERNELS, CAxis, CLayer, CMatrix, library, pool

Floats = NDArray[np.float32]

ACTIVATIONS = {"none": 0, "relu": 1, "gelu": 2}  # GELU of linear layers only
PRECISIONS = {"float32": 0, "bfloat16": 1}
_FLOAT32 = np.dtype(np.float32)
_PIXELS = 196  # of an output image, where nothing is said about it: 14 x 14


@dataclass(frozen=True, eq=False)
class CompressedRows:
    """A sparse matrix: row n has `columns[starts[n]:starts[n + 1]]`, in rising order, and their `values`."""

    shape: tuple[int, int]
    starts: NDArray[np.int64]
    columns: NDArray[np.int32]
    values: Floats

    @classmethod
    def of(cls, weight: NDArray[Any]) -> Self:
        """The non-zeros of a dense weight: outputs, then one axis or more of inputs."""
        if weight.ndim < 2:
            raise TargetError(f"a weight has two axes or more, found shape {weight.shape}")
        weight = weight.reshape(len(weight), -1)
        rows, columns = np.nonzero(weight)
        starts = np.searchsorted(rows, np.arange(len(weight) + 1)).astype(np.int64)
        return cls(
            (len(weight), weight.shape[1]), starts, columns.astype(np.int32), weight[rows, columns].astype(np.float32)
        )


_address_of = ctypes.addressof
_start_of: Any = (ctypes.c_char * 0).from_buffer  # of anything that has a buffer


class _Layer:
    """A layer inside the library, freed with this object."""

    def __init__(
        self,
        matrix: CompressedRows,
        bias: Floats | None,
        activation: str,
        threads: int,
        kernels: str | None,
        precision: str = "float32",
    ) -> None:
        if activation not in ACTIVATIONS:
            raise TargetError(f"unknown activation {activation!r}; known are {', '.join(ACTIVATIONS)}")
        if precision not in PRECISIONS:
            raise TargetError(f"unknown precision {precision!r}; known are {', '.join(PRECISIONS)}")
        if kernels is not None and kernels not in KERNELS:
            raise TargetError(f"unknown kernels {kernels!r}; known are {', '.join(KERNELS)}")
        if threads < 1:
            raise TargetError(f"threads must be at least 1, found {threads}")
        if bias is not None and bias.shape != (matrix.shape[0],):
            raise TargetError(f"the bias of {matrix.shape[0]} outputs has shape {bias.shape}")
        if len(matrix.starts) != matrix.shape[0] + 1 or len(matrix.columns) != len(matrix.values):
            raise TargetError(
                f"a matrix of shape {matrix.shape} has {len(matrix.starts)} starts, {len(matrix.columns)} columns and "
                f"{len(matrix.values)} values; expected {matrix.shape[0] + 1} starts and as many columns as values"
            )
        self._arrays = (
            np.ascontiguousarray(matrix.starts, np.int64),
            np.ascontiguousarray(matrix.columns, np.int32),
            np.ascontiguousarray(matrix.values, np.float32),
        )
        self._bias = None if bias is None else np.ascontiguousarray(bias, np.float32)
        self._pool = pool(threads)
        self._handle = ctypes.c_void_p()
        self._description = CLayer(
            CMatrix(*matrix.shape, *(array.ctypes.data for array in self._arrays)),
            len(matrix.values),
            None if self._bias is None else self._bias.ctypes.data,
            ACTIVATIONS[activation],
            threads,
            None if kernels is None else kernels.encode(),
            PRECISIONS[precision],
        )

    def _made(self, problem: bytes | None) -> None:
        """What follows the library's constructor, which copies all it needs."""
        _check(problem)
        weakref.finalize(self, library().sparsefx_free, self._handle)
        del self._arrays, self._bias, self._description


class CondensedLinear(_Layer):
    """y = activation(x W^T + bias + residual), x (batch, inputs), y and residual (batch, outputs), all float32.

    `threads` share the work; `kernels` names other kernels than the fastest. With `precision` "bfloat16" the values are
    rounded to bfloat16, nearest even, and multiplied and summed in float32 all the same: half as many bytes to read,
    which is the time of a small batch. Where an input is infinite, outputs that do not read it may be NaN, as they are
    where zeros are multiplied. Raises TargetError for a matrix that is not one, and where kernels cannot be compiled or
    run.
    """

    def __init__(
        self,
        matrix: CompressedRows,
        bias: Floats | None = None,
        *,
        activation: str = "none",
        threads: int = 1,
        kernels: str | None = None,
        precision: str = "float32",
    ) -> None:
        super().__init__(matrix, bias, activation, threads, kernels, precision)
        self.outputs, self.inputs = matrix.shape
        self._made(library().sparsefx_linear(self._description, self._handle))

    def __call__(self, x: Floats, residual: Floats | None = None) -> Floats:
        x = _floats("x", x, (*x.shape[:1], self.inputs))
        y = np.empty((len(x), self.outputs), _FLOAT32)
        beside = None if residual is None else _floats("residual", residual, y.shape)
        _check(library().sparsefx_run_linear(self._handle, *_pointers(x, beside), len(x), _address(y), self._pool))
        return y


class CondensedConv2d(_Layer):
    """y = activation(conv2d(x, W) + bias + residual), x (batch, channels, height, width), all float32.

    matrix    (outputs, channels / groups * kernel height * kernel width)
    kernel    (height, width)
    padding   on both sides of height and width; or before and after each: (top, bottom, left, right)
    pixels    output pixels of an image, about, for which the loops are laid out

    Otherwise as CondensedLinear.
    """

    def __init__(
        self,
        matrix: CompressedRows,
        kernel: Sequence[int],
        bias: Floats | None = None,
        *,
        stride: Sequence[int] = (1, 1),
        padding: Sequence[int] = (0, 0),
        dilation: Sequence[int] = (1, 1),
        groups: int = 1,
        activation: str = "none",
        pixels: int = _PIXELS,
        threads: int = 1,
        kernels: str | None = None,
    ) -> None:
        top, bottom, left, right = padding if len(padding) == 4 else (padding[0], *padding, padding[-1])
        self._height = CAxis(kernel[0], stride[0], top, bottom, dilation[0])
        self._width = CAxis(kernel[1], stride[1], left, right, dilation[1])
        for axis in (self._height, self._width):
            if min(axis.kernel, axis.stride, axis.dilation) < 1 or min(axis.padding_before, axis.padding_after) < 0:
                raise TargetError(
                    f"kernel {tuple(kernel)}, stride {tuple(stride)} and dilation {tuple(dilation)} must be positive, "
                    f"padding {tuple(padding)} must not be negative"
                )
        channels, rest = divmod(matrix.shape[1], kernel[0] * kernel[1])
        if rest or groups < 1 or matrix.shape[0] % groups:
            raise TargetError(
                f"no convolution with kernel {tuple(kernel)} in {groups} groups has a matrix of shape {matrix.shape}"
            )
        super().__init__(_over_groups(matrix, groups), bias, activation, threads, kernels)
        self.outputs, self.channels = matrix.shape[0], channels * groups
        axes = (self._height, self._width)
        self._made(library().sparsefx_convolution(self._description, *axes, max(1, pixels), self._handle))

    def __call__(self, x: Floats, residual: Floats | None = None) -> Floats:
        x = _floats("x", x, (None, self.channels, None, None))
        height, width = (
            _output(axis, size) for axis, size in zip((self._height, self._width), x.shape[2:], strict=True)
        )
        if height < 1 or width < 1:
            raise TargetError(f"an image of {x.shape[2]} x {x.shape[3]} is smaller than the kernel")
        y = np.empty((len(x), self.outputs, height, width), np.float32)
        beside = None if residual is None else _floats("residual", residual, y.shape)
        pointers = _pointers(x, beside)
        _check(
            library().sparsefx_run_convolution(
                self._handle, *pointers, len(x), x.shape[2], x.shape[3], _address(y), self._pool
            )
        )
        return y


def _over_groups(matrix: CompressedRows, groups: int) -> CompressedRows:
    """A convolution's matrix over all input channels: groups are zeros elsewhere."""
    if groups == 1:
        return matrix
    outputs, columns = matrix.shape
    group = np.repeat(np.arange(outputs) // (outputs // groups), np.diff(matrix.starts))
    shifted = matrix.columns + (group * columns).astype(np.int32)
    return replace(matrix, shape=(outputs, columns * groups), columns=shifted)


def _output(axis: CAxis, size: int) -> int:
    padded = size + axis.padding_before + axis.padding_after
    reach: int = axis.dilation * (axis.kernel - 1) + 1
    return int((padded - reach) // axis.stride + 1)


def _floats(name: str, array: Floats, shape: tuple[int | None, ...]) -> Floats:
    if array.dtype != _FLOAT32 or (array.shape != shape and not _fits(array.shape, shape)):
        sizes = ", ".join("any" if size is None else str(size) for size in shape)
        raise TargetError(f"{name} has shape {array.shape} and type {array.dtype}; expected ({sizes}) and float32")
    return np.ascontiguousarray(array)


def _fits(found: tuple[int, ...], shape: tuple[int | None, ...]) -> bool:
    return len(found) == len(shape) and all(size in (None, own) for own, size in zip(found, shape, strict=True))


def _pointers(x: Floats, residual: Floats | None) -> tuple[int, int | None]:
    return _address(x), None if residual is None else _address(residual)


def _address(array: Floats) -> int:
    """Of the first entry."""
    try:
        return _address_of(_start_of(array))  # `array.ctypes.data` takes as long as the kernels of a small layer
    except TypeError:  # read-only
        return array.ctypes.data


def _check(problem: bytes | None) -> None:
    if problem is not None:
        raise TargetError(f"the sparse kernels refuse the layer: {problem.decode()}")

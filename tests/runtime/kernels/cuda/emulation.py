"""The plugins' kernels on the host: what emulated.cpp takes."""

from __future__ import annotations

from ctypes import Structure, c_int, c_void_p
from typing import Any

import numpy as np

from sparsefx.runtime.kernels.cuda.compile_nvcc import CONV2D_SIZES
from sparsefx.runtime.kernels.layers import CompressedRows


class CLayer(Structure):
    _fields_ = (
        *((name, c_void_p) for name in ("values", "columns", "starts", "bias", "residual")),
        ("outputs", c_int),
        ("activation", c_int),
    )


class CWindow(Structure):
    _fields_ = tuple((name, c_int) for name in CONV2D_SIZES[1:4] + CONV2D_SIZES[5:-1])


def address(array: Any) -> Any:
    return None if array is None else array.ctypes.data_as(c_void_p)


def layer_of(rows: CompressedRows, columns: Any, bias: Any, residual: Any, activation: int) -> tuple[CLayer, list[Any]]:
    arrays = [rows.values, columns.astype(np.int32), rows.starts.astype(np.int32), bias, residual]
    return CLayer(*map(address, arrays), rows.shape[0], activation), arrays

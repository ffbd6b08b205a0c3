"""The compiled kernels' C interface."""

from __future__ import annotations

import atexit
import ctypes
import functools
import os
from ctypes import POINTER, Structure, c_char_p, c_int32, c_int64, c_void_p
from pathlib import Path

from ...passes.errors import TargetError
from .build import build_library

KERNELS = ("avx512", "avx2", "portable")  # fastest first


class CMatrix(Structure):
    """As SparseMatrix in sparse_matrix.h."""

    _fields_ = (
        ("rows", c_int64),
        ("columns_count", c_int64),
        ("starts", c_void_p),
        ("columns", c_void_p),
        ("values", c_void_p),
    )


class CLayer(Structure):
    """As CLayer in api.cpp."""

    _fields_ = (
        ("matrix", CMatrix),
        ("nonzeros", c_int64),
        ("bias", c_void_p),
        ("activation", c_int32),
        ("threads", c_int32),
        ("kernels", c_char_p),
        ("precision", c_int32),
    )


class CAxis(Structure):
    """As Axis in convolution.h."""

    _fields_ = tuple((name, c_int64) for name in ("kernel", "stride", "padding_before", "padding_after", "dilation"))


_SIGNATURES = {  # function: (result, arguments)
    "sparsefx_kernels": (c_char_p, [c_char_p]),
    "sparsefx_linear": (c_char_p, [POINTER(CLayer), POINTER(c_void_p)]),
    "sparsefx_convolution": (
        c_char_p,
        [POINTER(CLayer), POINTER(CAxis), POINTER(CAxis), c_int64, POINTER(c_void_p)],
    ),
    "sparsefx_free": (None, [c_void_p]),
    "sparsefx_pool": (c_void_p, [c_int32]),
    "sparsefx_free_pool": (None, [c_void_p]),
    "sparsefx_run_linear": (c_char_p, [c_void_p, c_void_p, c_void_p, c_int64, c_void_p, c_void_p]),
    "sparsefx_run_convolution": (
        c_char_p,
        [c_void_p, c_void_p, c_void_p, c_int64, c_int64, c_int64, c_void_p, c_void_p],
    ),
}


@functools.cache
def library() -> ctypes.CDLL:
    """The library, compiled if need be. Raises TargetError where it cannot be compiled or loaded."""
    return load(build_library())


def load(path: Path) -> ctypes.CDLL:
    """A compiled library with its functions declared."""
    try:
        loaded = ctypes.CDLL(str(path))
    except OSError as error:
        raise TargetError(f"cannot load the compiled kernels {path}: {error}; delete the file") from error
    for name, (result, arguments) in _SIGNATURES.items():
        function = getattr(loaded, name)
        function.restype, function.argtypes = result, arguments
    return loaded


def kernels_here() -> tuple[str, ...]:
    """The kernels that this processor runs, fastest first."""
    return tuple(name for name in KERNELS if library().sparsefx_kernels(name.encode()) is not None)


_pools: dict[int, int] = {}


def pool(threads: int) -> int | None:
    """A pool of that many threads, made once and shared by all layers; None for one thread."""
    if threads > 1 and threads not in _pools:
        _pools[threads] = library().sparsefx_pool(threads)
    return _pools.get(threads)


@atexit.register
def _free_pools() -> None:
    while _pools:
        library().sparsefx_free_pool(_pools.popitem()[1])


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pools.clear)  # a child has the memory of a pool, but none of its threads

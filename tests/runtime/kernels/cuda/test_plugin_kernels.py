"""The plugins' CUDA C++: the arithmetic of every thread on the host, and what nvcc makes of the kernels."""

from __future__ import annotations

import ctypes
import stat
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from sparsefx.passes.errors import TargetError
from sparsefx.runtime.kernels.cuda import compile_nvcc
from sparsefx.runtime.kernels.cuda.compile_nvcc import (
    ARCHITECTURES,
    declared_parameters,
    plugin_cubin,
    plugin_ptx,
)
from sparsefx.runtime.kernels.cuda.pack import packed_columns
from sparsefx.runtime.kernels.cuda.ptx import entry_parameters
from sparsefx.runtime.kernels.layers import CompressedRows
from tests.runtime.kernels.helpers import assert_close, exact_conv2d, exact_linear, normal, sparse
from tests.runtime.kernels.needs import needs_compiler

from .emulation import CWindow, address, layer_of
from .needs import needs_nvcc


@needs_compiler
@pytest.mark.parametrize("form", ["linear_few", "linear_many"])
@pytest.mark.parametrize(
    ("samples", "inputs", "outputs", "density"),
    [(1, 37, 5, 0.3), (33, 600, 70, 0.1), (40, 256, 64, 0.0), (3, 1, 9, 0.6)],
)
@pytest.mark.parametrize("full", [False, True])
def test_linear(emulated: Any, form: str, samples: int, inputs: int, outputs: int, density: float, full: bool) -> None:
    weight, x, bias = sparse((outputs, inputs), density), normal(samples, inputs), normal(outputs)
    residual = normal(samples, outputs) if full else None
    rows = CompressedRows.of(weight)
    layer, _kept = layer_of(rows, rows.columns, bias, residual, int(full))
    y = np.full((samples, outputs), np.nan, np.float32)
    getattr(emulated, form)(ctypes.byref(layer), address(x), samples, inputs, address(y))
    assert_close(y, exact_linear(x, weight, bias, residual, full), inputs)


@needs_compiler
def test_gelu(emulated: Any) -> None:
    weight, x, bias = sparse((6, 20), 0.5), normal(4, 20), normal(6)
    rows = CompressedRows.of(weight)
    layer, _kept = layer_of(rows, rows.columns, bias, None, 2)
    y = np.empty((4, 6), np.float32)
    emulated.linear_few(ctypes.byref(layer), address(x), 4, 20, address(y))
    exact = F.gelu(torch.from_numpy(exact_linear(x, weight, bias, None, False))).numpy()
    assert_close(y, exact, 20)


@needs_compiler
@pytest.mark.parametrize(
    ("image", "shape", "stride", "padding", "dilation", "groups"),
    [
        ((2, 5, 9, 8), (10, 5, 3, 3), (1, 1), (1, 1), (1, 1), 1),
        ((1, 6, 11, 7), (8, 3, 3, 2), (2, 1), (1, 0), (1, 2), 2),
        ((3, 4, 4, 4), (4, 1, 1, 1), (3, 2), (0, 0), (1, 1), 4),
        ((1, 2, 3, 3), (3, 2, 3, 3), (1, 1), (4, 3), (1, 1), 1),
    ],
)
def test_conv2d(emulated: Any, image: Any, shape: Any, stride: Any, padding: Any, dilation: Any, groups: int) -> None:
    weight, x, bias = sparse(shape, 0.4), normal(*image), normal(shape[0])
    options = {"stride": stride, "dilation": dilation, "groups": groups}
    exact = exact_conv2d(x, weight, bias, padding=(padding[0], padding[0], padding[1], padding[1]), **options)
    residual = normal(*exact.shape)
    rows = CompressedRows.of(weight)
    layer, _kept = layer_of(rows, packed_columns(rows.columns, rows.starts, shape, groups), bias, residual, 1)
    window = CWindow(*image[1:], *exact.shape[2:], *stride, *padding, *dilation)
    y = np.full(exact.shape, np.nan, np.float32)
    emulated.conv2d(ctypes.byref(layer), ctypes.byref(window), address(x), image[0], address(y))
    assert_close(y, np.maximum(exact + residual, 0), int(np.prod(shape[1:])))


@needs_compiler
def test_columns_are_packed_as_the_kernels_read_them(emulated: Any) -> None:
    shape = (2, 3, 5, 63)
    columns = np.arange(3 * 5 * 63)
    packed = packed_columns(np.tile(columns, 2), np.array([0, 945, 1890]), shape, 2)
    for place in (0, 1, 62, 63, 944):
        channel, down, right = (int(i) for i in np.unravel_index(place, shape[1:]))
        assert packed[place] == emulated.column_of(channel, down, right)
        assert packed[945 + place] == emulated.column_of(3 + channel, down, right)
    for wrong in ((2, 2**19, 3, 3), (2, 3, 64, 1)):
        with pytest.raises(TargetError, match=r"has no kernel; it holds fewer than .* keep it dense"):
            packed_columns(columns[:2], np.array([0, 1, 2]), wrong, 1)


@needs_nvcc
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_ptx_and_cubin(architecture: int, tmp_path: Path) -> None:
    ptx = plugin_ptx(architecture)
    assert f".target sm_{architecture}" in ptx
    assert entry_parameters(ptx) == declared_parameters()
    assert plugin_cubin(architecture, tmp_path).read_bytes()[:4] == b"\x7fELF"


def test_what_a_ptx_file_declares() -> None:
    text = ".visible .entry f(\n .param .u64 .ptr .global .align 1 f_0,\n\t.param .u32 f_1\n)\n{ }\n.entry g()\n{ }"
    assert entry_parameters(text) == {"f": ("u64", "u32"), "g": ()}


def compiler_in(folder: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make $CUDACXX a shell script, and start from an empty cache."""
    path = folder / "nvcc"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("CUDACXX", str(path))
    monkeypatch.setenv("SPARSEFX_CACHE", str(folder / "cache"))
    plugin_ptx.cache_clear()
    monkeypatch.setattr(compile_nvcc, "plugin_ptx", plugin_ptx.__wrapped__)


def test_without_nvcc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDACXX", "nvcc-of-1999")
    with pytest.raises(TargetError, match=r"\$CUDACXX is 'nvcc-of-1999'; install the CUDA toolkit"):
        plugin_ptx.__wrapped__(80)


def test_an_nvcc_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiler_in(tmp_path, 'echo "a.cu(1): error: no such thing" >&2; exit 1', monkeypatch)
    with pytest.raises(TargetError, match=r"do not compile with .*no such thing; set CUDACXX"):
        compile_nvcc.plugin_ptx(80)
    assert list((tmp_path / "cache").iterdir()) == []


def test_kernels_with_other_parameters_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = 'for last; do :; done; echo ".visible .entry sparsefx_conv2d_float32( .param .u64 a )" > "$last"'
    compiler_in(tmp_path, script, monkeypatch)
    with pytest.raises(TargetError, match=r"kernel sparsefx_conv2d_bfloat16 has parameters None, expected"):
        compile_nvcc.plugin_ptx(80)

"""From tensors to Triton programs. Tensors are contiguous, of one type, and on one GPU; anywhere when interpreted."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from . import triton_kernels as kernels

TYPES = (torch.float32, torch.float16, torch.bfloat16)
LINE = 128  # bytes of a cache line: the points of a tile
ROWS = {"NEURONS": 8, "PIECE": 64}  # of a program, by kernel
COLUMNS = {"NEURONS": 32, "AHEAD": 4}
TRANSPOSE = {"BLOCK": 32}
MOST_SAMPLES = 8  # of one program of rows_kernel
WARPS = 4
_PROGRAMS = 4  # for each multiprocessor, where a tile's neurons are shared


@dataclass(frozen=True, eq=False)
class Rows:
    """A sparse matrix on the GPU: values, columns (int16 where they fit, else int32), starts (int32)."""

    values: Tensor
    columns: Tensor
    starts: Tensor

    @property
    def outputs(self) -> int:
        return self.starts.shape[0] - 1


def narrow(columns: Tensor, inputs: int) -> Tensor:
    """Columns below `inputs` in as few bytes as hold them."""
    return columns.to(torch.int16 if inputs <= 2**15 else torch.int32)


@dataclass(frozen=True)
class Window:
    """How a convolution's kernel moves over the image; (height, width) each, padding on both sides."""

    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    groups: int

    def output(self, height: int, width: int) -> tuple[int, int]:
        """Sizes of the output image."""
        sizes = [
            (size + 2 * self.padding[i] - self.dilation[i] * (self.kernel[i] - 1) - 1) // self.stride[i] + 1
            for i, size in enumerate((height, width))
        ]
        return sizes[0], sizes[1]


def linear_rows(x: Tensor, rows: Rows, bias: Tensor | None, residual: Tensor | None, activation: str) -> Tensor:
    """A linear layer on few samples: x (samples, inputs), the result (samples, outputs)."""
    samples, inputs = x.shape
    y = x.new_empty(samples, rows.outputs)
    own = min(MOST_SAMPLES, power_of_two(samples))
    grid = (_blocks(samples, own), _blocks(rows.outputs, ROWS["NEURONS"]))
    _run(
        kernels.rows_kernel,
        grid,
        y,
        (x, rows.values, rows.columns, rows.starts, bias, residual, y, samples, inputs, rows.outputs),
        **_fused(bias, residual, activation),
        **ROWS,
        SAMPLES=own,
    )
    return y


def linear_columns(x: Tensor, rows: Rows, bias: Tensor | None, residual: Tensor | None, activation: str) -> Tensor:
    """A linear layer on many samples, whose inputs are transposed first."""
    samples, outputs = x.shape[0], rows.outputs
    y = x.new_empty(samples, outputs)
    turned = _transposed(x)
    steps = (samples, samples, samples, 0, 0, 1, 0, 1, outputs)
    _columns(turned, rows, bias, residual, y, samples, steps, activation, flat=True)
    return y


def conv2d_columns(
    x: Tensor, rows: Rows, bias: Tensor | None, residual: Tensor | None, window: Window, activation: str
) -> Tensor:
    """A convolution: x (images, channels, height, width). `rows` has `offsets` into the padded image for columns."""
    vertical, horizontal = window.padding
    height, width = window.output(*x.shape[2:])
    y = x.new_empty(x.shape[0], rows.outputs, height, width)
    if vertical or horizontal:
        x = torch.nn.functional.pad(x, (horizontal, horizontal, vertical, vertical))
    channels, padded_height, padded_width = x.shape[1:]
    pixels = height * width
    into_x = (channels * padded_height * padded_width, window.stride[0] * padded_width, window.stride[1])
    steps = (1, pixels, width, *into_x, rows.outputs * pixels, pixels, 1)
    _columns(x, rows, bias, residual, y, x.shape[0] * pixels, steps, activation, flat=False)
    return y


def offsets(columns: Tensor, starts: Tensor, channels: int, height: int, width: int, window: Window) -> Tensor:
    """Where the columns of a convolution lie in a padded image of `channels`, from a window's first pixel."""
    area = (height + 2 * window.padding[0]) * (width + 2 * window.padding[1])
    rows = torch.repeat_interleave(torch.arange(len(starts) - 1, device=columns.device), starts.long().diff())
    group = rows // max(1, (len(starts) - 1) // window.groups)
    kernel = window.kernel[0] * window.kernel[1]
    columns = columns.long()
    channel = columns // kernel + group * (channels // window.groups)
    down, right = columns % kernel // window.kernel[1], columns % window.kernel[1]
    line = width + 2 * window.padding[1]
    return (channel * area + down * window.dilation[0] * line + right * window.dilation[1]).int()


def _columns(
    x: Tensor,
    rows: Rows,
    bias: Tensor | None,
    residual: Tensor | None,
    y: Tensor,
    points: int,
    steps: Sequence[int],
    activation: str,
    *,
    flat: bool,
) -> None:
    tile = LINE // x.element_size()
    tiles, blocks = _blocks(points, tile), _blocks(rows.outputs, COLUMNS["NEURONS"])
    chunks = max(1, min(blocks, _PROGRAMS * _multiprocessors(x) // max(1, tiles)))
    _run(
        kernels.columns_kernel,
        (tiles, chunks),
        y,
        (x, rows.values, rows.columns, rows.starts, bias, residual, y, rows.outputs, points, *steps, chunks),
        **_fused(bias, residual, activation),
        **COLUMNS,
        FLAT=flat,
        POINTS=tile,
    )


def _transposed(x: Tensor) -> Tensor:
    rows, columns = x.shape
    y = x.new_empty(columns, rows)
    grid = (_blocks(rows, TRANSPOSE["BLOCK"]), _blocks(columns, TRANSPOSE["BLOCK"]))
    _run(kernels.transpose_kernel, grid, y, (x, y, rows, columns), **TRANSPOSE)
    return y


def _run(kernel: Any, grid: tuple[int, int], y: Tensor, arguments: tuple[Any, ...], **settings: Any) -> None:
    """Start the kernel on the result's GPU; nothing where there is nothing to compute."""
    if y.numel() == 0:
        return
    with torch.cuda.device(y.device) if y.is_cuda else contextlib.nullcontext():
        kernel[grid](*arguments, **settings, num_warps=WARPS)


def _fused(bias: Tensor | None, residual: Tensor | None, activation: str) -> dict[str, Any]:
    return {"HAS_BIAS": bias is not None, "HAS_RESIDUAL": residual is not None, "ACTIVATION": activation}


def _multiprocessors(x: Tensor) -> int:
    return torch.cuda.get_device_properties(x.device).multi_processor_count if x.is_cuda else 1


def _blocks(count: int, block: int) -> int:
    return -(-count // block)


def power_of_two(count: int) -> int:
    """The smallest that is not below `count`."""
    return 1 << max(0, count - 1).bit_length()

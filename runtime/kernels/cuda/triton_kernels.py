"""The Triton kernels: compressed rows times inputs, summed in float32, with what is fused behind the sum.

rows_kernel      few samples: a program sums some neurons' rows, which it reads in long pieces
columns_kernel   many points (samples, or pixels of all images): a program keeps a tile of points, whose inputs then
                 stay in the first-level cache, and goes through many neurons; points lie side by side in memory
transpose_kernel samples into points: (samples, inputs) -> (inputs, samples)

Row n has the non-zeros `starts[n]` to `starts[n + 1]`. Imported only where Triton is installed.
"""

# mypy: ignore-errors
# ruff: noqa: N803 - Triton's constants are capitals

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def finished(total, bias, residual, neurons, places, inside, HAS_BIAS, HAS_RESIDUAL, ACTIVATION: tl.constexpr):
    """activation(total + bias + residual); `neurons` broadcast to the total's shape."""
    if HAS_BIAS:
        total += tl.load(bias + neurons, mask=inside, other=0.0).to(tl.float32)
    if HAS_RESIDUAL:
        total += tl.load(residual + places, mask=inside, other=0.0).to(tl.float32)
    if ACTIVATION == "relu":
        total = tl.where(total < 0.0, 0.0, total)  # keeps NaN, as torch does
    if ACTIVATION == "gelu":
        total = 0.5 * total * (1.0 + tl.erf(total * 0.7071067811865476))
    return total


@triton.jit
def rows_kernel(
    x,  # (samples, inputs)
    values,
    columns,
    starts,
    bias,
    residual,
    y,  # (samples, outputs)
    samples,
    inputs,
    outputs,
    HAS_BIAS: tl.constexpr,
    HAS_RESIDUAL: tl.constexpr,
    ACTIVATION: tl.constexpr,
    SAMPLES: tl.constexpr,
    NEURONS: tl.constexpr,
    PIECE: tl.constexpr,
):
    neurons = tl.program_id(1) * NEURONS + tl.arange(0, NEURONS)
    own = tl.program_id(0) * SAMPLES + tl.arange(0, SAMPLES)
    start = tl.load(starts + neurons, mask=neurons < outputs, other=0)
    end = tl.load(starts + neurons + 1, mask=neurons < outputs, other=0)
    from_x = x + own.to(tl.int64)[:, None, None] * inputs
    sums = tl.zeros((SAMPLES, NEURONS, PIECE), tl.float32)
    for first in range(0, tl.max(end - start), PIECE):
        places = (start + first)[:, None] + tl.arange(0, PIECE)[None, :]
        there = places < end[:, None]
        value = tl.load(values + places, mask=there, other=0.0).to(tl.float32)
        column = tl.load(columns + places, mask=there, other=0).to(tl.int32)
        read = there[None, :, :] & (own < samples)[:, None, None]
        sums += value[None, :, :] * tl.load(from_x + column[None, :, :], mask=read, other=0.0).to(tl.float32)
    total = tl.sum(sums, axis=2)
    inside = (own < samples)[:, None] & (neurons < outputs)[None, :]
    places_y = own.to(tl.int64)[:, None] * outputs + neurons[None, :]
    total = finished(total, bias, residual, neurons[None, :], places_y, inside, HAS_BIAS, HAS_RESIDUAL, ACTIVATION)
    tl.store(y + places_y, total.to(y.dtype.element_ty), mask=inside)


@triton.jit
def columns_kernel(
    x,
    values,
    columns,
    starts,
    bias,
    residual,
    y,
    outputs,
    points,
    column_step,  # from one column to the next in x
    image_points,  # of an output image; without images, all points
    row_points,  # of one row of it
    image_step,  # from the first input of an image, a row, a point to the next one's in x
    row_step,
    point_step,
    image_place,  # from an image, a neuron, a point to the next one in y
    neuron_place,
    point_place,
    chunks,  # programs that share the neurons of a tile
    HAS_BIAS: tl.constexpr,
    HAS_RESIDUAL: tl.constexpr,
    ACTIVATION: tl.constexpr,
    FLAT: tl.constexpr,  # points are neighbours in x: known to the compiler, loads are wide
    NEURONS: tl.constexpr,
    POINTS: tl.constexpr,
    AHEAD: tl.constexpr,  # non-zeros whose loads are issued together
):
    point = tl.program_id(0) * POINTS + tl.arange(0, POINTS)
    is_point = point < points
    if FLAT:
        from_x = x + point
        place = point.to(tl.int64) * point_place
    else:
        image, rest = (point // image_points).to(tl.int64), point % image_points
        from_x = x + image * image_step + (rest // row_points).to(tl.int64) * row_step + rest % row_points * point_step
        place = image * image_place + rest.to(tl.int64) * point_place
    for block in range(tl.program_id(1), tl.cdiv(outputs, NEURONS), chunks):
        neurons = block * NEURONS + tl.arange(0, NEURONS)
        start = tl.load(starts + neurons, mask=neurons < outputs, other=0)
        end = tl.load(starts + neurons + 1, mask=neurons < outputs, other=0)
        total = tl.zeros((NEURONS, POINTS), tl.float32)
        for first in range(0, tl.max(end - start), AHEAD):
            for k in tl.static_range(AHEAD):
                there = start + first + k < end
                value = tl.load(values + start + first + k, mask=there, other=0.0).to(tl.float32)
                column = tl.load(columns + start + first + k, mask=there, other=0).to(tl.int64) * column_step
                read = there[:, None] & is_point[None, :]
                total += value[:, None] * tl.load(from_x[None, :] + column[:, None], mask=read, other=0.0).to(
                    tl.float32
                )
        inside = (neurons < outputs)[:, None] & is_point[None, :]
        places = place[None, :] + neurons.to(tl.int64)[:, None] * neuron_place
        total = finished(total, bias, residual, neurons[:, None], places, inside, HAS_BIAS, HAS_RESIDUAL, ACTIVATION)
        tl.store(y + places, total.to(y.dtype.element_ty), mask=inside)


@triton.jit
def transpose_kernel(x, y, rows, columns, BLOCK: tl.constexpr):
    row = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = (row < rows)[:, None] & (column < columns)[None, :]
    tile = tl.load(x + row.to(tl.int64)[:, None] * columns + column[None, :], mask=inside)
    tl.store(y + column.to(tl.int64)[None, :] * rows + row[:, None], tile, mask=inside)

"""Campfire's patterns: small arrays worked out by hand, and loops over kernels of every layout."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sparsefx.training.kernel_patterns import block_mask, combined_mask, fine_mask, kernel_mask, window_mask
from sparsefx.training.weight_layout import WeightLayout

from .references import Values, largest

Kernel = tuple[int, int]


def grid(kernels: list[list[list[float]]]) -> Tensor:
    """One group of outputs, each a list of inputs, each a list of positions."""
    return torch.tensor([kernels])


def test_window_prunes_inside_every_kernel() -> None:
    """Figure 2a: the five smallest of nine."""
    kernel = [9.0, 1.0, 8.0, 2.0, 7.0, 3.0, 6.0, 4.0, 5.0]
    assert window_mask(grid([[kernel]]), 5 / 9).int().tolist() == [[[[1, 0, 1, 0, 1, 0, 1, 0, 0]]]]
    two = grid([[[1.0, 2.0, 3.0, 4.0], [40.0, 30.0, 20.0, 10.0]]])
    assert window_mask(two, 0.5).int().tolist() == [[[[0, 0, 1, 1], [1, 1, 0, 0]]]]
    assert window_mask(two, 0.74).int().tolist() == [[[[0, 0, 1, 1], [1, 1, 0, 0]]]], "rounded down"
    assert window_mask(two, 0.1, most=1).int().tolist() == [[[[0, 0, 0, 1], [1, 0, 0, 0]]]]
    assert window_mask(two, 0.5, most=3).int().tolist() == [[[[0, 0, 1, 1], [1, 1, 0, 0]]]], "whichever prunes more"
    assert window_mask(two, 0.0, most=9).all()


def test_ck_prunes_whole_kernels_by_their_largest_magnitude() -> None:
    """The sum would keep the first input of the first output."""
    kernels = grid([[[4.0, 4.0], [5.0, 0.0], [1.0, 2.0], [0.0, 6.0]], [[1.0, 1.0], [2.0, 2.0], [3.0, 3.0], [4.0, 4.0]]])
    expected = [[[[0, 0], [1, 1], [0, 0], [1, 1]], [[0, 0], [0, 0], [1, 1], [1, 1]]]]
    assert kernel_mask(kernels, 0.5).int().tolist() == expected
    assert kernel_mask(kernels, 0.74).int().tolist() == expected, "rounded down"
    assert kernel_mask(kernels, 0.2).all()


def test_combined_prunes_inside_kernels_then_whole_ones() -> None:
    kernels = grid([[[1.0, 5.0, 2.0, 3.0], [9.0, 8.0, -1.0, 7.0], [4.0, 4.0, 4.0, 4.0], [0.0, 0.0, 1.0, 0.0]]])
    expected = [[[[0, 1, 0, 1], [1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0]]]]
    assert combined_mask(kernels, 0.5, 0.25).int().tolist() == expected


def test_fine_prunes_the_layer_but_for_the_largest_input_of_every_output() -> None:
    weights = grid([[[1.0], [2.0], [3.0]], [[40.0], [50.0], [60.0]], [[7.0], [9.0], [8.0]]])
    assert fine_mask(weights, 4 / 9).squeeze().int().tolist() == [[0, 0, 1], [1, 1, 1], [0, 1, 0]]
    assert fine_mask(weights, 0.99).squeeze().int().tolist() == [[0, 0, 1], [0, 0, 1], [0, 1, 0]]


def test_block_prunes_whole_blocks_by_their_sum() -> None:
    """Blocks of 2 x 2 with sums 10, 8 and 3, 12; the fifth input and the last output are in no whole block."""
    weights = torch.tensor(
        [
            [7.0, 1.0, 2.0, 2.0, 0.1],
            [1.0, 1.0, 2.0, 2.0, 0.1],
            [0.0, 1.0, 3.0, 3.0, 0.1],
            [1.0, 1.0, 3.0, 3.0, 0.1],
            [0.1, 0.1, 0.1, 0.1, 0.1],
        ]
    )[None, :, :, None]
    assert block_mask(weights, 0.25, 2).squeeze().int().tolist() == [
        [1, 1, 1, 1, 1],
        [1, 1, 1, 1, 1],
        [0, 0, 1, 1, 1],
        [0, 0, 1, 1, 1],
        [1, 1, 1, 1, 1],
    ]
    most = block_mask(weights, 0.99, 2).squeeze().int().tolist()
    assert [row[:4] for row in most[:4]] == [[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 1], [0, 0, 1, 1]]
    assert block_mask(weights, 0.99, 6).all(), "no whole block fits"


def kernels_of_outputs(shape: tuple[int, ...], layout: WeightLayout) -> list[list[Kernel]]:
    """Indices into the first two axes of a weight: for every output channel, the kernels that it sums over."""
    first, second = shape[:2]
    if not layout.output_axis:
        return [[(output, i) for i in range(second)] for output in range(first)]
    part = first // layout.groups  # axis 0 of transposed convolutions has the inputs of all groups
    return [[(g * part + i, output) for i in range(part)] for g in range(layout.groups) for output in range(second)]


def window_by_loops(weight: Values, kernels: list[list[Kernel]], sparsity: float, most: int | None) -> Values:
    mask = np.zeros(weight.shape, dtype=bool)
    for kernel in (kernel for of_output in kernels for kernel in of_output):
        positions = weight[kernel].reshape(-1)
        kept = positions.size - int(positions.size * sparsity + 1e-9)
        kept = kept if most is None else min(kept, most)
        for place in largest(positions, range(positions.size), kept):
            mask[kernel].reshape(-1)[place] = True
    return mask


def kernels_by_loops(weight: Values, kernels: list[list[Kernel]], sparsity: float) -> Values:
    mask = np.zeros(weight.shape, dtype=bool)
    for of_output in kernels:
        kept = len(of_output) - int(len(of_output) * sparsity + 1e-9)
        for kernel in sorted(of_output, key=lambda k: -float(weight[k].max()))[:kept]:
            mask[kernel] = True
    return mask


layouts = st.sampled_from([WeightLayout(), WeightLayout(groups=2), WeightLayout(1), WeightLayout(1, groups=2)])
shapes = st.sampled_from([(4, 6, 3, 3), (6, 3, 1, 5), (2, 7, 4), (4, 4, 2, 2, 2)])
shares = st.floats(0, 0.99)


def magnitudes(shape: tuple[int, ...], seed: int) -> Tensor:
    """Some of them pruned already."""
    values = torch.rand(shape, generator=torch.Generator().manual_seed(seed))
    return values.masked_fill(values < 0.1 * (seed % 4), -1.0)


@given(st.integers(0, 1000), shapes, layouts, shares, shares, st.none() | st.integers(1, 9))
@settings(max_examples=60, deadline=None)
def test_patterns_of_convolutions_in_every_layout(
    seed: int, shape: tuple[int, ...], layout: WeightLayout, inside: float, whole: float, most: int | None
) -> None:
    weight, kernels = magnitudes(shape, seed), kernels_of_outputs(shape, layout)

    def found(pattern: Callable[..., Tensor], *options: Any) -> Values:
        """Which of the weights that are pruned already a pattern would keep does not matter."""
        return (layout.from_grid(pattern(layout.grid(weight), *options), weight.shape) & (weight >= 0)).numpy()

    values = weight.numpy()
    alive = values >= 0
    by_rank = np.where(alive, values, 0.0)  # `largest` looks at magnitudes
    window = window_by_loops(by_rank, kernels, inside, most)
    assert np.array_equal(found(window_mask, inside, most), window & alive)
    assert np.array_equal(found(kernel_mask, whole), kernels_by_loops(values, kernels, whole) & alive)
    window = window_by_loops(by_rank, kernels, inside, None) & alive
    both = window & kernels_by_loops(np.where(window, values, -1.0), kernels, whole)
    assert np.array_equal(found(combined_mask, inside, whole), both)


@given(st.integers(0, 1000), st.integers(1, 9), st.integers(1, 9), shares, st.integers(2, 4))
@settings(max_examples=60, deadline=None)
def test_patterns_of_linear_layers(seed: int, outputs: int, inputs: int, sparsity: float, size: int) -> None:
    weight = torch.rand(outputs, inputs, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).numpy()
    given_grid = torch.from_numpy(weight)[None, :, :, None]
    assert np.array_equal(fine_mask(given_grid, sparsity).squeeze((0, 3)).numpy(), fine_by_loops(weight, sparsity))
    expected = np.ones_like(weight, dtype=bool)
    rows, columns = outputs // size, inputs // size
    if rows and columns:
        blocks = np.array(
            [
                [weight[r * size : (r + 1) * size, c * size : (c + 1) * size].sum() for c in range(columns)]
                for r in range(rows)
            ]
        )
        kept = fine_by_loops(blocks, sparsity)
        for r, c in np.argwhere(~kept):
            expected[r * size : (r + 1) * size, c * size : (c + 1) * size] = False
    assert np.array_equal(block_mask(given_grid, sparsity, size).squeeze((0, 3)).numpy(), expected)


def fine_by_loops(weight: Values, sparsity: float) -> Values:
    outputs, inputs = weight.shape
    needed = {(o, int(weight[o].argmax())) for o in range(outputs)}
    places = [(o, i) for o in range(outputs) for i in range(inputs)]
    rest = sorted((p for p in places if p not in needed), key=lambda p: -float(weight[p]))
    mask = np.zeros_like(weight, dtype=bool)
    room = max(weight.size - int(weight.size * sparsity + 1e-9) - len(needed), 0)
    for place in [*needed, *rest[:room]]:
        mask[place] = True
    return mask


@pytest.mark.parametrize("pattern", [window_mask, kernel_mask, fine_mask])
def test_of_equal_magnitudes_the_later_go(pattern: Callable[..., Tensor]) -> None:
    mask = pattern(torch.ones(1, 1, 4, 4), 0.5)[0, 0]
    expected = torch.zeros(4, 4, dtype=torch.bool)
    expected[(slice(None), slice(2)) if pattern is window_mask else slice(2)] = True
    assert torch.equal(mask, expected)

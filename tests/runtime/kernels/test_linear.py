"""Condensed linear layers against float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from sparsefx.runtime.kernels.layers import CompressedRows, CondensedLinear

from .helpers import assert_close, exact_linear, normal, sparse
from .needs import needs_compiler

pytestmark = needs_compiler

SIZES = [(1, 1), (15, 17), (16, 32), (33, 100), (64, 96), (300, 257), (7, 1000)]  # (outputs, inputs)
BATCHES = (0, 1, 2, 7, 8, 17, 197)


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("density", [0.0, 0.01, 0.1, 0.5, 1.0])
def test_any_pattern(kernels: str, size: tuple[int, int], density: float) -> None:
    weight, bias = sparse(size, density), normal(size[0])
    for threads in (1, 2, 3):
        plain = CondensedLinear(CompressedRows.of(weight), threads=threads, kernels=kernels)
        full = CondensedLinear(CompressedRows.of(weight), bias, activation="relu", threads=threads, kernels=kernels)
        for batch in BATCHES:
            x, residual = normal(batch, size[1]), normal(batch, size[0], seed=2)
            assert_close(plain(x), exact_linear(x, weight, None, None, relu=False), size[1])
            assert_close(full(x, residual), exact_linear(x, weight, bias, residual, relu=True), size[1])


@pytest.mark.parametrize("fan_in", [1, 8, 20, 38, 77, 150, 768])  # a table's size is chosen by them
def test_constant_fan_in(kernels: str, fan_in: int) -> None:
    """A layer of real size with neurons ablated."""
    random = np.random.default_rng(0)
    weight = np.zeros((512, 768), np.float32)
    for row in random.permutation(512)[:400]:
        columns = random.permutation(768)[:fan_in]
        weight[row, columns] = random.standard_normal(fan_in)
    layer = CondensedLinear(CompressedRows.of(weight), kernels=kernels)
    for batch in (1, 64):
        x = normal(batch, 768)
        assert_close(layer(x), exact_linear(x, weight, None, None, relu=False), fan_in)


def test_a_block_that_overflows_its_slots(kernels: str) -> None:
    """One neuron reads all of a block that the others hardly read."""
    weight = sparse((64, 96), 0.02)
    weight[5, :40] = normal(40)
    x = normal(1, 96)
    layer = CondensedLinear(CompressedRows.of(weight), kernels=kernels)
    assert_close(layer(x), exact_linear(x, weight, None, None, relu=False), 40)


@pytest.mark.parametrize("batch", [1, 40])
def test_the_same_bits_every_time_and_on_any_number_of_threads(kernels: str, batch: int) -> None:
    weight, x = sparse((300, 500), 0.1), normal(batch, 500)
    first = CondensedLinear(CompressedRows.of(weight), kernels=kernels)(x)
    for threads in (1, 2, 3, 5):
        layer = CondensedLinear(CompressedRows.of(weight), threads=threads, kernels=kernels)
        for _ in range(5):
            assert np.array_equal(layer(x), first)


@pytest.mark.parametrize("activation", ["none", "relu", "gelu"])
def test_nan_of_an_input_stays_nan(kernels: str, activation: str) -> None:
    weight = np.eye(4, dtype=np.float32)
    x = np.array([[np.nan, -1.0, 2.0, 0.0]], np.float32)
    y = CondensedLinear(CompressedRows.of(weight), activation=activation, kernels=kernels)(x)
    assert np.isnan(y[0, 0]) and y[0, 2] > 1.9


@pytest.mark.parametrize("batch", [1, 40])
def test_gelu(kernels: str, batch: int) -> None:
    weight, bias = sparse((300, 64), 0.2), normal(300, seed=3) * 4
    x, residual = normal(batch, 64), normal(batch, 300, seed=2)
    layer = CondensedLinear(CompressedRows.of(weight), bias, activation="gelu", threads=2, kernels=kernels)
    total = torch.from_numpy(exact_linear(x, weight, bias, residual, relu=False))
    assert_close(layer(x, residual), F.gelu(total).numpy(), 13)


def test_gelu_of_any_number(kernels: str) -> None:
    """Off by less than three roundings of the result and 1e-6, which is what torch is off by where erf is about -1."""
    x = np.concatenate([np.linspace(-20, 20, 40001), [-3e38, -1e4, 1e-38, 1e4, 3e38]]).astype(np.float32)
    layer = CondensedLinear(CompressedRows.of(np.eye(1, dtype=np.float32)), activation="gelu", kernels=kernels)
    exact = F.gelu(torch.from_numpy(x).double()).numpy()
    assert np.all(np.abs(layer(x[:, None])[:, 0] - exact) <= 3 * np.spacing(np.maximum(x, 0)) + 1e-6)

"""Condensed linear layers whose weights are stored as bfloat16, against float64 on the rounded weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sparsefx.passes.errors import TargetError
from sparsefx.runtime.kernels.layers import CompressedRows, CondensedLinear

from .helpers import Floats, assert_close, exact_linear, normal, sparse
from .needs import needs_compiler

pytestmark = needs_compiler

SIZES = [(1, 1), (15, 17), (17, 15), (16, 32), (33, 101), (300, 257), (768, 3072)]  # (outputs, inputs)
BATCHES = (1, 2, 7, 8, 33)


def rounded(weight: Floats) -> Floats:
    found: Floats = torch.from_numpy(weight).bfloat16().float().numpy()
    return found


def block_balanced(outputs: int, inputs: int, fan_in: int) -> Floats:
    """So many non-zeros in every block of 32 inputs of every row."""
    random = np.random.default_rng(0)
    places = random.random((outputs, inputs // 32, 32)).argpartition(fan_in - 1)[:, :, :fan_in]
    weight = np.zeros((outputs, inputs // 32, 32), np.float32)
    np.put_along_axis(weight, places, random.standard_normal(places.shape).astype(np.float32), 2)
    return weight.reshape(outputs, inputs)


def check(weight: Floats, kernels: str, threads: tuple[int, ...] = (1, 2), batches: tuple[int, ...] = BATCHES) -> None:
    """With bias, residual and ReLU, and without."""
    outputs, inputs = weight.shape
    matrix, bias, own = CompressedRows.of(weight), normal(outputs), rounded(weight)
    fan_in = int(np.count_nonzero(weight, axis=1).max(initial=0))
    for count in threads:
        plain = CondensedLinear(matrix, threads=count, kernels=kernels, precision="bfloat16")
        full = CondensedLinear(matrix, bias, activation="relu", threads=count, kernels=kernels, precision="bfloat16")
        for batch in batches:
            x, residual = normal(batch, inputs), normal(batch, outputs, seed=2)
            assert_close(plain(x), exact_linear(x, own, None, None, relu=False), fan_in)
            assert_close(full(x, residual), exact_linear(x, own, bias, residual, relu=True), fan_in)


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("density", [0.0, 0.1, 1.0])
def test_any_pattern(kernels: str, size: tuple[int, int], density: float) -> None:
    if size == (768, 3072) and density == 1.0:
        pytest.skip("the small ones are as full")
    check(sparse(size, density), kernels)


@pytest.mark.parametrize("fan_in", [1, 2, 3, 4, 5, 6, 7, 12, 13, 32])
def test_block_balanced(kernels: str, fan_in: int) -> None:
    """Every number of slots that a group can have, and more."""
    check(block_balanced(50, 96, fan_in), kernels)


def test_block_balanced_of_real_size(kernels: str) -> None:
    check(block_balanced(768, 3072, 3), kernels)


@pytest.mark.parametrize("fan_in", [1, 77, 768])
def test_constant_fan_in_with_ablated_neurons(kernels: str, fan_in: int) -> None:
    random = np.random.default_rng(0)
    weight = np.zeros((200, 768), np.float32)
    for row in random.permutation(200)[:150]:
        weight[row, random.permutation(768)[:fan_in]] = random.standard_normal(fan_in)
    check(weight, kernels)


def test_rounding_is_to_the_nearest_and_to_even(kernels: str) -> None:
    """Ties, carries into the exponent, subnormal values, and what becomes infinite: as torch rounds."""
    bits = np.array([0x3F808000, 0x3F818000, 0x3F807FFF, 0x3F808001, 0x3FFFFFFF, 0x00018000, 0x7F7FFFFF], np.uint32)
    values = np.concatenate([bits.view(np.float32), -bits.view(np.float32)])
    layer = CondensedLinear(CompressedRows.of(values[:, None]), kernels=kernels, precision="bfloat16")
    for batch in (1, 9):
        y = layer(np.ones((batch, 1), np.float32))
        assert np.array_equal(y, np.broadcast_to(rounded(values), y.shape))


def test_inputs_are_not_rounded(kernels: str) -> None:
    x = np.array([[1 + 2**-20]], np.float32)
    layer = CondensedLinear(CompressedRows.of(np.ones((1, 1))), kernels=kernels, precision="bfloat16")
    assert layer(x) == x


def test_the_same_bits_on_any_number_of_threads(kernels: str) -> None:
    weight, x = sparse((300, 500), 0.1), normal(3, 500)
    layers = [
        CondensedLinear(CompressedRows.of(weight), threads=threads, kernels=kernels, precision="bfloat16")
        for threads in (1, 2, 5)
    ]
    assert all(np.array_equal(layer(x), layers[0](x)) for layer in layers)


def test_an_unknown_precision() -> None:
    with pytest.raises(TargetError, match="unknown precision 'int4'; known are float32, bfloat16"):
        CondensedLinear(CompressedRows.of(sparse((4, 4), 1.0)), precision="int4")


def test_inputs_that_are_read_only_or_not_contiguous() -> None:
    weight, x, residual = sparse((20, 30), 0.3), normal(30, 2), normal(20, 2)
    layer = CondensedLinear(CompressedRows.of(weight), precision="bfloat16")
    exact = exact_linear(x.T, rounded(weight), None, residual.T, relu=False)
    fixed = np.ascontiguousarray(x.T)
    fixed.flags.writeable = False
    assert_close(layer(x.T, residual.T), exact, 30)
    assert_close(layer(fixed, residual.T), exact, 30)

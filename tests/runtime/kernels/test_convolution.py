"""Condensed convolutions against float64."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from sparsefx.passes.errors import TargetError
from sparsefx.runtime.kernels.layers import CompressedRows, CondensedConv2d

from .helpers import Floats, assert_close, exact_conv2d, normal, sparse
from .needs import needs_compiler

pytestmark = needs_compiler

CHANNELS = [(3, 5, 1), (16, 33, 1), (8, 8, 8), (6, 9, 3)]  # (inputs, outputs, groups)
SHAPES: list[dict[str, Any]] = [
    {},
    {"stride": (2, 2)},
    {"padding": (1, 1, 1, 1)},
    {"stride": (2, 2), "padding": (1, 1, 1, 1)},
    {"stride": (1, 3), "padding": (0, 2, 3, 1)},
    {"stride": (3, 2), "padding": (2, 2, 2, 2), "dilation": (2, 1)},
    {"padding": (2, 2, 2, 2), "dilation": (2, 2)},
]
IMAGES = [(7, 7), (14, 15), (30, 11)]


def condensed(weight: Floats, bias: Floats | None = None, **options: Any) -> CondensedConv2d:
    return CondensedConv2d(CompressedRows.of(weight), weight.shape[2:], bias, **options)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("kernel", [(1, 1), (3, 3), (5, 2)], ids=str)
def test_any_shape(kernels: str, kernel: tuple[int, int], shape: dict[str, Any]) -> None:
    for (inputs, outputs, groups), image, density in itertools.product(CHANNELS, IMAGES, (0.1, 1.0)):
        weight, bias = sparse((outputs, inputs // groups, *kernel), density), normal(outputs)
        x = normal(2, inputs, *image)
        exact = exact_conv2d(x, weight, bias, groups=groups, **shape)
        residual = normal(*exact.shape, seed=2)
        pixels = exact[0, 0].size
        for threads in (1, 2):
            options = {"groups": groups, "pixels": pixels, "threads": threads, "kernels": kernels, **shape}
            plain = condensed(weight, bias, **options)
            full = condensed(weight, bias, activation="relu", **options)
            fan_in = weight[0].size
            assert_close(plain(x), exact, fan_in)
            assert_close(full(x, residual), np.maximum(exact + residual, 0), fan_in)


@pytest.mark.parametrize(("inputs", "outputs", "kernel", "side"), [(512, 64, 3, 7), (64, 300, 1, 28), (24, 40, 3, 56)])
def test_real_sizes(kernels: str, inputs: int, outputs: int, kernel: int, side: int) -> None:
    weight, x = sparse((outputs, inputs, kernel, kernel), 0.1), normal(1, inputs, side, side)
    padding = (kernel // 2,) * 4
    exact = exact_conv2d(x, weight, None, padding=padding)
    for threads in (1, 2):
        layer = condensed(weight, padding=padding, threads=threads, kernels=kernels, pixels=side * side)
        assert_close(layer(x), exact, inputs * kernel**2)


def test_one_layer_takes_images_of_any_size(kernels: str) -> None:
    weight = sparse((8, 4, 3, 3), 0.3)
    layer = condensed(weight, padding=(1, 1), kernels=kernels)
    for image in ((40, 40), (3, 5), (1, 1), (17, 64)):
        x = normal(1, 4, *image)
        assert_close(layer(x), exact_conv2d(x, weight, None, padding=(1, 1, 1, 1)), 36)


@pytest.mark.parametrize("stride", [1, 2, 3])
def test_writes_only_its_own_image(kernels: str, stride: int) -> None:
    """The last vector of a channel ends before the next channel, whatever the order in which outputs are written."""
    weight, x = sparse((37, 200, 3, 3), 0.2), normal(1, 200, 13, 13)
    shape: dict[str, Any] = {"padding": (1, 1, 1, 1), "stride": (stride, stride)}
    exact = exact_conv2d(x, weight, None, **shape)
    residual = normal(*exact.shape, seed=3)
    layer = condensed(weight, kernels=kernels, pixels=exact[0, 0].size, **shape)
    assert_close(layer(x, residual), exact + residual, 1800)


def test_dead_input_channels_are_never_read(kernels: str) -> None:
    weight = sparse((8, 6, 3, 3), 0.5)
    weight[:, 2] = 0
    x = normal(1, 6, 9, 9)
    layer = condensed(weight, padding=(1, 1), kernels=kernels)
    before = layer(x)
    x[:, 2] = np.nan
    assert np.array_equal(layer(x), before)


def test_what_does_not_fit() -> None:
    weight = sparse((8, 6, 3, 3), 0.5)
    layer = condensed(weight)
    cases: list[tuple[Any, str]] = [
        (lambda: condensed(weight, groups=3), r"kernel \(3, 3\) in 3 groups has a matrix of shape \(8, 54\)"),
        (lambda: CondensedConv2d(CompressedRows.of(weight), (4, 4)), r"no convolution with kernel \(4, 4\)"),
        (lambda: condensed(weight, stride=(0, 1)), "must be positive"),
        (lambda: condensed(weight, padding=(-1, 0)), "must not be negative"),
        (lambda: condensed(weight, activation="tanh"), "unknown activation 'tanh'; known are none, relu, gelu"),
        (lambda: condensed(weight, activation="gelu"), "only linear layers have a GELU"),
        (lambda: condensed(weight, kernels="sve"), "unknown kernels 'sve'"),
        (lambda: condensed(weight, threads=0), "threads must be at least 1, found 0"),
        (lambda: condensed(weight, normal(7)), r"the bias of 8 outputs has shape \(7,\)"),
        (lambda: layer(normal(1, 5, 9, 9)), r"x has shape \(1, 5, 9, 9\).* expected \(any, 6, any, any\)"),
        (lambda: layer(normal(1, 6, 2, 9)), "an image of 2 x 9 is smaller than the kernel"),
        (lambda: layer(normal(1, 6, 9, 9).astype(np.float64)), "type float64; expected .* and float32"),
        (lambda: layer(normal(1, 6, 9, 9), normal(1, 8, 9, 9)), r"residual has shape \(1, 8, 9, 9\)"),
    ]
    for call, message in cases:
        with pytest.raises(TargetError, match=message):
            call()

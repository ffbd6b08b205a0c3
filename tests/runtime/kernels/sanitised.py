"""Run small layers of every kind in the library that is named: `python -m tests.runtime.kernels.sanitised LIBRARY`."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path

import numpy as np

from sparsefx.runtime.kernels import library
from sparsefx.runtime.kernels.layers import CompressedRows, CondensedConv2d, CondensedLinear


def main() -> None:
    loaded = library.load(Path(sys.argv[1]))
    library.library = lambda: loaded
    sys.modules["sparsefx.runtime.kernels.layers"].library = library.library
    random = np.random.default_rng(0)
    count = 0
    for kernels, threads in itertools.product(library.kernels_here(), (1, 3)):
        options = {"threads": threads, "kernels": kernels, "activation": "relu"}
        for (outputs, inputs), density, batch, precision in itertools.product(
            [(1, 1), (17, 33), (40, 300)], (0, 0.005, 0.1, 1), (1, 9, 101), ("float32", "bfloat16")
        ):
            weight = np.where(random.random((outputs, inputs)) < density, 1.0, 0.0)
            bias = np.zeros(outputs, np.float32)
            linear = CondensedLinear(CompressedRows.of(weight), bias, precision=precision, **options)
            y = linear(np.ones((batch, inputs), np.float32), np.ones((batch, outputs), np.float32))
            assert np.array_equal(y, np.broadcast_to(weight.sum(1) + 1, y.shape))
            count += 1
        for kernel, stride, padding, image in itertools.product((1, 3), (1, 2), (0, 2), ((3, 3), (14, 9))):
            weight4 = np.where(random.random((9, 5, kernel, kernel)) < 0.4, 1.0, 0.0).astype(np.float32)
            shape = {"stride": (stride,) * 2, "padding": (padding,) * 2, "pixels": 30}
            convolution = CondensedConv2d(CompressedRows.of(weight4), (kernel, kernel), **shape, **options)
            y = convolution(np.ones((2, 5, *image), np.float32))
            assert y.max() <= weight4.sum((1, 2, 3)).max()
            count += 1
    print(f"{count} layers agree")


if __name__ == "__main__":
    main()

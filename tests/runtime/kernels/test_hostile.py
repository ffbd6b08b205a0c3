"""A matrix that is not one is refused before anything is read through it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from sparsefx.passes.errors import TargetError
from sparsefx.runtime.kernels.layers import CompressedRows, CondensedLinear

from .helpers import normal, sparse
from .needs import needs_compiler

pytestmark = needs_compiler

MATRIX = CompressedRows.of(sparse((6, 10), 0.5))


def _with(name: str, place: int, value: int) -> CompressedRows:
    array = getattr(MATRIX, name).copy()
    array[place] = value
    return replace(MATRIX, **{name: array})


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        (_with("columns", 3, 10), "a column is out of range"),
        (_with("columns", 3, -1), "a column is out of range"),
        (_with("columns", 1, MATRIX.columns[0]), "the columns of a row do not rise"),
        (_with("starts", 0, 1), "the first row does not start at 0"),
        (_with("starts", 2, 10**12), "a row ends before it starts"),
        (_with("starts", 6, 10**12), "the last row does not end with the values"),
        (_with("starts", 3, -5), "a row ends before it starts"),
        (replace(MATRIX, values=MATRIX.values[:-1]), "expected 7 starts and as many columns as values"),
        (replace(MATRIX, starts=MATRIX.starts[:-1]), "has 6 starts"),
        (replace(MATRIX, shape=(0, 10), starts=MATRIX.starts[:1]), "a size is out of range"),
        (replace(MATRIX, shape=(6, 2**40)), "a size is out of range"),
    ],
)
def test_refused(matrix: CompressedRows, message: str) -> None:
    with pytest.raises(TargetError, match=message):
        CondensedLinear(matrix)


def test_inputs_that_do_not_fit() -> None:
    layer = CondensedLinear(MATRIX)
    for x, residual in ((normal(2, 9), None), (normal(10), None), (normal(2, 10), normal(3, 6))):
        with pytest.raises(TargetError, match="expected"):
            layer(x, residual)
    with pytest.raises(TargetError, match="a weight has two axes or more"):
        CompressedRows.of(np.zeros(4))

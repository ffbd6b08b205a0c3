"""Times of layers from a profile; whole engines are in tests/compiler/test_compare.py."""

from __future__ import annotations

import pytest

from sparsefx.runtime.onnxruntime.layer_clock import _per_run


@pytest.mark.parametrize(
    ("seconds", "runs", "expected"),
    [
        ([1.0, 2.0, 3.0], 3, [1.0, 2.0, 3.0]),
        ([1.0, 2.0, 3.0, 4.0, 5.0, 6.0], 3, [3.0, 7.0, 11.0]),
        ([1.0, 2.0, 3.0, 4.0, 5.0], 2, [7.5, 7.5]),
    ],
    ids=["once a run", "twice a run", "not equally often"],
)
def test_times_are_put_together_run_by_run(seconds: list[float], runs: int, expected: list[float]) -> None:
    assert _per_run(seconds, runs).tolist() == expected

"""Torchvision's models under the sweep's sparsity patterns: exact as a graph and as an engine.

A sample runs by default, more of it with `-m ci`, everything with `pytest -m long tests/sweeps` (hours on two cores);
the benchmark `python -m benchmarks.torchvision_sweep` runs the same cases, keeps figures and goes on where it was
stopped.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.zoo.case import GRAPH_TOLERANCE, run_case
from tests.zoo.masks import MASKS
from tests.zoo.models import all_models, find_model

_SAMPLE = {
    ("resnet18", "filters 30%"),
    ("squeezenet1_1", "one layer zero"),
}
_SAMPLE_IN_CI = {
    ("resnet18", "branch zero"),
    ("unet", "filters 30%"),
    ("mobilenet_v2", "unstructured 95%"),
    ("mobilenet_v3_small", "filters 30%"),
    ("shufflenet_v2_x0_5", "columns 30%"),
}


def _cases() -> Iterator[Any]:
    for model in all_models():
        for mask in MASKS:
            case = (model.name, mask)
            marks = [] if case in _SAMPLE else [pytest.mark.ci if case in _SAMPLE_IN_CI else pytest.mark.long]
            yield pytest.param(model.name, mask, marks=marks, id=f"{model.name}, {mask}")


@pytest.mark.parametrize(("name", "mask"), list(_cases()))
def test_compiled_models_are_exact(name: str, mask: str) -> None:
    """`run_case` raises where the engine, the graph, or the dependence on the input is not what it has to be."""
    result = run_case(find_model(name), mask)
    if result is None:
        pytest.skip(f"{mask} does not apply to {name}")
    assert result.graph_error <= GRAPH_TOLERANCE
    assert result.engine_error is not None and result.engine_bound is not None
    assert result.engine_error <= result.engine_bound
    if mask == "filters 30%":
        assert result.channels_kept < result.channels

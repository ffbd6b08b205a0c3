"""The sweep's models as TensorRT-RTX engines for SM80, SM89 and SM120: they parse and build, slim and condensed.

One by default, nine with `-m ci`, the others with `pytest -m long tests/sweeps/test_tensorrt_builds.py` (an hour),
which prints a row for every engine with `-s`; the benchmark `python -m benchmarks.tensorrt_builds` keeps them. No
engine runs: that needs a GPU.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.zoo.engines import build_engines
from tests.zoo.models import all_models, find_model

pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed")

_SAMPLE = ("squeezenet1_1",)
_SAMPLE_IN_CI = (
    "alexnet",
    "mnasnet0_5",
    "mnasnet0_75",
    "resnet18",
    "resnet34",
    "shufflenet_v2_x0_5",
    "shufflenet_v2_x1_0",
    "squeezenet1_0",
    "unet",
)


def _marks(name: str) -> list[pytest.MarkDecorator]:
    return [] if name in _SAMPLE else [pytest.mark.ci if name in _SAMPLE_IN_CI else pytest.mark.long]


def _cases() -> Iterator[Any]:
    for model in all_models():
        yield pytest.param(model.name, marks=_marks(model.name))


@pytest.mark.parametrize("name", list(_cases()))
def test_engines_build_without_a_gpu(name: str) -> None:
    rows = list(build_engines(find_model(name)))
    print("\n".join(map(str, rows)))
    assert [(row.form, row.precision) for row in rows] == [("dense", "fp32"), ("dense", "fp16"), ("condensed", "fp32")]
    assert all(row.processors == ("sm80", "sm89", "sm120") and row.engine_bytes > 0 for row in rows)
    assert rows[2].condensed_layers > 3
    assert rows[1].engine_bytes < rows[0].engine_bytes

"""Triton's kernels compute what they should, as far as its interpreter can tell."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from .needs import needs_triton

pytestmark = needs_triton


@pytest.fixture(scope="module")
def results() -> Any:
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    command = [sys.executable, "-W", "error", "-m", "tests.runtime.kernels.cuda.interpreted"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


def test_every_case_is_exact_up_to_rounding(results: Any) -> None:
    errors = results["errors"]
    assert len(errors) == 3 * (9 * 2 + 5 * 2) + 9 + 5 * 2
    assert {name: error for name, error in errors.items() if not error <= 1} == {}


def test_the_measure_sees_a_small_fault(results: Any) -> None:
    assert results["planted"] > 1


def test_what_is_not_finite_goes_where_it_is_read(results: Any) -> None:
    assert results["not finite"] == {
        "rows nan": ["nan", "3.0"],
        "rows inf": ["inf", "3.0"],
        "columns nan": ["nan", "3.0"],
        "columns inf": ["inf", "3.0"],
    }

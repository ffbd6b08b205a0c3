"""The benchmark for GPUs fails clearly without one, and its rehearsal gets through every case."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from tests.runtime.kernels.cuda.needs import needs_triton

pytestmark = needs_triton


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks.cuda", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU: what is said without one is not")
def test_without_a_gpu() -> None:
    done = run()
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.startswith("error: PyTorch ") and "Traceback" not in done.stderr


def test_a_rehearsal_has_to_be_small() -> None:
    done = run("--device", "cpu")
    assert done.returncode == 2 and "add --small" in done.stderr


@pytest.mark.parametrize("case", ["srigl", pytest.param("chase", marks=pytest.mark.long)])
def test_a_rehearsal(case: str) -> None:
    done = run("--device", "cpu", "--small", "--case", case, "--precision", "fp32")
    assert done.returncode == 0, done.stderr[-2000:]
    rows = [line for line in done.stdout.splitlines() if line.startswith(case)]
    assert len(rows) == {"srigl": 2, "chase": 4}[case] and all("x dense" in row for row in rows)
    assert "paper: 1.7x dense" in done.stdout if case == "srigl" else "paper: 1.68x dense" in done.stdout


@pytest.mark.long
def test_the_whole_rehearsal() -> None:
    done = run("--device", "cpu", "--small")
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count(" us") >= 3 * (2 + 4 + 4)

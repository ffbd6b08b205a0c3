"""What these tests need of the machine."""

from __future__ import annotations

import importlib.util

import pytest
import torch

from sparsefx.passes.errors import TargetError
from sparsefx.runtime.kernels.cuda.tools import find_nvcc


def _nvcc_problem() -> str:
    try:
        find_nvcc()
    except TargetError as error:
        return str(error)
    return ""


needs_triton = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed")
needs_nvcc = pytest.mark.skipif(bool(_nvcc_problem()), reason=_nvcc_problem() or "there is nvcc")
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no NVIDIA GPU: not run on a GPU")

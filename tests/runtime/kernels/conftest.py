"""The kernels that a test runs on."""

from __future__ import annotations

import pytest

from sparsefx.runtime.kernels.library import KERNELS, kernels_here


@pytest.fixture(params=KERNELS)
def kernels(request: pytest.FixtureRequest) -> str:
    if request.param not in kernels_here():
        pytest.skip(f"this processor does not run the {request.param} kernels")
    return str(request.param)

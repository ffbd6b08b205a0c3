"""What these tests need of the machine."""

from __future__ import annotations

import pytest

from sparsefx.passes.errors import TargetError
from sparsefx.runtime.kernels.build import find_compiler


def _problem() -> str:
    try:
        find_compiler()
    except TargetError as error:
        return str(error)
    return ""


needs_compiler = pytest.mark.skipif(bool(_problem()), reason=_problem() or "there is a compiler")

"""The plugins' kernels, compiled for the host."""

from __future__ import annotations

import ctypes
import subprocess
from pathlib import Path
from typing import Any

import pytest

from sparsefx.runtime.kernels.build import find_compiler
from sparsefx.runtime.kernels.cuda.compile_nvcc import SOURCE


@pytest.fixture(scope="session")
def emulated(tmp_path_factory: pytest.TempPathFactory) -> Any:
    library = tmp_path_factory.mktemp("emulated") / "libemulated.so"
    source = Path(__file__).parent / "emulated.cpp"
    flags = ("-std=c++17", "-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", f"-I{SOURCE}")
    subprocess.run([find_compiler(), *flags, str(source), "-o", str(library)], check=True)
    return ctypes.CDLL(str(library))

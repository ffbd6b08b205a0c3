"""The CUDA C++ kernels of TensorRT's plugins: what each one's parameters are, and how they become PTX and cubin."""

from __future__ import annotations

import functools
import hashlib
import os
import subprocess
import tempfile
from pathlib import Path

from ....passes.errors import TargetError
from ..build import cache_folder
from .ptx import entry_parameters
from .tools import find_nvcc

SOURCE = Path(__file__).parent / "source"
ARCHITECTURES = (80, 89, 90)
TYPES = ("float32", "float16", "bfloat16")
MATRIX = ("x", "values", "columns", "starts", "bias")  # addresses, in front of the residual's
LINEAR_SIZES = ("samples", "inputs", "outputs", "activation")
CONV2D_SIZES = (
    "images",
    "channels",
    "height",
    "width",
    "outputs",
    "out_height",
    "out_width",
    "stride_height",
    "stride_width",
    "padding_height",
    "padding_width",
    "dilation_height",
    "dilation_width",
    "activation",
)
_SIZES = {"linear_few": LINEAR_SIZES, "linear_many": LINEAR_SIZES, "conv2d": CONV2D_SIZES}
_FLAGS = ("-std=c++17", "-O3")


def kernel_name(form: str, kind: str, residual: bool) -> str:
    return f"sparsefx_{form}_{kind}" + ("_add" if residual else "")


def declared_parameters() -> dict[str, tuple[str, ...]]:
    """Every kernel's parameters, as TensorRT passes them: addresses of inputs, whole numbers, the result's address."""
    return {
        kernel_name(form, kind, residual): (
            *["u64"] * (len(MATRIX) + residual),
            *["u32"] * len(sizes),
            "u64",
        )
        for form, sizes in _SIZES.items()
        for kind in TYPES
        for residual in (False, True)
    }


@functools.cache
def plugin_ptx(architecture: int) -> str:
    """PTX of all kernels for an architecture (90 for sm_90) and newer ones, compiled once into the user's cache.

    Raises TargetError without nvcc, with its first complaint, and where parameters are not the declared ones.
    """
    nvcc = find_nvcc()
    file = cache_folder() / f"plugin-{_key(nvcc)}-sm_{architecture}.ptx"
    if not file.exists():
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=file.parent, prefix="build-") as folder:
                made = Path(folder) / file.name
                _run([nvcc, *_FLAGS, "-ptx", f"-arch=sm_{architecture}", str(SOURCE / "condensed.cu"), "-o", str(made)])
                os.replace(made, file)
        except OSError as error:
            raise TargetError(
                f"cannot write compiled kernels into {file.parent}: {error}; set SPARSEFX_CACHE"
            ) from error
    ptx = file.read_text()
    found, wanted = entry_parameters(ptx), declared_parameters()
    wrong = sorted(name for name in found.keys() | wanted.keys() if found.get(name) != wanted.get(name))
    if wrong:
        name = wrong[0]
        raise TargetError(f"{file}: kernel {name} has parameters {found.get(name)}, expected {wanted.get(name)}")
    return ptx


def plugin_cubin(architecture: int, folder: Path) -> Path:
    """Machine code of all kernels: what the driver makes of their PTX. Raises TargetError as `plugin_ptx`."""
    ptx, cubin = folder / f"condensed-sm_{architecture}.ptx", folder / f"condensed-sm_{architecture}.cubin"
    ptx.write_text(plugin_ptx(architecture))
    _run([find_nvcc(), "-cubin", f"-arch=sm_{architecture}", str(ptx), "-o", str(cubin)])
    return cubin


def _key(nvcc: str) -> str:
    version = subprocess.run([nvcc, "--version"], capture_output=True, text=True, check=False).stdout
    digest = hashlib.sha256("\0".join((version, *_FLAGS)).encode())
    for file in sorted(SOURCE.iterdir()):
        digest.update(file.name.encode() + file.read_bytes())
    return digest.hexdigest()[:16]


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        said = done.stderr or done.stdout
        complaint = next((line for line in said.splitlines() if "error" in line), said.strip()[:500])
        raise TargetError(f"the plugin's kernels do not compile with {command[0]}: {complaint}; set CUDACXX")

"""Compile the C++ kernels at first use, into the user's cache.

One library holds the kernels for every kind of processor of this architecture and chooses among them when it is
loaded, so that it can be copied to another machine.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ...passes.errors import TargetError

SOURCE = Path(__file__).parent / "source"
_COMPILERS = ("g++", "clang++", "c++")
_FLAGS = ("-std=c++17", "-O3", "-fPIC", "-fvisibility=hidden", "-pthread", "-Wall", "-Wextra")
_X86 = ("x86_64", "AMD64")
_INSTRUCTIONS = {  # the warnings are about GCC 12's own header of intrinsics
    "kernels_avx2.cpp": ("-mavx2", "-mfma"),
    "kernels_avx512.cpp": ("-mavx512f", "-mavx512dq", "-Wno-uninitialized", "-Wno-maybe-uninitialized"),
}


def cache_folder() -> Path:
    """Where compiled kernels are kept: $SPARSEFX_CACHE, or `sparsefx` in the user's cache."""
    own = os.environ.get("SPARSEFX_CACHE")
    if own:
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sparsefx"


def find_compiler() -> str:
    """The C++ compiler: $CXX, or the first of g++, clang++ and c++. Raises TargetError where there is none."""
    asked = os.environ.get("CXX")
    found = shutil.which(asked) if asked else next(filter(None, map(shutil.which, _COMPILERS)), None)
    if found is None:
        looked = f"$CXX is {asked!r}" if asked else f"none of {', '.join(_COMPILERS)} is on the path"
        raise TargetError(
            f"the sparse kernels need a C++17 compiler, and {looked}; install one (apt install g++), or set CXX"
        )
    return found


def build_library(folder: Path | None = None, *, flags: Sequence[str] = ()) -> Path:
    """The compiled kernels, in `folder` (by default the cache); compiled only where they are not there yet.

    `flags` go to the compiler and the linker after our own. Raises TargetError without a compiler, with the
    compiler's first complaint, or where the folder cannot be written.
    """
    if sys.platform == "win32":
        raise TargetError("the sparse kernels are not built on Windows yet; they need GCC or Clang on Linux or macOS")
    compiler, folder = find_compiler(), folder or cache_folder()
    library = folder / f"libsparsefx-{_key(compiler, flags)}.so"
    if library.exists():
        return library
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix="build-") as temporary:
            os.replace(_build(compiler, flags, Path(temporary)), library)
    except OSError as error:
        raise TargetError(f"cannot write compiled kernels into {folder}: {error}; set SPARSEFX_CACHE") from error
    return library


def sources() -> list[Path]:
    """The C++ files that belong into the library on this architecture."""
    files = sorted(SOURCE.glob("*.cpp"))
    return [f for f in files if platform.machine() in _X86 or f.name not in _INSTRUCTIONS]


def _key(compiler: str, flags: Sequence[str]) -> str:
    version = subprocess.run([compiler, "--version"], capture_output=True, text=True, check=False).stdout
    digest = hashlib.sha256("\0".join((version, platform.machine(), *_FLAGS, *flags)).encode())
    for file in sorted(SOURCE.iterdir()):
        digest.update(file.name.encode() + file.read_bytes())
    return digest.hexdigest()[:16]


def _build(compiler: str, flags: Sequence[str], folder: Path) -> Path:
    architecture = ("-DSPARSEFX_X86",) if platform.machine() in _X86 else ()

    def compile_one(source: Path) -> Path:
        target = folder / f"{source.stem}.o"
        own = (*_FLAGS, *architecture, *_INSTRUCTIONS.get(source.name, ()), *flags)
        _run([compiler, *own, "-c", str(source), "-o", str(target)])
        return target

    with ThreadPoolExecutor() as workers:
        objects = list(workers.map(compile_one, sources()))
    library = folder / "libsparsefx.so"
    _run([compiler, "-shared", "-pthread", *flags, *map(str, objects), "-o", str(library)])
    return library


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        complaint = next((line for line in done.stderr.splitlines() if "error" in line), done.stderr.strip()[:500])
        raise TargetError(
            f"the sparse kernels do not compile with {command[0]}: {complaint}; set CXX to another compiler"
        )

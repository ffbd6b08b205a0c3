"""Compiling the kernels: once, whole or not at all, and with an answer where it cannot be done."""

from __future__ import annotations

import os
import platform
import stat
import subprocess
from pathlib import Path

import pytest

from sparsefx.passes.errors import TargetError
from sparsefx.runtime.kernels import build
from sparsefx.runtime.kernels.library import load

from .needs import needs_compiler


def compiler_in(folder: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make $CXX a shell script."""
    path = folder / "cxx"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("CXX", str(path))


def test_without_a_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(TargetError, match=r"none of g\+\+, clang\+\+, c\+\+ is on the path; install one"):
        build.build_library(tmp_path)
    monkeypatch.setenv("CXX", "icpc-2003")
    with pytest.raises(TargetError, match=r"\$CXX is 'icpc-2003'"):
        build.build_library(tmp_path)


def test_a_compiler_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiler_in(tmp_path, 'echo "a.cpp:1: error: no such thing" >&2; exit 1', monkeypatch)
    with pytest.raises(TargetError, match=r"do not compile with .*no such thing; set CXX"):
        build.build_library(tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_folder_that_cannot_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiler_in(tmp_path, "exit 0", monkeypatch)
    (tmp_path / "file").write_text("")
    with pytest.raises(TargetError, match=r"cannot write compiled kernels .*; set SPARSEFX_CACHE"):
        build.build_library(tmp_path / "file" / "cache")


def test_the_cache_is_where_the_user_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPARSEFX_CACHE", "/somewhere")
    assert build.cache_folder() == Path("/somewhere")
    monkeypatch.delenv("SPARSEFX_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/cache")
    assert build.cache_folder() == Path("/cache/sparsefx")


def test_a_file_that_is_no_library(tmp_path: Path) -> None:
    (tmp_path / "libsparsefx-0.so").write_bytes(b"not a library")
    with pytest.raises(TargetError, match=r"cannot load the compiled kernels .*; delete the file"):
        load(tmp_path / "libsparsefx-0.so")


@needs_compiler
def test_compiled_once(tmp_path: Path) -> None:
    flags = ("-O0", "-Werror")
    library = build.build_library(tmp_path, flags=flags)
    made = library.stat().st_mtime_ns
    assert [library] == list(tmp_path.iterdir())
    assert build.build_library(tmp_path, flags=flags) == library and library.stat().st_mtime_ns == made


@needs_compiler
@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="only x86 has kernels left out elsewhere")
def test_the_sources_of_other_architectures_do_without_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine that is not x86: the portable kernels alone, which is the build that such a machine has."""
    monkeypatch.setattr(build.platform, "machine", lambda: "riscv64")
    loaded = load(build.build_library(tmp_path, flags=("-O0",)))
    assert loaded.sparsefx_kernels(None) == b"portable" and loaded.sparsefx_kernels(b"avx2") is None


@pytest.mark.ci
@needs_compiler
def test_under_the_sanitisers(tmp_path: Path) -> None:
    """Every kernel on small layers of awkward sizes, in a process of its own: nothing read or written out of bounds."""
    compiler = build.find_compiler()
    runtimes = [_runtime(compiler, name) for name in ("libasan.so", "libubsan.so")]
    if not all(runtimes):
        pytest.skip(f"{compiler} has no address or undefined-behaviour sanitiser")
    flags = ("-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer")
    library = build.build_library(tmp_path, flags=flags)
    environment = {
        **os.environ,
        "LD_PRELOAD": " ".join(runtimes),
        "ASAN_OPTIONS": "detect_leaks=0",  # Python's own allocations at exit
        "OMP_NUM_THREADS": "1",
    }
    command = ["python", "-m", "tests.runtime.kernels.sanitised", str(library)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "layers agree" in done.stdout, done.stderr[-3000:]


def _runtime(compiler: str, name: str) -> str:
    found = subprocess.run([compiler, f"-print-file-name={name}"], capture_output=True, text=True, check=False)
    path = found.stdout.strip()
    return path if os.path.isabs(path) else ""

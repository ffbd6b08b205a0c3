"""Condensed layers in bundles: what is written down of their kernels, and where those come from when one is loaded."""

from __future__ import annotations

import platform
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..passes.errors import TargetError
from ..runtime import custom_op_library

if TYPE_CHECKING:
    from ..runtime.build import Build


def describe_kernels(build: Build, embedded: bool) -> dict[str, Any] | None:
    """What condensed layers need where the bundle is loaded, and for what they were chosen."""
    if build.custom_operators is None:
        return None
    return {
        "embedded": build.custom_operators.name if embedded else None,
        "system": _system(),
        "threads": build.engine.session.settings()["threads"],
    }


def find_kernels(folder: Path, kernels: Mapping[str, Any] | None, trust: bool) -> Path | None:
    """The custom operators to run a bundle with: its own where they are trusted and for this system, else ours.

    None where it needs none; or, with a warning, where they cannot be compiled.
    """
    if kernels is None:
        return None
    embedded = embedded_kernels(folder, kernels)
    if trust and embedded is not None:
        return embedded
    try:
        return custom_op_library()
    except TargetError as error:
        inside = "load with trust_kernels=True to run those in the bundle; " if embedded is not None else ""
        _warn(f"{folder}: its condensed layers run as dense ones, which is slower: {inside}{error}")
        return None


def embedded_kernels(folder: Path, kernels: Mapping[str, Any]) -> Path | None:
    """The library in a bundle, where it has one for this system."""
    fits = kernels["embedded"] is not None and kernels["system"] == _system()
    return folder / str(kernels["embedded"]) if fits else None


def warn_of_threads(folder: Path, kernels: Mapping[str, Any] | None, threads: int) -> None:
    """Say so where layers were chosen for another number of threads than the engine has."""
    if kernels is not None and threads != kernels["threads"]:
        _warn(
            f"{folder}: its layers were chosen for {kernels['threads']} threads, and run on {threads}; "
            f"compile with threads={threads} for the fastest engine"
        )


def _system() -> str:
    return f"{platform.system()} {platform.machine()}"


def _warn(message: str) -> None:
    warnings.warn(message, RuntimeWarning, stacklevel=4)

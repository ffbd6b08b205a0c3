"""The bundles behind one served model, and what of the server runs them."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...passes.errors import BundleError, TargetError
from ...passes.signature import Signature
from ...runtime.serving.config import Backend
from ..bundle import read_manifest, verify_files

Paths = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]

_NAME = r"[A-Za-z0-9_][A-Za-z0-9_.-]*"
_BACKENDS = {  # by the beginning of a target's name
    "onnxruntime:cpu": Backend("onnxruntime"),
    "onnxruntime:cuda": Backend("onnxruntime", on_gpu=True),
    "onnxruntime:tensorrt": Backend("onnxruntime", on_gpu=True, accelerator="tensorrt"),
    "tensorrt:sm": Backend("tensorrt", on_gpu=True),
}
_REFUSED = {
    "tensorrt-rtx": "its engines are no TensorRT plans, which alone the server's tensorrt backend loads",
    "torch": "it has no engine file",
}


@dataclass(frozen=True)
class Source:
    """A bundle whose files are intact."""

    folder: Path
    manifest: Mapping[str, Any]

    @property
    def target(self) -> str:
        return str(self.manifest["settings"]["target"])

    @property
    def signature(self) -> Signature:
        return Signature.from_json(self.manifest["signature"])

    @property
    def backend(self) -> Backend:
        return next(backend for start, backend in _BACKENDS.items() if self.target.startswith(start))

    @property
    def compute_capability(self) -> str:
        """Of a TensorRT engine: "8.9" for sm89."""
        number = re.sub(r"\D", "", self.target.partition(":sm")[2])
        return f"{number[:-1]}.{number[-1:]}"


def read_source(path: str | os.PathLike[str]) -> Source:
    """A bundle to be served. Raises BundleError where it is damaged, TargetError where the server cannot run it."""
    folder = Path(path)
    manifest = read_manifest(folder)
    verify_files(folder, manifest)
    source = Source(folder, manifest)
    if any(source.target.startswith(start) for start in _BACKENDS):
        return source
    reason = next((why for start, why in _REFUSED.items() if source.target.startswith(start)), "it is unknown here")
    raise TargetError(
        f"{folder} was compiled for {source.target}, which NVIDIA Triton Inference Server does not run: {reason}; "
        "compile for onnxruntime:cpu, or for tensorrt:smXX of its GPU"
    )


def read_sources(bundles: Mapping[str, Paths] | Sequence[str | os.PathLike[str]]) -> dict[str, list[Source]]:
    """The bundles of every model by its name: the one given, or the folder's without its suffix.

    Several bundles are one model where they are TensorRT engines of it for different GPUs. Raises BundleError where
    they are not, where a name is taken twice, or is no name of a model.
    """
    named: Sequence[tuple[str, Paths]] = (
        list(bundles.items()) if isinstance(bundles, Mapping) else [(_stem(path), path) for path in bundles]
    )
    if not named:
        raise BundleError("there are no bundles to export")
    sources: dict[str, list[Source]] = {}
    for name, paths in named:
        if name in sources:
            raise BundleError(f"two bundles are called {name}; give them names, as {{'{name}-2': path}}")
        if not re.fullmatch(_NAME, name):
            raise BundleError(f"{name!r} is no name of a served model: letters, digits, and _ . - behind the first")
        several = [paths] if isinstance(paths, (str, os.PathLike)) else paths
        sources[name] = [read_source(path) for path in several]
        _check_alike(name, sources[name])
    return sources


def _stem(path: str | os.PathLike[str]) -> str:
    return Path(os.path.abspath(path)).stem


def _check_alike(name: str, sources: Sequence[Source]) -> None:
    if not sources:
        raise BundleError(f"{name} has no bundle")
    first, rest = sources[0], sources[1:]
    for other in rest:
        if first.backend.name != "tensorrt" or other.backend.name != "tensorrt":
            raise BundleError(
                f"{first.folder} ({first.target}) and {other.folder} ({other.target}) cannot be one model {name}: only "
                "TensorRT engines for different GPUs can"
            )
        if other.signature != first.signature:
            raise BundleError(f"{first.folder} and {other.folder} do not take and return the same tensors")
    capabilities = [source.compute_capability for source in sources]
    twice = next((c for c in capabilities if capabilities.count(c) > 1 and rest), None)
    if twice is not None:
        raise BundleError(f"{name} has two TensorRT engines for compute capability {twice}")

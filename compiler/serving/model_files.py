"""The files of one version of a served model: the engine, its weights, its custom operators."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...passes.errors import BundleError, TargetError
from ...runtime import custom_op_library
from ..bundle_kernels import embedded_kernels
from .sources import Source

_ONNX = "model.onnx"
_PLANS = (".plan", ".engine", ".trt")
_DOMAIN = "sparsefx"


@dataclass(frozen=True)
class KernelOptions:
    """Where the kernels of condensed layers come from: a library, the bundle if it is trusted, else compiled here.

    Without `use` the layers run as dense ones.
    """

    use: bool = True
    library: Path | None = None
    trust: bool = False


def write_plans(sources: Sequence[Source], folder: Path) -> dict[str, str]:
    """Copy TensorRT engines; their files by compute capability."""
    plans = {}
    for source in sources:
        files = [name for name in source.manifest["files"] if name.endswith(_PLANS)]
        if len(files) != 1:
            raise BundleError(f"{source.folder} should hold one TensorRT engine, found {files or 'none'}")
        plans[source.compute_capability] = f"model_sm{source.compute_capability.replace('.', '')}.plan"
        shutil.copyfile(source.folder / files[0], folder / plans[source.compute_capability])
    return plans


def write_onnx(source: Source, folder: Path, kernels: KernelOptions, threads: int | None) -> Path | None:
    """Copy an ONNX file, its weights and, for condensed layers, their kernels; the library that was written.

    The server hands no settings of ours to a session, so that the nodes themselves say how many threads share a layer
    and how its weights are stored. Raises TargetError where kernels are needed and cannot be had.
    """
    for name in source.manifest["files"]:
        if name.startswith(_ONNX):
            shutil.copyfile(source.folder / name, folder / name)
    described = source.manifest.get("kernels")
    if described is None or not kernels.use:
        return None
    library = _find_library(source, described, kernels)
    copy = folder / library.name
    shutil.copyfile(library, copy)
    _write_settings(folder / _ONNX, threads or described["threads"], source.manifest["settings"]["precision"])
    return copy


def _find_library(source: Source, described: Mapping[str, Any], kernels: KernelOptions) -> Path:
    if kernels.library is not None:
        if not kernels.library.is_file():
            raise TargetError(f"there is no library of kernels at {kernels.library}; see sparsefx kernels build")
        return kernels.library
    embedded = embedded_kernels(source.folder, described)
    if kernels.trust and embedded is not None:
        return embedded
    try:
        return custom_op_library()
    except TargetError as error:
        inside = "trust those in the bundle, " if embedded is not None else ""
        raise TargetError(
            f"{source.folder} has condensed layers, whose kernels the server needs: {error}; {inside}give a library, "
            "or export without kernels, with which the layers run as dense ones"
        ) from error


def _write_settings(model: Path, threads: int, precision: str) -> None:
    """Attributes on the condensed nodes of an ONNX file, in place."""
    try:
        import onnx
    except ImportError as error:
        raise TargetError(f"exporting condensed layers needs onnx: pip install onnx ({error})") from error
    proto = onnx.load(str(model), load_external_data=False)
    settings = {"threads": threads, "bfloat16": int(precision == "bf16")}
    for node in proto.graph.node:
        if node.domain == _DOMAIN:
            node.attribute.extend(onnx.helper.make_attribute(name, value) for name, value in settings.items())
    onnx.save(proto, str(model))

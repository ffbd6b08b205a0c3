"""sparsefx: from a sparse-trained PyTorch model to an engine that is smaller, faster and the same function.

Public names are loaded when first used: importing sparsefx imports neither torch nor onnxruntime.
"""

from __future__ import annotations

import importlib
import os
from typing import Any

__version__ = "0.1.0"

_root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
if os.path.islink(os.path.join(os.path.dirname(__file__), "compiler")):
    __path__.insert(0, _root)  # a checkout: tracebacks and breakpoints then name the real files

_PUBLIC = {
    "compile": "sparsefx.compiler.compile",
    "load": "sparsefx.compiler.bundle",
    "serve_export": "sparsefx.compiler.serving.export",
    "ServingOptions": "sparsefx.runtime.serving.options",
    "TorchBackend": "sparsefx.compiler.integrations.torch_compile",
    "profile": "sparsefx.runtime.latency.profile",
    "LatencyTable": "sparsefx.runtime.latency.table",
    "CompiledModel": "sparsefx.compiler.compiled",
    "slim": "sparsefx.compiler.slim",
    "rebuild_slim": "sparsefx.compiler.slim",
    "MaskSet": "sparsefx.training.masks",
    "SparsefxError": "sparsefx.passes.errors",
    "CaptureError": "sparsefx.passes.errors",
    "MaskError": "sparsefx.passes.errors",
    "PassError": "sparsefx.passes.errors",
    "VerificationError": "sparsefx.passes.errors",
    "TargetError": "sparsefx.passes.errors",
    "BundleError": "sparsefx.passes.errors",
    "TableError": "sparsefx.passes.errors",
    "EvaluationError": "sparsefx.passes.errors",
}
_PARTS = ("compiler", "passes", "runtime", "training")

__all__ = ["__version__", *_PARTS, *_PUBLIC]


def __getattr__(name: str) -> Any:
    if name in _PARTS:
        return importlib.import_module(f"sparsefx.{name}")
    if name in _PUBLIC:
        value = getattr(importlib.import_module(_PUBLIC[name]), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'sparsefx' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)

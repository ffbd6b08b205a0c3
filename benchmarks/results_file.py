"""Where benchmarks leave their figures: JSON with the machine and the versions they were measured on."""

from __future__ import annotations

import json
import os
import platform
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
_LIBRARIES = (
    "sparsefx",
    "torch",
    "onnx",
    "onnxruntime",
    "onnxscript",
    "tensorrt-rtx",
    "torchvision",
    "torch-pruning",
    "timm",
    "transformers",
    "numpy",
)


def environment() -> dict[str, Any]:
    """Processor, cores and versions."""
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "versions": {library: _version(library) for library in _LIBRARIES},
    }


def write_results(name: str, figures: Any) -> Path:
    """Write `results/NAME.json`, whole or not at all."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    partial = path.with_suffix(".partial")  # a run that is stopped leaves the old figures or the new ones
    partial.write_text(json.dumps({"environment": environment(), "figures": figures}, indent=1) + "\n")
    return partial.replace(path)


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []:
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or "unknown"


def _version(library: str) -> str:
    try:
        return version(library)
    except PackageNotFoundError:
        return "not installed"

"""The targets that this installation knows, and what asking for another one says.

A target is a backend and a device, `onnxruntime:cpu`. What the compiler does for one is the row of the same name in
sparsefx.compiler.backends, and how its bundles are loaded that of sparsefx.compiler.loaders.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from ..passes.errors import TargetError
from ..passes.near_names import closest


@dataclass(frozen=True)
class TargetKind:
    """A row of the table of targets: all whose name `pattern` matches.

    `file` is what a bundle holds at least, "" where nothing can be saved.
    """

    name: str
    pattern: str
    precisions: tuple[str, ...]
    file: str


@dataclass(frozen=True)
class Target:
    """One target by its whole name, and the kind that it is of."""

    name: str
    kind: TargetKind

    @property
    def device(self) -> str:
        """What follows the colon: cpu, sm89."""
        return self.name.partition(":")[2]


@dataclass(frozen=True)
class BuildSettings:
    """What an engine is built for; `max_batch` is the largest of a dynamic batch, where the backend needs one."""

    target: str
    precision: str
    threads: int | None
    max_batch: int | None = None


WEIGHTS = {"fp32": "float32", "bf16": "bfloat16"}  # of condensed linear layers on the CPU, by precision

TORCH = TargetKind("torch", "torch", ("fp32",), "")  # stops at the GraphModule
KINDS = (
    TORCH,
    TargetKind("onnxruntime:cpu", "onnxruntime:cpu", ("fp32", "bf16"), "model.onnx"),
    TargetKind("onnxruntime:cuda", "onnxruntime:cuda", ("fp32",), "model.onnx"),
    TargetKind("onnxruntime:tensorrt", "onnxruntime:tensorrt", ("fp32",), "model.onnx"),
    TargetKind("torch:cuda", "torch:cuda", ("fp32", "fp16", "bf16"), "model.graph.json"),
    TargetKind("tensorrt:smXX", r"tensorrt:sm\d+", ("fp32", "fp16", "bf16"), "model.engine"),
    TargetKind("tensorrt-rtx:smXX", r"tensorrt-rtx:sm\d+(\+sm\d+)*", ("fp32", "fp16", "bf16"), "model.engine"),
)


def find_kind(name: str) -> TargetKind | None:
    """The row of a target's name, if there is one."""
    return next((kind for kind in KINDS if re.fullmatch(kind.pattern, name)), None)


def find_target(name: str, precision: str) -> Target:
    """The target called `name`; raises TargetError where there is none, or not in this precision."""
    kind = find_kind(name)
    if kind is None:
        known = ", ".join(sorted(kind.name for kind in KINDS))
        near = closest(name, [kind.name for kind in KINDS])
        raise TargetError(
            f"unknown target {name!r}{near}; this version builds for {known}, XX being a number such as 89"
        )
    if precision not in kind.precisions:
        raise TargetError(f"target {name} is built in {', '.join(kind.precisions)} only, found precision {precision!r}")
    return Target(name, kind)

"""The targets that this installation knows, and what asking for another one says."""

from __future__ import annotations

from dataclasses import dataclass

from ..passes.errors import TargetError


@dataclass(frozen=True)
class Target:
    """A backend with its device, `onnxruntime:cpu`, and the precisions it can be built for."""

    name: str
    precisions: tuple[str, ...]


WEIGHTS = {"fp32": "float32", "bf16": "bfloat16"}  # of condensed linear layers, by precision

TORCH = Target("torch", ("fp32",))  # stops at the GraphModule
TARGETS = {target.name: target for target in (TORCH, Target("onnxruntime:cpu", ("fp32", "bf16")))}


def find_target(name: str, precision: str) -> Target:
    """The target called `name`; raises TargetError where there is none, or not in this precision."""
    target = TARGETS.get(name)
    if target is None:
        raise TargetError(f"unknown target {name!r}; this version builds for {', '.join(sorted(TARGETS))}")
    if precision not in target.precisions:
        raise TargetError(
            f"target {name} is built in {', '.join(target.precisions)} only, found precision {precision!r}"
        )
    return target

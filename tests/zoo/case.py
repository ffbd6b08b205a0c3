"""One case of the sweep: a model under a mask, compiled in float64 to a graph and in float32 to an engine."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

import sparsefx
from sparsefx.compiler.compiled import CompiledModel
from tests.helpers import VARIATION, deviation

from . import masks
from .alive import bring_to_life, images, revive_zero_layers
from .models import ZooModel

GRAPH_TOLERANCE = 1e-9
ENGINE_TOLERANCE = 1e-4
_CALIBRATION_BATCH = 8
_MAY_BE_CONSTANT = ("one layer zero",)  # in a plain chain nothing gets past a layer of zeros


@dataclass(frozen=True)
class CaseResult:
    """Figures of one case; errors in standard deviations of the output over inputs."""

    model: str
    mask: str
    size: int
    channels: int
    channels_kept: int
    parameters: int
    parameters_kept: int
    macs: int
    macs_kept: int
    varies: float  # deviation over inputs as a share of the total deviation, the smallest of all outputs
    graph_error: float
    engine_error: float | None  # None: not lowered
    engine_bound: float | None
    unknown_operators: tuple[str, ...]
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def build(model: ZooModel, mask: str, seed: int = 0) -> nn.Module | None:
    """The masked model with calibrated, perturbed statistics, in float64; None where the mask does not apply."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    module = model.build().eval()
    revive_zero_layers(module)
    patterns = masks.MASKS[mask](module, generator)
    if not patterns:
        return None
    masks.apply(module, patterns)
    bring_to_life(module, images(_CALIBRATION_BATCH, model.size, generator), generator)
    return module


def run_case(model: ZooModel, mask: str, *, engine: bool = True) -> CaseResult | None:
    """Compile one case both ways; None where the mask does not apply to the model. Raises what compile raises."""
    start = time.perf_counter()
    module = build(model, mask)
    if module is None:
        return None
    example = images(2, model.size, torch.Generator().manual_seed(1))
    varies = _variation(module, model.size)
    lowered = sparsefx.compile(module, (example,), tolerance=ENGINE_TOLERANCE) if engine else None
    checks = lowered.report.verification["outputs"] if lowered is not None and lowered.report.verification else []
    graph = sparsefx.compile(module.double(), (example.double(),), target="torch", tolerance=GRAPH_TOLERANCE)
    if mask not in _MAY_BE_CONSTANT and varies < VARIATION:
        raise AssertionError(f"{model.name}, {mask}: the output varies by {varies:.1%} only; a constant would pass")
    return _result(model, mask, graph, checks, varies, time.perf_counter() - start)


def _result(
    model: ZooModel, mask: str, graph: CompiledModel, checks: list[dict[str, Any]], varies: float, seconds: float
) -> CaseResult:
    totals, verification = graph.report.totals, graph.report.verification
    assert verification is not None
    worst = max(checks, key=lambda check: check["max_error"] / check["bound"], default=None)
    return CaseResult(
        model.name,
        mask,
        model.size,
        totals.channels_before,
        totals.channels_after,
        totals.parameters_before,
        totals.parameters_after,
        totals.macs_before,
        totals.macs_after,
        varies,
        max(check["max_error"] for check in verification["outputs"]),
        worst["max_error"] if worst is not None else None,
        worst["bound"] if worst is not None else None,
        tuple(graph.report.unknown_operators),
        seconds,
    )


def _variation(module: nn.Module, size: int) -> float:
    with torch.no_grad():
        outputs = pytree.tree_leaves(module(images(6, size, torch.Generator().manual_seed(2))))
    found = [deviation(o) for o in outputs if isinstance(o, Tensor)]
    return min(d.over_inputs / d.total if d.total else 0.0 for d in found)

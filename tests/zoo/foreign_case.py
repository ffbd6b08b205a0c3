"""One case of the sweep over timm and transformers: compiled to an engine, and its graph compared in float64."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import GraphModule
from torch.utils import _pytree as pytree

import sparsefx
from sparsefx.compiler.masked_model import run_graph_float64
from sparsefx.passes.capture import capture
from tests.helpers import VARIATION, deviation

from . import masks
from .alive import bring_to_life_by, revive_zero_layers
from .foreign import ForeignModel, Inputs

ENGINE_TOLERANCE = 1e-4
_BATCH = 4


@dataclass(frozen=True)
class ForeignResult:
    """Figures of one case; errors in standard deviations of the output over inputs."""

    model: str
    mask: str
    channels: int
    channels_kept: int
    parameters: int
    parameters_kept: int
    macs: int
    macs_kept: int
    varies: float
    graph_error: float
    engine_error: float
    engine_bound: float
    kept_for: dict[str, int]  # channels that the masks made useless and that stay, by reason
    unknown_operators: tuple[str, ...]
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def build(model: ForeignModel, mask: str, seed: int = 0) -> nn.Module:
    """The masked model, alive: see alive.py."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    module = model.build().eval()
    revive_zero_layers(module)
    masks.apply(module, masks.MASKS[mask](module, generator))
    args, kwargs = model.inputs(_BATCH, generator)
    bring_to_life_by(module, lambda: module(*args, **kwargs), generator)
    return module


def run_case(model: ForeignModel, mask: str = "filters 30%") -> ForeignResult:
    """Compile, verify and compare one case. Raises what compile raises."""
    start = time.perf_counter()
    module = build(model, mask)
    args, kwargs = model.inputs(2, torch.Generator().manual_seed(1))
    compiled = sparsefx.compile(
        module, args, kwargs=kwargs, representation="dense", threads=1, tolerance=ENGINE_TOLERANCE
    )
    totals, verification = compiled.report.totals, compiled.report.verification
    assert verification is not None
    worst = max(verification["outputs"], key=lambda check: check["max_error"] / check["bound"])
    kept_for: dict[str, int] = {}
    for layer in compiled.report.layers:
        for reason, count in layer.stays.items():
            kept_for[reason] = kept_for.get(reason, 0) + count
    graph_error, varies = _graph_error(model, module.double())
    if varies < VARIATION:
        raise AssertionError(f"{model.name}: an output varies by {varies:.1%} only; a constant would pass")
    return ForeignResult(
        model.name,
        mask,
        totals.channels_before,
        totals.channels_after,
        totals.parameters_before,
        totals.parameters_after,
        totals.macs_before,
        totals.macs_after,
        varies,
        graph_error,
        worst["max_error"],
        worst["bound"],
        kept_for,
        tuple(compiled.report.unknown_operators),
        time.perf_counter() - start,
    )


def _graph_error(model: ForeignModel, module: nn.Module) -> tuple[float, float]:
    """The slim graph against the captured one, both in float64 throughout, where models cast to float32 inside; and
    the share of the outputs' deviation that comes from the input.
    """
    args, kwargs = _double(model.inputs(2, torch.Generator().manual_seed(1)))
    whole = _without_casts(capture(module, args, kwargs))
    slim = sparsefx.compile(whole, args, kwargs=kwargs, target="torch", verify=False).graph_module
    samples = [pytree.tree_leaves(model.inputs(batch, torch.Generator().manual_seed(batch))) for batch in (6, 1)]
    deviations = [deviation(output) for output in run_graph_float64(whole, samples[0])]
    scales = [found.over_inputs for found in deviations]
    varies = min(found.over_inputs / found.total for found in deviations)
    return max(_error(slim, whole, sample, scales) for sample in samples), varies


def _without_casts(graph_module: GraphModule) -> GraphModule:
    """Casts to float32 become casts to float64, in place."""

    def widen(argument: Any) -> Any:
        return torch.float64 if argument is torch.float32 else argument

    for node in graph_module.graph.nodes:
        node.args, node.kwargs = pytree.tree_map(widen, (node.args, node.kwargs))
    graph_module.recompile()
    return graph_module


def _error(slim: GraphModule, whole: GraphModule, sample: list[Tensor], scales: list[float]) -> float:
    pairs = zip(run_graph_float64(slim, sample), run_graph_float64(whole, sample), scales, strict=True)
    return max(float((a - b).abs().max()) / (scale or 1.0) for a, b, scale in pairs)


def _double(inputs: Inputs) -> Inputs:
    def widen(leaf: Tensor) -> Tensor:
        return leaf.double() if leaf.is_floating_point() else leaf

    args, kwargs = inputs
    return tuple(widen(t) for t in args), {name: widen(t) for name, t in kwargs.items()}

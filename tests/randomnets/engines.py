"""Check one random net through ONNX Runtime: masked, compiled in float32, and run beside the float64 module."""

from __future__ import annotations

import copy
from collections import Counter
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

import sparsefx
from sparsefx.compiler.compiled import CompiledModel
from sparsefx.passes.errors import TargetError, VerificationError

from ..helpers import Inputs, deviation, error, run
from .check import drawn_masks, unmasked, varies
from .draw import Draw
from .net import Built, build

TOLERANCE = 1e-4  # of the output's deviation over inputs, the compiler's default
_OTHER_INPUTS = 2.0  # compile has held the bound on its own inputs; on others, deviation and rounding errors differ
_EAGER_FACTOR = 3.0  # where the float32 module itself is further off than the tolerance


@dataclass
class EngineOutcome:
    """What was found on some nets."""

    nets: int = 0
    removed: int = 0
    refused: Counter[str] = field(default_factory=Counter)  # by reason; nothing was compared
    failures: list[str] = field(default_factory=list)


def check_engine(draw: Draw, label: str, outcome: EngineOutcome) -> None:
    """Adds the net to the outcome; failures are told, not raised."""
    built = build(draw)
    if not any(varies(built) for _ in drawn_masks(draw, built, unmasked(built))):
        outcome.refused["mask: the output hardly varies"] += 1
        return
    single, inputs = copy.deepcopy(built.net).float(), _single(built.make_inputs(2))
    try:
        run(single, inputs)
    except RuntimeError:  # some nets have casts that fit float64 alone
        outcome.refused["net: does not run in float32"] += 1
        return
    try:
        compiled = sparsefx.compile(single, inputs)
    except (TargetError, VerificationError) as refusal:
        outcome.refused[f"{type(refusal).__name__}: {str(refusal).splitlines()[0][:90]}"] += 1
        if "deviates" in str(refusal):
            outcome.failures.append(f"{label}: {refusal}")
        return
    totals = compiled.report.totals
    outcome.nets += 1
    outcome.removed += totals.parameters_after < totals.parameters_before
    worst = _worst(compiled, single, built)
    if worst > _OTHER_INPUTS:
        outcome.failures.append(f"{label}: {worst:.3g} times the bound; steps {sorted(built.names)}")


def _single(inputs: Inputs) -> Inputs:
    return tuple(x.float() if isinstance(x, Tensor) and x.is_floating_point() else x for x in inputs)


def _worst(compiled: CompiledModel, single: torch.nn.Module, built: Built) -> float:
    """The largest error of an output over all batches, as a share of its bound."""
    exact, engine = copy.deepcopy(single).double(), compiled.engine()
    scales = [deviation(o).over_inputs for o in run(exact, built.make_inputs(8)) if isinstance(o, Tensor)]
    errors, eager_errors = [0.0] * len(scales), [0.0] * len(scales)
    for batch in (1, 2, 3):
        inputs = _single(built.make_inputs(batch))
        want = run(exact, tuple(_widened(x) for x in inputs))
        eager, have = run(single, inputs), pytree.tree_leaves(engine(*inputs))
        assert len(want) == len(have) == len(scales)
        for i, scale in enumerate(scales):
            errors[i] = max(errors[i], error(_widened(have[i]), want[i], scale))
            eager_errors[i] = max(eager_errors[i], error(_widened(eager[i]), want[i], scale))
    bounds = [max(TOLERANCE, _EAGER_FACTOR * eager) for eager in eager_errors]
    return max(e / bound for e, bound in zip(errors, bounds, strict=True))


def _widened(tensor: Tensor) -> Tensor:
    return tensor.double() if tensor.is_floating_point() else tensor

"""Verify what was compiled, by the engine itself where it runs here, and record how far it came."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.fx import GraphModule

from ..passes.channels.rules import OperatorRule
from ..passes.errors import TargetError, VerificationError
from ..passes.signature import Signature
from ..runtime.build import Build
from ..runtime.engine import Engine
from ..runtime.onnxruntime.inside import values_inside
from .backends import backend_of
from .bisect import InsideEngine, first_deviation
from .compiled import CompiledModel
from .masked_model import MaskedModel, flat_outputs
from .sampling import Sample, tensors_of
from .verify import Run, Verification, verify

_NAMES = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}
_ROUNDING = 1e-3  # relative to a tensor's largest entry: what the search for a faulty layer takes for rounding


@dataclass(frozen=True)
class _Subject:
    """What is run for a verification, and what else it can tell."""

    run: Run
    inside: InsideEngine | None = None  # values in its operators
    rounded: Run | None = None
    engine: bool = False  # whether it is the engine itself
    note: str = ""


def verify_compiled(
    compiled: CompiledModel,
    reference: MaskedModel,
    samples: list[Sample],
    tolerance: float,
    rules: Mapping[str, OperatorRule] | None,
    on_progress: Callable[[float], None] | None = None,
) -> None:
    """Compare with the masked model and write the outcome into the report. Raises VerificationError."""
    build = compiled.build_or_none
    names = [spec.name for spec in compiled.signature.outputs]
    subject = _subject(compiled, build)
    verification = verify(subject.run, reference, names, samples, tolerance, subject.rounded, on_progress)
    compiled.report.verification = verification.to_dict()
    compiled.report.notes += verification.notes + ([subject.note] if subject.note else [])
    if not verification.passed:
        place = first_deviation(reference, samples[0], _ROUNDING, rules, subject.inside)
        raise VerificationError(_complaint(verification, place))
    if build is not None and build.settings.precision != "fp32":
        compiled.report.notes.append(_effect_of_rounding(build, reference, names, samples))
    if build is not None and subject.engine:
        build.states.reach("ran", build.device)
        build.states.reach("numerics checked", f"the engine on {build.device}, against the masked model in float64")


def engine_runner(engine: Engine) -> Run:
    """An engine as what a verification runs."""
    return lambda sample: [torch.from_numpy(output) for output in engine.run_flat(tensors_of(sample))]


def graph_runner(graph_module: GraphModule, signature: Signature) -> Run:
    """A graph as what a verification runs."""

    def run(sample: Sample) -> list[Tensor]:
        with torch.no_grad():
            return flat_outputs(signature.result, graph_module(*sample.args, **sample.kwargs))

    return run


def _subject(compiled: CompiledModel, build: Build | None) -> _Subject:
    """The engine; where it cannot run here, what stands in for it; the graph, where there is neither."""
    graph = _Subject(graph_runner(compiled.graph_module, compiled.signature))
    if build is None:
        return graph
    try:
        return _Subject(engine_runner(build.engine), _inside(build), _rounded(build), engine=True)
    except TargetError as error:
        for state in ("ran", "numerics checked"):
            build.states.miss(state, str(error))
        other = build.stand_in()
        if other is None:
            return _Subject(graph.run, note="verified is the graph, not the engine, which cannot run here")
        inside, rounded = _inside(build), _rounded(build) if other.precision != "fp32" else None
        note = f"verified is {other.what} in {_NAMES[other.precision]}, not the engine, which cannot run here"
        return _Subject(engine_runner(other.engine), inside, rounded, note=note)


def _effect_of_rounding(build: Build, reference: MaskedModel, names: Sequence[str], samples: Sequence[Sample]) -> str:
    """What the precision alone does to the outputs, by a graph on the CPU. Raises VerificationError on an overflow."""
    rounded, precision = _rounded(build), build.settings.precision
    assert rounded is not None
    effect = verify(rounded, reference, names, samples, math.inf)
    lost = [check.name for check in effect.outputs if not math.isfinite(check.max_error)]
    if lost:
        raise VerificationError(
            f"output {lost[0]!r} is infinite or not a number in {precision}: values inside are too large for it; "
            f"compile with precision {'bf16 or ' if precision == 'fp16' else ''}fp32"
        )
    return (
        f"rounding to {precision} alone moves the outputs by up to {effect.max_error:.1e} standard deviations "
        "(a graph on the CPU)"
    )


def _rounded(build: Build) -> Run | None:
    settings = build.settings
    if settings.precision == "fp32":
        return None
    rounded = backend_of(settings.target, settings.precision).rounded(build.graph_module, settings.precision)
    return graph_runner(rounded.graph, build.signature)


def _inside(build: Build) -> InsideEngine | None:
    """Values inside the ONNX file, where there is one."""
    model = build.model
    if model is None:
        return None
    return lambda _, inputs: values_inside(build.graph_module, build.signature, model, inputs, build.custom_operators)


def _complaint(verification: Verification, place: str) -> str:
    worst = verification.worst
    return (
        f"output {worst.name!r} deviates from the masked model by {worst.max_error:.2e} standard deviations "
        f"(bound {worst.bound:.2e}, mean {worst.mean_error:.2e}); first deviation: {place}. "
        "Nothing was written; if the tolerance is right, please report this with the model and the masks"
    )

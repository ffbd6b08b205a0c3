"""`sparsefx.compile`: from a sparse-trained model to a verified engine."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram
from torch.fx import GraphModule

from ..passes.channels.rules import OperatorRule
from ..passes.errors import TargetError, VerificationError
from ..passes.signature import Signature
from ..runtime.engine import Engine
from ..runtime.latency.table import LatencyTable
from ..runtime.onnxruntime.inside import values_inside
from ..runtime.targets import TORCH, find_target
from .bisect import InsideEngine, first_deviation
from .build import Build
from .bundle import BuildSettings
from .choice import MEASURED, REPRESENTATIONS
from .compiled import CompiledModel
from .make_report import make_report
from .masked_model import MaskedModel, flat_outputs, keep_graph
from .precision import with_rounded_weights
from .prepare import Masks, Model, capture_masked
from .sampling import Sample, as_samples, samples_for_verification, tensors_of
from .slim_engine import EngineMaker
from .stages import Stages
from .thin import thin
from .verify import Run, Verification
from .verify import verify as _compare
from .widen import widen
from .widths import table_for

_ROUNDING = 1e-3  # relative to a tensor's largest entry: what the search for a faulty layer takes for rounding


def compile(
    model: Model,
    example_inputs: tuple[Any, ...],
    *,
    kwargs: Mapping[str, Any] | None = None,
    masks: Masks = None,
    target: str = "onnxruntime:cpu",
    precision: str = "fp32",
    representation: str = MEASURED,
    threads: int | None = None,
    dynamic_batch: bool = True,
    dynamic_shapes: Any = None,
    latency_table: LatencyTable | str | Path | None = None,
    rules: Mapping[str, OperatorRule] | None = None,
    verify: bool = True,
    verify_inputs: Any = None,
    tolerance: float = 1e-4,
    on_stage: Callable[[str], None] | None = None,
) -> CompiledModel:
    """Compile a masked model into a smaller engine that computes the same function.

    `model` is exported in evaluation mode; its mode and parameters are left as they are. `masks` is a MaskSet or
    its file; without one the zeros in the weights are the mask. `dynamic_batch` and `dynamic_shapes` as in
    `sparsefx.passes.capture`. `rules` adds rows to the operator table, by operator name. With `verify`, random
    inputs and `verify_inputs` (a tuple of arguments, or a list of them) go through the engine and through the
    masked model. `on_stage` is told what is being done.

    `representation` is how layers that stay sparse inside are executed: "measured" takes, for each of them, the dense
    form or the condensed one, whichever is faster in an ONNX Runtime engine on this processor with so many `threads`
    and the example's sizes, and condenses nothing unless the engine as a whole gains; "dense" and "condensed" (every
    layer with at most 30% non-zeros) measure nothing. With `precision` "bf16" condensed linear layers keep their
    weights in bfloat16, which batches below eight read in half the time; three times the error of that rounding alone
    is then allowed.

    With a `latency_table` of this model (sparsefx.profile), or its file, removable channels stay where wider layers are
    faster; and layers do without channels that stay for others, by gathers in front of them or partial sums behind.
    Both by the table layer by layer, and then only if the engine as a whole gains.

    Raises CaptureError, MaskError, TargetError, TableError where the table is of another setting or lacks a layer, and
    VerificationError, naming the first layer that deviates, where
    an output differs by more than `tolerance` or three times the model's own rounding error, in units of the
    output's standard deviation over inputs.
    """
    find_target(target, precision)
    if representation not in REPRESENTATIONS:
        raise TargetError(f"unknown representation {representation!r}; known are {', '.join(REPRESENTATIONS)}")
    stages = Stages(on_stage)
    example = Sample(tuple(example_inputs), dict(kwargs or {}))
    inputs = tensors_of(example)
    table = None if latency_table is None else table_for(latency_table, target, threads, inputs)
    with stages("capture"):
        masked = capture_masked(model, example, masks, dynamic_batch, dynamic_shapes)
        reference = masked.reference(model)
        before = None if table is None else keep_graph(masked.graph)
    settings = BuildSettings(target, precision, threads)
    maker = EngineMaker(masked.signature, settings, inputs, representation, rules)
    slim, widths, thinner = maker.make(masked.graph, stages), None, None
    if table is not None and before is not None:
        with stages("widths"):
            slim, widths = widen(before, slim, maker, table)
        with stages("thinner layers"):
            slim, thinner = thin(slim, maker, table)
    report = make_report(_name(model), reference.graph, slim.graph, slim.result)
    report.notes += [f"the mask of {name} has no effect: the model does not read it" for name in masked.unread]
    report.choice, report.widths, report.thinner = slim.choice, widths, thinner
    if slim.build is not None:
        report.notes += _precision_notes(slim.build, precision)
        report.engine = {"target": target, **slim.build.engine.session.settings()}
    compiled = CompiledModel(slim.graph, masked.signature, settings, report, slim.build)
    if verify:
        with stages("verification"):
            samples = samples_for_verification(example, batches=masked.batches, given=as_samples(verify_inputs))
            _verify(compiled, reference, samples, tolerance, rules)
    report.seconds = stages.seconds
    return compiled


def verify_engine(
    engine: Engine,
    model: Model,
    example_inputs: tuple[Any, ...],
    *,
    kwargs: Mapping[str, Any] | None = None,
    masks: Masks = None,
    verify_inputs: Any = None,
    tolerance: float = 1e-4,
) -> Verification:
    """Compare any engine with the masked model, as `compile` does; the result tells whether it passed."""
    example = Sample(tuple(example_inputs), dict(kwargs or {}))
    fixed = not any(isinstance(size, str) for spec in engine.signature.inputs for size in spec.shape[:1])
    masked = capture_masked(model, example, masks, not fixed, None)
    names = [spec.name for spec in engine.signature.outputs]
    samples = samples_for_verification(example, batches=masked.batches, given=as_samples(verify_inputs))
    return _compare(_engine_runner(engine), masked.reference(model), names, samples, tolerance)


def _name(model: Model) -> str:
    return "ExportedProgram" if isinstance(model, ExportedProgram) else type(model).__name__


def _verify(
    compiled: CompiledModel,
    reference: MaskedModel,
    samples: list[Sample],
    tolerance: float,
    rules: Mapping[str, OperatorRule] | None,
) -> None:
    names = [spec.name for spec in compiled.signature.outputs]
    to_torch = compiled.settings.target == TORCH.name
    run = _graph_runner(compiled.graph_module, compiled.signature) if to_torch else _engine_runner(compiled.engine())
    rounded = _rounded_runner(compiled) if compiled.settings.precision == "bf16" else None
    verification = _compare(run, reference, names, samples, tolerance, rounded)
    compiled.report.verification = verification.to_dict()
    compiled.report.notes += verification.notes
    if not verification.passed:
        inside = None if to_torch else _inside(compiled)
        place = first_deviation(reference, samples[0], _ROUNDING, rules, inside)
        raise VerificationError(_complaint(verification, place))


def _complaint(verification: Verification, place: str) -> str:
    worst = max(verification.outputs, key=lambda check: check.max_error / check.bound)
    return (
        f"output {worst.name} deviates from the masked model by {worst.max_error:.2e} standard deviations "
        f"(bound {worst.bound:.2e}, mean {worst.mean_error:.2e}); first deviation: {place}. "
        "Nothing was written; if the tolerance is right, please report this with the model and the masks"
    )


def _precision_notes(build: Build, precision: str) -> list[str]:
    if precision == "fp32":
        return []
    layers = with_rounded_weights(build.graph_module)[1]
    return [f"the weights of {layers} condensed linear layers are bfloat16, all else is float32"]


def _graph_runner(graph_module: GraphModule, signature: Signature) -> Run:
    def run(sample: Sample) -> list[Tensor]:
        with torch.no_grad():
            return flat_outputs(signature.result, graph_module(*sample.args, **sample.kwargs))

    return run


def _rounded_runner(compiled: CompiledModel) -> Run:
    return _graph_runner(with_rounded_weights(compiled.build.graph_module)[0], compiled.signature)


def _engine_runner(engine: Engine) -> Run:
    return lambda sample: [torch.from_numpy(output) for output in engine.run_flat(tensors_of(sample))]


def _inside(compiled: CompiledModel) -> InsideEngine:
    build = compiled.build
    return lambda _, inputs: values_inside(
        build.graph_module, compiled.signature, build.model, inputs, build.custom_operators
    )

"""`sparsefx.compile`: from a sparse-trained model to a verified engine."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch.export import ExportedProgram
from torch.fx import GraphModule

from ..passes.channels.rules import OperatorRule
from ..passes.errors import TargetError
from ..passes.near_names import closest
from ..runtime.engine import Engine
from ..runtime.latency.table import LatencyTable
from ..runtime.onnxruntime.session import TARGET as ONNXRUNTIME_CPU
from ..runtime.targets import TORCH, BuildSettings, find_target
from .backends import backend_of
from .check_arguments import check_arguments, check_rules, check_tolerance
from .choice import EXACT, MEASURED, REPRESENTATIONS, WIDTHS
from .compare_build import compare_with_dense
from .compiled import CompiledModel
from .evaluate import Evaluate, evaluate_engine, evaluate_model
from .make_report import engine_layers, make_report
from .masked_model import keep_graph
from .model_files import ModelOrFile, compare_with_its_file, fixes_its_batch, open_model
from .prepare import Captured, Masks, Model, capture_masked
from .report import Report
from .sampling import Sample, as_samples, samples_for_verification, tensors_of
from .slim_engine import EngineMaker, SlimEngine
from .stages import Stages
from .thin import thin
from .verify import Verification
from .verify import verify as _compare
from .verify_build import engine_runner, verify_compiled
from .widen import widen
from .widths import block_note, table_for


def compile(
    model: ModelOrFile,
    example_inputs: tuple[Any, ...],
    *,
    kwargs: Mapping[str, Any] | None = None,
    masks: Masks = None,
    target: str = "onnxruntime:cpu",
    precision: str = "fp32",
    representation: str = MEASURED,
    widths: str = EXACT,
    threads: int | None = None,
    max_batch: int | None = None,
    dynamic_batch: bool = True,
    dynamic_shapes: Any = None,
    latency_table: LatencyTable | str | Path | None = None,
    rules: Mapping[str, OperatorRule] | None = None,
    verify: bool = True,
    verify_inputs: Any = None,
    tolerance: float = 1e-4,
    evaluate: Evaluate | None = None,
    compare: bool = False,
    on_stage: Callable[[str], None] | None = None,
    on_progress: Callable[[float], None] | None = None,
) -> CompiledModel:
    """Compile a masked model into a smaller engine that computes the same function.

    `model` is exported in evaluation mode; its mode and parameters are left as they are. It may be the path of an
    .onnx file, which is compared with ONNX Runtime's run of it, or of a .pt2 file. `masks` is a MaskSet or
    its file; without one the zeros in the weights are the mask. `dynamic_batch` and `dynamic_shapes` as in
    `sparsefx.passes.capture`. `rules` adds rows to the operator table, by operator name. With `verify`, random
    inputs and `verify_inputs` (a tuple of arguments, or a list of them) go through the engine and through the
    masked model. `on_stage` is told what is being done, `on_progress` how much of it is, where that is known.

    `representation` is how layers that stay sparse inside are executed: "measured" takes, for each of them, the dense
    form or the condensed one, whichever is faster in an ONNX Runtime engine on this processor with so many `threads`
    and the example's sizes, and condenses nothing unless the engine as a whole gains; "dense" and "condensed" (every
    layer with at most 30% non-zeros) measure nothing. With `precision` "bf16" condensed linear layers keep their
    weights in bfloat16, which batches below eight read in half the time; three times the error of that rounding alone
    is then allowed.

    `max_batch` is the largest batch of engines that are built for a range of them (TensorRT; 32 where it is not given).

    `widths` are "exact", or "measured": then removable channels stay where they fill the blocks that ONNX Runtime works
    in on the CPU, if the engine as a whole gains. With a `latency_table` of this model (sparsefx.profile), or its file,
    they also stay where the table finds a layer faster; and layers do without channels that stay for others, by gathers
    in front of them or partial sums behind: by the table layer by layer, and then only if the engine as a whole gains.
    A table of a GPU changes no widths: where TensorRT's engine cannot run here, it decides which layers are condensed.

    `evaluate` is an evaluation of your own: it is called with the dense, the masked and the compiled model in turn,
    each a callable like `model` (torch in, torch out), and returns a number or a dict of them; the report has them.
    With `compare` the masked model is also built as it is, nothing removed, and both engines are timed in turn, as a
    whole and layer by layer, on the example inputs; the report has the figures.

    Raises CaptureError, MaskError, TargetError, TableError where the table is of another setting or lacks a layer,
    EvaluationError where `evaluate` fails (with the compiled model, where there was one by then), and
    VerificationError, naming the first layer that deviates, where an output differs by more than `tolerance` or three
    times the model's own rounding error, in units of the output's standard deviation over inputs.
    """
    settings = BuildSettings(target, precision, threads, max_batch)
    _check_settings(settings, representation, widths)
    check_rules(rules)
    check_tolerance(tolerance)
    on_cpu = target == ONNXRUNTIME_CPU
    stages = Stages(on_stage, on_progress)
    model = open_model(model)
    check_arguments(model, example_inputs, masks)
    example = Sample(tuple(example_inputs), dict(kwargs or {}))
    inputs = tensors_of(example)
    table = None if latency_table is None else table_for(latency_table, settings, inputs)
    with stages("capture"):
        dynamic_batch = dynamic_batch and not fixes_its_batch(model)
        masked = capture_masked(model, example, masks, dynamic_batch, dynamic_shapes)
        given = as_samples(verify_inputs, masked.signature)
        samples = samples_for_verification(example, batches=masked.batches, given=given) if verify else []
        file_note = compare_with_its_file(model, masked, samples) if verify else None
        reference = masked.reference(model)
        wider = on_cpu and (widths == MEASURED or table is not None)
        before = keep_graph(masked.graph) if wider else None
        plain = keep_graph(masked.graph) if compare else None
    evaluation = None
    if evaluate is not None:
        with stages("evaluation of the model"):
            evaluation = evaluate_model(evaluate, model, masked)
    maker = EngineMaker(masked.signature, settings, inputs, representation, rules, None if on_cpu else table)
    slim, wide, thinner = maker.make(masked.graph, stages), None, None
    if before is not None:
        with stages("widths"):
            slim, wide = widen(before, slim, maker, table, stages.share)
    if table is not None and on_cpu:
        with stages("thinner layers"):
            slim, thinner = thin(slim, maker, table, stages.share)
    report = _report(_name(model), masked, reference.graph, slim, settings)
    report.notes += [file_note] if file_note is not None else []
    report.notes += block_note(report.layers) if on_cpu and wide is None else []
    if table is not None and not on_cpu:
        report.notes.append(f"widths are exact: latency tables decide them for {ONNXRUNTIME_CPU} only")
    report.widths, report.thinner, report.evaluation = wide, thinner, evaluation
    compiled = CompiledModel(slim.graph, masked.signature, settings, report, slim.build)
    if verify:
        with stages("verification"):
            verify_compiled(compiled, reference, samples, tolerance, rules, stages.share)
    if slim.build is not None:
        report.engine = {"target": target, **slim.build.facts}
        report.states = slim.build.states.to_dict()
    report.seconds = stages.seconds
    if plain is not None:
        with stages("comparison"):
            report.latency = compare_with_dense(compiled, plain, maker)
    if evaluate is not None and evaluation is not None:
        with stages("evaluation of the engine"):
            report.evaluation = evaluate_engine(evaluate, compiled, evaluation)
    return compiled


def verify_engine(
    engine: Engine,
    model: ModelOrFile,
    example_inputs: tuple[Any, ...],
    *,
    kwargs: Mapping[str, Any] | None = None,
    masks: Masks = None,
    verify_inputs: Any = None,
    tolerance: float = 1e-4,
    on_progress: Callable[[float], None] | None = None,
) -> Verification:
    """Compare any engine with the masked model, as `compile` does; the result tells whether it passed."""
    model = open_model(model)
    check_arguments(model, example_inputs, masks)
    check_tolerance(tolerance)
    example = Sample(tuple(example_inputs), dict(kwargs or {}))
    fixed = not any(isinstance(size, str) for spec in engine.signature.inputs for size in spec.shape[:1])
    masked = capture_masked(model, example, masks, not fixed, None)
    names = [spec.name for spec in engine.signature.outputs]
    samples = samples_for_verification(
        example, batches=masked.batches, given=as_samples(verify_inputs, masked.signature)
    )
    return _compare(engine_runner(engine), masked.reference(model), names, samples, tolerance, on_progress=on_progress)


def _check_settings(settings: BuildSettings, representation: str, widths: str) -> None:
    """TargetError for a target that cannot be built here, or a choice that there is not."""
    if find_target(settings.target, settings.precision).kind is not TORCH:
        backend_of(settings.target, settings.precision).build.builder(settings)
    for name, value, known in (("representation", representation, REPRESENTATIONS), ("widths", widths, WIDTHS)):
        if value not in known:
            raise TargetError(f"unknown {name} {value!r}{closest(str(value), known)}; known are {', '.join(known)}")
    if widths == MEASURED and settings.target != ONNXRUNTIME_CPU:
        raise TargetError(
            f"widths are measured for {ONNXRUNTIME_CPU} only, found target {settings.target!r}; leave them exact"
        )


def _report(name: str, masked: Captured, before: GraphModule, slim: SlimEngine, settings: BuildSettings) -> Report:
    """What is known of the slim graph and its engine before they are compared with anything."""
    report = make_report(name, before, slim.graph, slim.result)
    report.notes += masked.notes
    report.choice, report.masks = slim.choice, masked.describe_masks()
    if slim.build is not None:
        graph, precision = slim.build.graph_module, settings.precision
        if precision != "fp32":
            report.notes.append(backend_of(settings.target, precision).rounded(graph, precision).note)
        report.notes += slim.build.notes(before)
        report.engine_layers = engine_layers(graph, report.layers)
    return report


def _name(model: Model) -> str:
    return "ExportedProgram" if isinstance(model, ExportedProgram) else type(model).__name__

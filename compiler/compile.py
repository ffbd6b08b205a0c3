"""`sparsefx.compile`: from a sparse-trained model to a verified engine."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.fx import GraphModule

from ..passes.capture import capture
from ..passes.channels.rules import OperatorRule
from ..passes.describe import describe
from ..passes.errors import VerificationError
from ..passes.patterns import apply_patterns
from ..runtime.onnxruntime.inside import values_inside
from ..runtime.targets import TORCH, find_target
from ..training.masks import MaskSet
from ..training.model_weights import weights_of
from .bisect import InsideEngine, first_deviation
from .bundle import BuildSettings
from .compiled import CompiledModel
from .masked_model import MaskedModel, flat_outputs
from .pipeline import run_pipeline
from .report import make_report
from .sampling import Sample, as_samples, samples_for_verification, tensors_of
from .stages import Stages
from .verify import Run, Verification, verify

Model = nn.Module | ExportedProgram | GraphModule
_ROUNDING = 1e-3  # relative to a tensor's largest entry: what the search for a faulty layer takes for rounding


def compile(
    model: Model,
    example_inputs: tuple[Any, ...],
    *,
    kwargs: Mapping[str, Any] | None = None,
    masks: MaskSet | str | os.PathLike[str] | None = None,
    target: str = "onnxruntime:cpu",
    precision: str = "fp32",
    threads: int | None = None,
    dynamic_batch: bool = True,
    dynamic_shapes: Any = None,
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

    Raises CaptureError, MaskError, TargetError, and VerificationError, naming the first layer that deviates, where
    an output differs by more than `tolerance` or three times the model's own rounding error, in units of the
    output's standard deviation over inputs.
    """
    find_target(target, precision)
    stages = Stages(on_stage)
    example = Sample(tuple(example_inputs), dict(kwargs or {}))
    mask_set = masks if isinstance(masks, MaskSet) or masks is None else MaskSet.load(masks)
    patterns = _patterns(model, mask_set)
    with stages("capture"):
        graph = capture(model, example.args, example.kwargs, dynamic_batch=dynamic_batch, dynamic_shapes=dynamic_shapes)
        unread = apply_patterns(graph, patterns)
        signature = describe(graph)
        masked = mask_set.masked_state(model) if mask_set is not None and isinstance(model, nn.Module) else {}
        reference = MaskedModel(model, masked, graph, signature)
    with stages("passes"):
        result = run_pipeline(graph, rules)
        report = make_report(_name(model), reference.graph, graph, result)
        report.notes += [f"the mask of {name} has no effect: the model does not read it" for name in unread]
    compiled = CompiledModel(graph, signature, BuildSettings(target, precision, threads), report)
    if target != TORCH.name:
        with stages("lowering"):
            compiled.engine()
    if verify:
        with stages("verification"):
            widened = dynamic_batch and dynamic_shapes is None and not isinstance(model, ExportedProgram)
            samples = samples_for_verification(example, dynamic_batch=widened, given=as_samples(verify_inputs))
            _verify(compiled, reference, samples, tolerance, rules)
    report.seconds = stages.seconds
    return compiled


def _name(model: Model) -> str:
    return "ExportedProgram" if isinstance(model, ExportedProgram) else type(model).__name__


def _patterns(model: Model, masks: MaskSet | None) -> dict[str, Tensor]:
    """Masks by the names that the model itself has for its parameters, checked against their shapes."""
    if masks is None:
        return {}
    if isinstance(model, ExportedProgram):
        masks.check(model.state_dict)
        return dict(masks.items())
    masks.check(model)
    weights = weights_of(model)
    by_tensor = {id(weights[name].stored): mask for name, mask in masks.items()}
    return {w.own_name: by_tensor[id(w.stored)] for w in weights.values() if id(w.stored) in by_tensor}


def _verify(
    compiled: CompiledModel,
    reference: MaskedModel,
    samples: list[Sample],
    tolerance: float,
    rules: Mapping[str, OperatorRule] | None,
) -> None:
    names = [spec.name for spec in compiled.signature.outputs]
    verification = verify(_runner(compiled), reference, names, samples, tolerance)
    compiled.report.verification = verification.to_dict()
    compiled.report.notes += verification.notes
    if not verification.passed:
        place = first_deviation(reference, samples[0], _ROUNDING, rules, _inside(compiled))
        raise VerificationError(_complaint(verification, place))


def _complaint(verification: Verification, place: str) -> str:
    worst = max(verification.outputs, key=lambda check: check.max_error / check.bound)
    return (
        f"output {worst.name} deviates from the masked model by {worst.max_error:.2e} standard deviations "
        f"(bound {worst.bound:.2e}, mean {worst.mean_error:.2e}); first deviation: {place}. "
        "Nothing was written; if the tolerance is right, please report this with the model and the masks"
    )


def _runner(compiled: CompiledModel) -> Run:
    """The compiled model as a function from samples to flat outputs."""
    order = compiled.signature.result

    def run(sample: Sample) -> list[Tensor]:
        with torch.no_grad():
            if compiled.settings.target == TORCH.name:
                return flat_outputs(order, compiled.graph_module(*sample.args, **sample.kwargs))
            return [torch.from_numpy(o) for o in compiled.engine().run_flat(tensors_of(sample))]

    return run


def _inside(compiled: CompiledModel) -> InsideEngine | None:
    if compiled.settings.target == TORCH.name:
        return None
    model: Path = compiled.model_file
    return lambda graph, inputs: values_inside(graph, compiled.signature, model, inputs)

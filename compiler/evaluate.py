"""The user's own evaluation of the dense, the masked and the compiled model."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from ..passes.capture import evaluation_mode
from ..passes.errors import EvaluationError, TargetError
from .compiled import CompiledModel
from .figures import COMPILED, DENSE, MASKED, Evaluation
from .prepare import Captured, Model

Evaluate = Callable[[Callable[..., Any]], Any]


def evaluate_model(evaluate: Evaluate, model: Model, masked: Captured) -> Evaluation:
    """Dense, the model as it is, and masked, where that is another. Raises EvaluationError."""
    state = masked.state
    same = _is_masked(model, masked)
    mode = evaluation_mode(model) if isinstance(model, nn.Module) else nullcontext()
    with mode, torch.no_grad():
        if same:
            note = "the model's weights are masked already, so that dense and masked are the same: evaluated once"
            return Evaluation({MASKED: call(evaluate, MASKED, _callable(model))}, (note,))
        dense = call(evaluate, DENSE, _callable(model))
        run = _functional(model, state) if isinstance(model, nn.Module) else masked.graph
        return Evaluation({DENSE: dense, MASKED: call(evaluate, MASKED, run)})


def evaluate_engine(evaluate: Evaluate, compiled: CompiledModel, before: Evaluation) -> Evaluation:
    """The same with the engine beside it, or the graph for the target torch.

    An engine that cannot run here is a note. Raises EvaluationError, which holds the compiled model.
    """
    notes = before.notes
    if compiled.build_or_none is None:
        run: Callable[..., Any] = compiled.graph_module
        notes += ("compiled is the graph: the target torch has no engine",)
    else:
        try:
            run = compiled.engine()
        except TargetError as error:
            missing = f"the engine was not evaluated, since it cannot run here: {error}"
            return Evaluation(before.results, (*notes, missing))
    with torch.no_grad():
        found = call(evaluate, COMPILED, run, compiled)
    return Evaluation({**before.results, COMPILED: found}, notes)


def call(
    evaluate: Evaluate, what: str, model: Callable[..., Any], compiled: CompiledModel | None = None
) -> dict[str, float]:
    """What the callback returns for one model, as a dict of numbers. Raises EvaluationError."""
    name = getattr(evaluate, "__name__", "evaluate").strip("<>")
    try:
        result = evaluate(model)
    except Exception as error:
        text = f"evaluate failed on the {what} model: {type(error).__name__}: {error}"
        raise EvaluationError(text, compiled) from error
    named = result if isinstance(result, Mapping) else {"result" if name == "lambda" else name: result}
    found = {key: _number(value) for key, value in named.items() if isinstance(key, str)}
    figures = {key: number for key, number in found.items() if number is not None}
    if not named or len(figures) < len(named):
        odd = ", ".join(f"{key}: {value!r:.60}" for key, value in named.items() if key not in figures)
        text = "evaluate must return a finite number, or a dict of them by name; "
        text += f"for the {what} model found {odd or 'an empty dict'}"
        raise EvaluationError(text, compiled)
    return figures


def _number(value: Any) -> float | None:
    """A number, or a tensor or array of one; None for anything else, and for what is not finite."""
    try:
        number = math.nan if isinstance(value, str | bytes) else float(value)
    except (TypeError, ValueError, RuntimeError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _is_masked(model: Model, masked: Captured) -> bool:
    """Whether masking changes no weight."""
    if not isinstance(model, nn.Module):
        return masked.masks is None
    stored = dict(model.named_parameters(remove_duplicate=False)) | dict(model.named_buffers(remove_duplicate=False))
    return all(torch.equal(stored[name], tensor) for name, tensor in masked.state.items())


def _callable(model: Model) -> Callable[..., Any]:
    return model.module() if isinstance(model, ExportedProgram) else model


def _functional(model: nn.Module, state: Mapping[str, Tensor]) -> Callable[..., Any]:
    """The masked model; the model itself is not touched."""
    return lambda *args, **kwargs: torch.func.functional_call(model, dict(state), args, kwargs)

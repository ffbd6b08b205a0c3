"""`evaluate=`: which models the callback sees, where its results stand, and what happens where it fails."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import sparsefx
from sparsefx.compiler.compiled import CompiledModel
from sparsefx.compiler.figures import Evaluation
from sparsefx.compiler.report_text import report_text
from tests.compiler.models import half_of_conv1, masked, residual

X = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(1))
Model = Callable[..., Any]


def compiled_with(evaluate: Any, **changes: Any) -> CompiledModel:
    model = residual()
    settings = {"masks": half_of_conv1(model), "target": "torch", "verify": False, **changes}
    return sparsefx.compile(model, (X[:1],), evaluate=evaluate, **settings)


def test_dense_masked_and_compiled_stand_side_by_side() -> None:
    model = residual().train()
    masks = half_of_conv1(model)
    seen: list[Tensor] = []

    def mean_output(run: Model) -> dict[str, Any]:
        assert not torch.is_grad_enabled()
        out = run(X)
        assert isinstance(out, Tensor)
        seen.append(out.clone())
        return {"mean": out.mean(), "largest": float(out.max()), "of numpy": np.float32(out.numel())}

    compiled = sparsefx.compile(model, (X[:1],), masks=masks, evaluate=mean_output, threads=1)
    assert model.training
    model.eval()
    with torch.no_grad():
        wanted = [model(X), masked(model, masks, X), masked(model, masks, X)]
    assert len(seen) == 3
    for found, want in zip(seen, wanted, strict=True):
        torch.testing.assert_close(found, want, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(wanted[0], wanted[1], rtol=1e-3)
    evaluation = compiled.report.evaluation
    assert evaluation is not None and evaluation.notes == ()
    expected = {
        name: {"mean": float(out.mean()), "largest": float(out.max()), "of numpy": 20.0}
        for name, out in zip(("dense", "masked", "compiled"), seen, strict=True)
    }
    assert evaluation.results == expected
    assert json.loads(compiled.report.to_json())["evaluation"]["results"] == expected
    dense, after = (f"{expected[kind]['mean']:.6g}" for kind in ("dense", "compiled"))
    assert f"Evaluation, mean: dense {dense}" in str(compiled.report) and f"compiled {after}" in str(compiled.report)
    assert {"evaluation of the model", "evaluation of the engine"} <= compiled.report.seconds.keys()


def test_weights_that_are_masked_already_are_evaluated_once() -> None:
    model, calls = residual(), []
    masks = half_of_conv1(model)
    masks.apply(model)

    def accuracy(run: Model) -> int:
        calls.append(run(X))
        return len(calls)

    for given in (masks, None):
        calls.clear()
        compiled = sparsefx.compile(model, (X[:1],), masks=given, target="torch", evaluate=accuracy)
        evaluation = compiled.report.evaluation
        assert evaluation is not None
        assert evaluation.results == {"masked": {"accuracy": 1}, "compiled": {"accuracy": 2}}
        assert "masked already" in evaluation.notes[0] and "no engine" in evaluation.notes[1]
        torch.testing.assert_close(calls[0], model(X).detach())


def test_an_exported_program_is_evaluated_too() -> None:
    model = residual()
    program = torch.export.export(model, (X,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    masks = half_of_conv1(model)
    compiled = sparsefx.compile(program, (X,), masks=masks, target="torch", evaluate=lambda run: run(X).sum())
    assert compiled.report.evaluation is not None
    found = compiled.report.evaluation.results
    assert found["dense"]["result"] == pytest.approx(float(model(X).detach().sum()), rel=1e-4)
    for kind in ("masked", "compiled"):
        assert found[kind]["result"] == pytest.approx(float(masked(model, masks, X).sum()), rel=1e-4)


def test_a_callback_that_fails_at_once_fails_before_anything_is_compiled() -> None:
    stages: list[str] = []

    def broken(run: Model) -> float:
        raise ValueError("no data here")

    with pytest.raises(sparsefx.EvaluationError, match="evaluate failed on the dense model: ValueError: no data") as e:
        compiled_with(broken, on_stage=stages.append)
    assert stages == ["capture", "evaluation of the model"]
    assert e.value.compiled is None and isinstance(e.value.__cause__, ValueError)


def test_nothing_is_lost_where_the_callback_fails_on_the_compiled_model() -> None:
    calls = []

    def third_time(run: Model) -> float:
        calls.append(run)
        if len(calls) == 3:
            raise RuntimeError("out of luck")
        return float(len(calls))

    with pytest.raises(sparsefx.EvaluationError, match="failed on the compiled model: RuntimeError: out of luck") as e:
        compiled_with(third_time)
    compiled = e.value.compiled
    assert isinstance(compiled, CompiledModel) and compiled.graph_module(X).shape == (4, 5)
    assert compiled.report.evaluation == Evaluation({"dense": {"third_time": 1.0}, "masked": {"third_time": 2.0}})
    assert "Nothing is lost" in e.value.__notes__[0] and "lowering" not in compiled.report.seconds
    assert compiled.report.seconds.keys() >= {"capture", "passes"}


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("0.9", "result: '0.9'"),
        (None, "result: None"),
        (float("nan"), "result: nan"),
        (torch.zeros(2), r"result: tensor\(\[0., 0.\]\)"),
        ([0.9], r"result: \[0.9\]"),
        ({}, "an empty dict"),
        ({"top-1": 0.9, "top-5": "high"}, "top-5: 'high'"),
        ({1: 0.9}, "1: 0.9"),
    ],
)
def test_results_must_be_numbers(value: Any, found: str) -> None:
    with pytest.raises(sparsefx.EvaluationError, match=f"finite number, or a dict.*dense model found {found}"):
        compiled_with(lambda run: value)


def test_an_interrupt_in_the_callback_is_one() -> None:
    def interrupted(run: Model) -> float:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compiled_with(interrupted)


def test_without_a_callback_nothing_is_said() -> None:
    report = compiled_with(None).report
    assert report.evaluation is None and "Evaluation" not in report_text(report.to_dict())

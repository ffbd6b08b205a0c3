"""Verification refuses what deviates and names where it begins."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import sparsefx
from sparsefx.compiler.compile import verify_engine
from sparsefx.passes import fold_batch_norm, remove_channels
from sparsefx.passes.graph import ORIGIN, constant_of, set_constant
from sparsefx.runtime.onnxruntime import build as build_module
from tests.compiler.models import half_of_conv1, residual

X = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def test_errors_are_reported_per_output() -> None:
    report = sparsefx.compile(residual(), (X,), verify_inputs=(X,)).report
    assert report.verification is not None
    (check,) = report.verification["outputs"]
    assert report.verification["samples"] == 6
    assert 0 <= check["mean_error"] <= check["max_error"] <= check["bound"]
    assert check["scale"] > 0


def test_a_constant_lost_in_removal_is_found_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remove_channels, "_absorb", lambda *arguments: None)
    model = residual()
    with pytest.raises(sparsefx.VerificationError, match=r"the pass RemoveChannels, at layer conv2 \(node conv2d_2\)"):
        sparsefx.compile(model, (X,), masks=half_of_conv1(model))


def test_a_wrong_fold_is_found_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = fold_batch_norm._scaled

    def wrong(layer: torch.fx.Node, weight: Tensor, scale: Tensor) -> Tensor:
        return honest(layer, weight, scale * 1.01)

    monkeypatch.setattr(fold_batch_norm, "_scaled", wrong)
    with pytest.raises(sparsefx.VerificationError, match=r"the pass FoldBatchNorm, at layer conv1"):
        sparsefx.compile(residual(), (X,))


def test_a_wrong_engine_is_found_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = build_module.lower_to_onnx

    def wrong(graph: torch.fx.GraphModule, *arguments: object) -> object:
        node = next(n for n in graph.graph.nodes if n.op == "get_attr" and n.meta[ORIGIN] == "conv2.weight")
        right = constant_of(node)
        set_constant(node, right * 1.05)
        try:
            return honest(graph, *arguments)  # type: ignore[arg-type]
        finally:
            set_constant(node, right)

    monkeypatch.setattr(build_module, "lower_to_onnx", wrong)
    with pytest.raises(sparsefx.VerificationError, match=r"the engine, at layer conv2"):
        sparsefx.compile(residual(), (X,))


def test_a_random_model_has_nothing_to_be_compared_with() -> None:
    with pytest.raises(sparsefx.VerificationError, match="it is random, numerically unstable"):
        sparsefx.compile(Noisy(), (torch.randn(2, 4),))


class Noisy(nn.Module):
    """Its result is different at every call, so that no engine can reproduce it."""

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.rand_like(x)


def test_an_engine_is_verified_against_any_model() -> None:
    model = residual()
    engine = sparsefx.compile(model, (X,)).engine()
    assert verify_engine(engine, model, (X,)).passed
    with torch.no_grad():
        model.head.bias += 0.01
    check = verify_engine(engine, model, (X,))
    assert not check.passed
    assert check.max_error > check.outputs[0].bound


class Casting(nn.Module):
    """Casts inside, so that the module itself cannot be run in float64."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.a(torch.ones(1, 4, dtype=torch.float32) * x.float())
        return out


def test_models_that_insist_on_their_precision_are_verified_by_their_graph() -> None:
    compiled = sparsefx.compile(Casting().eval(), (torch.randn(2, 4),))
    assert compiled.report.verification is not None


class Integers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(4, 9)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        scores = self.a(x)
        return scores.argmax(-1), scores > 0


def test_integer_and_boolean_outputs() -> None:
    x = torch.randn(6, 4)
    model = Integers().eval()
    found = sparsefx.compile(model, (x,)).engine()(x)
    assert [t.tolist() for t in found] == [t.tolist() for t in model(x)]

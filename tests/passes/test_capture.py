"""Capture: what it accepts, what it fixes, and where it says that export failed."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import sparsefx
from sparsefx.passes.capture import capture
from sparsefx.passes.describe import describe
from sparsefx.passes.graph import operator_name


class Branching(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        if x.sum() > 0:  # export cannot follow this
            return x
        return -x


def test_the_users_line_is_named_where_export_fails() -> None:
    with pytest.raises(sparsefx.CaptureError) as failure:
        capture(Branching(), (torch.randn(2, 3),))
    message = str(failure.value)
    assert "Branching could not be captured at" in message
    assert "test_capture.py" in message
    assert "if x.sum() > 0" in message
    assert "torch.where" in message


class FixedBatch(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(6) * 2


def test_a_model_that_fixes_its_batch_is_told_what_to_do() -> None:
    with pytest.raises(sparsefx.CaptureError, match="dynamic_batch=False"):
        capture(FixedBatch(), (torch.randn(2, 3),))
    fixed = capture(FixedBatch(), (torch.randn(2, 3),), dynamic_batch=False)
    assert describe(fixed).inputs[0].shape == (2, 3)


class Adding(nn.Module):
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return x + y


def test_inputs_of_different_batches_need_dynamic_shapes() -> None:
    with pytest.raises(sparsefx.CaptureError, match=r"different first axes \[2, 4\].*pass dynamic_shapes"):
        capture(Adding(), (torch.randn(4, 3), torch.randn(2, 3)))


class Keywords(nn.Module):
    def forward(self, x: Tensor, **rest: Tensor) -> Tensor:
        return x + rest["y"]


def test_open_keywords_cannot_have_a_dynamic_batch() -> None:
    inputs = {"y": torch.randn(2, 3)}
    with pytest.raises(sparsefx.CaptureError, match=r"forward takes \*\*rest.*name \['y'\] in forward's signature"):
        capture(Keywords(), (torch.randn(2, 3),), inputs)
    assert len(describe(capture(Keywords(), (torch.randn(2, 3),), inputs, dynamic_batch=False)).inputs) == 2


class Casts(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.einsum("bij,bkj->bik", x.to(torch.float32), x)


def test_graphs_are_made_of_plain_operators_without_run_time_checks() -> None:
    names = {operator_name(n) for n in capture(Casts(), (torch.randn(2, 3, 4),)).graph.nodes if n.op == "call_function"}
    assert "aten::einsum" not in names
    assert not any("assert" in name for name in names)


class Counting(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))
        self.layer = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        out: Tensor = self.layer(x) * self.calls
        return out


def test_a_buffer_that_the_model_writes_to_is_no_constant() -> None:
    model = Counting().eval()
    x = torch.randn(2, 3)
    slim = sparsefx.compile(model, (x,), target="torch", verify=False).graph_module
    with torch.no_grad():
        first, second = slim(x), slim(x)
    torch.testing.assert_close(second, 2 * first)


class Unsupported(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, object]:
        return x, slice(0, 1)


def test_an_output_that_no_engine_can_carry_is_refused() -> None:
    with pytest.raises(sparsefx.CaptureError):
        describe(capture(Unsupported(), (torch.randn(2, 3),)))

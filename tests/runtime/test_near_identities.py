"""Terms that nearly do nothing stay in the engine: a norm's 1e-9 decides what a row of zeros becomes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sparsefx.passes.capture import capture
from sparsefx.passes.describe import describe
from sparsefx.runtime.engine import Engine
from sparsefx.runtime.onnxruntime.lower import lower_to_onnx
from sparsefx.runtime.onnxruntime.session import onnxruntime_engine

EPS = 1e-9


def _engine(model: nn.Module, x: Tensor, folder: Path) -> Engine:
    graph = capture(model.eval(), (x,))
    return onnxruntime_engine(lower_to_onnx(graph, describe(graph), folder), describe(graph))


def _mean_square(x: Tensor) -> Tensor:
    return x.pow(2).mean(-1, keepdim=True)


FORMS: dict[str, Callable[[Tensor], Tensor]] = {
    "added": lambda x: x * torch.rsqrt(_mean_square(x) + EPS),
    "added to": lambda x: x * torch.rsqrt(EPS + _mean_square(x)),
    "subtracted": lambda x: x * torch.rsqrt(_mean_square(x) - -EPS),
    "a tensor": lambda x: x / (_mean_square(x).sqrt() + torch.tensor(EPS)),
    "of a variance": lambda x: x / (x.var(-1, keepdim=True) + EPS).sqrt(),
    "a norm's own": lambda x: F.rms_norm(x, (8,), eps=EPS),
    "a factor": lambda x: (x * 1.000009 - x) * 1e6,
    "a divisor": lambda x: (x / 1.000009 - x) * 1e6,
    "of a scalar": lambda x: x / (x.abs().sum() * 0 + EPS) * EPS,
    "of a product of constants": lambda x: x * torch.rsqrt(_mean_square(x) + torch.tensor(1e-4) * torch.tensor(1e-5)),
}


class _Forms(nn.Module):
    """(n, 4) -> (n, 8) by every form: rows about as small as the term."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 8, bias=False)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {name: form(self.fc(x) * 1e-5) for name, form in FORMS.items()}


def test_the_engine_keeps_them(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = _Forms()
    rows = torch.cat([torch.randn(5, 4), torch.zeros(1, 4)])
    have, want = _engine(model, torch.randn(2, 4), tmp_path)(rows), model(rows)
    for form in FORMS:
        expected = want[form].detach()
        error = float((torch.as_tensor(have[form]) - expected).abs().max())
        assert error < 1e-5 * float(expected.std()), form


class _Loss(nn.Module):
    """A scalar is an output; its name is the user's."""

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"loss": x.mean() * 1e-6 + EPS, "rows": x + 1}


def test_scalars_stay_scalars_and_outputs_keep_their_names(tmp_path: Path) -> None:
    have = _engine(_Loss(), torch.randn(4, 3), tmp_path)(torch.zeros(2, 3))
    assert [output.name for output in onnx.load(tmp_path / "model.onnx").graph.output] == ["loss", "rows"]
    assert have["loss"].shape == () and float(have["loss"]) == pytest.approx(EPS)


class _Nothing(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.relu((x + 0.0) * 1.0)


def test_what_does_nothing_at_all_goes(tmp_path: Path) -> None:
    _engine(_Nothing(), torch.randn(2, 3), tmp_path)
    assert [node.op_type for node in onnx.load(tmp_path / "model.onnx").graph.node] == ["Relu"]

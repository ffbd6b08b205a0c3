"""Attention in engines where a mask leaves a query no key: zeros, as in torch."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sparsefx.passes.capture import capture
from sparsefx.passes.describe import describe
from sparsefx.passes.graph import operator_name
from sparsefx.runtime.onnxruntime.empty_rows import zero_empty_rows
from sparsefx.runtime.onnxruntime.lower import lower_to_onnx
from sparsefx.runtime.onnxruntime.session import onnxruntime_engine


class Masked(nn.Module):
    """The same mask twice: as it is, and as numbers to add."""

    def forward(self, q: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        numbers = torch.zeros_like(mask, dtype=q.dtype).masked_fill(~mask, -torch.inf)
        return F.scaled_dot_product_attention(q, q, q, mask), F.scaled_dot_product_attention(q, q, q, numbers)


class Constant(nn.Module):
    def __init__(self, mask: Tensor) -> None:
        super().__init__()
        self.register_buffer("mask", mask)

    def forward(self, q: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(q, q, q, self.mask)


def test_queries_without_keys_are_zero(tmp_path: Path) -> None:
    torch.manual_seed(0)
    q, mask = torch.randn(2, 2, 5, 4), torch.rand(2, 1, 5, 5) < 0.5
    mask[0, 0, 1] = mask[1, 0, 4] = False
    model = Masked()
    want = model(q, mask)
    assert not want[0][0, :, 1].any() and not want[1][1, :, 4].any()
    graph = capture(model, (q, mask))
    engine = onnxruntime_engine(lower_to_onnx(graph, describe(graph), tmp_path), describe(graph))
    for have, expected in zip(engine(q, mask), want, strict=True):
        torch.testing.assert_close(have, expected)


@pytest.mark.parametrize(("full", "added"), [(True, 0), (False, 1)])
def test_only_masks_that_may_leave_a_row_empty_cost_anything(full: bool, added: int) -> None:
    mask = torch.ones(5, 5, dtype=torch.bool).tril()
    mask[2] &= full
    graph = capture(Constant(mask), (torch.randn(2, 2, 5, 4),))
    zero_empty_rows(graph)
    assert [operator_name(n) for n in graph.graph.nodes].count("aten::where") == added

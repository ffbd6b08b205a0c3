"""Attention over fewer and more axes than ONNX's exporter knows: engines give what torch gives."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import sparsefx


class Attention(nn.Module):
    """Projections of the last axis, and attention over whatever is in front; the mask as it is or as numbers to add."""

    def __init__(self, causal: bool = False, numbers: bool = False) -> None:
        super().__init__()
        self.query, self.both, self.causal, self.numbers = nn.Linear(8, 8), nn.Linear(8, 16), causal, numbers

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        key, value = self.both(x).chunk(2, -1)
        if mask is not None and self.numbers:
            mask = torch.zeros_like(mask, dtype=x.dtype).masked_fill(~mask, -torch.inf)
        return F.scaled_dot_product_attention(self.query(x), key, value, mask, is_causal=self.causal)


@pytest.mark.parametrize("shape", [(3, 5, 8), (3, 4, 2, 5, 8), pytest.param((3, 2, 2, 2, 5, 8), marks=pytest.mark.ci)])
@pytest.mark.parametrize("causal", [False, pytest.param(True, marks=pytest.mark.ci)])
def test_any_number_of_axes(shape: tuple[int, ...], causal: bool) -> None:
    torch.manual_seed(0)
    model, x = Attention(causal).eval(), torch.randn(shape)
    engine = sparsefx.compile(model, (x,), representation="dense", threads=1).engine()  # verifies
    for batch in (1, 4):
        x = torch.randn(batch, *shape[1:])
        torch.testing.assert_close(engine(x), model(x).detach(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("shape", "mask"),
    [
        ((3, 5, 8), (5, 5)),
        ((3, 5, 8), (3, 5, 5)),
        ((3, 4, 2, 5, 8), (5, 5)),
        ((3, 4, 2, 5, 8), (2, 5, 5)),
        ((3, 4, 2, 5, 8), (4, 1, 5, 5)),
        ((3, 4, 2, 5, 8), (3, 4, 1, 1, 5)),
    ],
    ids=str,
)
@pytest.mark.parametrize("numbers", [pytest.param(False, marks=pytest.mark.ci), True])
def test_masks_that_broadcast(shape: tuple[int, ...], mask: tuple[int, ...], numbers: bool) -> None:
    torch.manual_seed(0)
    model, x, given = Attention(numbers=numbers).eval(), torch.randn(shape), torch.rand(mask) < 0.6
    engine = sparsefx.compile(model, (x, given), representation="dense", threads=1, dynamic_batch=False).engine()
    torch.testing.assert_close(engine(x, given), model(x, given).detach(), rtol=1e-4, atol=1e-5)

"""Small models that the compiler's tests share."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sparsefx import MaskSet


class Residual(nn.Module):
    """A small residual network: stem, one block, head; the block's middle channels are free to go."""

    def __init__(self, width: int = 8, classes: int = 5) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, padding=1)
        self.conv1, self.norm1 = nn.Conv2d(width, 2 * width, 3, padding=1), nn.BatchNorm2d(2 * width)
        self.conv2, self.norm2 = nn.Conv2d(2 * width, width, 1), nn.BatchNorm2d(width)
        self.head = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem(x))
        y = torch.relu(self.norm1(self.conv1(x)))
        x = torch.relu(x + self.norm2(self.conv2(y)))
        out: Tensor = self.head(x.mean((2, 3)))
        return out


def residual(seed: int = 0) -> Residual:
    """The network with random statistics, in evaluation mode."""
    torch.manual_seed(seed)
    model = Residual().eval()
    with torch.no_grad():
        for norm in (model.norm1, model.norm2):
            norm.running_mean.normal_()  # type: ignore[union-attr]
            norm.running_var.uniform_(0.5, 2.0)  # type: ignore[union-attr]
            norm.bias.normal_()
    return model


def half_of_conv1(model: Residual) -> MaskSet:
    """Every other filter of conv1 masked."""
    mask = torch.ones_like(model.conv1.weight, dtype=torch.bool)
    mask[::2] = False
    return MaskSet({"conv1.weight": mask})


def masked(model: Residual, masks: MaskSet, x: Tensor) -> Tensor:
    """The masked model's output."""
    with torch.no_grad():
        out: Tensor = torch.func.functional_call(model, masks.masked_state(model), (x,))
    return out

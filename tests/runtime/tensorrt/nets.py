"""Networks that the tests of TensorRT build."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Net(nn.Module):
    """Every condensed operator, with all that it takes along."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.down = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 16, 3, stride=2, padding=1)
        self.block = nn.Conv2d(16, 16, 1)
        self.up, self.back = nn.Linear(16, 40), nn.Linear(40, 16)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.down(torch.relu(self.stem(x))))
        x = torch.relu(self.block(x) + x)
        tokens = x.flatten(2).transpose(1, 2)
        y: Tensor = self.back(nn.functional.gelu(self.up(tokens))) + tokens
        return y


def pruned(model: nn.Module, density: float = 0.2) -> nn.Module:
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for layer in model.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                layer.weight.mul_(torch.rand(layer.weight.shape, generator=generator) < density)
    return model.eval()


def sparse_net(density: float = 0.2) -> nn.Module:
    torch.manual_seed(0)
    return pruned(Net(), density)

"""Small networks, and tables whose times follow a formula instead of a machine."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from sparsefx.runtime.latency.node import EngineNode
from sparsefx.runtime.latency.record import NodeTime, Record, Setting
from sparsefx.runtime.latency.table import LatencyTable

SETTING = Setting("onnxruntime:cpu", "a processor", "onnxruntime 1.0", 1, 1)
BLOCKED, PLAIN, ADD = "blocked.Conv, kernel 3x3", "Conv, kernel 3x3", "Add, ranks 4x4"


class Residual(nn.Module):
    """A stem, a residual block, a depthwise pair and a classifier: four widths."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.norm = nn.BatchNorm2d(16)
        self.first = nn.Conv2d(16, 24, 3, padding=1)
        self.second = nn.Conv2d(24, 16, 3, padding=1)
        self.depthwise = nn.Conv2d(16, 16, 3, padding=1, groups=16)
        self.point = nn.Conv2d(16, 32, 1)
        self.head = nn.Linear(32, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.stem(x)))
        x = torch.relu(x + self.second(torch.relu(self.first(x))))
        x = torch.relu(self.point(torch.relu(self.depthwise(x))))
        return self.head(x.mean((2, 3)))


class Perceptron(nn.Module):
    """Tokens through an MLP whose inside is the only width, and a flattened image in front."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 4, stride=4)
        self.norm = nn.LayerNorm(8)
        self.wide = nn.Linear(8, 32)
        self.narrow = nn.Linear(32, 8)
        self.head = nn.Linear(8 * 16, 4)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patches(x).flatten(2).transpose(1, 2)
        tokens = tokens + self.narrow(nn.functional.gelu(self.wide(self.norm(tokens))))
        return self.head(tokens.flatten(1))


def image(batch: int = 1, size: int = 16) -> Tensor:
    return torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(0))


def convolution_seconds(c_in: int, c_out: int) -> float:
    """A staircase: inputs that are multiples of four run blocked, in blocks of sixteen; others at twice the price."""
    up = -(-c_out // 16) * 16
    return 1e-5 + 1e-8 * c_in * up if c_in % 4 == 0 else 2e-5 + 2e-8 * c_in * c_out


def record(c_in: int, c_out: int, *, pace: float = 1.0, spread: float = 0.01, model: str = "net") -> Record:
    """A network of one convolution and an Add on a machine `pace` times as slow."""
    blocked = c_in % 4 == 0
    stored = (c_in, -(-c_out // 16) * 16) if blocked else (c_in, c_out)
    nodes = (
        NodeTime(
            EngineNode("c", BLOCKED if blocked else PLAIN, stored, "conv", (c_in, c_out)),
            convolution_seconds(c_in, c_out) * pace,
            0.01,
        ),
        NodeTime(EngineNode("a", ADD, (200 * c_out, 100 * c_out)), 1e-9 * 300 * c_out * pace, 0.01),
    )
    whole = sum(n.seconds for n in nodes) + 2 * 1e-6 * pace
    return Record(model, {"before": c_in, "conv": c_out}, nodes, whole, spread, 10, 1e-3 * pace)


INPUTS, OUTPUTS = (16, 30, 32, 46, 48, 64), (14, 16, 30, 32, 48, 62, 64)


def table(inputs: Sequence[int] = INPUTS, outputs: Sequence[int] = OUTPUTS, pace: float = 1.0) -> LatencyTable:
    return LatencyTable(SETTING, [record(a, b, pace=pace) for a, b in itertools.product(inputs, outputs)])

"""Which weights and vectors belong to a coupled channel."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sparsefx.passes.capture import capture
from sparsefx.passes.channels.groups import channel_groups


class Net(nn.Module):
    """A residual sum with a BatchNorm behind one of its branches, and a bias and a slope per channel beside it."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 1)
        self.branch = nn.Conv2d(4, 4, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(4)
        self.slope = nn.PReLU(4)
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = self.slope(x + self.norm(self.branch(F.relu(x))))
        y: Tensor = self.head(x.mean((2, 3)))
        return y


def test_entries_are_those_of_batch_norms_biases_and_slopes() -> None:
    groups = channel_groups(capture(Net(), (torch.zeros(2, 3, 5, 5),)))
    assert len(groups) == 6, "four channels of the sum, two outputs"
    norm = {f"norm.{name}" for name in ("weight", "bias", "running_mean", "running_var")}
    for channel, group in enumerate(groups[:4]):
        assert {s.parameter for s in group.producers} == {"stem.weight", "branch.weight"}
        assert {s.parameter for s in group.entries} == {*norm, "stem.bias", "slope.weight"}
        assert all(s.index == (channel,) for s in group.entries)
    for output, group in enumerate(groups[4:]):
        assert [(s.parameter, s.index) for s in group.entries] == [("head.bias", (output,))]

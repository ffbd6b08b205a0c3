"""Channels that could go stay up to a least width, and nothing else changes."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from sparsefx.passes.capture import capture
from sparsefx.passes.channels.analysis import WIDTH
from sparsefx.passes.remove_channels import RemoveChannels


class Net(nn.Module):
    """A residual sum, a concatenation, a depthwise layer, constants that go into biases and padded borders."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 12, 3, padding=1)
        self.inner = nn.Conv2d(12, 20, 3, padding=1)
        self.depthwise = nn.Conv2d(20, 20, 3, padding=1, groups=20)
        self.back = nn.Conv2d(20, 12, 1)
        self.beside = nn.Conv2d(12, 8, 1)
        self.head = nn.Linear(20, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem(x))
        y = torch.relu(self.depthwise(torch.relu(self.inner(x))))
        x = torch.relu(x + self.back(y))
        x = torch.cat([x, torch.sigmoid(self.beside(x))], 1)
        z: Tensor = self.head(x.mean((2, 3)))
        return z


def masked(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    net = Net().eval().double()
    with torch.no_grad():
        for layer in (net.stem, net.inner, net.depthwise, net.back, net.beside):
            layer.weight[torch.rand(len(layer.weight)) < 0.5] = 0  # type: ignore[index,arg-type]
        net.head.weight[:, torch.rand(20) < 0.4] = 0
    return net


X = torch.randn(2, 3, 9, 9, dtype=torch.float64)


def outputs(graph: torch.fx.GraphModule) -> dict[str, int]:
    return {n.removesuffix(".weight"): len(p) for n, p in graph.state_dict().items() if n.endswith(".weight")}


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("share", [0.3, 0.8, 1.0])
def test_layers_keep_their_least_width(seed: int, share: float) -> None:
    net = masked(seed)
    exact, wider = (capture(net, (X,)) for _ in range(2))
    full = outputs(exact)
    RemoveChannels()(exact)
    least = {name: round(share * full[name]) for name in ("inner", "stem", "beside")}
    removal = RemoveChannels(least=least)
    removal(wider)
    torch.testing.assert_close(wider(X), net(X), rtol=0, atol=1e-9)
    slim, found = outputs(exact), outputs(wider)
    for name in slim:
        assert found[name] >= max(slim[name], least.get(name, 0))
    assert not RemoveChannels(least=least)(wider).modified
    if any(slim[name] < least[name] for name in least if name in slim):
        assert removal.analysis is not None and WIDTH in removal.analysis.reasons.values()


def test_no_more_than_the_layer_had() -> None:
    net = masked(0)
    graph = capture(copy.deepcopy(net), (X,))
    assert not RemoveChannels(least={"inner": 99, "stem": 99, "beside": 99, "back": 99, "head": 99})(graph).modified

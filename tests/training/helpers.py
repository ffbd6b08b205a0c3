"""Small networks and training loops that the tests of the training floor share."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer

from sparsefx.training import Chase, Sparsifier


class Plain(nn.Module):
    """Three convolutions and a head, every channel of the first three internal; (n, 3, 8, 8) -> (n, 5)."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, 2 * width, 3, stride=2, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(2 * width)
        self.conv3 = nn.Conv2d(2 * width, 2 * width, 1)
        self.fc = nn.Linear(2 * width, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        x = F.relu(self.bn2(self.conv2(x)))
        logits: Tensor = self.fc(F.relu(self.conv3(x)).mean((2, 3)))
        return logits


class Residual(nn.Module):
    """A stem, a projection and two residual branches: internal and coupled channels; (n, 3, 8, 8) -> (n, 5)."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.project = nn.Conv2d(width, 2 * width, 1, bias=False)
        self.branch1 = nn.Sequential(
            nn.Conv2d(2 * width, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, 2 * width, 3, padding=1)
        )
        self.branch2 = nn.Sequential(
            nn.Conv2d(2 * width, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, 2 * width, 3, padding=1)
        )
        self.fc = nn.Linear(2 * width, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.project(F.relu(self.norm(self.stem(x))))
        x = F.relu(x + self.branch1(x))
        x = F.relu(x + self.branch2(x))
        logits: Tensor = self.fc(x.mean((2, 3)))
        return logits


EXAMPLE = (torch.zeros(2, 3, 8, 8),)


def sgd(model: nn.Module) -> Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-3)


def adam(model: nn.Module) -> Optimizer:
    return torch.optim.Adam(model.parameters(), lr=1e-3, amsgrad=True)


def batch(step: int, size: int = 4) -> tuple[Tensor, Tensor]:
    """The same images and labels for the same step."""
    generator = torch.Generator().manual_seed(step)
    return torch.randn(size, 3, 8, 8, generator=generator), torch.randint(0, 5, (size,), generator=generator)


def backward(model: nn.Module, step: int) -> Tensor:
    images, labels = batch(step)
    loss = F.cross_entropy(model(images), labels)
    loss.backward()  # type: ignore[no-untyped-call]
    return loss.detach()


def train(
    model: nn.Module,
    sparsifier: Optimizer,
    steps: int,
    *,
    first: int = 0,
    after: Callable[[int], None] | None = None,
) -> None:
    for step in range(first, first + steps):
        sparsifier.zero_grad()
        backward(model, step)
        sparsifier.step()
        if after is not None:
            after(step)


def assert_masked(sparsifier: Sparsifier) -> None:
    """Weights and optimizer state are zero wherever the masks are."""
    for layer in sparsifier.layers.values():
        assert not layer.weight[~layer.mask].any(), layer.name
        for key, value in sparsifier.state.get(layer.parameter, {}).items():
            if isinstance(value, Tensor) and value.shape == layer.mask.shape:
                assert not value[~layer.mask].any(), (layer.name, key)


def assert_sound(sparsifier: Sparsifier) -> None:
    """Weights are masked, unless the method explores just now."""
    if not sparsifier.exploring:
        assert_masked(sparsifier)


def same_weights(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


def seeded(build: Callable[[], nn.Module], seed: int = 0) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build()


def smooth(seed: int = 0) -> nn.Module:
    """A model whose loss over a batch is the mean of that over its parts; float64, so that rounding decides nothing."""
    model = seeded(Plain, seed).double()
    model.bn1, model.bn2 = nn.Identity(), nn.Identity()
    return model


def chase(model: nn.Module, optimizer: Optimizer | None = None, **options: Any) -> Chase:
    """Chase with intervals short enough for a test."""
    defaults: dict[str, Any] = {
        "total_steps": 30,
        "update_interval": 2,
        "sparsity": 0.8,
        "example_inputs": EXAMPLE,
    }
    return Chase(model, optimizer or sgd(model), **(defaults | options))


@cache
def resnet50() -> nn.Module:
    """Tests must not change it."""
    import torchvision

    model: nn.Module = torchvision.models.resnet50(weights=None)
    return model


def same(a: Any, b: Any) -> bool:
    """Whether two states, of dicts and lists, have the same values to the bit."""
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return torch.equal(a, b) if isinstance(a, Tensor) else bool(a == b)

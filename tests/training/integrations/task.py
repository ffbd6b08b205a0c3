"""A few of the digits and a small network, for the training loops of other packages."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from sparsefx.training import RigL
from sparsefx.training.recipes.data.digits import load_digits

IMAGES, BATCH = 96, 16
STEPS_AN_EPOCH = IMAGES // BATCH


def small_net() -> nn.Sequential:
    """Always with the same weights."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(512, 24),
        nn.ReLU(),
        nn.Linear(24, 10),
    )


def digits() -> TensorDataset:
    task = load_digits()
    return TensorDataset(task.train_images[:IMAGES], task.train_labels[:IMAGES])


def loader() -> DataLoader[tuple[Tensor, ...]]:
    """Always in the same order, so that a resumed run sees what an uninterrupted one does."""
    return DataLoader(digits(), batch_size=BATCH)


def rigl(model: nn.Module, optimizer: torch.optim.Optimizer, total_steps: int) -> RigL:
    """Updates masks every second step."""
    return RigL(model, optimizer, sparsity=0.8, total_steps=total_steps, update_interval=2)


def assert_on_masks(model: nn.Module, sparsifier: RigL) -> None:
    """Masked weights are zero, and the others were trained."""
    weights = dict(model.named_parameters())
    for name, mask in sparsifier.masks().items():
        assert not weights[name][~mask].any(), name
        assert weights[name][mask].any(), name
    assert abs(sparsifier.sparsity - 0.8) < 0.01


def assert_same(one: nn.Module, other: nn.Module) -> None:
    for (name, a), b in zip(one.state_dict().items(), other.state_dict().values(), strict=True):
        assert torch.equal(a, b), name

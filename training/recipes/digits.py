"""Handwritten digits, sparse from the first step: a small residual network that Chase trains in seconds.

The data are scikit-learn's 1797 real digits (UCI, 8x8 pixels), which come with the package: nothing is downloaded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.lr_scheduler import OneCycleLR

from ...passes.errors import SparsefxError
from ..masks import MaskSet
from ..methods.chase import Chase

_TRAINING_IMAGES = 1437  # four fifths of 1797
_LEARNING_RATE = 0.1


@dataclass(frozen=True, eq=False)
class DigitsData:
    """Images of shape (n, 1, 16, 16), normalised by the training images; labels 0 to 9 of shape (n,)."""

    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor


@dataclass(frozen=True)
class Progress:
    """The state after an epoch; `epoch` counts from 1, `loss` is its mean training loss."""

    epoch: int
    epochs: int
    loss: float
    sparsity: float
    removed_channels: int


@dataclass(frozen=True, eq=False)
class TrainedDigits:
    """A masked model in evaluation mode, its masks, its data, and its accuracy on the test images (0 to 1)."""

    model: nn.Module
    masks: MaskSet
    data: DigitsData
    accuracy: float
    sparsifier: Chase


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions around a shortcut, which is a 1x1 convolution where the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


class DigitsNet(nn.Module):
    """A residual network of three stages, two of them strided; (n, 1, 16, 16) -> logits (n, 10)."""

    def __init__(self, stem: int = 16, widths: tuple[int, int, int] = (32, 64, 64)) -> None:
        super().__init__()
        first, second, third = widths
        self.stem = nn.Sequential(nn.Conv2d(1, stem, 3, padding=1, bias=False), nn.BatchNorm2d(stem), nn.ReLU())
        self.stage1 = nn.Sequential(ResidualBlock(stem, first), ResidualBlock(first, first))
        self.stage2 = nn.Sequential(ResidualBlock(first, second, stride=2), ResidualBlock(second, second))
        self.stage3 = nn.Sequential(ResidualBlock(second, third, stride=2), ResidualBlock(third, third))
        self.head = nn.Linear(third, 10)

    def forward(self, x: Tensor) -> Tensor:
        y = self.stage3(self.stage2(self.stage1(self.stem(x))))
        logits: Tensor = self.head(y.mean((2, 3)))
        return logits


def load_data() -> DigitsData:
    """The digits, enlarged to 16x16, in a split that is always the same. SparsefxError without scikit-learn."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise SparsefxError(
            "the digits come with scikit-learn, which is not installed: pip install 'sparsefx[quickstart]'"
        ) from error
    digits = load_digits()
    order = np.random.default_rng(0).permutation(len(digits.target))
    images = torch.tensor(digits.images[order], dtype=torch.float32)[:, None]
    labels = torch.tensor(digits.target[order])
    images = F.interpolate(images, scale_factor=2, mode="bilinear", align_corners=False)
    seen = images[:_TRAINING_IMAGES]
    images = (images - seen.mean()) / seen.std()
    cut = _TRAINING_IMAGES
    return DigitsData(images[:cut], labels[:cut], images[cut:], labels[cut:])


def train(
    *,
    sparsity: float = 0.9,
    channel_sparsity: float = 0.5,
    epochs: int = 10,
    batch_size: int = 64,
    seed: int = 0,
    threads: int = 1,
    data: DigitsData | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> TrainedDigits:
    """Train a DigitsNet with Chase; about 20 s on one CPU thread.

    `channel_sparsity` is the share of channels that is removed, residual sums included (`prune_skip`), the stem
    left out. `sparsity=0, channel_sparsity=0` trains the dense model. The same `seed` and `threads` give the same
    model; the caller's random state and threads are left as they were. `progress` is called after every epoch.
    """
    data = data or load_data()
    with torch.random.fork_rng(devices=[]), _on_threads(threads):
        torch.manual_seed(seed)
        model = DigitsNet()
        batches = -(-len(data.train_images) // batch_size)
        sparsifier = _chase(model, data, sparsity, channel_sparsity, epochs * batches, seed)
        schedule = OneCycleLR(sparsifier, _LEARNING_RATE, total_steps=epochs * batches, pct_start=0.2)
        for epoch in range(1, epochs + 1):
            loss = _train_epoch(model, sparsifier, schedule, data, batch_size)
            if progress is not None:
                progress(Progress(epoch, epochs, loss, sparsifier.sparsity, sparsifier.removed_channels))
    model.eval()
    return TrainedDigits(model, sparsifier.masks(), data, accuracy(model, data), sparsifier)


@contextmanager
def _on_threads(threads: int) -> Iterator[None]:
    """Networks this small gain little from a second thread, and lose much where it has to wait for a core."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _chase(
    model: nn.Module, data: DigitsData, sparsity: float, channel_sparsity: float, total_steps: int, seed: int
) -> Chase:
    optimizer = torch.optim.SGD(model.parameters(), _LEARNING_RATE, momentum=0.9, weight_decay=5e-4, nesterov=True)
    return Chase(
        model,
        optimizer,
        total_steps=total_steps,
        example_inputs=(data.train_images[:2],),
        sparsity=sparsity,
        channel_sparsity=channel_sparsity,
        minimum_width=0.5,  # the paper's choice for residual networks on small images (Table 9)
        prune_skip=True,
        seed=seed,
    )


def _train_epoch(model: nn.Module, sparsifier: Chase, schedule: OneCycleLR, data: DigitsData, batch_size: int) -> float:
    """One pass over the training images in random order; the mean loss."""
    model.train()
    losses = []
    for batch in torch.split(torch.randperm(len(data.train_images)), batch_size):
        loss = F.cross_entropy(model(data.train_images[batch]), data.train_labels[batch])
        sparsifier.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        sparsifier.step()
        schedule.step()
        losses.append(loss.item())
    return sum(losses) / len(losses)


@torch.no_grad()
def accuracy(model: Callable[[Tensor], Any], data: DigitsData) -> float:
    """Share of the test images that a module, engine or function (images -> logits, torch or NumPy) gets right.

    A module is used in the mode it is in.
    """
    logits = torch.as_tensor(model(data.test_images))
    return float((logits.argmax(1) == data.test_labels).float().mean())

"""What a training leaves: the network, its log, and how often it is right."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..masks import MaskSet
from ..sparsifier import Sparsifier
from .data.task import ImageTask

_TEST_BATCH = 500


@dataclass(frozen=True)
class EpochLog:
    """After an epoch, which counts from 1: mean training loss, accuracy on the test images (0 to 1), sparsity, and
    output channels with a weight (None for a dense network).
    """

    epoch: int
    loss: float
    accuracy: float
    sparsity: float
    active_channels: int | None


@dataclass(frozen=True, eq=False)
class Trained:
    """A network in evaluation mode; `sparsifier` and `masks` are None for a dense one."""

    model: nn.Module
    task: ImageTask
    log: list[EpochLog]
    sparsifier: Sparsifier | None

    @property
    def masks(self) -> MaskSet | None:
        return None if self.sparsifier is None else self.sparsifier.masks()

    @property
    def accuracy(self) -> float:
        return self.log[-1].accuracy


@torch.no_grad()
def accuracy(model: Callable[[Tensor], Any], task: ImageTask) -> float:
    """Share of the test images that a module, engine or function (images -> logits, torch or NumPy) gets right.

    A module is used in the mode it is in.
    """
    right = 0
    for images, labels in task.test_batches(_TEST_BATCH):
        right += int((torch.as_tensor(model(images)).argmax(1) == labels).sum())
    return right / task.test_size

"""What a training needs of its data: batches that depend on nothing but seed, epoch and place."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

Batch = tuple[Tensor, Tensor]
Augment = Callable[[Tensor, torch.Generator], Tensor]


class ImageTask(Protocol):
    """Images of one size with labels from 0. A resumed training asks for the batches that are left of an epoch."""

    @property
    def classes(self) -> int: ...

    @property
    def image_shape(self) -> tuple[int, ...]: ...

    @property
    def train_size(self) -> int: ...

    @property
    def test_size(self) -> int: ...

    def train_batches(self, batch_size: int, seed: int, epoch: int, first: int = 0) -> Iterator[Batch]:
        """An epoch in random order from batch `first` on: always the same for the same seed and epoch."""

    def test_batches(self, batch_size: int) -> Iterator[Batch]:
        """The test images in order."""


@dataclass(frozen=True, eq=False)
class TensorTask:
    """Images of shape (n, channels, height, width) and labels of shape (n,), all in memory."""

    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor
    classes: int
    augment: Augment | None = None

    @property
    def image_shape(self) -> tuple[int, ...]:
        return tuple(self.train_images.shape[1:])

    @property
    def train_size(self) -> int:
        return len(self.train_labels)

    @property
    def test_size(self) -> int:
        return len(self.test_labels)

    def train_batches(self, batch_size: int, seed: int, epoch: int, first: int = 0) -> Iterator[Batch]:
        order = torch.randperm(self.train_size, generator=generator_for(seed, epoch))
        for number, places in enumerate(torch.split(order, batch_size)):
            if number >= first:
                images = self.train_images[places]
                if self.augment is not None:
                    images = self.augment(images, generator_for(seed, epoch, number))
                yield images, self.train_labels[places]

    def test_batches(self, batch_size: int) -> Iterator[Batch]:
        yield from zip(
            torch.split(self.test_images, batch_size), torch.split(self.test_labels, batch_size), strict=True
        )


def generator_for(*places: int) -> torch.Generator:
    """Random numbers of a place in the training, independent of all other places."""
    digest = hashlib.sha256(repr(places).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8]) >> 1)


def normalised(images: Tensor, mean: Tensor, deviation: Tensor) -> Tensor:
    """Per channel; images of shape (n, channels, height, width)."""
    return (images - mean.view(1, -1, 1, 1)) / deviation.view(1, -1, 1, 1)

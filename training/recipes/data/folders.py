"""Folders of images, one per class, in `train` and `val`: ImageNet as it is usually kept. Read with torchvision."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from ....passes.errors import SparsefxError
from .task import Batch, generator_for

_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True, eq=False)
class FolderTask:
    """Images cut to (3, `size`, `size`): a random crop, flipped by chance, in training; the middle in tests."""

    train: Any
    test: Any
    size: int
    workers: int

    @property
    def classes(self) -> int:
        return len(self.train.classes)

    @property
    def image_shape(self) -> tuple[int, ...]:
        return (3, self.size, self.size)

    @property
    def train_size(self) -> int:
        return len(self.train)

    @property
    def test_size(self) -> int:
        return len(self.test)

    def train_batches(self, batch_size: int, seed: int, epoch: int, first: int = 0) -> Iterator[Batch]:
        order = torch.randperm(self.train_size, generator=generator_for(seed, epoch))[first * batch_size :]
        seeded = _Seeded(self.train, seed, epoch)
        yield from DataLoader(seeded, batch_size, sampler=order.tolist(), num_workers=self.workers)

    def test_batches(self, batch_size: int) -> Iterator[Batch]:
        yield from DataLoader(self.test, batch_size, num_workers=self.workers)


@dataclass(frozen=True, eq=False)
class _Seeded(Dataset[Any]):
    """An image's random crop depends on seed, epoch and image, whichever process makes it."""

    images: Any
    seed: int
    epoch: int

    def __getitem__(self, index: int) -> Any:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(generator_for(self.seed, self.epoch, index).initial_seed())
            return self.images[index]

    def __len__(self) -> int:
        return len(self.images)


def load_folders(folder: Path, size: int = 224, workers: int = 4) -> FolderTask:
    """Raises SparsefxError without torchvision, or where `train` and `val` are missing or have different classes."""
    try:
        from torchvision import datasets, transforms
    except (ImportError, RuntimeError) as error:
        raise SparsefxError(
            f"folders of images are read with torchvision, which cannot be imported: {error}; install the torchvision "
            f"that belongs to torch {torch.__version__}, from the same index"
        ) from error
    for part in ("train", "val"):
        if not (folder / part).is_dir():
            raise SparsefxError(f"there is no folder {folder / part}; expected train and val with a folder per class")
    to_tensor = [transforms.ToTensor(), transforms.Normalize(_MEAN, _DEVIATION)]
    crop = [transforms.RandomResizedCrop(size), transforms.RandomHorizontalFlip()]
    middle = [transforms.Resize(round(size * 256 / 224)), transforms.CenterCrop(size)]
    train = _image_folder(datasets, folder / "train", transforms.Compose([*crop, *to_tensor]))
    test = _image_folder(datasets, folder / "val", transforms.Compose([*middle, *to_tensor]))
    if train.classes != test.classes:
        odd = sorted(set(train.classes) ^ set(test.classes))[0]
        raise SparsefxError(f"class {odd} is only in one of {folder / 'train'} and {folder / 'val'}")
    return FolderTask(train, test, size, workers)


def _image_folder(datasets: Any, folder: Path, transform: Any) -> Any:
    try:
        return datasets.ImageFolder(str(folder), transform)
    except FileNotFoundError as error:
        raise SparsefxError(f"{folder} has no images in folders by class: {error}") from error

"""CIFAR-10 and CIFAR-100 from their binary version, for those who have it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ....passes.errors import SparsefxError
from .task import TensorTask, normalised

_PIXELS = 3 * 32 * 32


@dataclass(frozen=True)
class _Version:
    """Files of a version; a record is `label_bytes` and the pixels, and its last label counts."""

    folder: str
    train: tuple[str, ...]
    test: str
    label_bytes: int
    classes: int


_VERSIONS = {
    "cifar10": _Version(
        "cifar-10-batches-bin", tuple(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin", 1, 10
    ),
    "cifar100": _Version("cifar-100-binary", ("train.bin",), "test.bin", 2, 100),
}


def load_cifar(name: str, folder: Path) -> TensorTask:
    """`name` is cifar10 or cifar100; `folder` holds the binary files, or the folder that their archive unpacks to.

    Images (n, 3, 32, 32), normalised per channel by the training images; in training flipped and shifted by up to four
    pixels. Raises SparsefxError for missing or damaged files; the Python version, which is pickled, is not read.
    """
    version = _VERSIONS[name]
    where = folder / version.folder if (folder / version.folder).is_dir() else folder
    parts = [_read(where / file, version) for file in version.train]
    train = torch.cat([images for images, _ in parts])
    test, test_labels = _read(where / version.test, version)
    mean, deviation = train.mean((0, 2, 3)), train.std((0, 2, 3))
    return TensorTask(
        normalised(train, mean, deviation),
        torch.cat([labels for _, labels in parts]),
        normalised(test, mean, deviation),
        test_labels,
        version.classes,
        flip_and_shift,
    )


def _read(path: Path, version: _Version) -> tuple[Tensor, Tensor]:
    """Images between 0 and 1, and labels."""
    if not path.is_file():
        raise SparsefxError(
            f"there is no {path}; expected the binary version of {version.folder}, as its archive from "
            "www.cs.toronto.edu/~kriz/cifar.html unpacks (the Python version is pickled and not read)"
        )
    data = np.fromfile(path, dtype=np.uint8)
    record = version.label_bytes + _PIXELS
    if not len(data) or len(data) % record:
        raise SparsefxError(f"{path} has {len(data)} bytes, no multiple of {record}; it is damaged, unpack it again")
    records = torch.from_numpy(data.reshape(-1, record))
    labels = records[:, version.label_bytes - 1].long()
    if int(labels.max()) >= version.classes:
        raise SparsefxError(f"{path} has label {int(labels.max())}, expected 0 to {version.classes - 1}; it is damaged")
    return records[:, version.label_bytes :].reshape(-1, 3, 32, 32).float() / 255, labels


def flip_and_shift(images: Tensor, generator: torch.Generator, most: int = 4) -> Tensor:
    """Every image flipped by chance, and moved by up to `most` pixels over a border of zeros."""
    count, _, height, width = images.shape
    flipped = torch.rand(count, generator=generator) < 0.5
    images = torch.where(flipped.view(-1, 1, 1, 1), images.flip(3), images)
    padded = F.pad(images, (most,) * 4)
    down, right = torch.randint(0, 2 * most + 1, (2, count), generator=generator)
    rows = (down.view(-1, 1) + torch.arange(height)).view(count, 1, height, 1)
    columns = (right.view(-1, 1) + torch.arange(width)).view(count, 1, 1, width)
    picked = torch.arange(count).view(-1, 1, 1, 1), torch.arange(images.shape[1]).view(1, -1, 1, 1), rows, columns
    return padded[picked]

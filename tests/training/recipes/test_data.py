"""Data of the recipes; CIFAR and folders are made here in the layout that people have."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import tests.torchvision_shim  # noqa: F401 - torchvision imports only after this
from sparsefx.passes.errors import SparsefxError
from sparsefx.training.recipes.data.cifar import flip_and_shift, load_cifar
from sparsefx.training.recipes.data.digits import load_digits
from sparsefx.training.recipes.data.folders import load_folders
from sparsefx.training.recipes.data.task import ImageTask, TensorTask, generator_for
from sparsefx.training.recipes.data.textures import make_textures


def epoch_of(task: ImageTask, batch_size: int, seed: int, epoch: int, first: int = 0) -> list[torch.Tensor]:
    return [images for images, _ in task.train_batches(batch_size, seed, epoch, first)]


def test_the_digits_are_real_and_their_five_folds_cover_them() -> None:
    folds = [load_digits(fold) for fold in range(5)]
    assert folds[0].train_images.shape == (1438, 1, 16, 16) and folds[0].image_shape == (1, 16, 16)
    assert sum(fold.test_size for fold in folds) == 1797
    assert all(fold.train_size + fold.test_size == 1797 for fold in folds)
    counts = torch.bincount(torch.cat([fold.test_labels for fold in folds]))
    assert counts.tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert abs(float(folds[0].train_images.mean())) < 1e-4 and abs(float(folds[0].train_images.std()) - 1) < 1e-4
    with pytest.raises(SparsefxError, match="folds 0 to 4, found 5"):
        load_digits(5)


def test_without_scikit_learn_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(SparsefxError, match=r"pip install 'sparsefx\[quickstart\]'"):
        load_digits()


def test_textures_are_the_same_for_a_seed_and_balanced() -> None:
    first, again, other = make_textures(64, 32), make_textures(64, 32), make_textures(64, 32, seed=1)
    assert first.image_shape == (3, 20, 20) and first.classes == 16
    assert torch.equal(first.train_images, again.train_images)
    assert not torch.equal(first.train_images, other.train_images)
    labels = torch.cat([first.train_labels, first.test_labels])
    assert torch.bincount(labels).tolist() == [6] * 16


def test_an_epoch_is_a_function_of_seed_and_epoch_and_can_be_resumed() -> None:
    task = make_textures(50, 16)
    whole = epoch_of(task, 8, seed=3, epoch=2)
    assert [len(images) for images in whole] == [8] * 6 + [2]
    rest = epoch_of(task, 8, seed=3, epoch=2, first=4)
    assert len(rest) == 3 and all(torch.equal(a, b) for a, b in zip(rest, whole[4:], strict=True))
    assert not torch.equal(whole[0], epoch_of(task, 8, seed=3, epoch=3)[0])
    assert not torch.equal(whole[0], epoch_of(task, 8, seed=4, epoch=2)[0])
    assert torch.equal(torch.cat(whole).sum((1, 2, 3)).sort().values, task.train_images.sum((1, 2, 3)).sort().values)


def test_flips_and_shifts_move_pixels_and_lose_only_the_border() -> None:
    images = torch.arange(2 * 3 * 8 * 8.0).reshape(2, 3, 8, 8) + 1
    moved = flip_and_shift(images, generator_for(0), most=0)
    assert all(torch.equal(m, i) or torch.equal(m, i.flip(2)) for m, i in zip(moved, images, strict=True))
    shifted = flip_and_shift(images, generator_for(1), most=2)
    assert shifted.shape == images.shape
    kept = set(shifted.flatten().tolist()) - {0.0}
    assert kept <= set(images.flatten().tolist()) and len(kept) >= 2 * 3 * 6 * 6


def write_cifar(folder: Path, name: str, per_file: int = 20) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """Random images in the binary layout; the records of the first training file."""
    rng = np.random.default_rng(0)
    files = [f"data_batch_{i}.bin" for i in range(1, 6)] + ["test_batch.bin"]
    labels, classes = (1, 10) if name == "cifar10" else (2, 100)
    files = files if name == "cifar10" else ["train.bin", "test.bin"]
    folder.mkdir(parents=True)
    for file in reversed(files):
        records = rng.integers(0, 256, (per_file, labels + 3072), dtype=np.uint8)
        records[:, labels - 1] = rng.integers(0, classes, per_file)
        records.tofile(folder / file)
    return records


@pytest.mark.parametrize(("name", "inner", "size"), [("cifar10", "cifar-10-batches-bin", 100), ("cifar100", "", 20)])
def test_cifar_in_its_binary_layout(tmp_path: Path, name: str, inner: str, size: int) -> None:
    records = write_cifar(tmp_path / "data" / inner, name)
    task = load_cifar(name, tmp_path / "data")
    assert task.train_images.shape == (size, 3, 32, 32) and task.test_size == 20
    assert task.classes == (10 if name == "cifar10" else 100)
    offset = 1 if name == "cifar10" else 2
    assert task.train_labels[:20].tolist() == records[:, offset - 1].tolist()
    first, mean = task.train_images[0], task.train_images.mean((0, 2, 3))
    assert mean.abs().max() < 1e-4 and (task.train_images.std((0, 2, 3)) - 1).abs().max() < 1e-4
    pixels = torch.from_numpy(records[0, offset:].astype(np.float32)).reshape(3, 32, 32)
    order = first.flatten(1).argsort(dim=1, stable=True)
    assert torch.equal(order, pixels.flatten(1).argsort(dim=1, stable=True)), "planes in order, row by row"
    assert len(epoch_of(task, 16, seed=0, epoch=1)) == -(-size // 16)


def test_cifar_that_is_missing_or_damaged(tmp_path: Path) -> None:
    with pytest.raises(SparsefxError, match=r"there is no .*data_batch_1.bin; expected the binary version"):
        load_cifar("cifar10", tmp_path)
    write_cifar(tmp_path / "cifar-10-batches-bin", "cifar10")
    broken = tmp_path / "cifar-10-batches-bin" / "data_batch_3.bin"
    content = broken.read_bytes()
    broken.write_bytes(content[:-5])
    with pytest.raises(SparsefxError, match=r"data_batch_3.bin has 61455 bytes, no multiple of 3073"):
        load_cifar("cifar10", tmp_path)
    broken.write_bytes(b"\xff" + content[1:])
    with pytest.raises(SparsefxError, match="has label 255, expected 0 to 9"):
        load_cifar("cifar10", tmp_path)


def write_folders(root: Path, classes: tuple[str, ...] = ("cat", "dog"), each: int = 5) -> None:
    rng = np.random.default_rng(0)
    for part in ("train", "val"):
        for label in classes:
            (root / part / label).mkdir(parents=True)
            for number in range(each):
                pixels = rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / part / label / f"{number}.png")


@pytest.mark.parametrize("workers", [0, 2])
def test_folders_of_images(tmp_path: Path, workers: int) -> None:
    write_folders(tmp_path)
    task = load_folders(tmp_path, size=32, workers=workers)
    assert (task.classes, task.image_shape, task.train_size, task.test_size) == (2, (3, 32, 32), 10, 10)
    whole = epoch_of(task, 4, seed=0, epoch=1)
    assert [tuple(images.shape) for images in whole] == [(4, 3, 32, 32), (4, 3, 32, 32), (2, 3, 32, 32)]
    rest = epoch_of(task, 4, seed=0, epoch=1, first=1)
    assert all(torch.equal(a, b) for a, b in zip(rest, whole[1:], strict=True)), "random crops too"
    labels = torch.cat([labels for _, labels in task.test_batches(4)])
    assert labels.tolist() == [0] * 5 + [1] * 5


def test_folders_that_do_not_fit(tmp_path: Path) -> None:
    with pytest.raises(SparsefxError, match=r"there is no folder .*train; expected train and val"):
        load_folders(tmp_path)
    (tmp_path / "train").mkdir()
    (tmp_path / "val").mkdir()
    with pytest.raises(SparsefxError, match="has no images in folders by class"):
        load_folders(tmp_path)
    write_folders(tmp_path / "x", ("cat",))
    write_folders(tmp_path / "y", ("dog",))
    (tmp_path / "x" / "val").rename(tmp_path / "old")
    (tmp_path / "y" / "val").rename(tmp_path / "x" / "val")
    with pytest.raises(SparsefxError, match="class cat is only in one of"):
        load_folders(tmp_path / "x")


def test_a_task_is_what_the_protocol_says() -> None:
    task: ImageTask = TensorTask(torch.zeros(4, 1, 2, 2), torch.zeros(4), torch.zeros(2, 1, 2, 2), torch.zeros(2), 3)
    assert (task.classes, task.image_shape, task.train_size, task.test_size) == (3, (1, 2, 2), 4, 2)

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from torch import Tensor

from sparsefx.passes.errors import SparsefxError
from sparsefx.training.recipes.digits import DigitsData, DigitsNet, Progress, accuracy, load_data, train


def test_the_data_are_real_and_always_the_same() -> None:
    data, again = load_data(), load_data()
    assert data.train_images.shape == (1437, 1, 16, 16) and data.test_images.shape == (360, 1, 16, 16)
    assert torch.equal(data.train_images, again.train_images) and torch.equal(data.test_labels, again.test_labels)
    assert abs(float(data.train_images.mean())) < 1e-4 and abs(float(data.train_images.std()) - 1) < 1e-4
    counts = torch.bincount(torch.cat([data.train_labels, data.test_labels]))
    assert counts.tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]


def test_a_short_run_is_sparse_accurate_and_repeatable() -> None:
    state = torch.get_rng_state()
    seen: list[Progress] = []
    trained = train(epochs=3, progress=seen.append)
    assert torch.equal(torch.get_rng_state(), state), "the caller's random numbers are left alone"
    assert [p.epoch for p in seen] == [1, 2, 3] and seen[-1].loss < seen[0].loss
    assert not trained.model.training
    assert trained.accuracy > 0.9

    sparsifier, masks = trained.sparsifier, trained.masks
    assert sparsifier.nonzeros == round(0.1 * sparsifier.size)
    assert sparsifier.removed_channels == len(sparsifier.channels.candidates) // 2
    masks.check(DigitsNet())
    for name, mask in masks.items():
        assert not trained.model.get_parameter(name)[~mask].any()
        width = sparsifier.channels.widths().get(name)
        assert width is None or int(mask.flatten(1).any(1).sum()) <= width


def test_the_seed_decides() -> None:
    data = load_data()
    few = DigitsData(data.train_images[:128], data.train_labels[:128], data.test_images[:10], data.test_labels[:10])
    first, second = (train(epochs=3, batch_size=16, seed=3, data=few) for _ in range(2))
    assert first.masks == second.masks
    for a, b in zip(first.model.state_dict().values(), second.model.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_accuracy_of_anything_callable() -> None:
    data = load_data()

    def right(images: Tensor) -> Tensor:
        return torch.nn.functional.one_hot(data.test_labels, 10)

    def in_numpy(images: Tensor) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
        logits = np.zeros((len(images), 10))
        logits[:, 3] = 1.0
        return logits

    assert accuracy(right, data) == 1.0
    assert accuracy(in_numpy, data) == pytest.approx(float((data.test_labels == 3).float().mean()))


def test_without_scikit_learn_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(SparsefxError, match=r"pip install 'sparsefx\[quickstart\]'"):
        load_data()

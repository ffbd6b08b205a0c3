"""Campfire's pruning era against loops over kernels, step by step; the patterns are in test_kernel_patterns.py."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from sparsefx.passes.errors import SparsefxError
from sparsefx.training import Campfire

from .helpers import EXAMPLE, Plain, adam, assert_masked, seeded, sgd, train
from .references import Values, after_optimizer_step

STEPS = 36
FIRST, LAST = 13, 20  # of the default era from 1/3 to 5/9


def campfire(model: nn.Module, **options: Any) -> Campfire:
    return Campfire(model, options.pop("optimizer", None) or sgd(model), **{"total_steps": STEPS, **options})


def equation_1(step: int, final: float) -> float:
    """With s_i = 0, its sign corrected; the era is the eight steps after step 12."""
    return final - (final - 0) * (1 - (step - 12) / 8) ** 3


class Wide(Plain):
    """A head of eight outputs, so that whole blocks cover it."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(16, 8)


def convolution(weight: Values, options: dict[str, Any], sparsity: float) -> Values:
    """Weights (outputs, inputs, positions), -1 where pruned; window_share is 0.8."""
    outputs, inputs, positions = weight.shape
    pattern, final = options["pattern"], options["sparsity"]
    by_window, by_kernel = 0, int(inputs * sparsity + 1e-9)
    if positions > 1 and pattern == "window":
        by_window, by_kernel = int(positions * sparsity + 1e-9), 0
        by_window = max(by_window, positions - options.get("most_in_window", positions))
    if positions > 1 and pattern == "combined":
        by_window = int(positions * 0.8 * sparsity + 1e-9)
        in_the_end = int(positions * 0.8 * final + 1e-9) / positions
        by_kernel = int(inputs * (1 - (1 - final) / (1 - in_the_end)) * sparsity / final + 1e-9)
    mask = np.zeros_like(weight, dtype=bool)
    for output in range(outputs):
        for i in sorted(range(inputs), key=lambda i: -float(weight[output, i].max()))[: inputs - by_kernel]:
            order = sorted(range(positions), key=lambda p: -float(weight[output, i, p]))
            mask[output, i, order[: positions - by_window]] = True
    return mask


def linear(weight: Values, options: dict[str, Any], sparsity: float) -> Values:
    """Weights (outputs, inputs), -1 where pruned; in blocks of 4 x 4 where asked for."""
    size = 4 if options["linear"] == "block" else 1
    rows, columns = weight.shape[0] // size, weight.shape[1] // size
    sums = {
        (r, c): float(weight[r * size : (r + 1) * size, c * size : (c + 1) * size].sum())
        for r in range(rows)
        for c in range(columns)
    }
    needed = {max(((r, c) for c in range(columns)), key=sums.__getitem__) for r in range(rows)}
    rest = sorted((block for block in sums if block not in needed), key=lambda block: -sums[block])
    room = max(len(sums) - int(len(sums) * sparsity + 1e-9) - len(needed), 0)
    mask = np.zeros_like(weight, dtype=bool)
    for r, c in [*needed, *rest[:room]]:
        mask[r * size : (r + 1) * size, c * size : (c + 1) * size] = True
    return mask


ERAS: list[dict[str, Any]] = [
    {"pattern": "window", "linear": "fine", "sparsity": 0.7},
    {"pattern": "window", "linear": "block", "sparsity": 0.5, "most_in_window": 3},
    {"pattern": "kernel", "linear": "block", "sparsity": 0.8},
    {"pattern": "combined", "linear": "fine", "sparsity": 0.6},
    {"pattern": "combined", "linear": "block", "sparsity": 0.9, "optimizer": adam},
]


@pytest.mark.parametrize("options", ERAS, ids=lambda options: f"{options['pattern']}, {options['linear']}")
def test_every_step_of_training(options: dict[str, Any]) -> None:
    """Dense before the era, evaluated after every step of it with what the optimizer made of weights, then fixed."""
    model = seeded(Wide)
    options = dict(options)
    optimizer = options.pop("optimizer", sgd)(model)
    sparsifier = campfire(model, optimizer=optimizer, **options)
    expected = {name: np.ones(layer.mask.shape, dtype=bool) for name, layer in sparsifier.layers.items()}
    for step in range(1, STEPS + 1):
        weights = after_optimizer_step(model, sparsifier, step)
        for name, old in expected.items():
            weight = np.where(old, np.abs(weights[name].reshape(old.shape)), -1.0).astype(np.float32)
            if FIRST <= step <= LAST and weight.ndim == 2:
                expected[name] = old & linear(weight, options, equation_1(step, options["sparsity"]))
            elif FIRST <= step <= LAST:
                rows = weight.reshape(*weight.shape[:2], -1)
                mask = convolution(rows, options, equation_1(step, options["sparsity"]))
                expected[name] = old & mask.reshape(old.shape)
        train(model, sparsifier, 1, first=step)
        for name, layer in sparsifier.layers.items():
            assert np.array_equal(layer.mask.numpy(), expected[name]), (step, name)
        assert_masked(sparsifier)
    assert sparsifier.sparsity > 0.4


def test_nothing_is_pruned_before_the_era_and_a_window_is_full_from_its_first_step() -> None:
    model = seeded(Plain)
    sparsifier = campfire(model, pattern="window", most_in_window=5, sparsity=0.2)
    train(model, sparsifier, FIRST - 1)
    assert sparsifier.nonzeros == sparsifier.size
    train(model, sparsifier, 1, first=FIRST - 1)
    for name in ("conv1.weight", "conv2.weight"):
        assert (sparsifier.layers[name].mask.flatten(2).sum(2) == 5).all()


@pytest.mark.parametrize("linear", ["fine", "block"])
def test_every_output_keeps_an_input(linear: str) -> None:
    model = seeded(Wide)
    with torch.no_grad():
        model.get_parameter("fc.weight")[3:6].mul_(1e-4)
        model.get_parameter("fc.weight")[:, 5:].mul_(1e-2)
    sparsifier = campfire(model, linear=linear, block=2, sparsity=0.98)
    train(model, sparsifier, LAST)
    mask = sparsifier.layers["fc.weight"].mask
    assert (mask.sum(1) == (1 if linear == "fine" else 2)).all()


@pytest.mark.parametrize("linear", ["fine", "block"])
def test_inputs_from_channels_without_kernels_are_pruned_with_example_inputs(linear: str) -> None:
    """The head of a network whose last convolution has lost the filters 1 and 6."""

    def columns(**options: Any) -> tuple[list[int], int]:
        model = seeded(Wide)
        sparsifier = campfire(model, linear=linear, start=0.0, stop=0.5, **options)
        sparsifier.layers["conv3.weight"].mask[[1, 6]] = False
        train(model, sparsifier, 1)
        mask = sparsifier.layers["fc.weight"].mask
        assert mask.any(1).all(), "every output keeps an input"
        return (~mask.any(0)).nonzero().flatten().tolist(), int(mask.sum())

    sparsity = 0.6 - 0.6 * (17 / 18) ** 3
    assert columns() == ([], 128 - (int(128 * sparsity + 1e-9) if linear == "fine" else 0))
    gone, left = columns(example_inputs=EXAMPLE)
    assert gone == [1, 6]
    assert left <= 128 - 16


def test_layers_kept_dense_are_not_touched_and_not_counted() -> None:
    model = seeded(Plain)
    sparsifier = campfire(model, dense=["conv1", "fc"], sparsity=0.5)
    train(model, sparsifier, STEPS)
    assert sparsifier.layers["conv1.weight"].mask.all() and sparsifier.layers["fc.weight"].mask.all()
    assert sparsifier.target_nonzeros == 216 + 80 + (1152 + 256) // 2
    assert 0 <= sparsifier.nonzeros - sparsifier.target_nonzeros < 0.1 * sparsifier.size, "patterns round down"


def test_the_history_has_a_few_entries_of_the_era() -> None:
    model = seeded(Plain)
    sparsifier = campfire(model, total_steps=60)
    train(model, sparsifier, 60)
    assert [update.step for update in sparsifier.history] == [30, 33], "every tenth step, and the last of the era"
    assert {update.grown for update in sparsifier.history} == {0}


@pytest.mark.parametrize(
    ("options", "kinds"),
    [
        ({"pattern": "window", "sparsity": 0.5}, ("window", "window", "constant_fan_in")),
        ({"pattern": "kernel", "sparsity": 0.5}, ("kernel", "kernel", "constant_fan_in")),
        ({"pattern": "combined", "sparsity": 0.7}, ("window", "window", "constant_fan_in")),
    ],
)
def test_masks_say_their_structure(options: dict[str, Any], kinds: tuple[str, ...]) -> None:
    model = seeded(Wide)
    sparsifier = campfire(model, **options)
    assert {sparsifier.masks().structure(name).kind for name in sparsifier.layers} == {"dense"}
    train(model, sparsifier, STEPS)
    masks = sparsifier.masks()
    assert tuple(masks.structure(f"conv{i}.weight").kind for i in (1, 2, 3)) == kinds
    for name in ("conv1.weight", "conv2.weight"):
        most = int(masks[name].flatten(2).sum(2).max())
        assert masks.structure(name).window == (None if options["pattern"] == "kernel" else most)


def test_defaults_are_the_papers() -> None:
    model = Plain()
    settings = Campfire(model, sgd(model), total_steps=90).settings
    assert (settings.pattern, settings.linear, settings.sparsity) == ("combined", "fine", 0.6)
    assert (settings.window_share, settings.most_in_window, settings.block) == (0.8, None, 4)
    assert (settings.first_step, settings.last_step) == (31, 50), "of 90 epochs those after the 30th, until the 50th"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pattern": "filter"}, "unknown pattern 'filter' of convolutions; known are window, kernel, combined"),
        ({"linear": "row"}, "unknown pattern 'row' of linear layers; known are fine, block"),
        ({"start": 0.6}, "0 <= start < stop <= 1 must hold, found 0.6"),
        ({"start": 0.5, "stop": 0.51}, "the pruning era has no step of 36; make it longer"),
        ({"window_share": 1.0}, r"window_share must be in \(0, 1\), found 1.0"),
        ({"most_in_window": 0, "pattern": "window"}, "most_in_window must be positive, found 0"),
        ({"most_in_window": 3}, "most_in_window is for the window pattern, not combined"),
        ({"block": 1}, "block must be at least 2, found 1"),
    ],
)
def test_settings_that_make_no_sense(options: dict[str, Any], message: str) -> None:
    with pytest.raises(SparsefxError, match=message):
        campfire(Plain(), **options)

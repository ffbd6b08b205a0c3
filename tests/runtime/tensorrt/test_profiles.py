"""Sizes that engines are built for."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import sparsefx
from sparsefx.passes.capture import capture
from sparsefx.passes.describe import describe
from sparsefx.runtime.tensorrt.profiles import Profile, Range, find_profile
from sparsefx.runtime.tensorrt.two_four import is_two_four, two_four_layers

X = torch.randn(2, 3, 8, 8)


def profile(max_batch: int | None, example: Tensor = X, **options: object) -> Profile:
    graph = capture(nn.Conv2d(3, 4, 3).eval(), (example,), **options)  # type: ignore[arg-type]
    return find_profile(graph, describe(graph), [example], max_batch)


def test_the_batch_goes_from_one_to_the_largest() -> None:
    assert profile(None).ranges == {"batch": Range(1, 2, 32)}
    assert profile(16).shapes == {"input": ((1, 3, 8, 8), (2, 3, 8, 8), (16, 3, 8, 8))}
    assert profile(1).ranges == {"batch": Range(1, 1, 1)}
    assert profile(None, torch.randn(50, 3, 8, 8)).ranges == {"batch": Range(1, 50, 50)}
    assert profile(None, dynamic_batch=False).ranges == {}


def test_other_sizes_keep_to_the_bounds_of_their_dim() -> None:
    height, width = torch.export.Dim("height", min=4, max=20), torch.export.Dim("width", min=4)
    found = profile(None, dynamic_shapes=({2: height, 3: width},))
    assert found.ranges == {"height": Range(4, 8, 20), "width": Range(4, 8, 16)}
    assert found.shapes["input"] == ((2, 3, 4, 4), (2, 3, 8, 8), (2, 3, 20, 16))


def test_a_largest_batch_below_one_is_refused() -> None:
    with pytest.raises(sparsefx.TargetError, match="max_batch must be at least 1, found 0"):
        profile(0)


def test_two_four_weights_are_recognised_by_their_zeros() -> None:
    weight = torch.zeros(2, 8, 3, 3)
    weight[:, [0, 3, 5, 6]] = 1.0
    assert is_two_four(weight)
    weight[1, 4, 2, 2] = 1.0  # a third one in its group, at a single position
    assert not is_two_four(weight)
    assert not is_two_four(torch.zeros(4, 6))  # no groups of four
    assert not is_two_four(torch.ones(8))


def test_two_four_layers_go_by_the_name_of_their_weight() -> None:
    model = nn.Sequential(nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1, groups=2), nn.Flatten(), nn.Linear(8, 4)).eval()
    with torch.no_grad():
        for layer in (model[0], model[1], model[3]):
            layer.weight[:, 2:4] = 0.0
    assert two_four_layers(capture(model, (torch.randn(1, 8, 1, 1),))) == []
    with torch.no_grad():
        model[0].weight[:, 6:8] = 0.0
        model[3].weight[:, 4:6] = 0.0
    assert two_four_layers(capture(model, (torch.randn(1, 8, 1, 1),))) == ["0.weight", "3.weight"]

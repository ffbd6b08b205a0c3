"""Figures of mask exploration, against small cases worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from sparsefx.training.amenable import channel_magnitudes, channel_sparsities, fallen_share, risen_share
from sparsefx.training.history import MaskRecorder
from sparsefx.training.sparse_layer import SparseLayer
from sparsefx.training.weight_layout import WeightLayout


def layer_of(weight: Tensor, layout: WeightLayout | None = None) -> SparseLayer:
    return SparseLayer("layer", nn.Parameter(weight), layout or WeightLayout(), weight != 0)


def test_channels_follow_the_layout() -> None:
    weight = torch.arange(12.0).reshape(2, 3, 2)
    assert channel_magnitudes(layer_of(weight)).tolist() == [2.5, 8.5]
    assert channel_sparsities(layer_of(weight)).tolist() == pytest.approx([1 / 6, 0])
    across = WeightLayout(output_axis=1)
    assert channel_magnitudes(layer_of(weight, across)).tolist() == [3.5, 5.5, 7.5]
    assert channel_sparsities(layer_of(weight, across)).tolist() == [0.25, 0, 0]


def test_amenable_channels_changed_by_more_than_a_fifth() -> None:
    first = {"a": torch.tensor([1.0, 1.0, 0.0]), "b": torch.tensor([2.0])}
    now = {"a": torch.tensor([0.79, 0.81, 0.0]), "b": torch.tensor([3.0])}
    assert fallen_share(first, now) == 0.25
    sparsities = {"a": torch.tensor([0.5, 0.5, 0.0]), "b": torch.tensor([0.0])}
    later = {"a": torch.tensor([0.59, 0.61, 0.0]), "b": torch.tensor([0.1])}
    assert risen_share(sparsities, later) == 0.5, "the second, and the one that was dense"


def test_an_update_is_counted() -> None:
    layer = layer_of(torch.tensor([[1.0, 2.0, 3.0, 0.0], [0.0, 0.0, 5.0, 6.0]]))
    recorder = MaskRecorder({"layer": layer})

    def update(step: int, new: list[list[int]]) -> None:
        old = layer.mask
        layer.mask = torch.tensor(new, dtype=torch.bool)
        recorder.record(step, {"layer": old}, 0.5, removed_channels=3)

    update(1, [[1, 1, 0, 1], [1, 0, 1, 0]])  # two dropped, two grown
    update(2, [[1, 1, 1, 1], [0, 0, 1, 0]])  # one of the two is gone, another grown
    update(3, [[1, 1, 0, 1], [0, 0, 0, 0]])  # the one grown last is gone, nothing grown
    update(4, [[1, 1, 0, 1], [0, 0, 0, 0]])
    first, second, third, fourth = recorder.updates
    assert (first.dropped, first.grown, first.survived, first.iou, first.nonzeros) == (2, 2, None, 3 / 7, 5)
    assert (second.dropped, second.grown, second.survived, second.iou) == (1, 1, 0.5, 4 / 6)
    assert (third.dropped, third.grown, third.survived, third.active_channels) == (2, 0, 0.0, 1)
    assert (fourth.dropped, fourth.grown, fourth.iou, fourth.survived) == (0, 0, 1.0, 0.0)
    assert math.isclose(first.sparser, 0) and first.removed_channels == 3 and first.drop_fraction == 0.5


def test_the_state_goes_on() -> None:
    layer = layer_of(torch.tensor([[1.0, 0.0, 2.0, 0.0]]))
    recorder = MaskRecorder({"layer": layer})
    old, layer.mask = layer.mask, torch.tensor([[True, True, False, False]])
    recorder.record(1, {"layer": old}, 0.5, 0)
    again = MaskRecorder({"layer": layer_of(torch.ones(1, 4))})
    again.load_state(recorder.state())
    assert again.updates == recorder.updates
    for each in (recorder, again):
        each.record(2, {"layer": layer.mask}, 0.5, 0)
    assert again.updates[-1].survived == recorder.updates[-1].survived == 1.0

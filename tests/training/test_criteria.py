from __future__ import annotations

import pytest
import torch

from sparsefx.training.criteria import (
    CHANNEL_CRITERIA,
    amenable_share,
    channel_magnitudes,
    channel_saliency,
    magnitude,
)
from sparsefx.training.weight_layout import WeightLayout

# One channel of eight weights, three of them in the mask.
WEIGHTS = torch.tensor([0.0, 0.0, 3.0, 0.0, -1.0, 0.0, 0.0, 2.0])
MASK = WEIGHTS != 0


@pytest.mark.parametrize(("name", "value"), [("umm", 6 / 8), ("ws", 1 - 5 / 8), ("mmm", 6 / 3)])
def test_channel_criteria_are_chases_table_1(name: str, value: float) -> None:
    """WS is the share of zeros; its channels go highest first, so the saliency is 1 - WS."""
    whole = channel_saliency(CHANNEL_CRITERIA[name], [WEIGHTS], [MASK])
    pieces = channel_saliency(
        CHANNEL_CRITERIA[name], [WEIGHTS[:2].reshape(1, 2), WEIGHTS[2:]], [MASK[:2].reshape(1, 2), MASK[2:]]
    )
    assert whole.item() == pieces.item() == pytest.approx(value)


def test_an_empty_channel_is_worth_nothing() -> None:
    empty = torch.zeros(4)
    for criterion in CHANNEL_CRITERIA.values():
        assert channel_saliency(criterion, [empty], [empty.bool()]) == 0


def test_magnitude_is_finite_or_infinite_but_never_nan() -> None:
    values = torch.tensor([-2.0, torch.nan, -torch.inf], dtype=torch.bfloat16)
    assert magnitude(values).tolist() == [2.0, 0.0, torch.inf]
    assert magnitude(values).dtype == torch.float32


def test_channel_magnitudes_follow_the_layout() -> None:
    weight = torch.arange(12.0).reshape(2, 3, 2)
    assert channel_magnitudes(weight, WeightLayout()).tolist() == [2.5, 8.5]
    assert channel_magnitudes(weight, WeightLayout(output_axis=1)).tolist() == [3.5, 5.5, 7.5]


def test_amenable_channels_lost_more_than_a_fifth() -> None:
    first = {"a": torch.tensor([1.0, 1.0, 0.0]), "b": torch.tensor([2.0])}
    now = {"a": torch.tensor([0.79, 0.81, 0.0]), "b": torch.tensor([3.0])}
    assert amenable_share(first, now) == 0.25
    assert amenable_share(first, now, ratio=0.1) == 0.5

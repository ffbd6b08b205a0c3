from __future__ import annotations

import pytest
import torch

from sparsefx.training.criteria import (
    CHANNEL_CRITERIA,
    channel_saliency,
    magnitude,
)

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

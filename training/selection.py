"""Exact selection of the highest scores, in one layer or over all of them, the same on every machine."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


def highest(scores: Mapping[str, Tensor], eligible: Mapping[str, Tensor], count: int) -> dict[str, Tensor]:
    """Boolean masks of the `count` highest scores (>= 0) over all tensors together, among the eligible weights.

    Equal scores go to the first in order, so the result is a function of the values alone. Selects all that is
    eligible where that is fewer than `count`. Scores and masks of a name have the same shape.
    """
    flat = torch.cat([torch.where(eligible[name], score, -1.0).reshape(-1) for name, score in scores.items()])
    allowed = flat >= 0
    count = min(count, int(allowed.sum()))
    chosen = _first_highest(flat, count) if count else torch.zeros_like(allowed)
    parts = torch.split(chosen, [score.numel() for score in scores.values()])
    return {name: part.reshape(scores[name].shape) for name, part in zip(scores, parts, strict=True)}


def _first_highest(flat: Tensor, count: int) -> Tensor:
    threshold = flat.kthvalue(flat.numel() - count + 1).values
    chosen = flat > threshold
    ties = (flat == threshold).nonzero().flatten()
    chosen[ties[: count - int(chosen.sum())]] = True
    return chosen

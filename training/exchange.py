"""Drop weights and grow as many others: the step that dynamic sparse training repeats."""

from __future__ import annotations

from torch import Tensor

from .selection import highest


def drop_and_grow(importance: Tensor, mask: Tensor, growth: Tensor, drop: int) -> Tensor:
    """A mask with as many non-zeros: without the `drop` least important ones, with the highest `growth` instead.

    What has just been dropped may grow again. All tensors have the same shape; scores are at least 0.
    """
    nonzeros = int(mask.sum())
    kept = highest(importance, mask, nonzeros - drop)
    return kept | highest(growth, ~kept, nonzeros - int(kept.sum()))

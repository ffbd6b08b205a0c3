"""Exact selection of the highest scores, in one layer or over all of them, the same on every machine.

Scores are at least 0 and never NaN. Equal scores go to the first in order, so that what is selected is a function
of the values alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

Score = Callable[[str], Tensor]

# A float of at least 0 has the order of its bits read as an integer. They are looked at in three digits, high to low.
_DIGITS = ((20, 11), (10, 10), (0, 10))  # (shift, width) in bits


def highest(score: Tensor, eligible: Tensor, count: int) -> Tensor:
    """A boolean mask of the `count` highest scores among the eligible; of all that are, where those are fewer."""
    candidates = int(eligible.sum())
    count = min(count, candidates)
    if count <= 0:
        return torch.zeros_like(eligible)
    few = 2 * candidates < eligible.numel()  # picking few out is faster than ranking all
    values = score[eligible] if few else torch.where(eligible, score, -1.0).reshape(-1)
    threshold = values.kthvalue(len(values) - count + 1).values
    chosen = eligible & (score > threshold)
    return chosen | _first(eligible & (score == threshold), count - int(chosen.sum()))


def highest_of_all(score: Score, eligible: Mapping[str, Tensor], count: int) -> dict[str, Tensor]:
    """Boolean masks of the `count` highest scores over all layers together, among the eligible weights.

    `score(name)` is a float32 tensor of the shape of `eligible[name]`. It is asked for four times, and only one
    layer's scores exist at a time: the purpose of Chase's Algorithm 2, which steers a threshold until the count is
    within a tolerance. Here the threshold is found exactly, digit by digit from histograms.
    """
    count = min(count, sum(int(mask.sum()) for mask in eligible.values()))
    if count <= 0:
        return {name: torch.zeros_like(mask) for name, mask in eligible.items()}
    threshold = _threshold(score, eligible, count)
    above = {name: mask & (_bits(score(name)) > threshold) for name, mask in eligible.items()}
    missing = count - sum(int(mask.sum()) for mask in above.values())
    for name, mask in eligible.items():
        if missing <= 0:
            break
        ties = _first(mask & (_bits(score(name)) == threshold), missing)
        above[name] |= ties
        missing -= int(ties.sum())
    return above


def _first(mask: Tensor, count: int) -> Tensor:
    """The first `count` of a mask in order, whatever order they have in memory."""
    first = torch.zeros(mask.numel(), dtype=torch.bool, device=mask.device)
    first[mask.reshape(-1).nonzero().flatten()[:count]] = True
    return first.reshape(mask.shape)


def _threshold(score: Score, eligible: Mapping[str, Tensor], count: int) -> int:
    """The bits of the `count`-th highest score."""
    prefix, left = 0, count
    for shift, width in _DIGITS:
        histogram = torch.zeros(1 << width, dtype=torch.int64)
        for name, mask in eligible.items():
            histogram += _histogram(_bits(score(name)), mask, prefix, shift, width).cpu()
        from_top = histogram.flip(0).cumsum(0)
        place = int((from_top < left).sum())
        left -= int(from_top[place - 1]) if place else 0
        prefix = prefix << width | (1 << width) - 1 - place
    return prefix


def _histogram(bits: Tensor, eligible: Tensor, prefix: int, shift: int, width: int) -> Tensor:
    """How often each value of a digit occurs among the eligible scores whose higher digits are `prefix`."""
    if prefix or shift < _DIGITS[0][0]:
        eligible = eligible & (bits >> shift + width == prefix)
    digits = bits[eligible] >> shift & (1 << width) - 1
    return torch.bincount(digits, minlength=1 << width)


def _bits(score: Tensor) -> Tensor:
    return score.contiguous().view(torch.int32)

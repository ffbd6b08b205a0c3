"""What weights and channels are worth. Every score is at least 0, higher means keep (or grow)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def magnitude(tensor: Tensor) -> Tensor:
    """|w| (or |gradient|) in float32; what is not a number counts as 0."""
    return tensor.detach().abs().float().nan_to_num(nan=0.0, posinf=torch.inf)


def unmasked_mean_magnitude(weights: Tensor, masks: Tensor) -> Tensor:
    """UMM (Chase, Table 1): sum |w| over the number of all weights of a channel, masked ones included."""
    return magnitude(weights * masks).mean()


def weight_density(weights: Tensor, masks: Tensor) -> Tensor:
    """1 - WS (Chase, Table 1): the share of non-zeros. Chase removes the highest WS first, so this is kept highest."""
    return masks.float().mean()


def masked_mean_magnitude(weights: Tensor, masks: Tensor) -> Tensor:
    """MMM (Chase, Table 1): sum |w| over the number of non-zero weights of a channel; 0 for a channel without."""
    return magnitude(weights * masks).sum() / masks.sum().clamp(min=1)


ChannelCriterion = Callable[[Tensor, Tensor], Tensor]
CHANNEL_CRITERIA: dict[str, ChannelCriterion] = {
    "umm": unmasked_mean_magnitude,
    "ws": weight_density,
    "mmm": masked_mean_magnitude,
}


def channel_saliency(criterion: ChannelCriterion, weights: Sequence[Tensor], masks: Sequence[Tensor]) -> Tensor:
    """A scalar for one channel whose filters (and masks of them) come in pieces of any shape."""
    return criterion(torch.cat([w.reshape(-1) for w in weights]), torch.cat([m.reshape(-1) for m in masks]))

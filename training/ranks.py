"""Distributed training: masks are decided the same on every rank, from the gradient averaged over ranks."""

from __future__ import annotations

import torch
from torch import Tensor
from torch import distributed as dist


def _several() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def mean_over_ranks(gradient: Tensor) -> Tensor:
    """The mean of a gradient over ranks, the identity after DistributedDataParallel's own all-reduce.

    The mean comes before the magnitude: |mean of g|, not the mean of |g| (some ports hook in before the all-reduce).
    """
    if not _several():
        return gradient
    total = gradient.clone()
    dist.all_reduce(total)
    return total / dist.get_world_size()


def from_first_rank(mask: Tensor) -> Tensor:
    """The first rank's mask, so that no difference in seeds or rounding can let masks drift apart."""
    if not _several():
        return mask
    sent = mask.to(torch.uint8)
    dist.broadcast(sent, src=0)
    return sent.bool()

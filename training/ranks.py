"""Distributed training: masks are decided the same on every rank, from the gradient averaged over ranks.

Ranks must do the same things in the same order: build a sparsifier each, and step it equally often.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch import distributed as dist


def _several() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def mean_over_ranks(gradient: Tensor) -> Tensor:
    """The mean of a gradient over ranks, the identity after DistributedDataParallel's own all-reduce.

    The mean comes before the magnitude: |mean of g|, not the mean of |g| (some ports hook in before the all-reduce).
    """
    if not _several():
        return gradient
    mean = (gradient / dist.get_world_size()).contiguous()
    dist.all_reduce(mean)
    return mean


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Put the mean over ranks into the place of each gradient; a rank that has none counts as zeros."""
    parameters = list(parameters)
    if not _several() or not parameters:
        return
    has_gradient = torch.tensor([p.grad is not None for p in parameters], dtype=torch.uint8)
    anywhere = has_gradient.to(parameters[0].device)
    dist.all_reduce(anywhere, op=dist.ReduceOp.MAX)
    for parameter, present in zip(parameters, anywhere.tolist(), strict=True):
        if present:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            parameter.grad.copy_(mean_over_ranks(parameter.grad))


def from_first_rank(value: Tensor) -> Tensor:
    """The first rank's mask or numbers, so that no difference in seeds or rounding can let masks drift apart."""
    if not _several():
        return value
    sent = (value.to(torch.uint8) if value.dtype == torch.bool else value.clone()).contiguous()
    dist.broadcast(sent, src=0)
    return sent.to(value.dtype)


def number_from_first_rank(value: int, device: torch.device) -> int:
    """The first rank's number; `device` is one that ranks can send from."""
    return int(from_first_rank(torch.tensor(value, device=device))) if _several() else value

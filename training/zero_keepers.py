"""Optimizers that leave a zero weight at zero as long as its gradient is zero."""

from __future__ import annotations

from typing import Any

import torch
from torch.optim import SGD, Adadelta, Adam, AdamW, NAdam, Optimizer, RAdam, RMSprop

_ZERO_KEEPERS = (SGD, Adam, AdamW, NAdam, RAdam, RMSprop, Adadelta)
_SMALLEST_HALF = 2.0**-24


def keeps_zeros(optimizer: Optimizer) -> bool:
    """Whether weight and state stay exactly zero where both are zero and the gradient is.

    Known of the elementwise optimizers of torch above, weight decay included, where nothing hooks into their step. A
    subclass may do anything, and so may others: Muon mixes the weights of a matrix, LBFGS goes along directions from
    before a mask update.
    """
    hooked = optimizer._optimizer_step_pre_hooks or optimizer._optimizer_step_post_hooks
    known = type(optimizer) in _ZERO_KEEPERS and not hooked
    return known and not any(_loses_zeros(group) for group in optimizer.param_groups)


def _loses_zeros(group: dict[str, Any]) -> bool:
    """An `eps` that is zero in the precision of the weights divides zero by zero.

    The fused SGD of 16-bit weights reads beyond its momentum (https://github.com/pytorch/pytorch/issues/191763).
    """
    eps = group.get("eps", 1.0)
    fused_sgd = "dampening" in group and group.get("fused")
    if eps >= _SMALLEST_HALF and not fused_sgd:
        return False
    precisions = {p.dtype for p in group["params"]}
    short = torch.half in precisions
    return eps <= 0 or (short and eps < _SMALLEST_HALF) or bool(fused_sgd and (short or torch.bfloat16 in precisions))

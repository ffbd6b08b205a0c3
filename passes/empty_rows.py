"""Attention masks that leave a query nothing to attend to: torch returns zeros for it."""

from __future__ import annotations

import torch
from torch.fx import Node

from .graph import constant_of, is_constant


def may_leave_rows_empty(mask: Node | None) -> bool:
    """Whether some query may attend to no key; no mask, or a causal one, always leaves the first key."""
    if mask is None:
        return False
    return not is_constant(mask) or not bool(_attends(constant_of(mask)).any(dim=-1).all())


def _attends(mask: torch.Tensor) -> torch.Tensor:
    return mask if mask.dtype == torch.bool else mask > -torch.inf

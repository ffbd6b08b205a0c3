"""State dicts whose zeros are the mask: what Chase, GraNet, sparse_learning and HALP save, and everything else."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ..masks import MaskSet
from .state_dicts import state_of, unwrap


def is_nested(content: Any) -> bool:
    return unwrap(content) is not content


def read_zeros(content: Any) -> tuple[dict[str, Tensor], MaskSet]:
    """Weights and their zeros as masks."""
    weights = state_of(content)
    return weights, MaskSet.from_zeros(weights)

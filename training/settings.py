"""Settings that every training method takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypedDict

from ..passes.errors import SparsefxError
from .distributions import DISTRIBUTIONS


class CoreOptions(TypedDict, total=False):
    """Options that every method takes; see Sparsifier."""

    distribution: str
    include: Sequence[str]
    exclude: Sequence[str]
    dense: Sequence[str]
    seed: int


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What every method is told. A method's own settings extend it."""

    sparsity: float
    total_steps: int
    distribution: str = "erdos_renyi_kernel"
    include: Sequence[str] = ("*",)
    exclude: Sequence[str] = ()
    dense: Sequence[str] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        require(0 <= self.sparsity < 1, f"sparsity must be in [0, 1), found {self.sparsity}")
        require(self.total_steps > 0, f"total_steps must be positive, found {self.total_steps}")
        known = ", ".join(DISTRIBUTIONS)
        require(self.distribution in DISTRIBUTIONS, f"unknown distribution {self.distribution!r}; known are {known}")


def require(condition: bool, message: str) -> None:
    """Raise SparsefxError for a setting that makes no sense."""
    if not condition:
        raise SparsefxError(message)


def default_interval(total_steps: int, parts: int, longest: int) -> int:
    """Steps between mask updates: `longest`, or one of `parts` equal parts of a shorter run.

    At least 10, since an update costs an optimizer step and what is grown needs some to be trained; but no more than
    a fifth of the run.
    """
    return max(1, min(longest, max(10, total_steps // parts), total_steps // 5))

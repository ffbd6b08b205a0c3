"""Settings that every training method takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypedDict

from ..passes.errors import SparsefxError
from .distributions import DISTRIBUTIONS


class LayerOptions(TypedDict, total=False):
    """Options that every method takes; see Sparsifier."""

    include: Sequence[str]
    exclude: Sequence[str]
    dense: Sequence[str]
    seed: int


class CoreOptions(LayerOptions, total=False):
    """Options of methods whose layers start with a share of the non-zeros."""

    distribution: str


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
        percent = f"; for {self.sparsity:g}% write {self.sparsity / 100:g}" if 1 < self.sparsity < 100 else ""
        require(0 <= self.sparsity < 1, f"sparsity must be in [0, 1), found {self.sparsity}{percent}")
        require(self.total_steps > 0, f"total_steps must be positive, found {self.total_steps}")
        known = ", ".join(DISTRIBUTIONS)
        require(self.distribution in DISTRIBUTIONS, f"unknown distribution {self.distribution!r}; known are {known}")


def require(condition: bool, message: str) -> None:
    """Raise SparsefxError for a setting that makes no sense."""
    if not condition:
        raise SparsefxError(message)


def require_share(name: str, value: float) -> None:
    """Raise SparsefxError unless a setting is in (0, 1]."""
    require(0 < value <= 1, f"{name} must be in (0, 1], found {value}")


def require_interval(name: str, steps: int) -> None:
    """Raise SparsefxError unless a setting is a number of steps, at least one."""
    require(steps > 0, f"{name} must be positive, found {steps}")


def default_interval(total_steps: int, parts: int, longest: int) -> int:
    """Steps between mask updates: `longest`, or one of `parts` equal parts of a shorter run.

    At least 10, since an update may cost an optimizer step and what is grown needs some to be trained; but no more
    than a fifth of the run.
    """
    return max(1, min(longest, max(10, total_steps // parts), total_steps // 5))

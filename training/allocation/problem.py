"""What a budget decides: how many coupled channels of every kind stay, and what that is worth and costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from ...passes.errors import SparsefxError

Counts = npt.NDArray[np.int64]
Values = npt.NDArray[np.float64]
Choice = tuple[int, ...]  # a position in the counts of every width

_ROUNDING = 1e-9  # of the budget: sums of floats in another order differ


@dataclass(frozen=True, eq=False)
class Width:
    """How many channels of one kind may stay: `counts`, ascending, and what each is worth, `values`; shapes (n,)."""

    name: str
    counts: Counts
    values: Values

    def __post_init__(self) -> None:
        if self.counts.ndim != 1 or not len(self.counts) or self.counts.shape != self.values.shape:
            raise SparsefxError(
                f"the width {self.name} needs as many values as counts, found {self.values.shape}, {self.counts.shape}"
            )
        if not np.isfinite(self.values).all():
            raise SparsefxError(f"the values of the width {self.name} must be finite; drop updates with NaN gradients")


@dataclass(frozen=True, eq=False)
class Sum:
    """A number of channels that follows from two others, as where channels are concatenated.

    `index[i, j]` is the position in `counts` of what positions i and j of `left` and `right` add up to.
    """

    left: int
    right: int
    counts: Counts
    index: Counts


@dataclass(frozen=True, eq=False)
class Term:
    """A part of the cost: `table[i, j]` at positions i, j of the variables in `scope`, its inputs before its outputs.

    Variables are the widths, by place, and behind them the sums.
    """

    name: str
    scope: tuple[int, ...]
    table: Values

    def __post_init__(self) -> None:
        if not np.isfinite(self.table).all():
            raise SparsefxError(f"the cost of {self.name} must be finite everywhere")


@dataclass(frozen=True, eq=False)
class BudgetProblem:
    """Maximise the sum of values while `fixed_cost` and the terms stay within a budget."""

    widths: Sequence[Width]
    terms: Sequence[Term]
    sums: Sequence[Sum] = ()
    fixed_cost: float = 0.0

    @cached_property
    def sizes(self) -> tuple[int, ...]:
        """How many counts every variable has."""
        return (*(len(w.counts) for w in self.widths), *(len(s.counts) for s in self.sums))

    @property
    def is_separable(self) -> bool:
        """Whether every term depends on one width alone."""
        return all(len(t.scope) == 1 and t.scope[0] < len(self.widths) for t in self.terms)

    def positions(self, choice: Sequence[int]) -> list[int]:
        """Of every variable, sums included."""
        positions = [int(i) for i in choice]
        for s in self.sums:
            positions.append(int(s.index[positions[s.left], positions[s.right]]))
        return positions

    def value(self, choice: Sequence[int]) -> float:
        return float(sum(w.values[i] for w, i in zip(self.widths, choice, strict=True)))

    def cost(self, choice: Sequence[int]) -> float:
        positions = self.positions(choice)
        return self.fixed_cost + float(sum(t.table[tuple(positions[v] for v in t.scope)] for t in self.terms))

    def fits(self, cost: float, budget: float) -> bool:
        """Whether a cost is within a budget, up to rounding."""
        return cost <= budget + _ROUNDING * max(abs(budget), abs(cost))


@dataclass(frozen=True)
class Allocation:
    """What was chosen: channels `kept` by width, their `value` and `cost`; no choice is worth more than `bound`."""

    kept: dict[str, int]
    value: float
    cost: float
    bound: float
    optimal: bool

    @property
    def gap(self) -> float:
        """(bound - value) / bound: the share of importance that a better choice could add at most."""
        return max(0.0, self.bound - self.value) / self.bound if self.bound > 0 else 0.0


def allocation(problem: BudgetProblem, choice: Sequence[int], bound: float, *, optimal: bool) -> Allocation:
    """The result for a choice; no bound is below the value that was reached."""
    kept = {w.name: int(w.counts[i]) for w, i in zip(problem.widths, choice, strict=True)}
    value = problem.value(choice)
    return Allocation(kept, value, problem.cost(choice), value if optimal else max(bound, value), optimal)


def infeasible(budget: float, least: float, cheapest: str = "the cheapest choice of channels") -> SparsefxError:
    return SparsefxError(
        f"a budget of {budget:g} cannot be met: {cheapest} costs {least:g} already; "
        "raise the budget, or let more channels go"
    )


def prefix_values(importance: Values, counts: Counts) -> Values:
    """The sum of the `counts[i]` largest importances, for every i."""
    sums = np.concatenate([[0.0], np.cumsum(np.sort(importance)[::-1])])
    return np.asarray(sums[counts], dtype=np.float64)

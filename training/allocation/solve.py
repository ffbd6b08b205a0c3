"""The most importance within a budget, with a proof of how far from the best it may be."""

from __future__ import annotations

import heapq
import time
from dataclasses import dataclass, field
from itertools import count

import numpy as np

from .improve import improve
from .problem import Allocation, BudgetProblem, Choice, allocation, infeasible
from .relaxation import Ranges, Relaxation, Relaxed


def solve(
    problem: BudgetProblem, budget: float, *, gap: float = 0.0, nodes: int = 1000, seconds: float | None = None
) -> Allocation:
    """Branch and bound on the relaxed budget, until the `gap` (relative), `nodes` or `seconds` are reached.

    With `gap=0` and enough nodes the result is the optimum. Without `seconds` it is the same on every machine. The
    best price of the budget gives two choices that agree on most widths, one within the budget and one beyond; the
    width on which they differ most in importance is split between them. Raises SparsefxError where the budget cannot
    be met, with the least that can.
    """
    search = _Search(Relaxation(problem), budget)
    end = None if seconds is None else time.perf_counter() + seconds
    for _ in range(nodes):
        if search.bound <= search.value + gap * abs(search.bound) or (end is not None and time.perf_counter() > end):
            break
        search.split()
    assert search.choice is not None
    return allocation(problem, search.choice, search.bound, optimal=search.bound <= search.value)


@dataclass
class _Search:
    """Open nodes, the highest bound first, and the best choice so far."""

    relaxation: Relaxation
    budget: float
    choice: Choice | None = None
    value: float = -np.inf
    _open: list[tuple[float, int, Ranges, Relaxed]] = field(default_factory=list)
    _number: count[int] = field(default_factory=count)

    def __post_init__(self) -> None:
        self._add(self.relaxation.whole())
        if self.choice is None:
            problem = self.relaxation.problem
            raise infeasible(self.budget, problem.cost(self.relaxation.cheapest(self.relaxation.whole())))

    @property
    def bound(self) -> float:
        """No choice is worth more."""
        return max(self.value, -self._open[0][0]) if self._open else self.value

    def split(self) -> None:
        """Replace the node with the highest bound by two."""
        _, _, ranges, relaxed = heapq.heappop(self._open)
        assert relaxed.outside is not None
        problem = self.relaxation.problem
        inside, outside = relaxed.inside, relaxed.outside
        places = zip(problem.widths, inside, outside, strict=True)
        differences = [abs(w.values[i] - w.values[j]) if i != j else -1.0 for w, i, j in places]
        width = int(np.argmax(differences))
        (low, high), middle = ranges[width], (inside[width] + outside[width]) // 2 + 1
        for part in ((low, middle), (middle, high)):
            self._add((*ranges[:width], part, *ranges[width + 1 :]))

    def _add(self, ranges: Ranges) -> None:
        relaxed = self.relaxation.solve(ranges, self.budget, enough=self.value)
        if relaxed is None:
            return
        problem = self.relaxation.problem
        if relaxed.bound > self.value:
            found = improve(problem, relaxed.inside, self.budget)
            if problem.value(found) > self.value:
                self.choice, self.value = found, problem.value(found)
        if relaxed.outside is not None and relaxed.bound > self.value * (1 + 1e-12):
            heapq.heappush(self._open, (-relaxed.bound, next(self._number), ranges, relaxed))

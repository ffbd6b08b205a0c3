"""The budget with a price: importance minus price * cost, maximised exactly; the best price bounds every choice."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .elimination import Elimination
from .problem import BudgetProblem, Choice, Values

_ROUNDS = 60
_TOLERANCE = 1e-12

Ranges = tuple[tuple[int, int], ...]  # positions allowed of every width, the last one excluded


@dataclass(frozen=True)
class Relaxed:
    """No choice within the ranges is worth more than `bound`.

    `inside` meets the budget; `outside` does not, and None where there was no need for it: `inside` is the best then.
    """

    bound: float
    inside: Choice
    outside: Choice | None


class Relaxation:
    """Lagrangian relaxation of a problem's budget (Everett 1963), for any ranges of its widths."""

    def __init__(self, problem: BudgetProblem) -> None:
        self.problem = problem
        n = len(problem.widths)
        unary = [(i,) for i in range(n)]
        added = [(s.left, s.right, n + i) for i, s in enumerate(problem.sums)]
        self._elimination = Elimination(problem.sizes, [*unary, *(t.scope for t in problem.terms), *added])
        self._additions = [
            np.where(s.index[:, :, None] == np.arange(len(s.counts)), 0.0, -np.inf) for s in problem.sums
        ]

    def whole(self) -> Ranges:
        return tuple((0, len(w.counts)) for w in self.problem.widths)

    def cheapest(self, ranges: Ranges) -> Choice:
        return self._best(ranges, 0.0, 1.0)

    def solve(self, ranges: Ranges, budget: float, enough: float = -np.inf) -> Relaxed | None:
        """The best bound of all prices; None where nothing within the ranges meets the budget.

        Stops early where the bound falls to `enough`.
        """
        problem = self.problem
        inside, outside = self.cheapest(ranges), self._richest(ranges)
        if not problem.fits(problem.cost(inside), budget):
            return None
        bound = problem.value(outside)
        if problem.fits(problem.cost(outside), budget):
            return Relaxed(bound, outside, None)
        for _ in range(_ROUNDS):
            if bound <= enough:
                break
            gain, extra = problem.value(outside) - problem.value(inside), problem.cost(outside) - problem.cost(inside)
            price = max(gain, 0.0) / extra
            line = problem.value(inside) + price * (budget - problem.cost(inside))
            choice = self._best(ranges, 1.0, price)
            cost = problem.cost(choice)
            found = problem.value(choice) + price * (budget - cost)
            bound = min(bound, max(found, line))
            if found <= line + _TOLERANCE * max(abs(line), 1.0) or choice in (inside, outside):
                break
            inside, outside = (choice, outside) if problem.fits(cost, budget) else (inside, choice)
        return Relaxed(bound, inside, outside)

    def _richest(self, ranges: Ranges) -> Choice:
        """The most valuable, whatever it costs."""
        widths = zip(self.problem.widths, ranges, strict=True)
        return tuple(low + int(np.argmax(w.values[low:high])) for w, (low, high) in widths)

    def _best(self, ranges: Ranges, worth: float, price: float) -> Choice:
        """Maximises worth * value - price * cost."""
        limits = [*(slice(low, high) for low, high in ranges), *(slice(None) for _ in self.problem.sums)]
        tables: list[Values] = [worth * w.values[limits[i]] for i, w in enumerate(self.problem.widths)]
        tables += [-price * t.table[tuple(limits[v] for v in t.scope)] for t in self.problem.terms]
        tables += [
            table[limits[s.left], limits[s.right]] for s, table in zip(self.problem.sums, self._additions, strict=True)
        ]
        found = self._elimination.best(tables)
        return tuple(low + position for (low, _), position in zip(ranges, found, strict=False))

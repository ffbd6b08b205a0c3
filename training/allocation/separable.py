"""Separable costs: an exact multiple-choice knapsack over whole units of the budget."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...passes.errors import SparsefxError
from .improve import improve
from .problem import Allocation, BudgetProblem, Choice, Counts, Values, allocation, infeasible
from .relaxation import Relaxation

_MOST_UNITS = 1 << 20


def knapsack(values: Sequence[Values], costs: Sequence[Counts], capacity: int) -> Choice | None:
    """One choice from every group, the most valuable of all whose costs add up to at most `capacity`; None without.

    `values[g]` and `costs[g]` have the choices of group g, shape (n_g,); costs are whole numbers of at least 0. Dynamic
    programming over the budget: O(capacity * sum n_g), dominated choices dropped first. Of equal ones the cheaper.
    """
    best, reach = np.zeros(1), 0  # more than `reach` is not spent so far
    picks = []
    for group_values, group_costs in zip(values, costs, strict=True):
        choices = _undominated(group_values, group_costs, capacity)
        if not choices:
            return None
        reach = min(capacity, reach + int(group_costs[choices[-1]]))
        best = np.pad(best, (0, reach + 1 - len(best)), mode="edge")
        fresh, pick = np.full(reach + 1, -np.inf), np.full(reach + 1, -1, dtype=np.int32)
        for k in choices:
            cost = int(group_costs[k])
            candidate = best[: reach + 1 - cost] + group_values[k]
            better = candidate > fresh[cost:]
            np.copyto(fresh[cost:], candidate, where=better)
            np.copyto(pick[cost:], k, where=better)
        best = fresh
        picks.append(pick)
    if best[-1] == -np.inf:
        return None
    left, choice = capacity, []
    for pick, group_costs in zip(reversed(picks), reversed(costs), strict=True):
        left = min(left, len(pick) - 1)
        k = int(pick[left])
        choice.append(k)
        left -= int(group_costs[k])
    return tuple(reversed(choice))


def solve_separable(problem: BudgetProblem, budget: float, *, resolution: float = 1e-3) -> Allocation:
    """The knapsack with the budget cut into units of `resolution`; costs that are whole numbers stay exact.

    Other costs are rounded up, each by half a unit of the budget * 2 * `resolution` / number of widths on average, so
    that about `resolution` of it is lost in all; what is left is spent by `improve`. The bound is that of the relaxed
    budget. Raises SparsefxError where the budget cannot be met.
    """
    costs = separate_costs(problem)
    least = [float(c.min()) for c in costs]
    room = budget - problem.fixed_cost - sum(least)
    costs = [c - low for c, low in zip(costs, least, strict=True)]
    unit = _unit(costs, room, resolution)
    scaled = [np.ceil(c / unit - 1e-9).astype(np.int64) for c in costs]
    capacity = int(np.floor(room / unit + 1e-9))
    relaxed = Relaxation(problem).solve(Relaxation(problem).whole(), budget)
    if relaxed is None:
        raise infeasible(budget, problem.fixed_cost + sum(least))
    found = knapsack([w.values for w in problem.widths], scaled, capacity)
    if found is not None and unit == 1.0:
        return allocation(problem, found, relaxed.bound, optimal=True)
    starts = [improve(problem, c, budget) for c in (found, relaxed.inside) if c is not None]
    choice = max(starts, key=problem.value)
    return allocation(problem, choice, relaxed.bound, optimal=relaxed.bound <= problem.value(choice))


def separate_costs(problem: BudgetProblem) -> list[Values]:
    """The cost of every count of every width; SparsefxError where a term depends on two."""
    if not problem.is_separable:
        raise SparsefxError(
            "the cost of a layer depends on two widths; use solve, or hold what layers read (at_inputs)"
        )
    costs = [np.zeros(len(w.counts)) for w in problem.widths]
    for term in problem.terms:
        costs[term.scope[0]] = costs[term.scope[0]] + term.table
    return costs


def _unit(costs: Sequence[Values], room: float, resolution: float) -> float:
    """1 for whole numbers, as long as the table stays small."""
    whole = all(np.array_equal(c, np.round(c)) for c in costs)
    if whole and room <= _MOST_UNITS:
        return 1.0
    return max(room, 1e-300) * 2 * resolution / max(len(costs), 2)


def _undominated(values: Values, costs: Counts, capacity: int) -> list[int]:
    """Choices that fit and are worth more than every other that costs no more, by rising cost."""
    order = [k for k in np.lexsort((-values, costs)) if costs[k] <= capacity]
    kept: list[int] = []
    for k in order:
        if not kept or values[k] > values[kept[-1]]:
            kept.append(int(k))
    return kept

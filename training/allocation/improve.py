"""Spend what a choice leaves of the budget: change one width, or two at a time, as long as that gains something."""

from __future__ import annotations

from itertools import combinations

import numpy as np

from .problem import BudgetProblem, Choice, Counts, Values


def improve(problem: BudgetProblem, choice: Choice, budget: float) -> Choice:
    """A choice within the budget that no change of one width, or of two that share no term, makes more valuable."""
    together = _together(problem)
    pairs = [(a, b) for a, b in combinations(range(len(problem.widths)), 2) if (a, b) not in together]
    while True:
        better = _change_one(problem, choice, budget) or _change_two(problem, choice, budget, pairs)
        if better is None:
            return choice
        choice = better


def _change_one(problem: BudgetProblem, choice: Choice, budget: float) -> Choice | None:
    best, changed = _least_gain(problem, choice), None
    room = _room(problem, choice, budget)
    for width in range(len(problem.widths)):
        gains, costs = _changes(problem, choice, width)
        gains = np.where(costs <= room, gains, -np.inf)
        position = int(np.argmax(gains))
        if gains[position] > best:
            best, changed = float(gains[position]), (width, position)
    return None if changed is None else _with(choice, changed)


def _change_two(problem: BudgetProblem, choice: Choice, budget: float, pairs: list[tuple[int, int]]) -> Choice | None:
    """The best pair of changes of the first pair of widths that gains anything."""
    least, room = _least_gain(problem, choice), _room(problem, choice, budget)
    changes = [_frontier(*_changes(problem, choice, width)) for width in range(len(problem.widths))]
    for a, b in pairs:
        (gains_a, costs_a, at_a), (gains_b, costs_b, at_b) = changes[a], changes[b]
        last = np.searchsorted(costs_b, room - costs_a, side="right") - 1
        gains = np.where(last >= 0, gains_a + gains_b[last], -np.inf)
        i = int(np.argmax(gains))
        if gains[i] > least:
            return _with(_with(choice, (a, int(at_a[i]))), (b, int(at_b[last[i]])))
    return None


def _frontier(gains: Values, costs: Values) -> tuple[Values, Values, Counts]:
    """Changes by rising cost, each of higher gain than all cheaper ones: gains, costs and positions."""
    order = np.lexsort((-gains, costs))
    highest = np.maximum.accumulate(gains[order])
    rising = np.concatenate([[True], highest[1:] > highest[:-1]])
    return gains[order][rising], costs[order][rising], order[rising]


def _changes(problem: BudgetProblem, choice: Choice, width: int) -> tuple[Values, Values]:
    """What every count of a width would add to value and cost, all else equal."""
    positions: list[int | Counts] = [*choice]
    positions[width] = np.arange(len(problem.widths[width].counts))
    for s in problem.sums:
        positions.append(s.index[positions[s.left], positions[s.right]])
    costs = np.zeros(len(problem.widths[width].counts))
    for term in problem.terms:
        place = tuple(positions[v] for v in term.scope)
        if any(isinstance(p, np.ndarray) and p.ndim for p in place):
            costs = costs + term.table[place]
    values = problem.widths[width].values
    return values - values[choice[width]], costs - costs[choice[width]]


def _together(problem: BudgetProblem) -> set[tuple[int, int]]:
    """Pairs of widths whose costs do not add up: they share a term."""
    reach = [{i} for i in range(len(problem.widths))]
    for s in problem.sums:
        reach.append(reach[s.left] | reach[s.right])
    scopes = [set[int]().union(*(reach[v] for v in term.scope)) for term in problem.terms]
    return {pair for scope in scopes for pair in combinations(sorted(scope), 2)}


def _room(problem: BudgetProblem, choice: Choice, budget: float) -> float:
    return budget - problem.cost(choice)


def _least_gain(problem: BudgetProblem, choice: Choice) -> float:
    """Below this it is rounding."""
    return 1e-12 * max(abs(problem.value(choice)), 1e-300)


def _with(choice: Choice, change: tuple[int, int]) -> Choice:
    width, position = change
    return (*choice[:width], position, *choice[width + 1 :])

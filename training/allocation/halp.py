"""HALP's own dynamic program (Shen et al. 2022, Algorithm 1): the baseline, not what a budget should be solved by."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .problem import Counts, Values


def halp_knapsack(values: Sequence[Values], costs: Sequence[Counts], capacity: int) -> list[int]:
    """How many channels each group keeps, shape (groups,).

    `values[g]` are the importances of the channels of group g, the least important first, `costs[g]` what each adds, in
    whole numbers. A 0/1 knapsack over single channels, each group's most important first, the last group first. A
    channel is taken at a capacity only if the one before it was taken in the row and at the capacity it leads to. What
    the row before holds there need not be that channel's best, so better combinations are lost.

    Negative costs (a wider layer that is faster) get the room that they free, as there.
    """
    if capacity >= sum(int(c.sum()) for c in costs):
        return [len(v) for v in values]
    room = capacity + sum(-int(c[c < 0].sum()) for c in costs)
    best = np.zeros(room + 1)
    rows: list[tuple[int, int, np.ndarray[tuple[int], np.dtype[np.bool_]]]] = []
    for group in reversed(range(len(values))):
        taken_before = np.ones(room + 1, dtype=bool)
        for value, cost in zip(values[group][::-1].tolist(), costs[group][::-1].tolist(), strict=True):
            best, taken_before = _row(best, taken_before, value, cost)
            rows.append((group, cost, taken_before))
    kept, left = [0] * len(values), capacity
    for group, cost, taken in reversed(rows):
        if 0 <= left <= room and taken[left]:
            kept[group] += 1
            left -= cost
    return kept


def _row(
    best: Values, taken_before: np.ndarray[tuple[int], np.dtype[np.bool_]], value: float, cost: int
) -> tuple[Values, np.ndarray[tuple[int], np.dtype[np.bool_]]]:
    """The table with one channel more, and at which capacities the channel is taken."""
    rest = np.arange(len(best)) - cost
    possible = (rest >= 0) & (rest < len(best))
    rest = np.where(possible, rest, 0)
    with_it = best[rest] + value
    larger = with_it >= best if cost == 0 else with_it > best
    taken = possible & larger & taken_before[rest]
    return np.where(taken, with_it, best), taken

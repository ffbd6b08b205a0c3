"""A budget problem as a mixed-integer program for SciPy's HiGHS: the contender of the solver that the package has."""

from __future__ import annotations

import time
from itertools import pairwise
from typing import Any

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import coo_array

from sparsefx.training.allocation.problem import BudgetProblem


def solve_by_milp(problem: BudgetProblem, budget: float, seconds: float) -> dict[str, Any]:
    """One binary for every count of every width; one share for every pair of counts of a term of two widths.

    Shares of a pair add up to the binaries on either side (the local polytope), so that costs are exact where the
    binaries are whole. Problems without sums only.
    """
    first = np.concatenate([[0], np.cumsum([len(w.counts) for w in problem.widths])])
    gains, costs = [w.values for w in problem.widths], [np.zeros(len(w.counts)) for w in problem.widths]
    rows: list[int] = []
    columns: list[int] = []
    entries: list[float] = []
    right: list[float] = []

    def equation(variables: list[int], factors: list[float], value: float) -> None:
        rows.extend([len(right)] * len(variables))
        columns.extend(variables)
        entries.extend(factors)
        right.append(value)

    for low, high in pairwise(first.tolist()):
        equation(list(range(low, high)), [1.0] * (high - low), 1.0)
    size = int(first[-1])
    for term in problem.terms:
        if len(term.scope) == 1:
            costs[term.scope[0]] = costs[term.scope[0]] + term.table
            continue
        a, b = term.scope
        shares = size + np.arange(term.table.size).reshape(term.table.shape)
        for i, line in enumerate(shares):
            equation([*line.tolist(), int(first[a]) + i], [1.0] * len(line) + [-1.0], 0.0)
        for j, line in enumerate(shares.T):
            equation([*line.tolist(), int(first[b]) + j], [1.0] * len(line) + [-1.0], 0.0)
        gains.append(np.zeros(term.table.size))
        costs.append(term.table.reshape(-1))
        size += term.table.size
    equations = coo_array((entries, (rows, columns)), shape=(len(right), size)).tocsr()
    cost = np.concatenate(costs)[None, :]
    start = time.perf_counter()
    found = milp(
        -np.concatenate(gains),
        integrality=(np.arange(size) < first[-1]).astype(int),
        bounds=Bounds(0, 1),
        constraints=[
            LinearConstraint(equations, right, right),
            LinearConstraint(cost, -np.inf, budget - problem.fixed_cost),
        ],
        options={"time_limit": seconds},
    )
    taken = time.perf_counter() - start
    if found.x is None:
        return {"seconds": taken, "value": None, "gap": None, "status": found.message}
    bound = -float(found.mip_dual_bound)
    return {
        "seconds": taken,
        "value": -float(found.fun),
        "gap": (bound + float(found.fun)) / bound,
        "status": found.message,
    }

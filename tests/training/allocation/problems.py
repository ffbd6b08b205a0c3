"""Small budget problems, and their solution by trying every choice."""

from __future__ import annotations

from itertools import product

import numpy as np

from sparsefx.training.allocation.problem import BudgetProblem, Sum, Term, Width


def best_of_all(problem: BudgetProblem, budget: float) -> float | None:
    """The highest value of any choice within the budget; None where there is no such choice."""
    choices = product(*(range(len(w.counts)) for w in problem.widths))
    values = [problem.value(c) for c in choices if problem.fits(problem.cost(c), budget)]
    return max(values, default=None)


def random_problem(seed: int, *, separable: bool = False, whole: bool = False) -> BudgetProblem:
    """Up to five widths with up to five counts; arbitrary costs, which may fall with the counts."""
    rng = np.random.default_rng(seed)
    widths = []
    for number in range(int(rng.integers(2, 6))):
        counts = np.sort(rng.choice(np.arange(1, 9), int(rng.integers(1, 6)), replace=False))
        prefix = np.concatenate([[0.0], np.cumsum(np.sort(rng.lognormal(0, 1, 8))[::-1])])
        widths.append(Width(f"w{number}", counts, prefix[counts]))
    sizes = [len(w.counts) for w in widths]

    def table(*shape: int) -> np.ndarray:
        return rng.integers(0, 20, shape).astype(float) if whole else rng.exponential(5.0, shape)

    terms = [Term(f"t{i}", (i,), table(size)) for i, size in enumerate(sizes)]
    sums = []
    if not separable:
        pairs = [(i, j) for i in range(len(sizes)) for j in range(len(sizes)) if i != j and rng.random() < 0.4]
        terms += [Term(f"t{i}{j}", (i, j), table(sizes[i], sizes[j])) for i, j in pairs]
        added = widths[0].counts[:, None] + widths[1].counts[None, :]
        counts, index = np.unique(added, return_inverse=True)
        sums.append(Sum(0, 1, counts, index.reshape(added.shape)))
        terms.append(Term("sum", (len(sizes), len(sizes) - 1), table(len(counts), sizes[-1])))
    return BudgetProblem(widths, terms, sums, fixed_cost=float(rng.integers(0, 5)))


def random_budget(problem: BudgetProblem, seed: int) -> float:
    """Between the cheapest and the dearest of a few choices."""
    rng = np.random.default_rng(seed)
    costs = [problem.cost([int(rng.integers(len(w.counts))) for w in problem.widths]) for _ in range(20)]
    return float(rng.uniform(min(costs), max(costs)))

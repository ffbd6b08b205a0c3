"""The solvers against every choice tried."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsefx.passes.errors import SparsefxError
from sparsefx.training.allocation.elimination import Elimination
from sparsefx.training.allocation.halp import halp_knapsack
from sparsefx.training.allocation.improve import improve
from sparsefx.training.allocation.problem import BudgetProblem, Term, Width, prefix_values
from sparsefx.training.allocation.relaxation import Relaxation
from sparsefx.training.allocation.separable import knapsack, solve_separable
from sparsefx.training.allocation.solve import solve

from .problems import best_of_all, random_budget, random_problem

seeds = st.integers(0, 10**6)


@given(seed=seeds)
@settings(max_examples=80, deadline=None)
def test_pairwise_costs_are_solved_to_the_optimum(seed: int) -> None:
    problem = random_problem(seed)
    budget = random_budget(problem, seed)
    best = best_of_all(problem, budget)
    if best is None:
        with pytest.raises(SparsefxError, match="cannot be met"):
            solve(problem, budget)
        return
    found = solve(problem, budget, nodes=10_000)
    assert found.optimal and found.gap == 0
    assert found.value == pytest.approx(best, rel=1e-9)
    assert problem.fits(found.cost, budget)


@given(seed=seeds, nodes=st.integers(0, 3))
@settings(max_examples=60, deadline=None)
def test_a_search_that_stops_early_still_bounds_the_optimum(seed: int, nodes: int) -> None:
    problem = random_problem(seed)
    budget = random_budget(problem, seed)
    best = best_of_all(problem, budget)
    if best is None:
        return
    found = solve(problem, budget, nodes=nodes)
    assert found.value <= best * (1 + 1e-9) <= found.bound * (1 + 2e-9)
    assert problem.fits(found.cost, budget)
    if found.optimal:
        assert found.value == pytest.approx(best, rel=1e-9)


@given(seed=seeds, whole=st.booleans())
@settings(max_examples=80, deadline=None)
def test_separable_costs(seed: int, whole: bool) -> None:
    """Exact for whole numbers; otherwise within the bound that is reported, and never over the budget."""
    problem = random_problem(seed, separable=True, whole=whole)
    budget = random_budget(problem, seed)
    budget = float(round(budget)) if whole else budget
    best = best_of_all(problem, budget)
    if best is None:
        with pytest.raises(SparsefxError, match="cannot be met"):
            solve_separable(problem, budget)
        return
    found = solve_separable(problem, budget)
    assert problem.fits(found.cost, budget)
    assert found.value <= best * (1 + 1e-9) <= found.bound * (1 + 2e-9)
    if whole or found.optimal:
        assert found.optimal and found.value == pytest.approx(best, rel=1e-9)


def test_halp_loses_a_combination_that_the_exact_knapsack_finds() -> None:
    values, costs = [np.array([4.0, 9.0]), np.array([7.0, 9.0])], [np.array([1, 4]), np.array([3, 5])]
    kept = halp_knapsack(values, costs, 6)
    assert sum(v[::-1][:k].sum() for v, k in zip(values, kept, strict=True)) == 9
    prefixes = [prefix_values(v, np.arange(3)) for v in values]
    sums = [np.concatenate([[0], np.cumsum(c[::-1])]) for c in costs]
    chosen = knapsack(prefixes, sums, 6)
    assert chosen is not None
    assert sum(p[k] for p, k in zip(prefixes, chosen, strict=True)) == 13


def test_halp_takes_everything_that_fits_and_gives_room_for_negative_costs() -> None:
    values = [np.array([1.0, 2.0])]
    assert halp_knapsack(values, [np.array([1, 4])], 5) == [2]
    assert halp_knapsack(values, [np.array([-2, 4])], 2) == [2]
    assert halp_knapsack(values, [np.array([3, 4])], 4) == [1]


def test_an_infeasible_budget_names_the_least_cost() -> None:
    problem = BudgetProblem([Width("conv1", np.array([1, 2]), np.ones(2))], [Term("a", (0,), np.array([3.0, 5.0]))])
    for solver in (solve, solve_separable):
        with pytest.raises(SparsefxError, match=r"a budget of 2.5 cannot be met: .* costs 3 already"):
            solver(problem, 2.5)


def test_what_a_problem_refuses() -> None:
    with pytest.raises(SparsefxError, match="as many values as counts"):
        Width("w", np.arange(3), np.zeros(2))
    with pytest.raises(SparsefxError, match="values of the width w must be finite"):
        Width("w", np.arange(2), np.array([0.0, np.nan]))
    with pytest.raises(SparsefxError, match="cost of conv must be finite"):
        Term("conv", (0,), np.array([np.inf]))
    with pytest.raises(SparsefxError, match="depends on two widths"):
        solve_separable(random_problem(0), 1e9)


@given(seed=seeds)
@settings(max_examples=40, deadline=None)
def test_improve_ends_where_no_change_of_one_width_gains(seed: int) -> None:
    problem = random_problem(seed)
    budget = random_budget(problem, seed)
    relaxation = Relaxation(problem)
    start = relaxation.cheapest(relaxation.whole())
    if not problem.fits(problem.cost(start), budget):
        return
    end = improve(problem, start, budget)
    assert problem.value(end) >= problem.value(start) and problem.fits(problem.cost(end), budget)
    for width, w in enumerate(problem.widths):
        for position in range(len(w.counts)):
            other = (*end[:width], position, *end[width + 1 :])
            fits = problem.cost(other) <= budget
            assert not fits or problem.value(other) <= problem.value(end) * (1 + 1e-9)


def test_joint_tables_that_are_too_large_are_taken_in_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    scopes = [(0,), (0, 1), (1, 2), (0, 2, 3)]
    tables = [rng.normal(size=tuple((3, 4, 5, 6)[v] for v in scope)) for scope in scopes]
    elimination = Elimination((3, 4, 5, 6), scopes)
    expected = elimination.best(tables)
    total = tables[0][:, None, None, None] + tables[1][:, :, None, None] + tables[2][None, :, :, None]
    total = total + tables[3][:, None, :, :]
    assert expected == list(np.unravel_index(total.argmax(), total.shape))
    monkeypatch.setattr("sparsefx.training.allocation.elimination._LARGEST", 1)
    assert Elimination((3, 4, 5, 6), scopes).best(tables) == expected

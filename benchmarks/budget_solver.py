"""Budgets: 400 small cases against HALP's knapsack and every choice tried; ResNet-50 by time and gap, beside a MILP.

    python -m benchmarks.budget_solver [--latency-table PATH] [--rounds 5] [--milp-seconds 30]

Small cases are seeded: 2 to 4 layers of 2 to 5 channels, costs of 0 to 9 (a staircase has steps without cost), a
budget between 30% and 80% of everything. ResNet-50 has importances drawn from a log-normal distribution, a scale for
every kind of channels, and 55% of its dense cost; costs are FLOPs, a staircase (eight outputs at a time, noise of a
tenth, so that wider is faster here and there) and the milliseconds of a latency table (`sparsefx profile
torchvision.models:resnet50 --input 1x3x224x224 --threads 1 -o PATH`). "separable" holds what layers read at its full
width, as HALP does; "pairwise" counts what consumers save.
"""

from __future__ import annotations

import argparse
import statistics
import time
import zlib
from itertools import product
from typing import Any

import numpy as np
import torch

import tests.torchvision_shim  # noqa: F401 - torchvision imports only after this
from benchmarks.milp import solve_by_milp
from benchmarks.results_file import write_results
from sparsefx.training.allocation.costs import FLOPs, LayerCosts
from sparsefx.training.allocation.halp import halp_knapsack
from sparsefx.training.allocation.kinds import Kind
from sparsefx.training.allocation.layer import Layer, layers_of
from sparsefx.training.allocation.model import network_costs
from sparsefx.training.allocation.network import NetworkCosts, at_inputs
from sparsefx.training.allocation.problem import BudgetProblem, Counts, Term, Values, Width
from sparsefx.training.allocation.separable import solve_separable
from sparsefx.training.allocation.solve import solve
from sparsefx.training.allocation.table import as_costs

_EXAMPLE = (torch.zeros(1, 3, 224, 224),)
_SHARE = 0.55
Row = dict[str, Any]


class Staircase:
    """Arbitrary but repeatable: outputs in steps of eight, up to a tenth of noise for every pair of counts."""

    unit = "arbitrary"

    def cost(self, layer: Layer, inputs: Counts, outputs: Counts) -> Values:
        noise = np.random.default_rng(zlib.crc32(layer.name.encode())).uniform(1, 1.1, (257, 257))
        steps = FLOPs().cost(layer, inputs, -(-outputs // 8) * 8)
        return steps * noise[inputs % 257][:, outputs % 257]


def small_cases(count: int = 400, seed: int = 0) -> Row:
    """How often HALP's knapsack and the two solvers here miss the best of all choices, and by how much."""
    rng = np.random.default_rng(seed)
    missed: dict[str, list[float]] = {"halp": [], "separable": [], "pairwise": []}
    for _ in range(count):
        sizes = rng.integers(2, 6, rng.integers(2, 5))
        values = [np.sort(rng.integers(1, 21, n)).astype(float) for n in sizes]  # the least important channel first
        costs = [rng.integers(0, 10, n) for n in sizes]
        capacity = int(rng.uniform(0.3, 0.8) * sum(int(c.sum()) for c in costs))
        totals = [np.concatenate([[0.0], np.cumsum(v[::-1])]) for v in values]
        spent = [np.concatenate([[0], np.cumsum(c[::-1])]).astype(float) for c in costs]
        choices = [c for c in product(*(range(n + 1) for n in sizes)) if _sum(spent, c) <= capacity]
        best = max(_sum(totals, c) for c in choices)
        problem = BudgetProblem(
            [Width(f"{i}", np.arange(n + 1), t) for i, (n, t) in enumerate(zip(sizes, totals, strict=True))],
            [Term(f"{i}", (i,), s) for i, s in enumerate(spent)],
        )
        found = {
            "halp": _sum(totals, tuple(halp_knapsack(values, costs, capacity))),
            "separable": solve_separable(problem, capacity).value,
            "pairwise": solve(problem, capacity).value,
        }
        for name, value in found.items():
            if value < best - 1e-9:
                missed[name].append(1 - value / best)
    return {
        name: {
            "cases": count,
            "not_optimal": len(gaps),
            "mean_gap_of_those": float(np.mean(gaps)) if gaps else 0.0,
            "worst_gap": max(gaps, default=0.0),
        }
        for name, gaps in missed.items()
    }


def _sum(tables: list[Values], choice: tuple[int, ...]) -> float:
    return float(sum(t[k] for t, k in zip(tables, choice, strict=True)))


def resnet50() -> tuple[list[Layer], list[Kind]]:
    """Captured once, for all costs."""
    import torchvision

    model = torchvision.models.resnet50(weights=None)
    return layers_of(model, _EXAMPLE), network_costs(model, _EXAMPLE).kinds


def problem_of(network: NetworkCosts) -> BudgetProblem:
    rng = np.random.default_rng(0)
    importance = [rng.lognormal(0, 1, n) * rng.lognormal(0, 1) for n in network.full]
    return network.choose(importance)


def compare(name: str, costs: LayerCosts, choices: int, network_parts: Any, rounds: int, milp_seconds: float) -> Row:
    """Median seconds over the rounds, contenders in turn; their gaps; and what the MILP makes of it once."""
    layers, kinds = network_parts
    network = NetworkCosts(layers, kinds, costs, choices=choices)
    problem = problem_of(network)
    budget = _SHARE * network.cost(network.full)
    held = at_inputs(problem, [size - 1 for size in problem.sizes])
    times: dict[str, list[float]] = {"separable": [], "pairwise": []}
    found = {}
    for _ in range(rounds):
        start = time.perf_counter()
        found["separable"] = solve_separable(held, budget, resolution=1e-3)
        middle = time.perf_counter()
        times["separable"].append(middle - start)
        if choices <= 64:
            found["pairwise"] = solve(problem, budget, gap=1e-4)
            times["pairwise"].append(time.perf_counter() - middle)
    row: Row = {"costs": name, "choices": choices, "counts": sum(problem.sizes), "widths": len(problem.sizes)}
    for solver, result in found.items():
        row[solver] = {
            "seconds": statistics.median(times[solver]),
            "slowest_seconds": max(times[solver]),
            "gap": result.gap,
            "value": result.value,
            "share_of_budget": result.cost / budget,
        }
    if "pairwise" in found and milp_seconds:
        row["milp"] = solve_by_milp(problem, budget, milp_seconds)
    return row


def line(row: Row) -> str:
    parts = [f"{row['costs']:13s} {row['choices']:5d} counts a width"]
    for solver in ("separable", "pairwise", "milp"):
        if solver in row:
            gap = "none" if row[solver]["gap"] is None else f"{row[solver]['gap']:.4%}"
            parts.append(f"{solver} {row[solver]['seconds']:.2f} s, gap {gap}")
    return "; ".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--latency-table", help="of ResNet-50, as sparsefx profile writes it")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--milp-seconds", type=float, default=30.0)
    options = parser.parse_args()
    cases = small_cases()
    for name, row in cases.items():
        print(f"{name:10s} not optimal in {row['not_optimal']} of {row['cases']}, worst gap {row['worst_gap']:.1%}")
    every: dict[str, LayerCosts] = {"FLOPs": FLOPs(), "staircase": Staircase()}
    if options.latency_table:
        every["latency table"] = as_costs(options.latency_table)
    parts, rows = resnet50(), []
    for name, costs in every.items():
        for choices in (16, 64, 2048):
            rows.append(compare(name, costs, choices, parts, options.rounds, options.milp_seconds))
            print(line(rows[-1]), flush=True)
    print(f"Written to {write_results('budget_solver', {'small_cases': cases, 'resnet50': rows})}")


if __name__ == "__main__":
    main()

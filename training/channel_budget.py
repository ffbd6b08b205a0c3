"""Which channels a network keeps within a latency budget, or any other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..passes.errors import MaskError
from .allocation.costs import LayerCosts
from .allocation.halp import halp_knapsack
from .allocation.kinds import kinds_of
from .allocation.layer import Layer
from .allocation.network import NetworkCosts, at_inputs
from .allocation.problem import Allocation, BudgetProblem, Counts, infeasible, prefix_values
from .allocation.relaxation import Relaxation
from .allocation.separable import separate_costs
from .allocation.solve import solve
from .channels import CoupledChannels
from .ranks import from_first_rank

_GAP = 1e-4
_NODES = 20  # no time limit: every machine and every rank must come to the same
_SHARES, _COARSE = 400, 20
_HALP_UNITS = 10_000


@dataclass(frozen=True)
class BudgetUpdate:
    """One choice of channels: the `budget` it was given, its `cost`, and by how much a better one could be better."""

    step: int
    budget: float
    cost: float
    gap: float
    kept: Mapping[str, int]


class ChannelBudget:
    """Chooses channels of `channels`, so that the network costs at most `share` of what it costs with all of them, or
    at most `limit` where that is given, in the unit of the costs.

    At least one channel of every kind stays. Raises MaskError where no channel can be removed, SparsefxError where
    the budget cannot be met.
    """

    def __init__(
        self,
        channels: CoupledChannels,
        layers: Sequence[Layer],
        costs: LayerCosts,
        *,
        share: float,
        choices: int,
        limit: float | None = None,
    ) -> None:
        if not channels.candidates:
            raise MaskError(f"no channel can be removed: {dict(channels.kept)}")
        self.channels = channels
        self.network = NetworkCosts(layers, kinds_of(channels), costs, choices=choices)
        self.members = [torch.tensor(kind.members) for kind in self.network.kinds]
        self.dense = self.network.cost(self.network.full)
        self.total = share * self.dense if limit is None else limit

    @property
    def kept(self) -> list[int]:
        """How many channels of every kind are not removed."""
        return [int((~self.channels.removed[m]).sum()) for m in self.members]

    @property
    def cost(self) -> float:
        """Of the network as it is now."""
        return self.network.cost(self.kept)

    def keep_equal_shares(self, generator: torch.Generator) -> None:
        """The largest share of every kind that the budget allows, the channels by chance."""
        kept = self._largest_shares()
        if kept is None:
            least = min(self.network.cost(self._equal_shares(part)) for part in range(0, _SHARES + 1, _COARSE))
            raise infeasible(self.total, least, "the cheapest equal share of every layer's channels")
        self._keep(kept, self._by_chance(generator))

    def keep_any(self, generator: torch.Generator) -> None:
        """Channels by chance: equal shares where one meets the budget, else the counts that keep most of them.

        By a latency table some narrow layers take longer than wide ones, and equal shares may all be too slow.
        """
        order, kept = self._by_chance(generator), self._largest_shares()
        if kept is not None:
            self._keep(kept, order)
        else:
            self._solve(self.problem(order, [(1, n) for n in self.network.full]), self.total, order)

    def prune(self, importance: Tensor, budget: float) -> Allocation:
        """Keep the best of the active channels within `budget`; the fewest possible where even they cost more."""
        limits = [(1, k) for k in self.kept]
        allowed = torch.where(self.channels.removed, 0.0, importance)
        problem = self.problem(allowed, limits)
        relaxation = Relaxation(problem)
        least = problem.cost(relaxation.cheapest(relaxation.whole()))
        return self._solve(problem, max(budget, least), torch.where(self.channels.removed, -1.0, importance))

    def prune_as_halp(self, importance: Tensor, budget: float) -> None:
        """By HALP's own knapsack, with what layers read held at what it is now; one count of every kind stays."""
        allowed = torch.where(self.channels.removed, 0.0, importance)
        problem = self.problem(allowed, [(1, k) for k in self.kept])
        costs = separate_costs(at_inputs(problem, [size - 1 for size in problem.sizes]))
        unit = budget / _HALP_UNITS
        added = [np.round(np.diff(c, prepend=0.0) / unit).astype(np.int64)[::-1] for c in costs]
        gained = [np.diff(w.values, prepend=0.0)[::-1] for w in problem.widths]
        places = halp_knapsack(gained, added, round((budget - problem.fixed_cost) / unit))
        kept = [int(w.counts[max(k - 1, 0)]) for w, k in zip(problem.widths, places, strict=True)]
        self._keep(kept, torch.where(self.channels.removed, -1.0, importance))

    def grow(self, importance: Tensor) -> Allocation:
        """Add the best of the removed channels until the budget is spent."""
        limits = list(zip(self.kept, self.network.full, strict=True))
        added = torch.where(self.channels.removed, importance, 0.0)
        order = torch.where(self.channels.removed, importance, torch.inf)
        return self._solve(self.problem(added, limits, active_first=True), self.total, order)

    def problem(
        self, importance: Tensor, limits: Sequence[tuple[int, int]], *, active_first: bool = False
    ) -> BudgetProblem:
        """What keeping the most important of every kind is worth; with `active_first` of those beyond the fewest."""
        counts: list[Counts] = []
        values = []
        for kind, (least, most) in enumerate(limits):
            scores = importance[self.members[kind]].numpy()
            base = least if active_first else 0
            chosen = self.network.counts(kind, least, most)
            counts.append(chosen)
            values.append(prefix_values(scores, chosen - base))
        return self.network.problem(counts, values)

    def _by_chance(self, generator: torch.Generator) -> Tensor:
        return torch.rand(len(self.channels.removed), generator=generator).double()

    def _largest_shares(self) -> list[int] | None:
        """The largest equal shares that meet the budget, None where none do."""
        part = self._largest_part(range(_SHARES, -1, -_COARSE))
        if part is None:
            return None
        return self._equal_shares(self._largest_part(range(min(part + _COARSE - 1, _SHARES), part, -1)) or part)

    def _largest_part(self, parts: range) -> int | None:
        """The first of falling shares that meets the budget."""
        return next((part for part in parts if self.network.cost(self._equal_shares(part)) <= self.total), None)

    def _equal_shares(self, part: int) -> list[int]:
        return [max(1, round(n * part / _SHARES)) for n in self.network.full]

    def _solve(self, problem: BudgetProblem, budget: float, order: Tensor) -> Allocation:
        found = solve(problem, budget, gap=_GAP, nodes=_NODES)
        self._keep([found.kept[kind.name] for kind in self.network.kinds], order)
        return found

    def _keep(self, kept: Sequence[int], order: Tensor) -> None:
        """Keep so many of every kind, the highest in `order`; of equal ones the first."""
        removed = torch.ones_like(self.channels.removed)
        for members, count in zip(self.members, kept, strict=True):
            ranked = np.argsort(-order[members].numpy(), kind="stable")[:count]
            removed[members[torch.from_numpy(ranked)]] = False
        self.channels.restore(from_first_rank(removed))

"""Constant fan-in: the same number of inputs for every active neuron, or for every block of its inputs."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class FanInPlan:
    """How a budget of non-zeros is spent on a layer of equal rows.

    `active` is a boolean per neuron; each of its `parts` equal parts of inputs has `count` non-zeros. `left` is what
    of the budget cannot be spent so; negative where one input per neuron is more than the budget allows.
    """

    active: Tensor
    parts: int
    count: int
    left: int

    @property
    def fan_in(self) -> int:
        return self.parts * self.count


def plan_fan_in(salient: Tensor, threshold: int, budget: int, inputs: int, parts: int) -> FanInPlan:
    """Neurons with at least `threshold` salient weights are active, and share the budget equally.

    `salient` are counts per neuron, `inputs` the dense fan-in. At least as many neurons are active as it takes to hold
    the budget, and one; at most as many as can have an input in each part, unless the threshold is 0: then all.
    Among equals the first stay.
    """
    neurons = len(salient)
    fewest = min(max(1, -(-budget // inputs)), neurons)
    most = max(fewest, min(neurons, budget // parts))
    number = neurons if not threshold else min(max(int((salient >= threshold).sum()), fewest), most)
    chosen = torch.argsort(salient, descending=True, stable=True)[:number]
    active = torch.zeros(neurons, dtype=torch.bool, device=salient.device)
    active[chosen] = True
    count = min(max(budget // (number * parts), 1), inputs // parts)
    return FanInPlan(active, parts, count, budget - number * parts * count)


def fill_rows(plan: FanInPlan, kept: Tensor, importance: Tensor, growth: Tensor) -> Tensor:
    """The mask (neurons, inputs) that spends a plan: per part the most important kept weights, then by growth.

    Scores are at least 0 and have the shape of the mask `kept`.
    """
    shape = (int(plan.active.sum()) * plan.parts, -1)
    chosen = kept[plan.active].reshape(shape)
    full = chosen.sum(1) > plan.count
    if full.any():
        candidates = torch.where(chosen[full], importance[plan.active].reshape(shape)[full], -1.0)
        chosen[full] = _first(candidates, plan.count)
    missing = plan.count - chosen.sum(1, keepdim=True)
    chosen |= _first(torch.where(chosen, -1.0, growth[plan.active].reshape(shape)), missing)
    mask = torch.zeros_like(kept)
    mask[plan.active] = chosen.reshape(-1, kept.shape[1])
    return mask


def _first(score: Tensor, count: int | Tensor) -> Tensor:
    """The `count` highest of every row; a count for all rows, or a column of counts."""
    most = count if isinstance(count, int) else int(count.max())
    mask = torch.zeros_like(score, dtype=torch.bool)
    if most:
        places = score.topk(most, dim=1).indices
        within = torch.arange(most, device=score.device)[None] < count
        mask.scatter_(1, places, within.expand_as(places))
    return mask

"""SRigL: RigL with constant fan-in and neuron ablation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Unpack

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ..criteria import magnitude
from ..fan_in import FanInPlan, fill_rows, plan_fan_in
from ..initial_masks import layer_budgets
from ..layers import matches
from ..mask_structure import MaskStructure
from ..ranks import number_from_first_rank
from ..selection import highest
from ..settings import CoreOptions, default_interval, require
from ..sparse_layer import SparseLayer
from ..sparsifier import Proposal
from .rigl import DropAndGrow, RigLSettings


@dataclass(frozen=True, kw_only=True)
class SRigLSettings(RigLSettings):
    gamma: float
    ablation: bool
    no_ablation: Sequence[str] | None
    block: int | None

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 <= self.gamma <= 1, f"gamma must be in [0, 1], found {self.gamma}")
        require(self.block is None or self.block > 1, f"block must be at least 2 inputs, found {self.block}")


class SRigL(DropAndGrow):
    """Dynamic Sparse Training with Structured Sparsity (Lasby et al. 2024): RigL with constant fan-in.

    At an update (section 3, steps 1 to 7) each layer drops its K smallest magnitudes. A weight is salient if it
    stays so, or is among the K largest gradients of masked weights. A neuron with fewer than max(1, int(`gamma` * k))
    salient weights is ablated, k being the fan-in if no neuron were; its biases and BatchNorm parameters stay and are
    trained, and it may return. The others share the layer's budget equally: where a neuron keeps more than its fan-in,
    its largest magnitudes stay, where fewer, it grows by gradient. Layers that `no_ablation` names (fnmatch patterns)
    keep all neurons; without it the last layer does, whose neurons are the model's outputs, as in the authors' code.

    What a layer's budget leaves after equal shares goes to the next layer; `remainder` is what is left after the last
    one, fewer weights than that layer has active neurons (times blocks). It can be negative only where a layer that
    is not ablated has fewer non-zeros than neurons: each keeps one input.

    `block=32` is an option of ours: the same number of non-zeros in every 32 consecutive inputs of a neuron, which
    lets kernels do without padding. Layers whose fan-in is no multiple of it have plain constant fan-in
    (`unblocked` names them).

    Defaults of the paper: gamma 0.3 (0.95 for ViT-B/16), with ablation, all else as RigL.
    """

    settings: SRigLSettings

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        *,
        total_steps: int,
        sparsity: float = 0.9,
        gamma: float = 0.3,
        ablation: bool = True,
        no_ablation: Sequence[str] | None = None,
        block: int | None = None,
        drop_fraction: float = 0.3,
        update_interval: int | None = None,
        stop: float = 0.75,
        **core: Unpack[CoreOptions],
    ) -> None:
        settings = SRigLSettings(
            sparsity=sparsity,
            total_steps=total_steps,
            gamma=gamma,
            ablation=ablation,
            no_ablation=no_ablation,
            block=block,
            drop_fraction=drop_fraction,
            update_interval=default_interval(total_steps, 50, 100) if update_interval is None else update_interval,
            stop=stop,
            **core,
        )
        self.remainder = 0
        super().__init__(model, optimizer, settings)

    def initial_masks(self) -> dict[str, Tensor]:
        """Random inputs for every neuron; all neurons, unless there are fewer weights than neurons."""
        for pattern in self.settings.no_ablation or ():
            require(
                any(matches(layer.name, [pattern]) for layer in self.explored),
                f"no_ablation pattern {pattern!r} matches none of {', '.join(layer.name for layer in self.explored)}",
            )
        budgets = layer_budgets(self.layers, self.settings.distribution, self.target_nonzeros)
        self._budgets = {
            name: number_from_first_rank(budget, self.layers[name].parameter.device) for name, budget in budgets.items()
        }

        def random(layer: SparseLayer, budget: int) -> tuple[Tensor, int]:
            rows = layer.layout.rows(layer.mask)
            salient = torch.randperm(len(rows), generator=self.generator) + len(rows)  # who stays, where not all can
            plan = self._plan(layer, salient, threshold=int(self._ablates(layer)), budget=budget)
            score = torch.rand(rows.shape, generator=self.generator)
            return fill_rows(plan, torch.zeros_like(score, dtype=torch.bool), score, score), plan.left

        return self._spend(random)

    def propose(self, step: int) -> Proposal:
        fraction = self.settings.drop_schedule(step)
        return Proposal(self._spend(lambda layer, budget: self._exchange(layer, budget, fraction)), fraction)

    def _spend(self, new_mask: Callable[[SparseLayer, int], tuple[Tensor, int]]) -> dict[str, Tensor]:
        """New masks layer by layer; what the budget of one leaves is added to that of the next."""
        masks, left = {}, 0
        for layer in self.explored:
            budget = self._budgets[layer.name]
            if budget == layer.mask.numel():  # dense by the distribution
                masks[layer.name] = torch.ones_like(layer.mask)
                continue
            rows, left = new_mask(layer, budget + left)
            masks[layer.name] = layer.layout.from_rows(rows, layer.mask.shape)
        self.remainder = number_from_first_rank(left, self.explored[0].parameter.device)
        return masks

    def _exchange(self, layer: SparseLayer, budget: int, fraction: float) -> tuple[Tensor, int]:
        """The mask of one layer as rows, and what it leaves of the budget."""
        growth = self.growth_score(layer)
        nonzeros = int(layer.mask.sum())
        rows = layer.layout.rows
        if not growth.any():
            return rows(layer.mask), budget - nonzeros
        importance, exchanged = magnitude(layer.weight), int(fraction * nonzeros)
        kept = highest(importance, layer.mask, nonzeros - exchanged)
        salient = kept | highest(growth, ~layer.mask, exchanged)
        plan = self._plan(layer, rows(salient).sum(1), self._threshold(layer), budget)
        return fill_rows(plan, rows(kept), rows(importance), rows(growth)), plan.left

    def _threshold(self, layer: SparseLayer) -> int:
        """Salient weights that a neuron needs; 0 where none is ablated."""
        fan_in = self._budgets[layer.name] / (layer.mask.numel() / _inputs(layer))
        return max(1, int(self.settings.gamma * fan_in)) if self._ablates(layer) else 0

    def _ablates(self, layer: SparseLayer) -> bool:
        patterns = self.settings.no_ablation
        spared = layer is self.explored[-1] if patterns is None else matches(layer.name, patterns)
        return self.settings.ablation and not spared

    def _plan(self, layer: SparseLayer, salient: Tensor, threshold: int, budget: int) -> FanInPlan:
        inputs, block = _inputs(layer), self.settings.block
        parts = inputs // block if block and inputs % block == 0 else 1
        return plan_fan_in(salient, threshold, budget, inputs, parts)

    @property
    def target_nonzeros(self) -> int:
        return super().target_nonzeros - self.remainder

    @property
    def unblocked(self) -> list[str]:
        """Layers whose fan-in is no multiple of `block`."""
        block = self.settings.block
        return [layer.name for layer in self.explored if block and _inputs(layer) % block]

    def structures(self) -> Mapping[str, MaskStructure]:
        return {layer.name: _structure(layer) for layer in self.explored if not layer.mask.all()}

    def extra_state(self) -> dict[str, Any]:
        return {"remainder": self.remainder, "budgets": dict(self._budgets)}

    def load_extra_state(self, state: dict[str, Any]) -> None:
        self.remainder, self._budgets = state["remainder"], dict(state["budgets"])


def _inputs(layer: SparseLayer) -> int:
    """The dense fan-in."""
    return layer.layout.rows(layer.mask).shape[1]


def _structure(layer: SparseLayer) -> MaskStructure:
    fan_in = int(layer.layout.rows(layer.mask).sum(1).max())
    return MaskStructure("constant_fan_in", fan_in=fan_in, layout=layer.layout)

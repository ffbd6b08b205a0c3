"""IEE: iterative exploitation and exploration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Unpack

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ...passes.errors import MaskError
from ..criteria import magnitude
from ..exploration import Exploration
from ..exploring import ExplorationSettings, ExploringSparsifier
from ..layers import bare_model
from ..mask_structure import MaskStructure
from ..n_m import can_hold, largest_n_of_m
from ..schedules import CosineDecay
from ..selection import highest, highest_of_all
from ..settings import CoreOptions, default_interval, require
from ..sparse_layer import SparseLayer

Masks = dict[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class IEESettings(ExplorationSettings):
    n_m: tuple[int, int] | None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.n_m is not None:
            n, m = self.n_m
            require(0 < n < m, f"n_m must be (n, m) with 0 < n < m, found {self.n_m}")

    @property
    def drop_schedule(self) -> CosineDecay:
        return CosineDecay(self.drop_fraction, round(self.stop * self.total_steps))


class IEE(ExploringSparsifier):
    """Advancing Weight and Channel Sparsification with Enhanced Saliency (Sun et al. 2025), unstructured and N:M.

    In cycles of `stages` (H, J, Q) steps, until `stop` * `total_steps` (Algorithm 1): train the active weights for H
    steps; prune the least important of them (Eq. 2); train the rest for J steps; reactivate all others at their
    most recent values, and train those for Q steps while what is active stays frozen (Eq. 3); grow the most
    important of them, which keep their values, by the same importance: magnitude (Eq. 4). The share exchanged goes
    from `drop_fraction` to 0 along a cosine.

    Layer by layer with the counts of `distribution`; over all layers together with "global". With `n_m=(2, 4)` there
    are 2 non-zeros in every 4 consecutive inputs: pruned by magnitude in the layer, grown inside the groups.
    Layers whose inputs are no multiple of m stay dense.

    While `exploring`, nothing but inactive weights moves: not the active ones, nor their optimizer state, biases or
    BatchNorm's parameters and running statistics. The model then computes with more weights than `masks()` says:
    evaluate it at another time. A second copy of the explored weights is kept, as the method needs it (the most
    recent values of inactive weights; while exploring, those of the active ones), and while exploring the optimizer
    state of those layers.

    Defaults of the paper: H = J = Q = 150, 0.3 at first, until 3/4 of training; of shorter runs than 9000 steps each
    stage is a 60th part, at least 10.
    """

    settings: IEESettings

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        *,
        total_steps: int,
        sparsity: float = 0.9,
        n_m: tuple[int, int] | None = None,
        drop_fraction: float = 0.3,
        stages: tuple[int, int, int] | None = None,
        stop: float = 0.75,
        **core: Unpack[CoreOptions],
    ) -> None:
        stage = default_interval(total_steps, 60, 150)
        settings = IEESettings(
            sparsity=1 - n_m[0] / n_m[1] if n_m else sparsity,
            total_steps=total_steps,
            n_m=n_m,
            drop_fraction=drop_fraction,
            stages=(stage, stage, stage) if stages is None else stages,
            stop=stop,
            **core,
        )
        super().__init__(model, optimizer, settings, Exploration(bare_model(model), optimizer))
        self._budgets = {layer.name: int(layer.mask.sum()) for layer in self.explored}

    def initial_masks(self) -> Masks:
        self.exploration.park(self.explored)
        if self.settings.n_m is None:
            return super().initial_masks()
        n, m = self.settings.n_m
        for layer in self.explored:
            if not can_hold(layer, m):
                layer.kept_dense = True
                self.dense_layers[layer.name] = f"its inputs are no multiple of {m}"
        if not self.explored:
            raise MaskError(f"nothing to sparsify: {self.dense_layers}")
        random = {layer.name: torch.rand(layer.mask.shape, generator=self.generator) for layer in self.explored}
        return {layer.name: largest_n_of_m(layer, random[layer.name], n, m) for layer in self.explored}

    @property
    def target_nonzeros(self) -> int:
        """The target; between pruning and growing, what the pruning left."""
        full = sum(self._budgets.values()) + sum(x.mask.numel() for x in self.layers.values() if x.kept_dense)
        estimation, place = self.settings.stages[0], self.place(self.step_count)
        if not estimation <= place < self.settings.cycle:
            return full
        return full - sum(self._exchanged(self.step_count - place + estimation).values())

    def drop_fraction(self, step: int) -> float:
        return self.settings.drop_schedule(step)

    def structures(self) -> Mapping[str, MaskStructure]:
        if self.settings.n_m is None:
            return {}
        n, m = self.settings.n_m
        return {layer.name: MaskStructure("n_m", n=n, m=m, layout=layer.layout) for layer in self.explored}

    @property
    def _is_global(self) -> bool:
        return self.settings.distribution == "global" and self.settings.n_m is None

    def _exchanged(self, step: int) -> dict[str, int]:
        """Weights that the pruning of a step takes; under "global" from all layers together, under the name ""."""
        fraction = self.settings.drop_schedule(step)
        budgets = {"": sum(self._budgets.values())} if self._is_global else self._budgets
        return {name: int(fraction * budget) for name, budget in budgets.items()}

    def prune(self, step: int) -> Masks:
        exchanged = self._exchanged(step)
        if self._is_global:
            return self._largest({layer.name: layer.mask for layer in self.explored}, self._active() - exchanged[""])
        return {
            layer.name: highest(magnitude(layer.weight), layer.mask, int(layer.mask.sum()) - exchanged[layer.name])
            for layer in self.explored
        }

    def grow(self, step: int) -> Masks:
        """Fill up to the budget by what exploration made of inactive weights."""
        if self._is_global:
            missing = sum(self._budgets.values()) - self._active()
            grown = self._largest({layer.name: ~layer.mask for layer in self.explored}, missing)
            return {layer.name: layer.mask | grown[layer.name] for layer in self.explored}
        return {layer.name: self._grow_layer(layer) for layer in self.explored}

    def _grow_layer(self, layer: SparseLayer) -> Tensor:
        importance = magnitude(layer.weight)
        if self.settings.n_m is not None:
            return largest_n_of_m(layer, importance.masked_fill(layer.mask, torch.inf), *self.settings.n_m)
        missing = self._budgets[layer.name] - int(layer.mask.sum())
        return layer.mask | highest(importance, ~layer.mask, missing)

    def _largest(self, eligible: Masks, count: int) -> Masks:
        return highest_of_all(lambda name: magnitude(self.layers[name].weight), eligible, count)

    def _active(self) -> int:
        return sum(int(layer.mask.sum()) for layer in self.explored)

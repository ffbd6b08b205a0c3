"""GraNet: gradual magnitude pruning with zero-cost neuroregeneration."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Unpack

from torch import Tensor, nn
from torch.optim import Optimizer

from ..criteria import magnitude
from ..exchange import drop_and_grow
from ..schedules import CosineDecay
from ..settings import CoreOptions, default_interval, require
from ..sparse_layer import SparseLayer
from ..sparsifier import Proposal
from .gmp import GMPSettings, GradualPruning

DENSE_TO_SPARSE_STOP, SPARSE_TO_SPARSE_STOP = 0.6875, 0.5  # 110 and 80 of 160 epochs (Table 7, CIFAR)


@dataclass(frozen=True, kw_only=True)
class GraNetSettings(GMPSettings):
    regeneration: tuple[float, float]

    def __post_init__(self) -> None:
        super().__post_init__()
        shares = all(0 <= share <= 1 for share in self.regeneration)
        require(shares, f"regeneration must be shares of the non-zeros, found {self.regeneration}")

    @property
    def regeneration_schedule(self) -> CosineDecay:
        return CosineDecay(self.regeneration[0], self.total_steps, self.regeneration[1])

    @property
    def last_update(self) -> int:
        """The last regeneration leaves an interval of training."""
        return (self.total_steps - self.update_interval) // self.update_interval * self.update_interval


class GraNet(GradualPruning):
    """Sparse Training via Boosting Pruning Plasticity with Neuroregeneration (Liu et al. 2021).

    Prunes as GMP does (Eq. 1); in the same update each layer drops ceil(r * non-zeros) of its smallest magnitudes and
    grows as many of the largest gradients (Eq. 2 and 3). r goes from `regeneration[0]` to `regeneration[1]` along a
    cosine over all of training, and regeneration goes on when pruning is over, as in the authors' code. What is dropped
    or pruned in an update may grow in it, and then keeps its value.

    `initial_sparsity=0.5`, the default, is sparse-to-sparse, `initial_sparsity=0` dense-to-sparse training. Other
    defaults of Table 7 for CIFAR: Erdos-Renyi-Kernel, pruning until 80 of 160 epochs (110 for dense-to-sparse), r from
    0.5 to 0.005, an update every 1000 steps; of shorter runs every 50th part, at least 10.
    """

    settings: GraNetSettings
    grows_by_gradient = True

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        *,
        total_steps: int,
        sparsity: float = 0.9,
        initial_sparsity: float = 0.5,
        regeneration: tuple[float, float] = (0.5, 0.005),
        update_interval: int | None = None,
        start: float = 0.0,
        stop: float | None = None,
        **core: Unpack[CoreOptions],
    ) -> None:
        default_stop = SPARSE_TO_SPARSE_STOP if initial_sparsity else DENSE_TO_SPARSE_STOP
        settings = GraNetSettings(
            sparsity=sparsity,
            total_steps=total_steps,
            initial_sparsity=initial_sparsity,
            regeneration=regeneration,
            update_interval=default_interval(total_steps, 50, 1000) if update_interval is None else update_interval,
            start=start,
            stop=default_stop if stop is None else stop,
            **core,
        )
        super().__init__(model, optimizer, settings)

    def is_update(self, step: int) -> bool:
        settings = self.settings
        due = step % settings.update_interval == 0 and settings.first_pruning <= step
        return due and step <= max(settings.last_update, settings.last_pruning)

    def propose(self, step: int) -> Proposal:
        ratio = self.settings.regeneration_schedule(step)
        pruned = self.prune(step)
        return Proposal(
            {layer.name: self._regenerate(layer, pruned[layer.name], ratio) for layer in self.explored}, ratio
        )

    def _regenerate(self, layer: SparseLayer, mask: Tensor, ratio: float) -> Tensor:
        growth = self.growth_score(layer)
        drop = math.ceil(ratio * int(mask.sum()))
        return drop_and_grow(magnitude(layer.weight), mask, growth, drop) if growth.any() else mask

"""RigL: drop by magnitude, grow by gradient, layer by layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Unpack

from torch import Tensor, nn
from torch.optim import Optimizer

from ..criteria import magnitude
from ..schedules import CosineDecay
from ..selection import highest
from ..settings import CoreOptions, Settings, default_interval, require
from ..sparse_layer import SparseLayer
from ..sparsifier import Proposal, Sparsifier


@dataclass(frozen=True, kw_only=True)
class RigLSettings(Settings):
    drop_fraction: float
    update_interval: int
    stop: float

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 < self.drop_fraction <= 1, f"drop_fraction must be in (0, 1], found {self.drop_fraction}")
        require(self.update_interval > 0, f"update_interval must be positive, found {self.update_interval}")
        require(0 < self.stop <= 1, f"stop must be in (0, 1], found {self.stop}")


class RigL(Sparsifier):
    """Rigging the Lottery (Evci et al. 2020): constant sparsity per layer, connections move to where gradients are.

    Every `update_interval` steps, until `stop` * `total_steps`, each layer drops its smallest magnitudes and grows as
    many of the largest gradient magnitudes (Algorithm 1). The fraction dropped decays as
    alpha / 2 (1 + cos(pi t / T_end)), alpha = `drop_fraction`. Weights dropped in an update may regrow in it, and
    then keep their value, as in the authors' code; the others start at zero.

    Defaults of the paper: alpha 0.3, T_end 0.75 of training, Erdos-Renyi-Kernel, an update every 100 steps;
    of shorter runs than 5000 steps every 50th part, at least 10. A layer without any gradient at an update keeps its
    mask.
    """

    settings: RigLSettings

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        *,
        total_steps: int,
        sparsity: float = 0.9,
        drop_fraction: float = 0.3,
        update_interval: int | None = None,
        stop: float = 0.75,
        **core: Unpack[CoreOptions],
    ) -> None:
        settings = RigLSettings(
            sparsity=sparsity,
            total_steps=total_steps,
            drop_fraction=drop_fraction,
            update_interval=default_interval(total_steps, 50, 100) if update_interval is None else update_interval,
            stop=stop,
            **core,
        )
        self.schedule = CosineDecay(drop_fraction, round(stop * total_steps))
        super().__init__(model, optimizer, settings)

    def is_update(self, step: int) -> bool:
        return step % self.settings.update_interval == 0 and step < self.schedule.steps

    def propose(self, step: int) -> Proposal:
        fraction = self.schedule(step)
        return Proposal({layer.name: self._drop_and_grow(layer, fraction) for layer in self.explored}, fraction)

    def _drop_and_grow(self, layer: SparseLayer, fraction: float) -> Tensor:
        """The new mask of one layer, with as many non-zeros as the old one."""
        score = self.growth_score(layer)
        if not score.any():
            return layer.mask
        nonzeros = int(layer.mask.sum())
        kept = _highest(magnitude(layer.weight), layer.mask, nonzeros - int(fraction * nonzeros))
        return kept | _highest(score, ~kept, nonzeros - int(kept.sum()))


def _highest(score: Tensor, eligible: Tensor, count: int) -> Tensor:
    return highest({"layer": score}, {"layer": eligible}, count)["layer"]

"""RigL: drop by magnitude, grow by gradient, layer by layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Unpack

from torch import nn
from torch.optim import Optimizer

from ..criteria import magnitude
from ..exchange import drop_and_grow
from ..schedules import CosineDecay, Schedule
from ..settings import CoreOptions, Settings, default_interval, require_interval, require_share
from ..sparsifier import Proposal, Sparsifier


@dataclass(frozen=True, kw_only=True)
class RigLSettings(Settings):
    drop_fraction: float
    update_interval: int
    stop: float

    def __post_init__(self) -> None:
        super().__post_init__()
        require_share("drop_fraction", self.drop_fraction)
        require_interval("update_interval", self.update_interval)
        require_share("stop", self.stop)

    @property
    def drop_schedule(self) -> Schedule:
        return CosineDecay(self.drop_fraction, round(self.stop * self.total_steps))


class DropAndGrow(Sparsifier):
    """What RigL and SRigL share: when masks are updated."""

    settings: RigLSettings
    grows_by_gradient = True

    def is_update(self, step: int) -> bool:
        settings = self.settings
        return step % settings.update_interval == 0 and step < round(settings.stop * settings.total_steps)


class RigL(DropAndGrow):
    """Rigging the Lottery (Evci et al. 2020): constant sparsity per layer, connections move to where gradients are.

    Every `update_interval` steps, until `stop` * `total_steps`, each layer drops its smallest magnitudes and grows as
    many of the largest gradient magnitudes (Algorithm 1). The fraction dropped decays as
    alpha / 2 (1 + cos(pi t / T_end)), alpha = `drop_fraction`. Weights dropped in an update may regrow in it, and
    then keep their value, as in the authors' code; the others start at zero.

    Defaults of the paper: alpha 0.3, T_end 0.75 of training, Erdos-Renyi-Kernel, an update every 100 steps;
    of shorter runs than 5000 steps every 50th part, at least 10. A layer without any gradient at an update keeps its
    mask. The in-time over-parameterization of Liu et al. (2021) is `drop_fraction=0.5, stop=1.0` and a long interval.
    """

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
        super().__init__(model, optimizer, settings)

    def propose(self, step: int) -> Proposal:
        fraction = self.settings.drop_schedule(step)
        masks = {}
        for layer in self.explored:
            growth = self.growth_score(layer)
            if growth.any():
                drop = int(fraction * int(layer.mask.sum()))
                masks[layer.name] = drop_and_grow(magnitude(layer.weight), layer.mask, growth, drop)
        return Proposal(masks, fraction)

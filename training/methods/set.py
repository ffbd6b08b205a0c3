"""SET: drop by magnitude, grow at random."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Unpack

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ..criteria import magnitude
from ..exchange import drop_and_grow
from ..settings import CoreOptions, Settings, default_interval, require_interval, require_share
from ..sparse_layer import SparseLayer
from ..sparsifier import Proposal, Sparsifier


@dataclass(frozen=True, kw_only=True)
class SETSettings(Settings):
    drop_fraction: float
    update_interval: int

    def __post_init__(self) -> None:
        super().__post_init__()
        require_share("drop_fraction", self.drop_fraction)
        require_interval("update_interval", self.update_interval)


class SET(Sparsifier):
    """Sparse Evolutionary Training (Mocanu et al. 2018): constant sparsity per layer, connections grow at random.

    Every `update_interval` steps each layer drops the share `drop_fraction` (zeta) of its non-zeros that are closest to
    zero, and grows as many at random; the last update leaves an interval of training. A weight dropped in an update
    may regrow in it, and then keeps its value.

    Defaults of the paper: zeta 0.3, not decayed. Its update once an epoch is one of 50 parts of training here,
    between 10 steps and 1000. Grown weights start at zero instead of a random value.
    """

    settings: SETSettings

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        *,
        total_steps: int,
        sparsity: float = 0.9,
        drop_fraction: float = 0.3,
        update_interval: int | None = None,
        **core: Unpack[CoreOptions],
    ) -> None:
        settings = SETSettings(
            sparsity=sparsity,
            total_steps=total_steps,
            drop_fraction=drop_fraction,
            update_interval=default_interval(total_steps, 50, 1000) if update_interval is None else update_interval,
            **core,
        )
        super().__init__(model, optimizer, settings)

    def is_update(self, step: int) -> bool:
        interval = self.settings.update_interval
        return step % interval == 0 and step <= self.settings.total_steps - interval

    def propose(self, step: int) -> Proposal:
        fraction = self.settings.drop_fraction
        return Proposal({layer.name: self._exchange(layer, fraction) for layer in self.explored}, fraction)

    def _exchange(self, layer: SparseLayer, fraction: float) -> Tensor:
        drop = int(fraction * int(layer.mask.sum()))
        random = torch.rand(layer.mask.shape, generator=self.generator).to(layer.mask.device)
        return drop_and_grow(magnitude(layer.weight), layer.mask, random, drop)

"""GMP: prune the smallest magnitudes of the whole network, gradually."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Unpack

from torch import Tensor, nn
from torch.optim import Optimizer

from ..budget import budget_beside, target_nonzeros
from ..criteria import magnitude
from ..schedules import GradualSparsity
from ..selection import highest_of_all
from ..settings import CoreOptions, Settings, default_interval, require, require_interval
from ..sparsifier import Proposal, Sparsifier


@dataclass(frozen=True, kw_only=True)
class GMPSettings(Settings):
    initial_sparsity: float
    update_interval: int
    start: float
    stop: float

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            0 <= self.initial_sparsity <= self.sparsity,
            f"initial_sparsity must be between 0 and sparsity {self.sparsity}, found {self.initial_sparsity}",
        )
        require_interval("update_interval", self.update_interval)
        require(0 <= self.start < self.stop <= 1, f"0 <= start < stop <= 1 must hold, found {self.start}, {self.stop}")
        require(
            self.first_pruning <= self.last_pruning,
            f"no pruning: there is no multiple of update_interval {self.update_interval} between steps "
            f"{self.start * self.total_steps:g} and {self.stop * self.total_steps:g}",
        )

    @property
    def first_pruning(self) -> int:
        """The first multiple of the interval behind the start."""
        return (round(self.start * self.total_steps) // self.update_interval + 1) * self.update_interval

    @property
    def last_pruning(self) -> int:
        """t_f: the last multiple of the interval before the end; the target is reached there."""
        return round(self.stop * self.total_steps) // self.update_interval * self.update_interval

    @property
    def sparsity_schedule(self) -> GradualSparsity:
        start = round(self.start * self.total_steps)
        return GradualSparsity(self.initial_sparsity, self.sparsity, start, self.last_pruning - start)


class GradualPruning(Sparsifier):
    """What GMP and GraNet share: pruning of the whole network to a schedule."""

    settings: GMPSettings

    @property
    def initial_sparsity(self) -> float:
        return self.settings.initial_sparsity

    @property
    def target_nonzeros(self) -> int:
        return self._target(self.step_count)

    def prune(self, step: int) -> dict[str, Tensor]:
        """The largest magnitudes of all explored layers together, as many as should be left after `step`."""
        layers = {layer.name: layer for layer in self.explored}
        left = budget_beside(self.layers, self._target(step))
        eligible = {name: layer.mask for name, layer in layers.items()}
        return highest_of_all(lambda name: magnitude(layers[name].weight), eligible, left)

    def _target(self, step: int) -> int:
        """Non-zeros after the last pruning up to `step`."""
        settings = self.settings
        update = min(step // settings.update_interval * settings.update_interval, settings.last_pruning)
        reached = settings.sparsity_schedule(update) if update >= settings.first_pruning else settings.initial_sparsity
        return target_nonzeros(self.size, reached)


class GMP(GradualPruning):
    """Gradual magnitude pruning (Zhu and Gupta 2017), with one threshold for all layers.

    From `start` to `stop` (shares of training), every `update_interval` steps, the smallest magnitudes of the whole
    network, first and last layer included, are set to zero for good, to the sparsity
    s_t = s_f + (s_i - s_f) (1 - (t - t_0) / (n dt))^3 (Eq. 1 of GraNet).

    Defaults as GraNet's Table 7 and appendix C for CIFAR: s_i 0, from the beginning to 110 of 160 epochs, every 1000
    steps; of shorter runs every 50th part, at least 10. With `initial_sparsity` the `distribution` says how
    many random weights each layer starts with.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        *,
        total_steps: int,
        sparsity: float = 0.9,
        initial_sparsity: float = 0.0,
        update_interval: int | None = None,
        start: float = 0.0,
        stop: float = 0.6875,
        **core: Unpack[CoreOptions],
    ) -> None:
        settings = GMPSettings(
            sparsity=sparsity,
            total_steps=total_steps,
            initial_sparsity=initial_sparsity,
            update_interval=default_interval(total_steps, 50, 1000) if update_interval is None else update_interval,
            start=start,
            stop=stop,
            **core,
        )
        super().__init__(model, optimizer, settings)

    def is_update(self, step: int) -> bool:
        settings = self.settings
        return step % settings.update_interval == 0 and settings.first_pruning <= step <= settings.last_pruning

    def propose(self, step: int) -> Proposal:
        return Proposal(self.prune(step), 0.0)

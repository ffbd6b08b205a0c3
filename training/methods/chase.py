"""Chase: unstructured dynamic sparse training that removes whole channels on the way."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Unpack

from torch import Tensor, nn
from torch.optim import Optimizer

from ...passes.errors import MaskError
from ..budget import budget_beside
from ..channels import CoupledChannels, groups_of
from ..criteria import CHANNEL_CRITERIA, magnitude
from ..schedules import CosineDecay, GradualSparsity
from ..selection import highest_of_all
from ..settings import CoreOptions, Settings, default_interval, require, require_interval
from ..sparsifier import Proposal, Sparsifier

Masks = dict[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class ChaseSettings(Settings):
    channel_sparsity: float
    criterion: str
    minimum_width: float
    exploration: tuple[float, float]
    update_interval: int
    channel_interval: int
    channel_stop: float
    prune_skip: bool
    prune_first: bool

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 <= self.channel_sparsity < 1, f"channel_sparsity must be in [0, 1), found {self.channel_sparsity}")
        known = ", ".join(CHANNEL_CRITERIA)
        require(self.criterion in CHANNEL_CRITERIA, f"unknown criterion {self.criterion!r}; known are {known}")
        require(0 <= self.minimum_width <= 1, f"minimum_width must be in [0, 1], found {self.minimum_width}")
        require(all(0 <= e <= 1 for e in self.exploration), f"exploration must be densities, found {self.exploration}")
        require_interval("update_interval", self.update_interval)
        end = self.channel_stop * self.total_steps
        require(
            0 < self.channel_interval <= end <= self.total_steps,
            f"channels must be removed at least once: channel_interval {self.channel_interval} of {end:g} steps",
        )

    @property
    def last_update(self) -> int:
        """The step of the last exploration: an interval of training follows it."""
        return (self.total_steps - self.update_interval) // self.update_interval * self.update_interval

    @property
    def last_removal(self) -> int:
        """n dT of Eq. 3."""
        return round(self.channel_stop * self.total_steps) // self.channel_interval * self.channel_interval

    @property
    def exploration_schedule(self) -> CosineDecay:
        return CosineDecay(self.exploration[0], self.last_removal, self.exploration[1])

    @property
    def channel_schedule(self) -> GradualSparsity:
        return GradualSparsity(0.0, self.channel_sparsity, 0, self.last_removal)


class Chase(Sparsifier):
    """Dynamic Sparsity Is Channel-Level Sparsity Learner (Yin et al. 2023).

    Global exploration with a soft memory bound (Algorithm 1): every `update_interval` steps the smallest magnitudes of
    the whole network are pruned to the target, and the largest gradients grown to a density above it, which goes
    from `exploration[0]` to `exploration[1]` along a cosine. What was grown trains for an interval before it is
    judged. The last update only prunes and leaves an interval of training: the sparsity is then exact, and only then.

    Gradual amenable channel pruning (Eq. 3): every `channel_interval` steps, until `channel_stop` * `total_steps`, the
    worst channels by `criterion` ("umm", "ws" or "mmm", Table 1) are removed for good, with the columns that read them,
    until the share `channel_sparsity` of the candidates is gone. A layer keeps at least int(C (1 - S_f) beta)
    channels, beta = `minimum_width`, and never fewer than one. What is freed grows elsewhere in the same update.
    Candidates are channels that a single layer produces; `prune_skip` takes those of residual sums too (one per
    coupled group), `prune_first` those of the first layer. `channels.kept` says why others are none.

    `example_inputs` are captured to find coupled channels. With `channel_sparsity=0` they are not needed.

    Deviations: where Algorithm 2 steers a threshold until the count is within a tolerance, the selection is exact, and
    as frugal (see selection.highest_of_all); a removed group
    with several producers is scored by the mean over all its filters; exploration goes on with a small fraction
    behind `channel_stop`, as in the authors' code and not in Algorithm 1. Intervals default to 1/60 of
    training, between 10 steps and the paper's 1000.
    """

    settings: ChaseSettings
    grows_by_gradient = True

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        *,
        total_steps: int,
        example_inputs: tuple[Any, ...] | None = None,
        sparsity: float = 0.9,
        channel_sparsity: float = 0.5,
        criterion: str = "umm",
        minimum_width: float = 0.2,
        exploration: tuple[float, float] = (0.05, 0.005),
        update_interval: int | None = None,
        channel_interval: int | None = None,
        channel_stop: float = 0.8,
        prune_skip: bool = False,
        prune_first: bool = False,
        **core: Unpack[CoreOptions],
    ) -> None:
        interval = default_interval(total_steps, 60, 1000) if update_interval is None else update_interval
        settings = ChaseSettings(
            sparsity=sparsity,
            total_steps=total_steps,
            channel_sparsity=channel_sparsity,
            criterion=criterion,
            minimum_width=minimum_width,
            exploration=exploration,
            update_interval=interval,
            channel_interval=interval if channel_interval is None else channel_interval,
            channel_stop=channel_stop,
            prune_skip=prune_skip,
            prune_first=prune_first,
            **core,
        )
        require(
            example_inputs is not None or not channel_sparsity,
            "Chase needs example_inputs=(tensor, ...) to find out which channels belong together; "
            "channel_sparsity=0 removes none and needs none",
        )
        groups = groups_of(model, example_inputs)
        super().__init__(model, optimizer, settings)
        self.channels = CoupledChannels(
            groups, self.layers, self._aliases, prune_skip=prune_skip, prune_first=prune_first
        )
        if channel_sparsity and not self.channels.candidates:
            raise MaskError(f"no channel of {type(model).__name__} can be removed: {dict(self.channels.kept)}")

    def is_update(self, step: int) -> bool:
        return self._explores(step) or self._removes(step)

    def _explores(self, step: int) -> bool:
        return step % self.settings.update_interval == 0 and step <= self.settings.last_update

    def _removes(self, step: int) -> bool:
        due = step % self.settings.channel_interval == 0 and step <= self.settings.last_removal
        return due and self.settings.channel_sparsity > 0

    @property
    def target_nonzeros(self) -> int:
        """The target plus what is being explored, as far as there are weights that are not removed."""
        wanted = super().target_nonzeros + self._extra(self.step_count)
        return min(wanted, sum(int(mask.sum()) for mask in self.channels.allowed().values()))

    @property
    def removed_channels(self) -> int:
        return int(self.channels.removed.sum())

    def propose(self, step: int) -> Proposal:
        """Prune what the last interval did not need, remove channels, grow: each where it is due at this step."""
        target = super().target_nonzeros
        masks = {name: layer.mask for name, layer in self.layers.items()}
        if self._explores(step):
            masks = self._prune(masks, target)
        if self._removes(step):
            self._remove_channels(step, masks)
        allowed = self.channels.allowed()
        masks = {name: mask & allowed[name] for name, mask in masks.items()}
        extra = self._extra(step)
        return Proposal(self._grow(masks, allowed, target + extra), extra / target)

    def _extra(self, step: int) -> int:
        """Non-zeros above the target that train between the updates around `step`."""
        update = step // self.settings.update_interval * self.settings.update_interval
        growing = 0 < update < self.settings.last_update
        return round(self.settings.exploration_schedule(update) * self.size) if growing else 0

    def _prune(self, masks: Masks, target: int) -> Masks:
        """The largest magnitudes of all explored layers together."""
        eligible = {layer.name: masks[layer.name] for layer in self.explored}
        left = budget_beside(self.layers, target)
        return {**masks, **highest_of_all(lambda name: magnitude(self.layers[name].weight), eligible, left)}

    def _grow(self, masks: Masks, allowed: Masks, target: int) -> Masks:
        """Fill up to `target` with the largest gradients of all explored layers together."""
        eligible = {layer.name: allowed[layer.name] & ~masks[layer.name] for layer in self.explored}
        missing = target - sum(int(mask.sum()) for mask in masks.values())
        grown = highest_of_all(lambda name: self.growth_score(self.layers[name]), eligible, missing)
        return {**masks, **{name: masks[name] | mask for name, mask in grown.items()}}

    def _remove_channels(self, step: int, masks: Masks) -> None:
        """Bring the share of removed candidates to S_t of Eq. 3."""
        settings, channels = self.settings, self.channels
        kept = (1 - settings.channel_sparsity) * settings.minimum_width
        minimum = {name: max(1, int(channels.full_width(name) * kept)) for name in channels.widths()}
        total = round(settings.channel_schedule(step) * len(channels.candidates))
        channels.remove(channels.saliency(CHANNEL_CRITERIA[settings.criterion], masks), total, minimum)

    def extra_state(self) -> dict[str, Any]:
        return {"removed": self.channels.removed.clone()}

    def load_extra_state(self, state: dict[str, Any]) -> None:
        self.channels.restore(state["removed"])

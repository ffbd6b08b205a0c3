"""The core of sparse training: an optimizer that keeps its model on a sparsity mask and updates the mask."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from .budget import target_nonzeros
from .criteria import amenable_share, channel_magnitudes, magnitude
from .history import MaskChange, MaskUpdate
from .initial_masks import initial_masks
from .layers import LayerPatterns, bare_model, choose_layers
from .masks import MaskSet
from .ranks import from_first_rank, mean_over_ranks
from .resume import checked_state
from .settings import Settings
from .sparse_layer import SparseLayer

Closure = Callable[[], float]


@dataclass(frozen=True)
class Proposal:
    """New masks for some layers, and the share of the active weights that was up for exchange."""

    masks: dict[str, Tensor]
    drop_fraction: float


class Sparsifier(Optimizer, ABC):
    """Wraps the optimizer of a model; to be used in its place everywhere: `sparsifier.step()`, schedulers, GradScaler.

    Masks act on weights, gradients and optimizer state at every step; a mask update replaces the optimizer step
    (as in the original RigL). Grown weights and their optimizer state start at zero. A method says which
    steps update masks (`is_update`) and to what (`propose`); it may also choose the initial masks.

    Options of every method: `distribution` of the non-zeros over layers (see distributions.py); `include`,
    `exclude` and `dense`, fnmatch patterns of layer names (see LayerPatterns); `seed` of the random initial masks.
    `total_steps` is the number of `step()` calls that training will make. Raises SparsefxError for settings that make
    no sense, MaskError where nothing can be sparsified.

    Gradient clipping sees dense gradients; call `mask_gradients()` before it to clip the norm of active weights.
    """

    def __init__(self, model: nn.Module, optimizer: Optimizer, settings: Settings) -> None:
        self.optimizer = optimizer
        super().__init__([dict(group) for group in optimizer.param_groups], optimizer.defaults)
        self._share()
        self.settings = settings
        self.step_count = 0
        self.history: list[MaskUpdate] = []
        self.generator = torch.Generator().manual_seed(settings.seed)
        first_dense = settings.distribution == "uniform_first_dense"
        patterns = LayerPatterns.of(settings.include, settings.exclude, settings.dense, first_dense=first_dense)
        choice = choose_layers(bare_model(model), optimizer, patterns)
        self.layers, self._aliases = choice.layers, choice.aliases
        self.dense_layers = choice.dense_reasons
        self._start()

    def _share(self) -> None:
        """One state and one list of groups for both optimizers; loading a state dict makes new ones."""
        self.state = self.optimizer.state
        self.param_groups = self.optimizer.param_groups

    @torch.no_grad()
    def _start(self) -> None:
        """Mask the model, and remember the magnitude of its channels."""
        for name, mask in self.initial_masks().items():
            self.layers[name].mask = from_first_rank(mask.to(self.layers[name].parameter.device))
            if self.layers[name].mask.all():
                self.dense_layers[name] = f"{self.settings.distribution} gives it density 1"
        self._enforce()
        self._first_magnitudes = self._channel_magnitudes()

    # What a method overrides.

    def initial_masks(self) -> dict[str, Tensor]:
        """Masks of the explored layers at the start: random with the distribution's counts, exact over all."""
        return initial_masks(self.layers, self.settings.distribution, self.settings.sparsity, self.generator)

    @abstractmethod
    def is_update(self, step: int) -> bool:
        """Whether step number `step` (the first is 1) updates masks instead of weights."""

    @abstractmethod
    def propose(self, step: int) -> Proposal:
        """New masks, from weights and gradients. The core takes them over; weights are not changed here."""

    def extra_state(self) -> dict[str, Any]:
        """What else a method needs to resume: tensors, numbers, strings, and dicts and lists of them."""
        return {}

    def load_extra_state(self, state: dict[str, Any]) -> None:
        """Take back what `extra_state` returned."""

    # What a method reads.

    @property
    def explored(self) -> list[SparseLayer]:
        """Layers whose masks may change."""
        return [layer for layer in self.layers.values() if not layer.kept_dense]

    @property
    def size(self) -> int:
        """Weights of all sparsified layers, zeros included."""
        return sum(layer.mask.numel() for layer in self.layers.values())

    @property
    def target_nonzeros(self) -> int:
        """How many weights should be in the masks now."""
        return target_nonzeros(self.size, self.settings.sparsity)

    @property
    def nonzeros(self) -> int:
        """Weights in the masks now."""
        return sum(int(layer.mask.sum()) for layer in self.layers.values())

    @property
    def sparsity(self) -> float:
        return 1 - self.nonzeros / self.size

    @property
    def removed_channels(self) -> int:
        """Channels removed for good."""
        return 0

    def growth_score(self, layer: SparseLayer) -> Tensor:
        """|gradient averaged over all ranks|; zero where the layer had no gradient in this step."""
        gradient = layer.parameter.grad
        return magnitude(mean_over_ranks(torch.zeros_like(layer.weight) if gradient is None else gradient))

    # What training calls.

    @torch.no_grad()
    def step(self, closure: Closure | None = None) -> float | None:  # type: ignore[override]
        """One training step, or one mask update. With a closure, returns its loss."""
        self._share()
        step = self.step_count + 1
        if self.is_update(step):
            loss = None if closure is None else torch.enable_grad()(closure)()
            self._update(step)
        else:
            self.mask_gradients()
            loss = self.optimizer.step(None if closure is None else self._masking(closure))
            self._enforce()
        self.step_count = step
        return loss

    @torch.no_grad()
    def mask_gradients(self) -> None:
        """Zero the gradients of masked weights, except in front of a mask update, which needs them."""
        if self.is_update(self.step_count + 1):
            return
        for layer in self.layers.values():
            layer.mask_gradient()

    def masks(self) -> MaskSet:
        """The masks now, with structure, method, step, settings and seed."""
        return MaskSet(
            {name: layer.mask for name, layer in self.layers.items()},
            method=type(self).__name__,
            step=self.step_count,
            settings=asdict(self.settings),
            layouts={name: layer.layout for name, layer in self.layers.items()},
        )

    def zero_grad(self, set_to_none: bool = True) -> None:
        self.optimizer.zero_grad(set_to_none)

    def state_dict(self) -> dict[str, Any]:
        """The wrapped optimizer's state dict, and under "sparsifier" what resuming bit by bit needs besides."""
        own = {
            "method": type(self).__name__,
            "step": self.step_count,
            "masks": {name: layer.mask for name, layer in self.layers.items()},
            "generator": self.generator.get_state(),
            "first_magnitudes": self._first_magnitudes,
            "history": [asdict(update) for update in self.history],
            "extra": self.extra_state(),
        }
        return {**self.optimizer.state_dict(), "sparsifier": own}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue where `state_dict` was taken; the model's weights are loaded by the caller, before or after.

        Raises MaskError for the state of another method, or of a model with other layers.
        """
        own = checked_state(state_dict, type(self).__name__, self.layers)
        self.load_extra_state(own["extra"])
        self.optimizer.load_state_dict({key: value for key, value in state_dict.items() if key != "sparsifier"})
        self._share()
        for name, layer in self.layers.items():
            layer.mask = own["masks"][name].to(layer.parameter.device, copy=True)
        self.step_count = own["step"]
        self.generator.set_state(own["generator"].cpu())
        self._first_magnitudes = dict(own["first_magnitudes"])
        self.history = [MaskUpdate(**update) for update in own["history"]]

    # How it works.

    def _masking(self, closure: Closure) -> Closure:
        def masked() -> float:
            loss = torch.enable_grad()(closure)()
            self.mask_gradients()
            return loss

        return masked

    def _update(self, step: int) -> None:
        """Take over the masks that the method proposes."""
        for layer in self.layers.values():
            layer.follow_device()
        old = {name: layer.mask for name, layer in self.layers.items()}
        proposal = self.propose(step)
        for name, mask in proposal.masks.items():
            self.layers[name].mask = from_first_rank(mask)
        new = {name: layer.mask for name, layer in self.layers.items()}
        self._enforce()
        self.history.append(self._record(step, proposal.drop_fraction, MaskChange.between(old, new)))

    def _record(self, step: int, drop_fraction: float, change: MaskChange) -> MaskUpdate:
        return MaskUpdate(
            step=step,
            drop_fraction=drop_fraction,
            dropped=change.dropped,
            grown=change.grown,
            iou=change.iou,
            nonzeros=self.nonzeros,
            amenable=amenable_share(self._first_magnitudes, self._channel_magnitudes()),
            active_channels=sum(layer.active_channels for layer in self.layers.values()),
            removed_channels=self.removed_channels,
        )

    def _enforce(self) -> None:
        for layer in self.layers.values():
            layer.enforce(self.state.get(layer.parameter, {}))

    def _channel_magnitudes(self) -> dict[str, Tensor]:
        return {name: channel_magnitudes(layer.weight, layer.layout) for name, layer in self.layers.items()}

"""The core of sparse training: an optimizer that keeps its model on a sparsity mask and updates the mask."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from .arguments import checked_arguments
from .budget import target_nonzeros
from .criteria import magnitude
from .history import MaskRecorder, MaskUpdate
from .initial_masks import initial_masks
from .layers import LayerPatterns, bare_model, choose_layers
from .mask_structure import MaskStructure
from .masked_optimizer import Closure, MaskedOptimizer
from .masks import MaskSet
from .ranks import average_gradients, from_first_rank, number_from_first_rank
from .resume import checked_state
from .settings import Settings, require
from .sparse_layer import SparseLayer
from .work import TrainingWork


@dataclass(frozen=True)
class Proposal:
    """New masks for some layers, and the share of the active weights that was up for exchange."""

    masks: dict[str, Tensor]
    drop_fraction: float


class Sparsifier(MaskedOptimizer, ABC):
    """Wraps the optimizer of a model; to be used in its place everywhere: `sparsifier.step()`, schedulers, GradScaler.

    Masks act on weights, gradients and optimizer state at every step. Grown weights and their optimizer state start
    at zero. A method says which steps update masks (`is_update`) and to what (`propose`); it may also choose the
    initial masks. Where it `grows_by_gradient`, an update takes the place of the optimizer step (as in the original
    RigL), since the optimizer must not see the gradients of masked weights; elsewhere it follows the optimizer step.

    Options of every method: `distribution` of the non-zeros over layers (see distributions.py); `include`,
    `exclude` and `dense`, fnmatch patterns of layer names or types (see LayerPatterns); `seed` of whatever is random.
    `total_steps` is the number of `step()` calls that training will make. Raises SparsefxError for settings that make
    no sense, MaskError where nothing can be sparsified.

    Gradient clipping sees dense gradients; call `mask_gradients()` before it to clip the norm of active weights. An
    averaged copy of the model (EMA) mixes masks of different times; `mask_copy` puts it on the masks of now.
    Weights that somebody else writes to are masked at the next step (through `.data`, at the next mask update). After a
    change of precision as `model.double()`, `load_state_dict(state_dict())` converts the optimizer's state too.
    """

    grows_by_gradient: ClassVar[bool] = False

    def __init_subclass__(cls, **options: Any) -> None:
        """Every method tells by name which arguments it lacks or does not know."""
        super().__init_subclass__(**options)
        if "__init__" in vars(cls):
            setattr(cls, "__init__", checked_arguments(vars(cls)["__init__"], cls.__name__))  # noqa: B010

    def __init__(self, model: nn.Module, optimizer: Optimizer, settings: Settings) -> None:
        require(isinstance(model, nn.Module), f"model must be a torch.nn.Module, found {type(model).__name__}")
        found = type(optimizer).__name__
        require(isinstance(optimizer, Optimizer), f"optimizer must be a torch optimizer, found {found}; make it first")
        first_dense = settings.distribution == "uniform_first_dense"
        patterns = LayerPatterns.of(settings.include, settings.exclude, settings.dense, first_dense=first_dense)
        choice = choose_layers(bare_model(model), optimizer, patterns)
        super().__init__(optimizer, choice.layers)
        self._aliases, self.dense_layers = choice.aliases, choice.dense_reasons
        self.step_count = 0
        self.work = TrainingWork()
        device = next(iter(self.layers.values())).parameter.device
        self.settings = replace(settings, seed=number_from_first_rank(settings.seed, device))
        self.generator = torch.Generator().manual_seed(self.settings.seed)
        self._start()

    @torch.no_grad()
    def _start(self) -> None:
        """Mask the model, and remember how its channels are."""
        for name, mask in self.initial_masks().items():
            self.layers[name].mask = from_first_rank(mask.to(self.layers[name].parameter.device))
            if self.initial_sparsity and self.layers[name].mask.all():
                self.dense_layers[name] = f"{self.settings.distribution} gives it density 1"
        self.mask_weights()
        self._recorder = MaskRecorder(self.layers)

    # What a method overrides.

    def initial_masks(self) -> dict[str, Tensor]:
        """Masks of the explored layers at the start, exact over all: see initial_masks.py."""
        nonzeros = target_nonzeros(self.size, self.initial_sparsity)
        return initial_masks(self.layers, self.settings.distribution, nonzeros, self.generator)

    @abstractmethod
    def is_update(self, step: int) -> bool:
        """Whether step number `step` (the first is 1) updates masks."""

    @abstractmethod
    def propose(self, step: int) -> Proposal:
        """New masks, from weights and gradients. The core takes them over; weights are not changed here."""

    def is_recorded(self, step: int) -> bool:
        """Whether the update of a step goes into the history."""
        return True

    def dense_passes(self, step: int) -> int:
        """How many of a step's three passes (see TrainingWork) are dense."""
        return int(self.grows_by_gradient and self.is_update(step))

    def structures(self) -> Mapping[str, MaskStructure]:
        """The structure of the masks by layer, where the method knows it; elsewhere it is detected."""
        return {}

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
    def initial_sparsity(self) -> float:
        """The sparsity to start with."""
        return self.settings.sparsity

    @property
    def target_nonzeros(self) -> int:
        """How many weights should be in the masks now."""
        return target_nonzeros(self.size, self.settings.sparsity)

    @property
    def removed_channels(self) -> int:
        """Channels removed for good."""
        return 0

    @property
    def exploring(self) -> bool:
        """Whether the model computes with weights outside of the masks for a while."""
        return False

    @property
    def history(self) -> list[MaskUpdate]:
        """What every recorded mask update did."""
        return self._recorder.updates

    def growth_score(self, layer: SparseLayer) -> Tensor:
        """|gradient averaged over all ranks|; zero where the layer had no gradient in this step."""
        gradient = layer.parameter.grad
        return magnitude(torch.zeros_like(layer.weight) if gradient is None else gradient)

    # What training calls.

    @torch.no_grad()
    def step(self, closure: Closure | None = None) -> float | None:  # type: ignore[override]
        """One training step, with a mask update where one is due. With a closure, returns its loss."""
        self._share()
        step = self.step_count + 1
        updates = self.is_update(step)
        self.before_optimizer_step()
        if updates and self.grows_by_gradient:
            loss = None if closure is None else torch.enable_grad()(closure)()
        else:
            loss = self.optimizer_step(closure)
        self.work.count(self.dense_passes(step))
        if updates:
            self._update(step)
        self.step_count = step
        return loss

    @torch.no_grad()
    def mask_gradients(self) -> None:
        """Zero the gradients of masked weights, except in front of a mask update that needs them."""
        if not (self.grows_by_gradient and self.is_update(self.step_count + 1)):
            super().mask_gradients()

    def masks(self) -> MaskSet:
        """The masks now, with structure, method, step, settings and seed."""
        return MaskSet(
            {name: layer.mask for name, layer in self.layers.items()},
            method=type(self).__name__,
            step=self.step_count,
            settings=asdict(self.settings),
            structures=self.structures(),
            layouts={name: layer.layout for name, layer in self.layers.items()},
        )

    def training_flops(self, macs: Mapping[str, int]) -> float:
        """FLOPs of the training so far for one sample a step (see TrainingWork); `macs` as flops.layer_macs gives."""
        self.work.settle(self.nonzeros_by_layer())
        return self.work.flops(macs, {name: layer.mask.numel() for name, layer in self.layers.items()})

    def state_dict(self) -> dict[str, Any]:
        """The wrapped optimizer's state dict, and under "sparsifier" what resuming bit by bit needs besides."""
        self.work.settle(self.nonzeros_by_layer())
        own = {
            "method": type(self).__name__,
            "step": self.step_count,
            "masks": {name: layer.mask for name, layer in self.layers.items()},
            "generator": self.generator.get_state(),
            "history": self._recorder.state(),
            "work": asdict(self.work),
            "extra": self.extra_state(),
        }
        return {**self.optimizer.state_dict(), "sparsifier": own}

    @torch.no_grad()
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue where `state_dict` was taken; the model's weights are loaded by the caller, before or after.

        Raises MaskError for the state of another method, or of a model with other layers.
        """
        own = checked_state(state_dict, type(self).__name__, self.layers)
        self.optimizer.load_state_dict({key: value for key, value in state_dict.items() if key != "sparsifier"})
        self._share()
        for name, layer in self.layers.items():
            layer.mask = own["masks"][name].to(layer.parameter.device, copy=True)
            layer.forget()
        self.step_count = own["step"]
        self.generator.set_state(own["generator"].cpu())
        self._recorder.load_state(own["history"])
        self.work = TrainingWork(**own["work"])
        self.load_extra_state(own["extra"])

    # How it works.

    def _update(self, step: int) -> None:
        """Take over the masks that the method proposes."""
        for layer in self.layers.values():
            layer.follow_device()
        if self.grows_by_gradient:
            average_gradients(layer.parameter for layer in self.layers.values())
        self.work.settle(self.nonzeros_by_layer())
        old = {name: layer.mask for name, layer in self.layers.items()}
        proposal = self.propose(step)
        for name, mask in proposal.masks.items():
            self.layers[name].mask = from_first_rank(mask)
        self.mask_weights()
        if self.is_recorded(step):
            self._recorder.record(step, old, proposal.drop_fraction, self.removed_channels)

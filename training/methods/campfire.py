"""Campfire: structured pruning during an era of training, fixed ever after."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Unpack

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ..budget import target_nonzeros
from ..channels import groups_of, unfed_inputs
from ..criteria import magnitude
from ..kernel_patterns import block_mask, combined_mask, fine_mask, kernel_mask, rounded_share, window_mask
from ..mask_structure import MaskStructure
from ..schedules import GradualSparsity
from ..settings import LayerOptions, Settings, default_interval, require
from ..sparse_layer import SparseLayer
from ..sparsifier import Proposal, Sparsifier

CONVOLUTIONS = ("window", "kernel", "combined")
LINEAR = ("fine", "block")


@dataclass(frozen=True, kw_only=True)
class CampfireSettings(Settings):
    pattern: str
    linear: str
    start: float
    stop: float
    window_share: float
    most_in_window: int | None
    block: int

    def __post_init__(self) -> None:
        super().__post_init__()
        known = ", ".join(CONVOLUTIONS)
        require(self.pattern in CONVOLUTIONS, f"unknown pattern {self.pattern!r} of convolutions; known are {known}")
        require(self.linear in LINEAR, f"unknown pattern {self.linear!r} of linear layers; known are fine, block")
        require(0 <= self.start < self.stop <= 1, f"0 <= start < stop <= 1 must hold, found {self.start}, {self.stop}")
        require(self.first_step <= self.last_step, f"the pruning era has no step of {self.total_steps}; make it longer")
        require(0 < self.window_share < 1, f"window_share must be in (0, 1), found {self.window_share}")
        most = self.most_in_window
        require(most is None or most > 0, f"most_in_window must be positive, found {most}")
        require(
            most is None or self.pattern == "window", f"most_in_window is for the window pattern, not {self.pattern}"
        )
        require(self.block > 1, f"block must be at least 2, found {self.block}")

    @property
    def first_step(self) -> int:
        return round(self.start * self.total_steps) + 1

    @property
    def last_step(self) -> int:
        return round(self.stop * self.total_steps)

    @property
    def sparsity_schedule(self) -> GradualSparsity:
        return GradualSparsity(0.0, self.sparsity, self.first_step - 1, self.last_step - self.first_step + 1)


class Campfire(Sparsifier):
    """Campfire: Compressible, Regularization-Free, Structured Sparse Training for Hardware Accelerators (2020).

    From `start` to `stop` (shares of training: the pruning era) masks are evaluated after every step, at the sparsity
    s_t = s_f - (s_f - s_i) (1 - (e_c - e_i) / l_p)^3 (Eq. 1, its sign corrected), for every layer by itself; before,
    the model is dense, afterwards masks are fixed. A weight once pruned stays so. `pattern` of convolutions:

    "window"    the smallest magnitudes in every kernel (Algorithm 3); with `most_in_window` no kernel has more
                non-zeros than that from the first step of the era on. Kernels of a single weight are pruned as "kernel"
    "kernel"    CK: whole kernels of every output channel, ranked by their largest magnitude (Algorithm 1)
    "combined"  inside kernels to `window_share` of the sparsity, then whole kernels to the rest of it (Algorithm 4)

    `linear`: "fine", the smallest magnitudes of the layer, or "block", whole blocks of `block` x `block` weights by the
    sum of magnitudes; every output keeps an input. With `example_inputs`, the inputs of linear layers that come
    from channels without kernels are pruned as well (section 2.1.2).

    Sparsity is on target as far as whole weights of a kernel and whole kernels of a channel allow, rounded down.
    Defaults of the paper: combined, window_share 0.8, sparsity 0.6, the era from epoch 30 to 50 of 90. Deviations: the
    threshold rises with every step, not epoch; magnitudes are meant where the algorithms say values; under
    "combined" the two shares make up the sparsity, where Algorithm 4 applies the whole of it to kernels once more.
    """

    settings: CampfireSettings

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        *,
        total_steps: int,
        example_inputs: tuple[Any, ...] | None = None,
        sparsity: float = 0.6,
        pattern: str = "combined",
        linear: str = "fine",
        start: float = 1 / 3,
        stop: float = 5 / 9,
        window_share: float = 0.8,
        most_in_window: int | None = None,
        block: int = 4,
        **layers: Unpack[LayerOptions],
    ) -> None:
        settings = CampfireSettings(
            sparsity=sparsity,
            total_steps=total_steps,
            distribution="uniform",
            pattern=pattern,
            linear=linear,
            start=start,
            stop=stop,
            window_share=window_share,
            most_in_window=most_in_window,
            block=block,
            **layers,
        )
        self._groups = groups_of(model, example_inputs)
        super().__init__(model, optimizer, settings)

    @property
    def initial_sparsity(self) -> float:
        return 0.0

    @property
    def target_nonzeros(self) -> int:
        """What the sparsity of now says of the layers that are explored; patterns leave a little more."""
        explored = sum(layer.mask.numel() for layer in self.explored)
        return self.size - explored + target_nonzeros(explored, self.settings.sparsity_schedule(self.step_count))

    def is_update(self, step: int) -> bool:
        return self.settings.first_step <= step <= self.settings.last_step

    def is_recorded(self, step: int) -> bool:
        interval = default_interval(self.settings.total_steps, 50, 100)
        return step % interval == 0 or step == self.settings.last_step

    def propose(self, step: int) -> Proposal:
        sparsity = self.settings.sparsity_schedule(step)
        masks = {name: layer.mask for name, layer in self.layers.items()}
        for layer in self.explored:
            if not _is_linear(layer):
                masks[layer.name] = self._mask(layer, layer.mask, sparsity)
        unfed = unfed_inputs(self._groups, self._aliases, masks) if self._groups else {}
        for layer in self.explored:
            if _is_linear(layer):
                fed = layer.mask & ~unfed[layer.name] if unfed else layer.mask
                masks[layer.name] = self._mask(layer, fed, sparsity)
        return Proposal({layer.name: masks[layer.name] for layer in self.explored}, 0.0)

    def structures(self) -> Mapping[str, MaskStructure]:
        pruned = [layer for layer in self.explored if not layer.mask.all()]
        found = {layer.name: self._structure(layer) for layer in pruned}
        return {name: structure for name, structure in found.items() if structure is not None}

    def _structure(self, layer: SparseLayer) -> MaskStructure | None:
        settings, positions = self.settings, _positions(layer)
        if _is_linear(layer):
            whole = all(size % settings.block == 0 for size in layer.mask.shape)
            block = (settings.block, settings.block)
            return MaskStructure("block", block=block) if settings.linear == "block" and whole else None
        if positions > 1 and settings.pattern == "kernel":
            return MaskStructure("kernel", layout=layer.layout)
        most = int(layer.layout.grid(layer.mask).sum(3).max())
        return MaskStructure("window", window=most, layout=layer.layout) if most < positions else None

    def _mask(self, layer: SparseLayer, eligible: Tensor, sparsity: float) -> Tensor:
        """What stays of the eligible weights of a layer."""
        grid = layer.layout.grid(torch.where(eligible, magnitude(layer.weight), -1.0))
        kept = layer.layout.from_grid(self._pattern(grid, sparsity, linear=_is_linear(layer)), eligible.shape)
        return eligible & kept

    def _pattern(self, grid: Tensor, sparsity: float, *, linear: bool) -> Tensor:
        settings = self.settings
        if linear:
            return (
                fine_mask(grid, sparsity) if settings.linear == "fine" else block_mask(grid, sparsity, settings.block)
            )
        if settings.pattern == "kernel" or grid.shape[3] == 1:
            return kernel_mask(grid, sparsity)
        if settings.pattern == "window":
            return window_mask(grid, sparsity, settings.most_in_window)
        inside = rounded_share(grid.shape[3], settings.window_share * settings.sparsity) / grid.shape[3]
        whole = 1 - (1 - settings.sparsity) / (1 - inside)  # of the kernels in the end
        return combined_mask(grid, settings.window_share * sparsity, whole * sparsity / settings.sparsity)


def _is_linear(layer: SparseLayer) -> bool:
    return layer.parameter.ndim == 2


def _positions(layer: SparseLayer) -> int:
    return layer.layout.grid(layer.mask).shape[3]

"""Masks that never change: given, or chosen by chance."""

from __future__ import annotations

from typing import Unpack

from torch import Tensor, nn
from torch.optim import Optimizer

from ...passes.errors import MaskError
from ..initial_masks import layer_budgets, random_mask
from ..layers import bare_model
from ..mask_structure import MaskStructure
from ..masks import MaskSet
from ..settings import CoreOptions, Settings
from ..sparsifier import Proposal, Sparsifier


class Static(Sparsifier):
    """Sparse training on the initial masks."""

    def is_update(self, step: int) -> bool:
        return False

    def propose(self, step: int) -> Proposal:
        return Proposal({}, 0.0)


class Fixed(Static):
    """Training on given masks: those that `sparsefx.slim` hands back, or those of another training.

    Raises MaskError where the masks do not fit the model, or mask what is no layer that the optimizer trains.
    """

    def __init__(self, model: nn.Module, optimizer: Optimizer, *, masks: MaskSet) -> None:
        masks.check(bare_model(model))
        self._given = masks
        super().__init__(model, optimizer, Settings(sparsity=0.0, total_steps=1, include=tuple(masks)))
        foreign = [name for name in masks if name not in self._aliases or self._aliases[name] not in self.layers]
        if foreign:
            reason = self.dense_layers.get(foreign[0], "no weight of a layer")
            raise MaskError(f"the mask of {foreign[0]} cannot be trained on ({reason}); leave it out of the mask set")

    def initial_masks(self) -> dict[str, Tensor]:
        return {layer.name: self._given[layer.name] for layer in self.explored}

    def structures(self) -> dict[str, MaskStructure]:
        return {layer.name: self._given.structure(layer.name) for layer in self.explored}


class Random(Static):
    """Static sparse training on random masks with the `distribution`'s counts: what every other method must beat."""

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        *,
        total_steps: int,
        sparsity: float = 0.9,
        **core: Unpack[CoreOptions],
    ) -> None:
        super().__init__(model, optimizer, Settings(sparsity=sparsity, total_steps=total_steps, **core))

    def initial_masks(self) -> dict[str, Tensor]:
        """By chance with "global" too, where other methods start with the largest magnitudes."""
        counts = layer_budgets(self.layers, self.settings.distribution, self.target_nonzeros)
        layers = self.explored
        return {layer.name: random_mask(layer.mask.shape, counts[layer.name], self.generator) for layer in layers}

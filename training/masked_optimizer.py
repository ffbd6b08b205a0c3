"""An optimizer that keeps the weights of a model on masks; it does not change the masks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from .layers import bare_model
from .sparse_layer import SparseLayer, mask_gradients
from .zero_keepers import keeps_zeros

Closure = Callable[[], float]


class MaskedOptimizer(Optimizer):
    """Wraps an optimizer: masks act on weights, gradients and optimizer state at every step.

    `layers` are those with a mask, by weight name. Gradients are masked before the optimizer's step; the weights
    after it only where the optimizer is not known to leave them at zero then.
    """

    def __init__(self, optimizer: Optimizer, layers: Mapping[str, SparseLayer]) -> None:
        self.optimizer = optimizer
        super().__init__([dict(group) for group in optimizer.param_groups], optimizer.defaults)
        self._share()
        self.layers = dict(layers)

    def _share(self) -> None:
        """One state and one list of groups for both optimizers; loading a state dict makes new ones."""
        self.state = self.optimizer.state
        self.param_groups = self.optimizer.param_groups

    @property
    def size(self) -> int:
        """Weights of all sparsified layers, zeros included."""
        return sum(layer.mask.numel() for layer in self.layers.values())

    @property
    def nonzeros(self) -> int:
        """Weights in the masks now."""
        return sum(int(layer.mask.sum()) for layer in self.layers.values())

    @property
    def sparsity(self) -> float:
        return 1 - self.nonzeros / self.size

    def nonzeros_by_layer(self) -> dict[str, int]:
        """Weights in each mask."""
        return {name: int(layer.mask.sum()) for name, layer in self.layers.items()}

    @torch.no_grad()
    def mask_gradients(self) -> None:
        """Zero the gradients of masked weights."""
        mask_gradients(self.layers.values())

    @torch.no_grad()
    def mask_copy(self, model: nn.Module) -> None:
        """Zero the masked weights of another copy of the model, as an exponential moving average, in place."""
        weights = dict(bare_model(model).named_parameters())
        for name, layer in self.layers.items():
            weights[name].masked_fill_(~layer.mask.to(weights[name].device), 0)

    def zero_grad(self, set_to_none: bool = True) -> None:
        self.optimizer.zero_grad(set_to_none)

    def __getstate__(self) -> dict[str, Any]:
        """Everything: an Optimizer would leave out its wrapper's attributes when it is copied or pickled."""
        return self.__dict__.copy()

    def optimizer_step(self, closure: Closure | None) -> float | None:
        """A step of the wrapped optimizer on masked gradients; with a closure, its loss."""
        self.mask_gradients()
        loss = self.optimizer.step(None if closure is None else self._masking(closure))
        self.after_optimizer_step()
        return loss

    def before_optimizer_step(self) -> None:
        """Mask weights that somebody else has written to, as by loading a checkpoint."""
        for layer in self.layers.values():
            if layer.touched:
                layer.enforce(self.state.get(layer.parameter, {}))

    def after_optimizer_step(self) -> None:
        """Mask what the optimizer may have moved; of most it is known that masked gradients leave zeros at zero."""
        zeros_stay = keeps_zeros(self.optimizer)
        for layer in self.layers.values():
            if zeros_stay:
                layer.seen()
            else:
                layer.enforce(self.state.get(layer.parameter, {}))

    def mask_weights(self) -> None:
        """Zero masked weights and their optimizer state."""
        for layer in self.layers.values():
            layer.enforce(self.state.get(layer.parameter, {}))

    def _masking(self, closure: Closure) -> Closure:
        def masked() -> float:
            loss = torch.enable_grad()(closure)()
            self.mask_gradients()
            return loss

        return masked

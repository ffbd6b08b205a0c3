"""Inactive weights of a network, put away and brought back for exploration while all else is frozen."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from .ranks import from_first_rank
from .sparse_layer import SparseLayer


class Exploration:
    """Keeps a second value of every explored weight: the most recent of inactive ones, or that of frozen ones."""

    def __init__(self, model: nn.Module, optimizer: Optimizer) -> None:
        self._model = model
        self._optimizer = optimizer
        self._second: dict[str, Tensor] = {}
        self._optimizer_state: dict[str, dict[str, Any]] = {}
        self._buffers: dict[str, Tensor] = {}

    def park(self, layers: Iterable[SparseLayer]) -> None:
        """Remember the values of all weights, before any is masked."""
        self._second = {layer.name: from_first_rank(layer.weight.clone()) for layer in layers}

    def put_away(self, layers: Iterable[SparseLayer]) -> None:
        """Remember the values of active weights, before some of them are pruned."""
        for layer in layers:
            second = self._second[layer.name].to(layer.parameter.device)
            self._second[layer.name] = torch.where(layer.mask, layer.weight, second)

    def begin(self, layers: Iterable[SparseLayer]) -> None:
        """Bring inactive weights back with their most recent values, and new optimizer state; the rest freezes."""
        for layer in layers:
            second = self._second[layer.name].to(layer.parameter.device)
            self._second[layer.name] = layer.weight.clone()
            layer.parameter.copy_(torch.where(layer.mask, layer.weight, second))
            layer.seen()
            self._optimizer_state[layer.name] = self._optimizer.state.pop(layer.parameter, {})
        self._buffers = {name: buffer.clone() for name, buffer in self._model.named_buffers()}

    def refreeze(self, layers: Iterable[SparseLayer]) -> None:
        """Hold what somebody else has written to weights, as loading a checkpoint does, not what was there before."""
        for layer in layers:
            if layer.touched:
                self._second[layer.name] = layer.weight.clone()

    def mask_gradients(self, layers: Sequence[SparseLayer]) -> None:
        """Leave gradients to inactive weights only; a parameter without gradient is not touched by an optimizer."""
        explored = {id(layer.parameter) for layer in layers}
        for group in self._optimizer.param_groups:
            for parameter in group["params"]:
                if id(parameter) not in explored:
                    parameter.grad = None
        for layer in layers:
            if layer.parameter.grad is not None:
                layer.parameter.grad.mul_(~layer.mask)

    def hold(self, layers: Iterable[SparseLayer]) -> None:
        """Undo what momentum or weight decay did to active weights."""
        for layer in layers:
            layer.parameter.copy_(torch.where(layer.mask, self._second[layer.name], layer.weight))
            layer.seen()

    def end(self, layers: Iterable[SparseLayer]) -> None:
        """Remember what has been explored; thaw the rest as it was. The caller masks the weights."""
        for layer in layers:
            self._second[layer.name] = layer.weight.clone()
            self._optimizer.state[layer.parameter] = self._optimizer_state.pop(layer.name)
        for name, buffer in self._model.named_buffers():
            buffer.copy_(self._buffers[name])
        self._buffers = {}

    def state(self) -> dict[str, Any]:
        """What resuming needs."""
        return {"second": self._second, "optimizer_state": self._optimizer_state, "buffers": self._buffers}

    def load_state(self, state: dict[str, Any]) -> None:
        weights = dict(self._model.named_parameters())
        self._second = {name: value.to(weights[name], copy=True) for name, value in state["second"].items()}
        self._optimizer_state = {
            name: {key: _like(weights[name], value) for key, value in kept.items()}
            for name, kept in state["optimizer_state"].items()
        }
        buffers = dict(self._model.named_buffers())
        self._buffers = {name: value.to(buffers[name], copy=True) for name, value in state["buffers"].items()}


def _like(weight: Tensor, value: Any) -> Any:
    """A copy of optimizer state in the weight's precision and on its device; numbers stay as they are."""
    if not isinstance(value, Tensor):
        return value
    return value.to(weight, copy=True) if value.ndim and value.is_floating_point() else value.clone()

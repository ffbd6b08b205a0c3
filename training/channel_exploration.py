"""Exploration of whole channels: their entries in BatchNorms and biases go with their weights."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from .channel_tensors import ChannelTensors
from .exploration import Exploration
from .sparse_layer import SparseLayer


class ChannelExploration(Exploration):
    """Keeps the most recent running statistics of inactive channels too; those of frozen ones come back at the end."""

    def __init__(self, model: nn.Module, optimizer: Optimizer) -> None:
        super().__init__(model, optimizer)
        self._tensors: ChannelTensors | None = None
        self._statistics: dict[str, Tensor] = {}

    def watch(self, tensors: ChannelTensors) -> None:
        """Say which vectors belong to channels; to be called before all else."""
        self._tensors = tensors
        self._statistics = {name: buffer.clone() for name, buffer in tensors.buffers.items()}

    def put_away(self, layers: Iterable[SparseLayer]) -> None:
        super().put_away(layers)
        for name, active, buffer in self._buffers_of_channels():
            self._statistics[name] = torch.where(active, buffer, self._statistics[name].to(buffer.device))

    def begin(self, layers: Iterable[SparseLayer]) -> None:
        super().begin(layers)
        for name, active, buffer in self._buffers_of_channels():
            buffer.copy_(torch.where(active, buffer, self._statistics[name].to(buffer.device)))

    def end(self, layers: Iterable[SparseLayer]) -> None:
        explored = {name: buffer.clone() for name, _, buffer in self._buffers_of_channels()}
        super().end(layers)
        for name, active, buffer in self._buffers_of_channels():
            buffer.copy_(torch.where(active, buffer, explored[name]))
            self._statistics[name] = explored[name]

    def state(self) -> dict[str, Any]:
        return {**super().state(), "statistics": self._statistics}

    def load_state(self, state: dict[str, Any]) -> None:
        super().load_state(state)
        buffers = dict(self._model.named_buffers())
        self._statistics = {name: value.to(buffers[name], copy=True) for name, value in state["statistics"].items()}

    def _buffers_of_channels(self) -> list[tuple[str, Tensor, Tensor]]:
        """Name, which entries belong to active channels, and the running statistic itself."""
        assert self._tensors is not None
        return [(name, self._tensors.active(name, b), b) for name, b in self._tensors.buffers.items()]

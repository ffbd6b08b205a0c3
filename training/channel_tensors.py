"""What a channel has besides weights: its entries in BatchNorms, biases and other vectors."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from .channels import CoupledChannels
from .layers import bare_model
from .sparse_layer import SparseLayer
from .weight_layout import WeightLayout

Place = tuple[str, int]  # a tensor's name and an index


class PlaceMap:
    """Which places of tensors belong to which candidates of a CoupledChannels, by tensor."""

    def __init__(self, places: Iterable[tuple[int, Place]]) -> None:
        found: dict[str, list[tuple[int, int]]] = defaultdict(list)
        for candidate, (name, index) in places:
            found[name].append((index, candidate))
        self._found = {name: torch.tensor(pairs) for name, pairs in found.items()}

    @property
    def names(self) -> list[str]:
        return list(self._found)

    def places(self, name: str) -> tuple[Tensor, Tensor]:
        """Indices into a tensor and the candidates that they belong to, both of shape (n,)."""
        return self._found[name][:, 0], self._found[name][:, 1]

    def active(self, name: str, size: int, removed: Tensor) -> Tensor:
        """A mask of a tensor's entries: False where all candidates that own it are removed."""
        indices, candidates = self.places(name)
        owners = torch.zeros(size, dtype=torch.int64).index_add_(0, indices, torch.ones_like(indices))
        gone = torch.zeros(size, dtype=torch.int64).index_add_(0, indices, removed[candidates].long())
        return (owners == 0) | (gone < owners)


class ChannelTensors:
    """The vectors of a model with entries of candidates; parameters, told as layers, where `optimizer` trains them."""

    def __init__(self, channels: CoupledChannels, model: nn.Module, optimizer: Optimizer) -> None:
        self._channels = channels
        self._model = bare_model(model)
        owned = [(i, entry) for i in range(len(channels.candidates)) for entry in channels.entries_of(i)]
        self._map = PlaceMap(owned)
        trained = {id(p) for group in optimizer.param_groups for p in group["params"] if p.requires_grad}
        known = {n: p for n, p in self._model.named_parameters() if id(p) in trained}
        self.parameters = [self._as_layer(n, known[n]) for n in self._map.names if n in known]

    @property
    def buffers(self) -> dict[str, Tensor]:
        """Running statistics, by name."""
        known = dict(self._model.named_buffers())
        return {name: known[name] for name in self._map.names if name in known}

    def active(self, name: str, like: Tensor) -> Tensor:
        """Which entries of a vector belong to channels that are not removed, or to none that could be."""
        return self._map.active(name, len(like), self._channels.removed).to(like.device)

    def follow(self) -> None:
        """Take over which channels are removed now."""
        for layer in self.parameters:
            layer.mask = self.active(layer.name, layer.weight)

    def _as_layer(self, name: str, parameter: nn.Parameter) -> SparseLayer:
        return SparseLayer(name, parameter, WeightLayout(), torch.ones_like(parameter, dtype=torch.bool))

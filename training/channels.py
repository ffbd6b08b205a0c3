"""Removing coupled channels from masks, for good: their filters, and the columns that read them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..passes.capture import capture
from ..passes.channels.groups import ChannelGroup, WeightSlice, channel_groups
from ..passes.errors import MaskError
from .criteria import ChannelCriterion, channel_saliency
from .layers import bare_model
from .ranks import from_first_rank
from .sparse_layer import SparseLayer

Key = tuple[str, str]


class CoupledChannels:
    """The channel groups of a network that training may remove, and those it has removed.

    A group is a candidate where nothing pins it, all weights that produce and read it are sparsified, it touches no
    grouped convolution (unequal groups cannot be built smaller) and no layer that runs twice. Without
    `prune_skip` a single layer must produce it; the first layer's channels stay unless `prune_first`. `kept` counts
    the groups that are no candidates by reason.
    """

    def __init__(
        self,
        groups: Sequence[ChannelGroup],
        layers: Mapping[str, SparseLayer],
        aliases: Mapping[str, str],
        *,
        prune_skip: bool,
        prune_first: bool,
    ) -> None:
        self._layers = layers
        self._aliases = aliases
        self._first = self._name(groups[0].producers[0]) if groups and not prune_first else None
        self._prune_skip = prune_skip
        uses = Counter(key for group in groups for key in {self._key(s) for s in _slices(group)})
        reasons = [self._reason_to_keep(group, uses) for group in groups]
        self.kept = Counter(reason for reason in reasons if reason is not None)
        self.candidates = [group for group, reason in zip(groups, reasons, strict=True) if reason is None]
        self.removed = torch.zeros(len(self.candidates), dtype=torch.bool)
        self._producing = [Counter(self._mains(group)) for group in self.candidates]

    def saliency(self, criterion: ChannelCriterion, masks: Mapping[str, Tensor]) -> Tensor:
        """The criterion over the filters of each candidate under `masks`, shape (candidates,); lowest goes first."""
        scores = [self._saliency(group, criterion, masks) for group in self.candidates]
        return torch.stack(scores) if scores else torch.zeros(0)

    def remove(self, saliency: Tensor, total: int, minimum_widths: Mapping[str, int]) -> None:
        """Remove the least salient candidates until `total` are gone in all, as far as minimum widths allow.

        `minimum_widths` are output channels that must stay, by parameter name. Equal scores go in order.
        """
        widths, removed = self.widths(), self.removed.clone()
        missing = total - int(removed.sum())
        for index in torch.argsort(saliency.cpu(), stable=True).tolist():
            if missing <= 0:
                break
            needed = self._producing[index]
            if removed[index] or any(widths[n] - k < minimum_widths[n] for n, k in needed.items()):
                continue
            removed[index] = True
            missing -= 1
            for name, channels in needed.items():
                widths[name] -= channels
        self.restore(from_first_rank(removed.to(saliency.device)))

    def restore(self, removed: Tensor) -> None:
        """Take over which candidates are removed; MaskError where the network has another number of them."""
        if removed.shape != self.removed.shape:
            raise MaskError(
                f"the state has {len(removed)} removable channel groups, this network {len(self.removed)}; resume with "
                "the same model and settings"
            )
        self.removed = removed.bool().cpu()

    def widths(self) -> dict[str, int]:
        """Output channels that are not removed, by the name of every layer that produces candidates."""
        widths = {name: self.full_width(name) for counts in self._producing for name in counts}
        for index in self.removed.nonzero().flatten().tolist():
            for name, channels in self._producing[index].items():
                widths[name] -= channels
        return widths

    def full_width(self, name: str) -> int:
        """Output channels of a layer at the start."""
        layer = self._layers[name]
        return int(layer.layout.rows(layer.mask).shape[0])

    def allowed(self) -> dict[str, Tensor]:
        """For every layer, where a weight may be non-zero: nowhere in a removed channel, nor where it is read."""
        masks = {name: torch.ones_like(layer.mask) for name, layer in self._layers.items()}
        for index in self.removed.nonzero().flatten().tolist():
            for weight_slice in _slices(self.candidates[index]):
                masks[self._name(weight_slice)][weight_slice.index] = False
        return masks

    def written_by(self, index: int) -> list[str]:
        """The layers that produce a candidate by weight name, each once for every channel it has there."""
        return [self._name(s) for s in self.candidates[index].producers]

    def read_by(self, index: int) -> list[str]:
        """The layers that read a candidate, each once for every column it has there."""
        return [self._name(s) for s in self.candidates[index].consumers]

    def entries_of(self, index: int) -> list[tuple[str, int]]:
        """The entries of BatchNorms, biases and other vectors that belong to a candidate: name and place."""
        return [(s.parameter, int(s.index[0])) for s in self.candidates[index].entries]  # type: ignore[arg-type]

    def filters_of(self, index: int) -> list[tuple[str, int]]:
        """The filters that produce a candidate: the layer's name and the row (see WeightLayout.rows)."""
        return [(self._name(s), self._row(s)) for s in self.candidates[index].producers]

    def _row(self, weight_slice: WeightSlice) -> int:
        first, *rest = weight_slice.index
        if not rest:
            assert isinstance(first, int)
            return first
        assert isinstance(first, slice) and isinstance(rest[0], int)
        outputs = int(self._layers[self._name(weight_slice)].parameter.shape[1])
        return int(first.start) // int(first.stop - first.start) * outputs + rest[0]

    def _reason_to_keep(self, group: ChannelGroup, uses: Mapping[Key, int]) -> str | None:
        slices = _slices(group)
        if group.pinned is not None:
            return group.pinned
        if any(self._name(s) not in self._layers for s in slices):
            return "a layer of it is not sparsified"
        if any(uses[self._key(s)] > 1 for s in slices):
            return "a layer of it runs more than once"
        if any(not s.depthwise and self._layers[self._name(s)].layout.groups > 1 for s in slices):
            return "a grouped convolution needs equal groups"
        if any(self._name(s) == self._first for s in group.producers):
            return "the first layer"
        return None if self._prune_skip or group.is_internal else "several layers produce it (prune_skip=True takes it)"

    def _saliency(self, group: ChannelGroup, criterion: ChannelCriterion, masks: Mapping[str, Tensor]) -> Tensor:
        """Over all filters that produce a group, depthwise ones included."""
        names = [self._name(s) for s in group.producers]
        weights = [s.of(self._layers[name].weight) for s, name in zip(group.producers, names, strict=True)]
        filters = [s.of(masks[name]) for s, name in zip(group.producers, names, strict=True)]
        return channel_saliency(criterion, weights, filters)

    def _mains(self, group: ChannelGroup) -> Iterable[str]:
        """The layers that produce a group; a depthwise layer has the width of what it hands on."""
        return [self._name(s) for s in group.producers if not s.depthwise]

    def _name(self, weight_slice: WeightSlice) -> str:
        """The layer of a slice; a tied weight has one, whatever name the capture found."""
        return _layer_name(weight_slice, self._aliases)

    def _key(self, weight_slice: WeightSlice) -> Key:
        """What tells slices of weights apart; slices of Python have no hash before 3.12."""
        return self._name(weight_slice), repr(weight_slice.index)


def groups_of(model: nn.Module, example_inputs: tuple[Any, ...] | None) -> Sequence[ChannelGroup]:
    """The channel groups of a model, wrapped or not; none without example inputs to capture it with."""
    return channel_groups(capture(bare_model(model), example_inputs)) if example_inputs is not None else ()


def unfed_inputs(
    groups: Sequence[ChannelGroup], aliases: Mapping[str, str], masks: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Where weights read channels whose filters are masked entirely, as boolean masks by layer."""
    unfed = {name: torch.zeros_like(mask) for name, mask in masks.items()}
    for group in groups:
        producers = [(_layer_name(s, aliases), s) for s in group.producers]
        if producers and all(name in masks and not s.of(masks[name]).any() for name, s in producers):
            for consumer in group.consumers:
                name = _layer_name(consumer, aliases)
                if name in unfed:
                    unfed[name][consumer.index] = True
    return unfed


def _layer_name(weight_slice: WeightSlice, aliases: Mapping[str, str]) -> str:
    return aliases.get(weight_slice.parameter, weight_slice.parameter)


def _slices(group: ChannelGroup) -> tuple[WeightSlice, ...]:
    return (*group.producers, *group.consumers)

"""The fewest channels that a masked network can keep, by what it computes and by what its layers can take over.

Removed channels leave constants behind. A layer takes them over where they are, position by position, combinations of
what it has: its bias (where it sees no border) and the kept channels that are constant too, its carriers.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection

import numpy as np
import torch
from torch import nn

from tests.helpers import MakeInputs

from .channels import ChannelSet, columns, family
from .nets import OracleNet
from .patching import Maps, Oracle, constant_channels

_INDEPENDENT = 1e-10  # of maps of size 1
_MOST_SETS = 12

Kept = Collection[ChannelSet]


class Carriers:
    """How many carriers the layers of a masked network need for what is removed."""

    def __init__(self, oracle: Oracle, make_inputs: MakeInputs) -> None:
        self.net = oracle.net
        self.columns = {name: columns(self.net, name) for name in self.net.reads}
        self._oracle = oracle
        self._constants = constant_channels(self.net, make_inputs)
        self._read: dict[tuple[str, int], bool] = {}

    def missing(self, reader: str, kept: Kept, candidates: Kept, filters: Kept) -> int:
        """How many of the `candidates` that the kept `filters` of a layer see it lacks to stand for them all."""
        groups = range(groups_of(self.net, reader))
        return sum(self._missing(reader, group, kept, candidates, filters) for group in groups)

    def _missing(self, reader: str, group: int, kept: Kept, candidates: Kept, filters: Kept) -> int:
        sets, (maps, steady) = self.columns[reader], self._constants[reader].inputs
        width = len(sets) // groups_of(self.net, reader)
        mine = range(group * width, (group + 1) * width)
        seen = self._seen(reader, group, filters)
        basis = [maps[j] for j in mine if sets[j] in kept and steady[j]]
        if _sees_no_border(self.net.layer(reader)):
            basis.append(np.ones(maps.shape[1]))
        targets = [maps[j] for j in mine if seen[j - mine[0]] and sets[j] in candidates and sets[j] not in kept]
        return _rank(basis + targets) - _rank(basis)

    def _seen(self, reader: str, group: int, filters: Kept) -> list[bool]:
        """Input columns of a group on which a filter that matters has weights."""
        weight = self.net.layer(reader).weight.detach()
        rows = len(weight) // groups_of(self.net, reader)
        channels = {channel for some in filters for channel in some}
        relevant = [r for r in range(group * rows, (group + 1) * rows) if self._matters(reader, r, channels)]
        edges = weight.reshape(*weight.shape[:2], -1)[relevant] != 0
        return [bool(column) for column in edges.any(dim=2).any(dim=0)]

    def _matters(self, reader: str, row: int, kept: Collection[tuple[str, int]]) -> bool:
        """Whether an output channel is kept and read, and more than one number, which a bias could hold."""
        channel = (reader, row)
        if reader == "head":
            return True
        if channel not in kept or self._constants[reader].uniform_outputs[row]:
            return False
        if channel not in self._read:
            self._read[channel] = self._oracle.is_read(channel)
        return self._read[channel]

    def read_together(self) -> list[frozenset[str]]:
        """The names of tensors, those together that some layer reads together."""
        groups: list[frozenset[str]] = []
        for sets in self.columns.values():
            names = frozenset(map(family, sets))
            touching = [g for g in groups if g & names]
            groups = [g for g in groups if not g & names] + [names.union(*touching)]
        return groups

    def fewest(self, names: Collection[str], kept: Kept) -> int:
        """How many channels of some tensors have to stay, beside `kept`, for what is removed of them."""
        spare = [s for s in self._oracle.sets if family(s) in names and s not in kept]
        for count in range(len(spare) + 1):
            if any(self.suffices({*kept, *extra}, spare) for extra in itertools.combinations(spare, count)):
                return count
        raise AssertionError("keeping everything does not suffice")

    def suffices(self, kept: Kept, candidates: Kept) -> bool:
        """Whether the kept channels can stand for those candidates that are not."""
        return not any(self.missing(reader, kept, candidates, kept) for reader in self.columns)

    def one_reader_each(self, names: Collection[str], kept: Kept, carriers: Kept) -> int:
        """How many carriers some tensors have if no reader makes use of another one's."""
        spare = [s for s in self._oracle.sets if family(s) in names and s not in kept]
        return sum(self.missing(reader, kept, spare, {*kept, *carriers}) for reader in self.columns)


def smallest(oracle: Oracle, carriers: Carriers) -> list[frozenset[ChannelSet]]:
    """All sets of kept channels of the smallest size that works, found by trying them in order of size."""
    needed = oracle.needed()
    optional = [channels for channels in oracle.sets if channels not in needed]
    assert len(oracle.sets) <= _MOST_SETS, "too many sets to enumerate"
    for count in range(len(optional) + 1):
        tried = [frozenset(needed.union(extra)) for extra in itertools.combinations(optional, count)]
        if found := [kept for kept in tried if _works(oracle, carriers, kept)]:
            return found
    raise AssertionError("keeping everything does not work either")


def _works(oracle: Oracle, carriers: Carriers, kept: frozenset[ChannelSet]) -> bool:
    removed = [channels for channels in oracle.sets if channels not in kept]
    return (
        all(_is_rectangular(oracle.net, reader, kept) for reader in oracle.net.reads)
        and carriers.suffices(kept, removed)
        and not oracle.is_needed([channel for channels in removed for channel in channels])
    )


def _is_rectangular(net: OracleNet, reader: str, kept: Kept) -> bool:
    """Groups that are left have equally many inputs each, and equally many outputs."""
    groups = groups_of(net, reader)
    if groups == 1:
        return True
    inputs = np.array([channels in kept for channels in columns(net, reader)]).reshape(groups, -1).sum(axis=1)
    channels = {channel for some in kept for channel in some}
    rows = len(net.layer(reader).weight)
    outputs = np.array([(reader, row) in channels for row in range(rows)]).reshape(groups, -1).sum(axis=1)
    same = all(len(set(counts[counts > 0].tolist())) <= 1 for counts in (inputs, outputs))
    return same and bool(((inputs > 0) == (outputs > 0)).all())


def groups_of(net: OracleNet, name: str) -> int:
    layer = net.layer(name)
    return layer.groups if isinstance(layer, nn.Conv2d) else 1


def _sees_no_border(layer: nn.Module) -> bool:
    return isinstance(layer, nn.Linear) or (isinstance(layer, nn.Conv2d) and not any(map(int, layer.padding)))


def _rank(maps: list[Maps]) -> int:
    """Independent maps, each judged on its own scale; zeros do not count."""
    sizes = [float(np.abs(m).max()) for m in maps]
    rows = [m / size for m, size in zip(maps, sizes, strict=True) if size > 0]
    return int(torch.linalg.matrix_rank(torch.from_numpy(np.array(rows)), atol=_INDEPENDENT)) if rows else 0

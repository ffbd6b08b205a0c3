"""Which channels a masked network needs, found out by replacing them: no analysis, only runs.

Every layer's output is recorded on one reference sample. On other inputs, one channel is replaced by its record:
a channel is needed where that changes an output. A channel that does not depend on the input equals its record, and
one that nothing depends on may be anything; neither is needed. A record holds per position, so for one size only.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tests.helpers import MakeInputs

from .channels import Channel, ChannelSet, channel_sets
from .nets import OracleNet

UNCHANGED = 1e-9  # of the output's largest entry; float64 rounding stays below
CHANGED = 1e-6  # no effect may lie between the two
BATCHES = (1, 2, 3)
_STEADY = 1e-12  # spread of a constant, relative to it

Maps = NDArray[np.float64]
Mask = NDArray[np.bool_]


class Oracle:
    """Need of channels in one masked network, at the size of its inputs."""

    def __init__(self, net: OracleNet, make_inputs: MakeInputs) -> None:
        self.net = net
        self.sets = channel_sets(net)
        self.inputs = [make_inputs(batch) for batch in BATCHES]
        with torch.no_grad():
            self.records = _layer_outputs(net, make_inputs(1))
            self.outputs = [net(*inputs) for inputs in self.inputs]

    def is_needed(self, channels: Collection[Channel]) -> bool:
        """Whether replacing all of them by their records changes an output, at any batch size."""
        return self._changes(channels, 0.0)

    def is_read(self, channel: Channel) -> bool:
        """Whether an output depends on the channel, constant though it may be: any other value changes it."""
        return self._changes([channel], 1.0)

    def needed(self) -> set[ChannelSet]:
        """Sets of which a channel is needed."""
        return {channels for channels in self.sets if any(self.is_needed([channel]) for channel in channels)}

    def _changes(self, channels: Collection[Channel], shift: float) -> bool:
        replaced: dict[str, list[int]] = {}
        for name, index in channels:
            replaced.setdefault(name, []).append(index)
        largest = 0.0
        for number in reversed(range(len(BATCHES))):
            largest = max(largest, self._change(number, replaced, shift))
            if largest >= CHANGED:
                return True
        assert largest <= UNCHANGED, f"replacing {replaced} changes the output by {largest:.1e}: neither here nor there"
        return False

    def _change(self, number: int, replaced: Mapping[str, Sequence[int]], shift: float) -> float:
        with torch.no_grad(), _patched(self.net, self.records, replaced, shift):
            output = self.net(*self.inputs[number])
        want = self.outputs[number]
        return float((output - want).abs().max() / want.abs().max())


@dataclass(frozen=True)
class Constants:
    """What of one layer does not depend on the input: maps of its input channels, outputs of a single value."""

    inputs: tuple[Maps, Mask]  # (channels, positions), and which of them are the same for every input
    uniform_outputs: Mask


def constant_channels(net: OracleNet, make_inputs: MakeInputs) -> dict[str, Constants]:
    """Measured on four samples, by layer."""
    seen: dict[str, tuple[Tensor, Tensor]] = {}
    with torch.no_grad(), _hooks(net, lambda name, operand, output: seen.update({name: (operand, output)})):
        net(*make_inputs(4))
    found = {}
    for name, tensors in seen.items():
        inputs, outputs = (_as_maps(t, channel_axis(net.layer(name))) for t in tensors)
        uniform = np.ptp(outputs, axis=(0, 2)) <= _STEADY * np.abs(outputs).max(axis=(0, 2))
        steady = np.ptp(inputs, axis=0).max(axis=1) <= _STEADY * np.abs(inputs).max(axis=(0, 2))
        found[name] = Constants((inputs[0], steady), uniform)
    return found


def _as_maps(tensor: Tensor, axis: int) -> Maps:
    """(samples, channels, positions)"""
    moved = tensor.movedim(axis, 1)
    maps: Maps = moved.reshape(*moved.shape[:2], -1).numpy()
    return maps


def channel_axis(module: nn.Module) -> int:
    return -1 if isinstance(module, nn.Linear) else 1


def _layer_outputs(net: OracleNet, inputs: tuple[Any, ...]) -> dict[str, Tensor]:
    """Outputs of all layers for one sample."""
    seen: dict[str, Tensor] = {}
    with _hooks(net, lambda name, _, output: seen.update({name: output[:1].clone()})):
        net(*inputs)
    return seen


@contextmanager
def _hooks(net: OracleNet, look: Any) -> Iterator[None]:
    def hook(name: str) -> Any:
        return lambda module, operands, output: look(name, operands[0], output)

    handles = [net.layer(name).register_forward_hook(hook(name)) for name in [*net.layers(), "head"]]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _patched(
    net: OracleNet, records: Mapping[str, Tensor], replaced: Mapping[str, Sequence[int]], shift: float
) -> Iterator[None]:
    """Some channels replaced by their records plus `shift`, in every sample."""

    def hook(name: str) -> Any:
        axis, where = channel_axis(net.layer(name)), torch.tensor(replaced[name])

        def patch(module: nn.Module, operands: Any, output: Tensor) -> Tensor:
            record = records[name].index_select(axis, where) + shift
            return output.index_copy(axis, where, record.expand(len(output), *record.shape[1:]))

        return patch

    handles = [net.layer(name).register_forward_hook(hook(name)) for name in replaced]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()

"""One layer's time over its channels, as a solver of budgets reads it: a staircase.

An engine may run the same layer by different kernels, as its input channels fill the engine's blocks or do not, and
pads channels to blocks. Both are read off the measurements: which kernel ran at which inputs, and the channels that
the engine stored for those that the layer has.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import gcd

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ...passes.errors import TableError
from .record import Record
from .surface import Floats, Surface

Pair = tuple[int, int]
Integers = NDArray[np.int64]

_STEPS = (2, 4, 8, 16, 32)  # block sizes that engines have
_EXCEPTIONS = 0.2  # share of runs that may be by another kernel than the rule says
LARGEST_BLOCK = 16  # that ONNX Runtime pads to


@dataclass(frozen=True)
class LayerCost:
    """`kernels` has, by key, the time of a kernel that ran the layer, and (channels, stored channels) of its runs."""

    layer: str
    kernels: Mapping[str, tuple[Surface, Sequence[tuple[Pair, Pair]]]]

    @property
    def range(self) -> tuple[Pair, Pair]:
        """Measured (least, most) input channels, and output channels."""
        seen = np.array([channels for _, pairs in self.kernels.values() for channels, _ in pairs])
        (low_in, low_out), (high_in, high_out) = seen.min(0).tolist(), seen.max(0).tolist()
        return (low_in, high_in), (low_out, high_out)

    def seconds(self, c_in: ArrayLike, c_out: ArrayLike) -> Floats:
        """Time at input and output channels, which broadcast. TableError outside what was measured."""
        inputs, outputs = np.broadcast_arrays(np.asarray(c_in, np.int64), np.asarray(c_out, np.int64))
        points = np.stack([inputs.reshape(-1), outputs.reshape(-1)], axis=1)
        self._require(points)
        found = np.empty(len(points))
        distinct, place = np.unique(points[:, 0], return_inverse=True)
        kernel = np.array([self._kernel_at(int(c)) for c in distinct])[place.reshape(-1)]
        for key in set(kernel.tolist()):
            chosen, (surface, seen) = kernel == key, self.kernels[key]
            stored = np.stack([_stored(points[chosen, k], seen, k) for k in (0, 1)], axis=1)
            found[chosen] = surface(stored.astype(np.float64))
        return found.reshape(inputs.shape)

    def envelope(self, c_in: ArrayLike, c_out: ArrayLike) -> Floats:
        """The least time of a layer with at least so many channels, over blocks of sixteen and these sizes."""
        inputs, outputs = np.broadcast_arrays(np.asarray(c_in, np.int64), np.asarray(c_out, np.int64))
        (rows, columns), least = self._least
        at = np.searchsorted(rows, inputs), np.searchsorted(columns, outputs)
        lowest: Floats = np.minimum(self.seconds(inputs, outputs), least[at])
        return lowest

    def _require(self, points: Integers) -> None:
        for axis, (what, (low, high)) in enumerate(zip(("input", "output"), self.range, strict=True)):
            beyond = points[(points[:, axis] < low) | (points[:, axis] > high), axis]
            if len(beyond):
                raise TableError(
                    f"layer {self.layer} was measured from {low} to {high} {what} channels, asked for {beyond[0]}; "
                    "profile with a wider grid"
                )

    def _kernel_at(self, inputs: int) -> str:
        """The kernel that ran at the nearest measured inputs, among those that divide by the step as these do."""
        alike = [(c, key) for c, key in self._runs if (c % self._step == 0) is (inputs % self._step == 0)]
        nearest = min(alike or self._runs, key=lambda run: abs(run[0] - inputs))[0]
        return _most_frequent([key for c, key in alike or self._runs if c == nearest])

    @cached_property
    def _runs(self) -> list[tuple[int, str]]:
        return sorted((channels[0], key) for key, (_, seen) in self.kernels.items() for channels, _ in seen)

    @cached_property
    def _step(self) -> int:
        """The number by which inputs divide where one kernel runs, and do not where another does; 1 for none.

        Of several as good the smallest. Inputs of less than a block are left out: they may have a kernel of their own.
        """
        runs = [(c, key) for c, key in self._runs if c >= LARGEST_BLOCK] or self._runs
        mixed = {}
        for step in _STEPS:
            whole, broken = ([key for c, key in runs if (c % step == 0) is side] for side in (True, False))
            if whole and broken:
                mixed[step] = sum(min(whole.count(key), broken.count(key)) for key in self.kernels) / len(runs)
        best = min(mixed, key=lambda step: mixed[step], default=1)
        return best if mixed.get(best, 0.0) <= _EXCEPTIONS else 1

    @cached_property
    def _least(self) -> tuple[tuple[Integers, Integers], Floats]:
        axes = [
            np.unique([*range(-(-low // LARGEST_BLOCK) * LARGEST_BLOCK, high + 1, LARGEST_BLOCK), high])
            for low, high in self.range
        ]
        grid = self.seconds(axes[0][:, None], axes[1][None, :])
        for axis in (0, 1):
            grid = np.flip(np.minimum.accumulate(np.flip(grid, axis), axis=axis), axis)
        return (axes[0], axes[1]), grid


def layer_costs(records: Iterable[Record], surfaces: Mapping[str, Surface]) -> dict[str, LayerCost]:
    """Every profiled layer by name; of several models with the model in front."""
    seen: dict[str, dict[str, set[tuple[Pair, Pair]]]] = defaultdict(lambda: defaultdict(set))
    profiled = [record for record in records if record.widths is not None]
    several = len({record.model for record in profiled}) > 1
    for record in profiled:
        for node in (timed.node for timed in record.nodes):
            if node.layer is not None and node.channels is not None:
                name = f"{record.model}: {node.layer}" if several else node.layer
                seen[name][node.key].add((node.channels, node.width))
    return {
        layer: LayerCost(layer, {key: (surfaces[key], sorted(pairs)) for key, pairs in kinds.items()})
        for layer, kinds in seen.items()
    }


def _most_frequent(keys: Sequence[str]) -> str:
    return max(sorted(set(keys)), key=list(keys).count)


def _stored(channels: Integers, seen: Sequence[tuple[Pair, Pair]], axis: int) -> Integers:
    """Channels as the engine stores them: as they are, or padded to a block by which padded numbers divide."""
    padded = [stored[axis] for given, stored in seen if given[axis] != stored[axis]]
    if not padded:
        return channels
    block = gcd(LARGEST_BLOCK, *padded)
    blocks: Integers = -(-channels // block) * block
    return blocks

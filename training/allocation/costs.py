"""What a layer costs at every number of input and output channels."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import ClassVar, Protocol

import numpy as np

from .layer import Layer
from .problem import Counts, Values


class LayerCosts(Protocol):
    """What a latency table is to a budget; so are the classes below."""

    @property
    def unit(self) -> str:
        """Of the costs, as "ms"."""

    def cost(self, layer: Layer, inputs: Counts, outputs: Counts) -> Values:
        """The cost at every pair of channel counts, shape (len(inputs), len(outputs)).

        A depthwise layer is asked for one pair of equal counts at a time. TableError where it is not known.
        """


@dataclass(frozen=True)
class FLOPs:
    """Floating-point operations of a batch: two a multiply-accumulate, biases not counted."""

    unit: ClassVar[str] = "FLOPs"

    def cost(self, layer: Layer, inputs: Counts, outputs: Counts) -> Values:
        return 2.0 * layer.batch * layer.visits * _weights(layer, inputs, outputs)


@dataclass(frozen=True)
class Parameters:
    """Weights and biases."""

    unit: ClassVar[str] = "parameters"

    def cost(self, layer: Layer, inputs: Counts, outputs: Counts) -> Values:
        return _weights(layer, inputs, outputs) + layer.bias * outputs[None, :]


@dataclass(frozen=True)
class Memory:
    """Bytes of a layer's parameters and of its result for a batch, `bytes_per_value` each."""

    bytes_per_value: int = 4
    unit: ClassVar[str] = "bytes"

    def cost(self, layer: Layer, inputs: Counts, outputs: Counts) -> Values:
        results = layer.batch * prod(layer.output_size) * outputs[None, :]
        return self.bytes_per_value * (Parameters().cost(layer, inputs, outputs) + results)


def _weights(layer: Layer, inputs: Counts, outputs: Counts) -> Values:
    """Weights at every pair of counts; the groups of a grouped convolution stay as many, but for depthwise ones."""
    per_pair = np.ones_like(inputs, dtype=np.float64) if layer.is_depthwise else inputs / layer.groups
    return prod(layer.kernel) * np.outer(per_pair, outputs).astype(np.float64)

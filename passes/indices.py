"""Which of a layer's original channels are left, kept on its node as passes remove some."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch.fx import Node

from .graph import INDICES


@dataclass(frozen=True)
class ChannelIndices:
    """Original indices of a contraction's remaining output and input channels."""

    outputs: NDArray[np.int64]
    inputs: NDArray[np.int64]


def narrow_indices(node: Node, kept_outputs: NDArray[np.bool_], kept_inputs: NDArray[np.bool_]) -> None:
    """Record that only some of the channels that `node` has now are kept."""
    known = node.meta.get(INDICES) or ChannelIndices(np.arange(kept_outputs.size), np.arange(kept_inputs.size))
    node.meta[INDICES] = ChannelIndices(known.outputs[kept_outputs], known.inputs[kept_inputs])

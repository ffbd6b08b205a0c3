"""Cutting a layer's weight, and its sparsity pattern, to some of its channels."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from .channels.arrays import Mask
from .channels.rules.call import Contraction
from .graph import PATTERN, set_constant


def cut_weight(canonical: Tensor, kept_in: Mask, kept_out: Mask) -> Tensor:
    """Kept groups, outputs and inputs of a weight (groups, outputs, inputs, taps); kept groups are equally wide.

    `kept_in` is (groups, inputs), `kept_out` (groups, outputs).
    """
    groups = np.flatnonzero(kept_out.any(axis=1))
    parts = [
        canonical[g][torch.from_numpy(np.flatnonzero(kept_out[g]))][:, torch.from_numpy(np.flatnonzero(kept_in[g]))]
        for g in groups
    ]
    return torch.stack(parts)


def set_layer_weight(
    contraction: Contraction, canonical: Tensor, dtype: torch.dtype, kept_in: Mask, kept_out: Mask
) -> None:
    """Give a layer a weight that was cut to these channels; its pattern is cut alike."""
    kernel, node = contraction.kernel, contraction.weight
    assert node is not None
    pattern = node.meta.get(PATTERN)
    if pattern is not None:
        cut = cut_weight(kernel.layout.to_canonical(pattern, kernel.groups), kept_in, kept_out)
        node.meta[PATTERN] = kernel.layout.from_canonical(cut | (canonical != 0), kernel.window).contiguous()
    set_constant(node, kernel.layout.from_canonical(canonical, kernel.window).to(dtype).contiguous())

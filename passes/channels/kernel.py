"""The weights of a contraction in one layout, whatever the operator: (groups, outputs, inputs, taps).

Outputs and inputs are counted per group; taps are the positions of a convolution's window, one for a
linear layer. An edge joins an input to an output channel where any tap is in the sparsity pattern.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .arrays import Constants, Indices, Mask


@dataclass(frozen=True)
class WeightLayout:
    """How an operator stores its weight: conversion to (groups, outputs, inputs, taps) and back."""

    to_canonical: Callable[[Tensor, int], Tensor]  # (weight, groups)
    from_canonical: Callable[[Tensor, tuple[int, ...]], Tensor]  # (canonical, window)
    output_axis: int
    window: Callable[[Tensor], tuple[int, ...]]  # the window's shape, e.g. (3, 3)


CONVOLUTION = WeightLayout(
    to_canonical=lambda w, groups: w.reshape(groups, w.shape[0] // groups, w.shape[1], -1),
    from_canonical=lambda c, window: c.reshape(c.shape[0] * c.shape[1], c.shape[2], *window),
    output_axis=0,
    window=lambda w: tuple(w.shape[2:]),
)
TRANSPOSED_CONVOLUTION = WeightLayout(
    to_canonical=lambda w, groups: w.reshape(groups, w.shape[0] // groups, w.shape[1], -1).transpose(1, 2),
    from_canonical=lambda c, window: c.transpose(1, 2).reshape(c.shape[0] * c.shape[2], c.shape[1], *window),
    output_axis=1,
    window=lambda w: tuple(w.shape[2:]),
)
LINEAR = WeightLayout(
    to_canonical=lambda w, groups: w.reshape(1, w.shape[0], w.shape[1], 1),
    from_canonical=lambda c, window: c.reshape(c.shape[1], c.shape[2]),
    output_axis=0,
    window=lambda w: (),
)
MATRIX = WeightLayout(
    to_canonical=lambda w, groups: w.t().reshape(1, w.shape[1], w.shape[0], 1),
    from_canonical=lambda c, window: c.reshape(c.shape[1], c.shape[2]).t(),
    output_axis=1,
    window=lambda w: (),
)


class Kernel:
    """Edges, values and bias of one contraction.

    `uniform` tells that an input of one value everywhere gives an output of one value everywhere, as it
    does unless zeros are padded around it or taps fall unevenly (transposed convolutions).
    """

    def __init__(
        self,
        weight: Tensor,
        pattern: Tensor | None,
        bias: Tensor | None,
        layout: WeightLayout,
        groups: int,
        uniform: bool,
    ) -> None:
        self.layout = layout
        self.uniform = uniform
        self.window = layout.window(weight)
        self.weight = layout.to_canonical(weight, groups)
        self.groups, self.outputs, self.inputs, self.taps = self.weight.shape
        live = (weight != 0) if pattern is None else pattern
        self.edges: Mask = layout.to_canonical(live, groups).any(dim=3).numpy()
        shape = (self.groups, self.outputs)
        self.bias: Constants = np.zeros(shape) if bias is None else bias.double().reshape(shape).numpy()

    def columns(self, group: int, inputs: Indices) -> Constants:
        """Weights of some inputs of a group, shape (outputs, len(inputs), taps)."""
        return self.weight[group][:, torch.from_numpy(inputs)].double().numpy()

    def tap_sums(self, constant: Constants) -> Constants:
        """Sum over input channels of weight times constant (groups, inputs), shape (groups, outputs, taps)."""
        sums = np.zeros((self.groups, self.outputs, self.taps))
        for group in np.flatnonzero(constant.any(axis=1)).tolist():
            inputs = np.flatnonzero(constant[group])
            sums[group] = np.tensordot(self.columns(group, inputs), constant[group, inputs], axes=(1, 0))
        return sums

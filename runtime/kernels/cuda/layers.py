"""Condensed layers on a GPU: the forms that each can be run in, and which is the fastest for so many points.

rows     few samples: neurons side by side (linear layers)
columns  many samples or pixels, of transposed inputs: points side by side
dense    the weight with its zeros, by torch on tensor cores; it pays where batches are large and zeros few
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from ....passes.operators import ACTIVATIONS, dense_weight
from ...latency.device_events import device_times
from . import launch
from .launch import Rows, Window, power_of_two

Run = Callable[[], Tensor]
Times = Callable[[Mapping[str, Run]], Mapping[str, float]]  # seconds of each
_FEW = 8  # samples that are few, where nothing could be measured


class _Layer(ABC):
    """A layer's pattern, and the forms found fastest by what is told apart: the power of two of points, image sizes.

    The values come with every call, so that their tensor may go when nobody else holds it.
    """

    def __init__(self, columns: Tensor, starts: Tensor, shape: tuple[int, ...]) -> None:
        self.columns, self.starts, self.shape = columns, starts.int(), shape
        self.chosen: dict[tuple[int, ...], str] = {}
        self._dense: Tensor | None = None

    def dense(self, values: Tensor) -> Tensor:
        """The weight with its zeros, kept."""
        if self._dense is None:
            inputs = math.prod(self.shape[1:])
            self._dense = dense_weight(values, self.columns, self.starts, inputs).reshape(self.shape).contiguous()
        return self._dense

    def fastest(self, key: tuple[int, ...], runs: Mapping[str, Run], times: Times) -> str:
        """The form for this key: measured when it is first asked for, a guess while a CUDA graph is recorded."""
        if key not in self.chosen:
            if torch.cuda.is_available() and torch.cuda.is_current_stream_capturing():
                return "rows" if "rows" in runs and key[0] <= _FEW else "columns"
            found = times(runs)
            self.chosen[key] = min(found, key=lambda form: found[form])
            if "dense" not in self.chosen.values():
                self._dense = None
        return self.chosen[key]

    def __call__(
        self,
        x: Tensor,
        values: Tensor,
        bias: Tensor | None,
        residual: Tensor | None,
        activation: str,
        *,
        form: str | None = None,
        times: Times = device_times,
    ) -> Tensor:
        """The layer in this form, or in the fastest."""
        runs = self.runs(x, values, bias, residual, activation)
        return runs[form or self.fastest(self.key(x), runs, times)]()

    @abstractmethod
    def runs(
        self, x: Tensor, values: Tensor, bias: Tensor | None, residual: Tensor | None, activation: str
    ) -> dict[str, Run]:
        """What computes the result, by form."""

    @abstractmethod
    def key(self, x: Tensor) -> tuple[int, ...]:
        """What inputs are told apart by: the power of two of points comes first."""


class LinearLayer(_Layer):
    """activation(x W^T + bias + residual): x (samples, inputs), residual and the result (samples, outputs)."""

    def __init__(self, columns: Tensor, starts: Tensor, shape: tuple[int, ...]) -> None:
        super().__init__(columns, starts, shape)
        self._narrow = launch.narrow(columns, shape[1])

    def runs(
        self, x: Tensor, values: Tensor, bias: Tensor | None, residual: Tensor | None, activation: str
    ) -> dict[str, Run]:
        rows = Rows(values, self._narrow, self.starts)
        return {
            "rows": lambda: launch.linear_rows(x, rows, bias, residual, activation),
            "columns": lambda: launch.linear_columns(x, rows, bias, residual, activation),
            "dense": lambda: _finished(F.linear(x, self.dense(values), bias), residual, activation),
        }

    def key(self, x: Tensor) -> tuple[int, ...]:
        return (power_of_two(len(x)),)


class Conv2dLayer(_Layer):
    """activation(conv2d(x, W) + bias + residual): x (images, channels, height, width), residual as the result."""

    def __init__(self, columns: Tensor, starts: Tensor, shape: tuple[int, ...], window: Window) -> None:
        super().__init__(columns, starts, shape)
        self.window = window
        self._offsets: dict[tuple[int, ...], Tensor] = {}

    def runs(
        self, x: Tensor, values: Tensor, bias: Tensor | None, residual: Tensor | None, activation: str
    ) -> dict[str, Run]:
        window = self.window

        def columns() -> Tensor:
            rows = Rows(values, self._places(x), self.starts)
            return launch.conv2d_columns(x, rows, bias, residual, window, activation)

        def dense() -> Tensor:
            y = F.conv2d(x, self.dense(values), bias, window.stride, window.padding, window.dilation, window.groups)
            return _finished(y, residual, activation)

        return {"columns": columns, "dense": dense}

    def key(self, x: Tensor) -> tuple[int, ...]:
        return (power_of_two(len(x)), *x.shape[2:])

    def _places(self, x: Tensor) -> Tensor:
        """The columns for images of this size, computed once."""
        channels, height, width = size = tuple(x.shape[1:])
        if size not in self._offsets:
            self._offsets[size] = launch.offsets(self.columns, self.starts, channels, height, width, self.window)
        return self._offsets[size]


def _finished(y: Tensor, residual: Tensor | None, activation: str) -> Tensor:
    return ACTIVATIONS[activation](y if residual is None else y + residual)

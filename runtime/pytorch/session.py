"""A graph that torch runs: on a GPU recorded once for every shape of its inputs, and started as a whole after that."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.fx import GraphModule

from ..engine import Array
from ..latency.device_events import recorded

_MOST_RECORDED = 4  # shapes: each holds its own memory


class TorchSession:
    """Runs a graph of flat tensors on a device; outputs come back as arrays.

    On a GPU the first call with new shapes measures the forms of condensed layers and records a CUDA graph.
    """

    def __init__(self, graph_module: GraphModule, device: torch.device) -> None:
        self._graph_module, self._device = graph_module, device
        self._recorded: dict[tuple[Any, ...], _Recorded] = {}

    def run(self, inputs: Sequence[Array]) -> list[Array]:
        tensors = [torch.from_numpy(array) for array in inputs]
        with torch.no_grad():
            if self._device.type == "cuda":
                return _arrays(self._recording(tensors).run(tensors))
            return _arrays(self._graph_module(*tensors))

    def prepare(self, inputs: Sequence[Array]) -> Callable[[], object]:
        if self._device.type != "cuda":
            return lambda: self.run(inputs)
        with torch.no_grad():
            recording = self._recording([torch.from_numpy(array) for array in inputs])

        def run() -> None:
            recording.replay()
            torch.cuda.synchronize(self._device)

        return run

    def settings(self) -> dict[str, Any]:
        return {"device": str(self._device), "threads": None, "cuda_graphs": self._device.type == "cuda"}

    def _recording(self, inputs: Sequence[Tensor]) -> _Recorded:
        """That of these shapes; the oldest one goes where there are too many."""
        key = tuple((tuple(tensor.shape), tensor.dtype) for tensor in inputs)
        if key not in self._recorded:
            while len(self._recorded) >= _MOST_RECORDED:
                del self._recorded[next(iter(self._recorded))]
            self._recorded[key] = _Recorded(self._graph_module, [tensor.to(self._device) for tensor in inputs])
        return self._recorded[key]


class _Recorded:
    """One run for fixed shapes."""

    def __init__(self, graph_module: GraphModule, inputs: list[Tensor]) -> None:
        self._inputs = inputs
        self._outputs: list[Tensor] = []

        def run() -> None:
            self._outputs = list(graph_module(*self._inputs))

        with float32_is_float32():
            self.replay = recorded(run)

    def run(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        for own, given in zip(self._inputs, inputs, strict=True):
            own.copy_(given)
        self.replay()
        return self._outputs


def float32_is_float32() -> contextlib.AbstractContextManager[None]:
    """No TF32 in convolutions (matrix products have none unless asked for); the fastest of cuDNN's algorithms."""
    flags: contextlib.AbstractContextManager[None] = torch.backends.cudnn.flags(
        enabled=True, benchmark=True, allow_tf32=False
    )
    return flags


def _arrays(outputs: Sequence[Tensor]) -> list[Array]:
    return [np.ascontiguousarray(output.cpu().numpy()) for output in outputs]

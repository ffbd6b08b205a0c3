"""Taylor importance of coupled channels, averaged over training steps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from .channel_tensors import PlaceMap
from .channels import CoupledChannels
from .layers import bare_model
from .ranks import mean_over_ranks
from .sparse_layer import SparseLayer


class TaylorImportance:
    """|sum of g_gamma gamma + g_beta beta| over the BatchNorms of a coupled channel (IEE, appendix, Eq. 6).

    A candidate without a BatchNorm is judged by the weights of its filters in the same way, |sum of g w|, as in HALP's
    code. Steps with a gradient that is not finite do not count.
    """

    def __init__(self, channels: CoupledChannels, model: nn.Module, layers: Mapping[str, SparseLayer]) -> None:
        model = bare_model(model)
        norms = {
            f"{prefix}.{name}".lstrip(".")
            for prefix, module in model.named_modules()
            if isinstance(module, _BatchNorm)
            for name, _ in module.named_parameters(recurse=False)
        }
        entries, filters = [], []
        for index in range(len(channels.candidates)):
            own = [(index, place) for place in channels.entries_of(index) if place[0] in norms]
            entries += own
            filters += [] if own else [(index, place) for place in channels.filters_of(index)]
        self._entries, self._filters = PlaceMap(entries), PlaceMap(filters)
        self._norms = {name: model.get_parameter(name) for name in self._entries.names}
        self._layers = {name: layers[name] for name in self._filters.names}
        self._size = len(channels.candidates)
        self.reset()

    def reset(self) -> None:
        self._sum, self._steps = torch.zeros(self._size, dtype=torch.float64), 0

    @torch.no_grad()
    def measure(self) -> None:
        """Add the importance at the gradients of now."""
        total = torch.zeros(self._size, dtype=torch.float64)
        for name, parameter in self._norms.items():
            if parameter.grad is not None:
                self._add(total, self._entries.places(name), parameter.detach().double() * parameter.grad)
        for name, layer in self._layers.items():
            if layer.parameter.grad is not None:
                products = layer.layout.rows(layer.weight * layer.parameter.grad)
                self._add(total, self._filters.places(name), products.sum(1, dtype=torch.float64))
        if bool(total.isfinite().all()):
            self._sum += total.abs()
            self._steps += 1

    def average(self) -> Tensor:
        """Over the steps that were measured and over ranks, shape (candidates,), in float64 on the CPU."""
        device = next(iter([*self._norms.values(), *(layer.parameter for layer in self._layers.values())])).device
        mean = self._sum / max(self._steps, 1)
        return mean if device.type == "mps" else mean_over_ranks(mean.to(device)).cpu()  # no float64 and no ranks there

    def _add(self, total: Tensor, places: tuple[Tensor, Tensor], products: Tensor) -> None:
        indices, candidates = places
        total.index_add_(0, candidates, products.double().cpu()[indices])

    def state(self) -> dict[str, Any]:
        return {"sum": self._sum.clone(), "steps": self._steps}

    def load_state(self, state: Mapping[str, Any]) -> None:
        self._sum, self._steps = state["sum"].clone(), int(state["steps"])

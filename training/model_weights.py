"""The weights of a model under the names that masks use.

A parameter pruned by torch.nn.utils.prune is called `conv.weight` here, although the module keeps it as
`conv.weight_orig` with a buffer `conv.weight_mask`. A tied parameter appears under each of its names.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True, eq=False)
class ModelWeight:
    """`stored` is the tensor that the model owns under `own_name`; `pruning` its torch.nn.utils.prune mask."""

    own_name: str
    stored: Tensor
    pruning: Tensor | None = None

    @property
    def effective(self) -> Tensor:
        """What the model computes with."""
        stored = self.stored.detach()
        return stored if self.pruning is None else stored * self.pruning


def weights_of(model: nn.Module) -> dict[str, ModelWeight]:
    """Every parameter and floating-point buffer of a model, by mask name; aliases of tied tensors included."""
    found: dict[str, ModelWeight] = {}
    for prefix, module in model.named_modules(remove_duplicate=False):
        for name, stored in _tensors(module):
            own_name = f"{prefix}.{name}" if prefix else name
            pruning = _pruning_mask(module, name)
            public = own_name if pruning is None else own_name.removesuffix("_orig")
            found[public] = ModelWeight(own_name, stored, pruning)
    return found


def is_pruned(module: nn.Module, name: str) -> bool:
    """Whether torch.nn.utils.prune holds a mask for the parameter `name` of a module."""
    return f"{name}_orig" in module._parameters and f"{name}_mask" in module._buffers


def _tensors(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    for name, parameter in module._parameters.items():
        if parameter is not None:
            yield name, parameter
    for name, buffer in module._buffers.items():
        pruning = name.endswith("_mask") and is_pruned(module, name.removesuffix("_mask"))
        if buffer is not None and buffer.is_floating_point() and not pruning:
            yield name, buffer


def _pruning_mask(module: nn.Module, name: str) -> Tensor | None:
    base = name.removesuffix("_orig")
    return module._buffers[f"{base}_mask"] if base != name and is_pruned(module, base) else None


def mask_in_place(model: nn.Module, name: str, weight: ModelWeight, inactive: Tensor) -> None:
    """Zero a weight where `inactive`, and the product that torch.nn.utils.prune keeps beside it."""
    with torch.no_grad():
        weight.stored.masked_fill_(inactive.to(weight.stored.device), 0)
        if weight.pruning is not None:
            module_name, _, attribute = name.rpartition(".")
            product = getattr(model.get_submodule(module_name), attribute)
            product.masked_fill_(inactive.to(product.device), 0)

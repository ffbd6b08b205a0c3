"""Masks for whole neurons and heads of small transformers, zeroed in the weights."""

from __future__ import annotations

import torch
from torch import nn


@torch.no_grad()
def zero_rows(layer: nn.Linear, rows: slice) -> None:
    """Outputs of a layer; the bias stays."""
    layer.weight[rows] = 0


@torch.no_grad()
def zero_columns(layer: nn.Linear, columns: slice) -> None:
    """Inputs of a layer."""
    layer.weight[:, columns] = 0


def randomised(model: nn.Module) -> nn.Module:
    """Weights of random size and biases that matter, in evaluation mode."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(0.3 * noise + (1.0 if "norm" in name.lower() and "weight" in name else 0.0))
    return model.eval()


def shapes_of(layers: object) -> dict[str, tuple[int, ...]]:
    """Weights that are left, by layer."""
    return {layer.name: layer.shape_after for layer in layers}  # type: ignore[attr-defined]

"""Budgets of non-zero weights, exact to one weight."""

from __future__ import annotations

from collections.abc import Mapping

from ..passes.errors import SparsefxError
from .sparse_layer import SparseLayer


def target_nonzeros(size: int, sparsity: float) -> int:
    """How many of `size` weights stay at a sparsity between 0 and 1."""
    return round(size * (1 - sparsity))


def allocate(densities: Mapping[str, float], sizes: Mapping[str, int], nonzeros: int) -> dict[str, int]:
    """Whole numbers of non-zeros per layer that follow `densities` and add up to `nonzeros` exactly.

    The largest remainder method: every layer gets the integer part of density * size, capped at its size; what is
    missing goes one by one to the layers with the largest remainder that have room. Raises SparsefxError where
    the layers have fewer than `nonzeros` weights.
    """
    if nonzeros > sum(sizes.values()):
        raise SparsefxError(f"{nonzeros} non-zeros do not fit into layers of {sum(sizes.values())} weights")
    exact = {name: min(densities[name] * size, float(size)) for name, size in sizes.items()}
    counts = {name: int(value) for name, value in exact.items()}
    by_remainder = sorted(sizes, key=lambda name: counts[name] - exact[name])
    while sum(counts.values()) != nonzeros:
        step = 1 if sum(counts.values()) < nonzeros else -1
        for name in by_remainder if step > 0 else reversed(by_remainder):
            if sum(counts.values()) == nonzeros:
                break
            if 0 <= counts[name] + step <= sizes[name]:
                counts[name] += step
    return counts


def budget_beside(layers: Mapping[str, SparseLayer], nonzeros: int) -> int:
    """What is left of `nonzeros` for the layers that are not kept dense.

    Raises SparsefxError where the dense layers alone hold more.
    """
    dense = {name: layer.mask.numel() for name, layer in layers.items() if layer.kept_dense}
    left = nonzeros - sum(dense.values())
    if left < 0:
        size = sum(layer.mask.numel() for layer in layers.values())
        raise SparsefxError(
            f"the layers kept dense ({', '.join(dense)}) hold {sum(dense.values())} weights, more than the "
            f"{nonzeros} that the sparsity allows of {size}; lower the sparsity, or keep fewer layers dense"
        )
    return left

"""Sparsity patterns: which weights of a net are set to zero, layer by layer or a whole branch at a time."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from .draw import Draw
from .net import RandomNet

Pattern = Callable[[Tensor, torch.Generator], Tensor]  # of a weight: what stays


def _lines(weight: Tensor, axis: int, share: float, generator: torch.Generator) -> Tensor:
    keep = torch.rand(weight.shape[axis], generator=generator) >= share
    return keep.reshape([-1 if j == axis else 1 for j in range(weight.ndim)]).expand(weight.shape)


def _filters(share: float) -> Pattern:
    return lambda w, g: _lines(w, 0, share, g)


def _columns(share: float) -> Pattern:
    return lambda w, g: _lines(w, 1, share, g)


def _unstructured(share: float) -> Pattern:
    return lambda w, g: torch.rand(w.shape, generator=g) >= share


def _kernels(w: Tensor, g: torch.Generator) -> Tensor:
    return (torch.rand(w.shape[:2], generator=g) >= 0.6).reshape(*w.shape[:2], *[1] * (w.ndim - 2)).expand(w.shape)


def _two_of_four(w: Tensor, g: torch.Generator) -> Tensor:
    flat = w.reshape(w.shape[0], -1)
    whole = flat.shape[1] // 4 * 4
    keep = torch.ones(flat.shape, dtype=torch.bool)
    order = torch.rand(flat[:, :whole].reshape(-1, 4).shape, generator=g).argsort(dim=1)
    keep[:, :whole] = (order < 2).reshape(flat.shape[0], whole)
    return keep.reshape(w.shape)


def _single(axis: int) -> Pattern:
    def pattern(w: Tensor, g: torch.Generator) -> Tensor:
        keep = torch.arange(w.shape[axis]) == int(torch.randint(w.shape[axis], (1,), generator=g))
        return keep.reshape([-1 if j == axis else 1 for j in range(w.ndim)]).expand(w.shape)

    return pattern


def _blocks(w: Tensor, g: torch.Generator) -> Tensor:
    """Runs of four filters, as a head of q, k or v is."""
    keep = torch.rand(-(-w.shape[0] // 4), generator=g) >= 0.4
    return keep.repeat_interleave(4)[: w.shape[0]].reshape(-1, *[1] * (w.ndim - 1)).expand(w.shape)


PATTERNS: dict[str, Pattern] = {
    "dense": lambda w, g: torch.ones_like(w, dtype=torch.bool),
    "filters 50%": _filters(0.5),
    "filters 30%": _filters(0.3),
    "columns 50%": _columns(0.5),
    "filters and columns": lambda w, g: _lines(w, 0, 0.4, g) & _lines(w, 1, 0.4, g),
    "unstructured 90%": _unstructured(0.9),
    "unstructured 99%": _unstructured(0.99),
    "kernels": _kernels,
    "2:4": _two_of_four,
    "single filter": _single(0),
    "single column": _single(1),
    "head rows": _blocks,
    "filters 80%": _filters(0.8),
    "zero": lambda w, g: torch.zeros_like(w, dtype=torch.bool),
}
_STRUCTURED = (
    "filters 30%", "filters 50%", "filters 50%", "filters and columns", "filters 80%", "head rows", "dense",
    "columns 50%",
)  # fmt: skip


def draw_masks(draw: Draw, net: RandomNet) -> tuple[dict[str, Tensor], list[str]]:
    """What stays of every weight with two axes or more, by parameter name, and the names of the patterns used."""
    generator = torch.Generator().manual_seed(draw.seed())
    style = draw.choice((*["structured"] * 8, "any", "one kind", "a branch"))
    only = draw.choice(sorted(PATTERNS))
    weights = {n: p for n, p in net.named_parameters() if p.ndim >= 2 and min(p.shape[:2]) > 0}
    masks, names = {}, []
    for name, weight in weights.items():
        kind = {"structured": draw.choice(_STRUCTURED), "any": draw.choice(list(PATTERNS))}.get(style, only)
        if style == "a branch":
            kind = "dense"
        names.append(kind)
        masks[name] = (
            PATTERNS[kind](weight, generator) if weight.ndim < 6 else torch.ones_like(weight, dtype=torch.bool)
        )
    if style == "a branch" or draw.chance(15):
        names.append("a branch zero")
        _zero_branch(draw, net, masks)
    return masks, names


def _zero_branch(draw: Draw, net: RandomNet, masks: dict[str, Tensor]) -> None:
    """All weights of one step, or of one of its parts."""
    modules = [
        n for n, m in net.named_modules() if n.startswith("steps.") and n.count(".") <= 3 and list(m.parameters())
    ]
    if not modules:
        return
    chosen = draw.choice(modules)
    for name, mask in masks.items():
        if name.startswith(f"{chosen}."):
            masks[name] = torch.zeros_like(mask)


def apply_masks(net: nn.Module, masks: dict[str, Tensor]) -> None:
    with torch.no_grad():
        for name, mask in masks.items():
            weight = net.get_parameter(name)
            weight.copy_(torch.where(mask, weight, torch.zeros_like(weight)))

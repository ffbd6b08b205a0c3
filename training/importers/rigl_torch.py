"""Checkpoints of rigl-torch: a state dict, and masks in the order in which the model defines its layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from ...passes.errors import MaskError
from ..masks import MaskSet
from .state_dicts import require_values, state_of

Weights = Mapping[str, Tensor]


def is_rigl_torch(content: Any) -> bool:
    return isinstance(content, dict) and isinstance(p := content.get("pruner"), dict) and "backward_masks" in p


def read_rigl_torch(content: Any) -> tuple[dict[str, Tensor], MaskSet]:
    """Weights and masks; MaskError where a mask has another shape than the weight at its position."""
    weights = state_of(content)
    masks = backward_masks(content["pruner"])
    return weights, mask_set("rigl-torch", content["pruner"], layers_in_order(weights, masks), weights)


def backward_masks(pruner: Mapping[str, Any]) -> list[Tensor | None]:
    """One mask for every layer, None for a dense one."""
    masks = pruner["backward_masks"]
    if not isinstance(masks, list | tuple) or not all(mask is None or isinstance(mask, Tensor) for mask in masks):
        raise MaskError("its backward_masks are no list of tensors and None; save the checkpoint again")
    for index, mask in enumerate(masks):
        if mask is not None:
            require_values(f"backward_masks[{index}]", mask)
    return list(masks)


def layers_in_order(weights: Weights, masks: Sequence[Tensor | None]) -> list[str]:
    """The weight of every mask: those with two or more axes, or all but batch norms where there are as many masks.

    rigl-torch masks every module that has a weight and is no BatchNorm2d, one-dimensional weights included.
    """
    named = [name for name in weights if name.rpartition(".")[2] == "weight"]
    layers = [name for name in named if weights[name].ndim >= 2]
    unnormed = [name for name in named if f"{name.removesuffix('weight')}running_mean" not in weights]
    for names in (layers, unnormed):
        if len(names) == len(masks):
            return names
    raise MaskError(count_mismatch(layers, masks, weights))


def count_mismatch(names: Sequence[str], masks: Sequence[Tensor | None], weights: Weights) -> str:
    """That there are more masks or more weights, and where the first of them does not fit."""
    return (
        f"there are {len(masks)} backward_masks for {len(names)} weights of layers: {_misfit(names, masks, weights)}; "
        "masks and weights do not belong together, save a state dict with zeros instead"
    )


def _misfit(names: Sequence[str], masks: Sequence[Tensor | None], weights: Weights) -> str:
    for name, mask in zip(names, masks, strict=False):
        if mask is not None and mask.shape != weights[name].shape:
            return f"{name} has shape {tuple(weights[name].shape)}, the mask at its position {tuple(mask.shape)}"
    if len(names) > len(masks):
        left = names[len(masks)]
        return f"{left} of shape {tuple(weights[left].shape)} has no mask"
    extra = masks[len(names)]
    return f"a mask of shape {tuple(extra.shape)} is left" if extra is not None else "a dense layer is left"


def mask_set(method: str, pruner: Mapping[str, Any], names: Sequence[str], weights: Weights) -> MaskSet:
    """The masks of the named weights; MaskError where a shape, or the number of weights in `N`, does not fit."""
    masks, sizes, step = backward_masks(pruner), pruner.get("N"), pruner.get("step")
    if not isinstance(sizes, list) or len(sizes) != len(masks):
        sizes = [None] * len(masks)
    for name, mask, size in zip(names, masks, sizes, strict=True):
        shape = tuple(weights[name].shape)
        if mask is not None and tuple(mask.shape) != shape:
            found = f"its mask {tuple(mask.shape)}"
        elif size is not None and size != weights[name].numel():
            found = f"the pruner counts {size} weights there (N)"
        else:
            continue
        raise MaskError(f"{name} has shape {shape}, {found}; masks and weights do not belong together")
    kept = {name: mask for name, mask in zip(names, masks, strict=True) if mask is not None}
    return MaskSet(kept, method=method, step=step if type(step) is int else None)

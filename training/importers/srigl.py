"""Checkpoints of SRigL after conversion: masks in order of definition, with a module name for each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from ...passes.errors import MaskError
from ...passes.near_names import closest
from ..masks import MaskSet
from .rigl_torch import Weights, backward_masks, count_mismatch, is_rigl_torch, layers_in_order, mask_set
from .state_dicts import state_of, without_wrappers

_MARKS = ("module_names", "dynamically_ablated_neuron_idx")  # what rigl-torch does not have


def is_srigl(content: Any) -> bool:
    return is_rigl_torch(content) and any(mark in content["pruner"] for mark in _MARKS)


def read_srigl(content: Any) -> tuple[dict[str, Tensor], MaskSet]:
    """Weights and masks; MaskError where module names, masks and weights do not fit each other."""
    weights, pruner = state_of(content), content["pruner"]
    masks = backward_masks(pruner)
    if "module_names" in pruner:
        names = _named_layers(_module_names(pruner, len(masks)), masks, weights)
    else:
        names = layers_in_order(weights, masks)
    return weights, mask_set("srigl", pruner, names, weights)


def _module_names(pruner: Mapping[str, Any], count: int) -> list[str]:
    names = pruner["module_names"]
    if not isinstance(names, list | tuple) or not all(name is None or isinstance(name, str) for name in names):
        raise MaskError("its module_names are no list of names; save the checkpoint again")
    if len(names) != count:
        raise MaskError(f"there are {len(names)} module_names for {count} backward_masks; save the checkpoint again")
    return without_wrappers(name or "" for name in names)  # the name of a model that is itself a layer is None


def _named_layers(modules: Sequence[str], masks: Sequence[Tensor | None], weights: Weights) -> list[str]:
    """The weight of every module: in order, as SRigL names modules without their parents, or by the full name.

    SRigL also masks the joint input projection of attention.
    """
    layers = [n for n, w in weights.items() if n.rpartition(".")[2] in ("weight", "in_proj_weight") and w.ndim >= 2]
    if len(layers) == len(modules) and all(map(_is_of, layers, modules)):
        return layers
    named = [next((name for name in layers if name.rpartition(".")[0] == module), None) for module in modules]
    found = [name for name in named if name is not None]
    if len(set(found)) == len(modules):
        return found
    raise MaskError(_mismatch(modules, layers, masks, weights))


def _is_of(name: str, module: str) -> bool:
    return f".{name.rpartition('.')[0]}".endswith(f".{module}")


def _mismatch(modules: Sequence[str], layers: Sequence[str], masks: Sequence[Tensor | None], weights: Weights) -> str:
    known = [name.rpartition(".")[0] for name in layers]
    unknown = next((m for m in modules if not any(_is_of(name, m) for name in layers)), None)
    if unknown is not None:
        return f"the weights have no module {unknown} with a mask{closest(unknown, known)}; save the checkpoint again"
    if len(layers) != len(modules):
        return count_mismatch(layers, masks, weights)
    name, module = next((n, m) for n, m in zip(layers, modules, strict=True) if not _is_of(n, m))
    return (
        f"a mask is of module {module}, but the weight at its position is {name} of shape "
        f"{tuple(weights[name].shape)}; masks and weights do not belong together"
    )

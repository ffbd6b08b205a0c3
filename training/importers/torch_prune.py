"""State dicts of models under torch.nn.utils.prune: `x.weight_orig` with `x.weight_mask`."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ...passes.errors import MaskError
from ..masks import MaskSet
from .state_dicts import state_of, unwrap

_ORIGINAL, _MASK = "_orig", "_mask"


def is_pruned(content: Any) -> bool:
    state = unwrap(content)
    return isinstance(state, dict) and any(_base(name, state) for name in state if isinstance(name, str))


def read_pruned(content: Any) -> tuple[dict[str, Tensor], MaskSet]:
    """Products of weights and masks, and the masks; MaskError where a mask has another shape or other values."""
    state = state_of(content)
    weights: dict[str, Tensor] = {}
    masks: dict[str, Tensor] = {}
    for name, tensor in state.items():
        base = _base(name, state)
        if base:
            masks[base] = _mask(base, state)
            weights[base] = tensor * masks[base]
        elif not (name.endswith(_MASK) and f"{name.removesuffix(_MASK)}{_ORIGINAL}" in state):
            weights[name] = tensor
    return weights, MaskSet(masks, method="torch.nn.utils.prune")


def _base(name: str, state: dict[str, Tensor]) -> str:
    """The name of the pruned parameter of which `name` is the original, or nothing."""
    base = name.removesuffix(_ORIGINAL)
    return base if base != name and f"{base}{_MASK}" in state else ""


def _mask(base: str, state: dict[str, Tensor]) -> Tensor:
    weight, mask = state[f"{base}{_ORIGINAL}"], state[f"{base}{_MASK}"]
    if mask.shape != weight.shape:
        raise MaskError(
            f"{base}{_ORIGINAL} has shape {tuple(weight.shape)}, {base}{_MASK} {tuple(mask.shape)}; "
            "save the pruned model's state_dict() again"
        )
    return mask

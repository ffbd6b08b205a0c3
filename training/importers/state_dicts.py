"""The state dict inside a checkpoint, by the names that the model has."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from ...passes.errors import MaskError

_NESTED_UNDER = ("state_dict", "model_state_dict", "model")
_DEEPEST = 3
_WRAPPERS = ("module.", "_orig_mod.")  # DataParallel and DistributedDataParallel, torch.compile


def unwrap(content: Any) -> Any:
    """What lies under the usual keys of a training checkpoint, or the content itself."""
    for _ in range(_DEEPEST):
        if isinstance(content, dict):
            key = next((key for key in _NESTED_UNDER if isinstance(content.get(key), dict)), None)
            content = content if key is None else content[key]
    return content


def state_of(content: Any) -> dict[str, Tensor]:
    """Weights and buffers by name, without the prefixes of wrappers; MaskError where there are none."""
    state = unwrap(content)
    if not isinstance(state, dict):
        raise MaskError(f"holds no state dict: expected names and tensors, found {type(state).__name__}")
    if not state:
        raise MaskError("holds an empty state dict, no tensors; save model.state_dict()")
    for name, value in state.items():
        _check(name, value)
    return {name: state[key].detach() for name, key in zip(without_wrappers(state), state, strict=True)}


def without_wrappers(names: Iterable[str]) -> list[str]:
    """Names without the prefixes that all of them have from DistributedDataParallel or torch.compile."""
    names = list(names)
    while prefix := next((p for p in _WRAPPERS if names and all(name.startswith(p) for name in names)), None):
        names = [name.removeprefix(prefix) for name in names]
    return names


def _check(name: Any, value: Any) -> None:
    if not isinstance(name, str) or not isinstance(value, Tensor):
        raise MaskError(
            f"holds no state dict: expected names and tensors, found {name!r} with a {type(value).__name__}; "
            "save model.state_dict() alone, or under the key state_dict"
        )
    require_values(name, value)


def require_values(name: str, tensor: Tensor) -> None:
    """MaskError for a sparse or nested tensor, and for one on the meta device."""
    if tensor.layout != torch.strided or tensor.is_meta:
        kind = "on the meta device" if tensor.is_meta else str(tensor.layout).removeprefix("torch.")
        raise MaskError(f"the tensor {name} is {kind}; expected a dense one with values, save it as that")

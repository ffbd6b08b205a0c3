"""Check a saved training state before anything of it is taken over."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..passes.errors import MaskError
from .sparse_layer import SparseLayer


def checked_state(state_dict: Mapping[str, Any], method: str, layers: Mapping[str, SparseLayer]) -> dict[str, Any]:
    """The entry "sparsifier" of a sparsifier's state dict.

    Raises MaskError where there is none, it is another method's, or its masks are not those of `layers`.
    """
    own: dict[str, Any] | None = state_dict.get("sparsifier")
    if own is None:
        raise MaskError(f"this is no state of {method}: it has no entry 'sparsifier'; load what state_dict() returned")
    if own["method"] != method:
        raise MaskError(f"this is the state of {own['method']}; load it into {own['method']}, not into {method}")
    found = {name: tuple(mask.shape) for name, mask in own["masks"].items()}
    expected = {name: tuple(layer.mask.shape) for name, layer in layers.items()}
    odd = next((name for name in found | expected if found.get(name) != expected.get(name)), None)
    if odd is not None:
        raise MaskError(
            f"the state's mask of {odd} has shape {found.get(odd)}, the layer here {expected.get(odd)}; resume with "
            "the same model and the same include, exclude and dense patterns"
        )
    return own

"""Sparse training: methods that learn a mask while they train, and the masks they hand over."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .history import MaskUpdate
    from .mask_structure import MaskStructure
    from .masks import MaskSet
    from .methods.chase import Chase
    from .methods.rigl import RigL
    from .sparsifier import Sparsifier

_PUBLIC = {
    "Chase": "methods.chase",
    "MaskSet": "masks",
    "MaskStructure": "mask_structure",
    "MaskUpdate": "history",
    "RigL": "methods.rigl",
    "Sparsifier": "sparsifier",
}

__all__ = ["Chase", "MaskSet", "MaskStructure", "MaskUpdate", "RigL", "Sparsifier"]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'sparsefx.training' has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_PUBLIC[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)

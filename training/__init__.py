"""Sparse training: methods that learn a mask while they train, and the masks they hand over."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .history import MaskUpdate
    from .mask_structure import MaskStructure
    from .masks import MaskSet
    from .methods.at_initialisation import SNIP, GraSP, SynFlow
    from .methods.campfire import Campfire
    from .methods.channel_iee import ChannelIEE
    from .methods.chase import Chase
    from .methods.gmp import GMP
    from .methods.granet import GraNet
    from .methods.halp import HALP
    from .methods.iee import IEE
    from .methods.rigl import RigL
    from .methods.set import SET
    from .methods.srigl import SRigL
    from .methods.static import Fixed, Random
    from .methods.uniform_channels import UniformChannels
    from .sparsifier import Sparsifier

_PUBLIC = {
    "Campfire": "methods.campfire",
    "ChannelIEE": "methods.channel_iee",
    "Chase": "methods.chase",
    "Fixed": "methods.static",
    "GMP": "methods.gmp",
    "GraNet": "methods.granet",
    "GraSP": "methods.at_initialisation",
    "HALP": "methods.halp",
    "IEE": "methods.iee",
    "MaskSet": "masks",
    "MaskStructure": "mask_structure",
    "MaskUpdate": "history",
    "Random": "methods.static",
    "RigL": "methods.rigl",
    "SET": "methods.set",
    "SNIP": "methods.at_initialisation",
    "SRigL": "methods.srigl",
    "Sparsifier": "sparsifier",
    "SynFlow": "methods.at_initialisation",
    "UniformChannels": "methods.uniform_channels",
}

__all__ = [
    "GMP",
    "HALP",
    "IEE",
    "SET",
    "SNIP",
    "Campfire",
    "ChannelIEE",
    "Chase",
    "Fixed",
    "GraNet",
    "GraSP",
    "MaskSet",
    "MaskStructure",
    "MaskUpdate",
    "Random",
    "RigL",
    "SRigL",
    "Sparsifier",
    "SynFlow",
    "UniformChannels",
]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'sparsefx.training' has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_PUBLIC[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)

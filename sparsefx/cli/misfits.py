"""Why a state dict does not fit a model, in a line each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

_SHOWN = 3  # of many names


def misfits(wanted: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> list[str]:
    """What keeps one state dict from being loaded in place of another."""
    missing, unexpected = ([n for n in one if n not in other] for one, other in ((wanted, found), (found, wanted)))
    shapes = [
        f"{name} ({list(found[name].shape)}, the model has {list(tensor.shape)})"
        for name, tensor in wanted.items()
        if name in found and isinstance(tensor, Tensor) and found[name].shape != tensor.shape
    ]
    kinds = (("missing", missing), ("unknown to the model", unexpected), ("of another shape", shapes))
    return [f"{len(names)} {kind}: {_some(names)}" for kind, names in kinds if names]


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")

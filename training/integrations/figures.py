"""What a training loop logs of a sparsifier, and how one is found under the wrappers of the loops."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch.optim import Optimizer

from ...passes.errors import SparsefxError
from ..history import MaskUpdate
from ..sparsifier import Sparsifier

_DEEPEST = 4  # wrappers around an optimizer
_OF_UPDATES = ("iou", "survived", "drop_fraction", "dropped", "grown", "active_channels", "removed_channels")


def find_sparsifier(optimizers: Iterable[Any]) -> Sparsifier:
    """The sparsifier among optimizers that a loop may have wrapped.

    Raises SparsefxError where there is none or more than one.
    """
    given = list(optimizers)
    found = [one for one in map(_unwrapped, given) if isinstance(one, Sparsifier)]
    if len(found) != 1:
        names = ", ".join(type(_unwrapped(optimizer)).__name__ for optimizer in given) or "none"
        raise SparsefxError(
            f"expected one sparsifier among the optimizers, found {len(found)} (the optimizers: {names}); "
            "hand the loop sparsefx.training.SRigL(model, optimizer, ...), or another method, as its optimizer"
        )
    return found[0]


def _unwrapped(optimizer: Any) -> Any:
    """The sparsifier that wrappers hold as `optimizer`, or the innermost optimizer.

    Lightning's wrapper passes for an instance of the class it wraps: what counts is whether it holds masks itself.
    """
    for _ in range(_DEEPEST):
        inner = getattr(optimizer, "optimizer", None)
        if "layers" in vars(optimizer) or not isinstance(inner, Optimizer):
            break
        optimizer = inner
    return optimizer


def figures(sparsifier: Sparsifier) -> dict[str, float]:
    """Sparsity and non-zeros now, and what the last mask update did (see MaskUpdate): numbers under `sparsifier/`."""
    now = {"sparsity": sparsifier.sparsity, "nonzeros": float(sparsifier.nonzeros)}
    if sparsifier.history:
        now |= _of_update(sparsifier.history[-1])
    return {f"sparsifier/{name}": value for name, value in now.items()}


def _of_update(update: MaskUpdate) -> dict[str, float]:
    values = {name: getattr(update, name) for name in _OF_UPDATES}
    return {name: float(value) for name, value in values.items() if value is not None}

"""A method's arguments, checked by name before anything else: what is missing, and what it does not take."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Any

from ..passes.errors import SparsefxError
from ..passes.near_names import closest
from .settings import CoreOptions, LayerOptions

_SHARED: dict[str, Any] = {"core": CoreOptions, "layers": LayerOptions}  # by the name of a method's **options
_MEANING = {
    "model": "the nn.Module to train",
    "optimizer": "the torch optimizer of its parameters",
    "total_steps": "the number of sparsifier.step() calls that training will make, len(loader) * epochs",
    "example_inputs": "a tuple of tensors that the model can be called with",
    "loss_fn": "a function of nothing that returns a loss of the model",
}


def checked_arguments(init: Callable[..., None], method: str) -> Callable[..., None]:
    """`init` of a class called `method`, with SparsefxError for arguments that are missing or that it does not take."""
    parameters = dict(list(inspect.signature(init).parameters.items())[1:])
    options = next((p.name for p in parameters.values() if p.kind is p.VAR_KEYWORD), "")
    named = [name for name, p in parameters.items() if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)]
    known = [*named, *getattr(_SHARED.get(options), "__annotations__", ())]
    needed = [name for name in named if parameters[name].default is inspect.Parameter.empty]
    takes_any = bool(options) and options not in _SHARED

    @wraps(init)
    def checked(self: Any, *args: Any, **kwargs: Any) -> None:
        unknown = next((name for name in kwargs if name not in known and not takes_any), None)
        if unknown is not None:
            raise SparsefxError(
                f"{method} has no option {unknown}{closest(unknown, known)}; it takes {', '.join(known[2:])}"
            )
        missing = next((name for name in needed[len(args) :] if name not in kwargs), None)
        if missing is not None:
            meaning = f": {_MEANING[missing]}" if missing in _MEANING else ""
            raise SparsefxError(f"{method} needs {missing}{meaning}")
        init(self, *args, **kwargs)

    return checked

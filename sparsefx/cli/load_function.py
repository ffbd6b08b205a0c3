"""Functions of the user's, by the names that flags give them."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from sparsefx.passes.errors import EvaluationError
from sparsefx.training.recipes.user_modules import importing_from_here


def load_function(flag: str, name: str) -> Callable[..., Any]:
    """What `module:function` names; the current folder's modules can be meant. Raises EvaluationError."""
    module, colon, function = name.partition(":")
    if not colon or not function:
        raise EvaluationError(f"{flag} takes module:function, found {name!r}")
    try:
        with importing_from_here():
            found = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise EvaluationError(f"{flag}: cannot get {function} from module {module}: {error}") from error
    if not callable(found):
        raise EvaluationError(f"{flag}: {name} must be a function, found {type(found).__name__}")
    return found  # type: ignore[no-any-return]

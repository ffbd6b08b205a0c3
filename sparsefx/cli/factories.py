"""Models that a Python function or class makes, named on the command line as module:function."""

from __future__ import annotations

import importlib
import inspect
import os
import sys
import traceback
from contextlib import redirect_stdout, suppress
from types import ModuleType
from typing import Any

from torch import nn

from sparsefx.passes.errors import CaptureError
from sparsefx.passes.near_names import closest
from sparsefx.training.recipes.user_modules import importing_from_here


def call_factory(name: str) -> nn.Module:
    """The model that `module:function` makes; modules of the working folder come first. What they print is no result.

    Raises CaptureError with what is missing, or where in the user's code something was raised.
    """
    module_name, colon, function_name = name.partition(":")
    if not colon or not function_name:
        raise CaptureError(
            f"the model must be module:function, a .pt2 file or an .onnx file, found {name!r}; for a class or a "
            "function that makes the model in mymodels.py, write mymodels:thename"
        )
    with importing_from_here(), redirect_stdout(sys.stderr):
        factory = _factory(_import(module_name), module_name, function_name)
        try:
            model = factory()
        except Exception as error:
            raise CaptureError(
                f"{name} raised {first_line(error)}{_place(error)}; it must make the model when called without "
                "arguments"
            ) from error
    if not isinstance(model, nn.Module):
        raise CaptureError(f"{name} must return a torch.nn.Module, found {type(model).__name__}")
    return model


def _import(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise CaptureError(f"module {name} needs {error.name}, which is not installed{_place(error)}") from error
        raise CaptureError(
            f"there is no module {error.name} in {os.getcwd()} or among the installed packages; run sparsefx in the "
            "folder that has it"
        ) from error
    except Exception as error:
        problem = f"importing module {name} raised {first_line(error)}{_place(error)}"
        raise CaptureError(f"{problem}; mend it first") from error


def _factory(module: ModuleType, module_name: str, name: str) -> Any:
    found = getattr(module, name, None)
    if found is None:
        public = [n for n, value in vars(module).items() if callable(value) and not n.startswith("_")]
        raise CaptureError(f"module {module_name} has no function {name}{closest(name, public)}")
    if not callable(found):
        raise CaptureError(f"{module_name}:{name} must be a function or class, found {type(found).__name__}")
    with suppress(ValueError):  # a callable that does not tell its arguments
        parameters = inspect.signature(found).parameters.values()
        needed = [
            p.name for p in parameters if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
        ]
        if needed:
            raise CaptureError(
                f"{module_name}:{name} must be callable without arguments, it needs {', '.join(needed)}; write a "
                "function around it that gives them"
            )
    return found


def first_line(error: BaseException) -> str:
    """An error in one line."""
    text = str(error).strip()
    return f"{type(error).__name__}: {text.splitlines()[0]}" if text else type(error).__name__


def _place(error: BaseException) -> str:
    """Where in the user's code; nothing where it is not there."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename not in (__file__, importlib.__file__)]
    own = [frame for frame in frames if not frame.filename.startswith("<frozen")]
    return f" ({own[-1].filename}, line {own[-1].lineno})" if own else ""

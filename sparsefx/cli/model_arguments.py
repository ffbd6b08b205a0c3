"""Turn command-line arguments into a model, its weights and example inputs."""

from __future__ import annotations

import importlib
import os
import re
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from sparsefx.passes.errors import CaptureError, MaskError

_DTYPES = ("float32", "float64", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool")
_SHAPE = re.compile(r"(?P<shape>\d+(x\d+)*)(:(?P<dtype>\w+)(:(?P<high>\d+))?)?")


def load_model(arguments: Namespace) -> nn.Module | ExportedProgram:
    """The model that `model` and `--weights` name. Raises CaptureError with what is wrong."""
    name: str = arguments.model
    if name.endswith(".pt2"):
        if arguments.weights:
            raise CaptureError("a .pt2 file has its weights inside; drop --weights")
        return _load_exported(Path(name))
    model = _call_factory(name)
    if arguments.weights:
        _load_weights(model, Path(arguments.weights))
    return model


def example_inputs(arguments: Namespace) -> tuple[Tensor, ...]:
    """Random example tensors of the shapes given with --input."""
    generator = torch.Generator().manual_seed(0)
    return tuple(_example(text, generator) for text in arguments.input)


def _load_exported(path: Path) -> ExportedProgram:
    if not path.is_file():
        raise CaptureError(f"there is no file {path}")
    try:
        return torch.export.load(path)
    except Exception as error:
        raise CaptureError(f"{path} cannot be loaded by torch.export.load: {error}") from error


def _call_factory(name: str) -> nn.Module:
    module_name, colon, function = name.partition(":")
    if not colon or not function:
        raise CaptureError(f"the model must be module:function or a .pt2 file, found {name!r}")
    sys.path.insert(0, os.getcwd())
    try:
        model = getattr(importlib.import_module(module_name), function)()
    except (ImportError, AttributeError) as error:
        raise CaptureError(f"cannot get {function} from module {module_name}: {error}") from error
    except TypeError as error:
        raise CaptureError(f"{name} must be callable without arguments: {error}") from error
    finally:
        sys.path.pop(0)
    if not isinstance(model, nn.Module):
        raise CaptureError(f"{name} must return a torch.nn.Module, found {type(model).__name__}")
    return model


def _load_weights(model: nn.Module, path: Path) -> None:
    state = _read_state(path)
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise MaskError(f"{path} does not fit {type(model).__name__}: {error}") from error


def _read_state(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise MaskError(f"there is no weights file {path}")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return dict(load_file(path))
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise MaskError(
            f"{path} cannot be read safely ({type(error).__name__}: {str(error).splitlines()[0]}); "
            "save the state_dict alone with safetensors.torch.save_file or torch.save"
        ) from error
    for key in ("state_dict", "model"):
        content = content.get(key, content) if isinstance(content, dict) else content
    if not isinstance(content, dict) or not all(isinstance(v, Tensor) for v in content.values()):
        raise MaskError(f"{path} holds no state dict: expected names and tensors, found {type(content).__name__}")
    return {name.removeprefix("module."): tensor for name, tensor in content.items()}


def _example(text: str, generator: torch.Generator) -> Tensor:
    match = _SHAPE.fullmatch(text)
    if match is None:
        raise CaptureError(f"--input must look like 1x3x224x224 or 1x128:int64:30522, found {text!r}")
    shape = [int(size) for size in match["shape"].split("x")]
    name = match["dtype"] or "float32"
    if name not in _DTYPES:
        raise CaptureError(f"--input {text}: {name} is no torch dtype for inputs; use one of {', '.join(_DTYPES)}")
    dtype = getattr(torch, name)
    if dtype.is_floating_point:
        return torch.randn(shape, generator=generator).to(dtype)
    return torch.randint(0, int(match["high"] or 2), shape, generator=generator).to(dtype)

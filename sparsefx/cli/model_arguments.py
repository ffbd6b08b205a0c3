"""Turn command-line arguments into a model, its weights and example inputs."""

from __future__ import annotations

import re
from argparse import Namespace
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from sparsefx.cli.factories import call_factory, first_line
from sparsefx.cli.misfits import misfits
from sparsefx.passes.errors import CaptureError, MaskError
from sparsefx.training.importers import Checkpoint, read_checkpoint
from sparsefx.training.masks import MaskSet
from sparsefx.training.model_weights import weights_of

_DTYPES = ("float32", "float64", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool")
_SHAPE = re.compile(r"(?P<shape>\d+(x\d+)*)(:(?P<dtype>\w+)(:(?P<high>\d+))?)?")


def load_model(arguments: Namespace) -> tuple[nn.Module | ExportedProgram, MaskSet | str | None]:
    """The model that `model` and `--weights` name, and its masks: `--masks`, or those that the weights carry.

    Raises CaptureError and MaskError with what is wrong.
    """
    name: str = arguments.model
    if name.endswith(".pt2"):
        if arguments.weights:
            raise CaptureError("a .pt2 file has its weights inside; drop --weights")
        return _load_exported(Path(name)), arguments.masks
    model = call_factory(name).eval()
    carried = _load_weights(model, Path(arguments.weights)) if arguments.weights else None
    return model, arguments.masks or carried


def example_inputs(arguments: Namespace) -> tuple[Tensor, ...]:
    """Random example tensors of the shapes given with --input."""
    generator = torch.Generator().manual_seed(0)
    return tuple(_example(text, generator) for text in arguments.input)


def _load_exported(path: Path) -> ExportedProgram:
    if not path.is_file():
        raise CaptureError(f"there is no file {path}; torch.export.save writes one")
    try:
        return torch.export.load(path)
    except Exception as error:
        raise CaptureError(
            f"{path} cannot be loaded by torch.export.load ({first_line(error)}); save it again with this version of "
            "torch: torch.export.save"
        ) from error


def _load_weights(model: nn.Module, path: Path) -> MaskSet | None:
    """Load a checkpoint into the model; the masks that it carries, if it does."""
    checkpoint = read_checkpoint(path)
    state = _own_state(model, checkpoint)
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        problems = "; ".join(misfits(model.state_dict(), state)) or first_line(error)
        raise MaskError(
            f"{path} does not fit {type(model).__name__}: {problems}. Use the factory and the sizes that it was "
            "trained with"
        ) from error
    return checkpoint.masks if checkpoint.carries_masks else None


def _own_state(model: nn.Module, checkpoint: Checkpoint) -> dict[str, Tensor]:
    """The weights as this model stores them: those under torch.nn.utils.prune as `..._orig` with a `..._mask`."""
    state = dict(checkpoint.weights)
    for name, weight in weights_of(model).items():
        if weight.pruning is not None and name in state:
            state[weight.own_name] = state.pop(name)
            mask = checkpoint.masks.get(name, torch.ones_like(weight.pruning))
            state[f"{name}_mask"] = mask.to(weight.pruning.dtype)
    return state


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

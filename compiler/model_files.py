"""Models given as files: ONNX, and what torch.export.save writes."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import torch
from torch.export import ExportedProgram
from torch.fx import GraphModule

from ..passes.errors import CaptureError
from .masked_model import MaskedModel
from .onnx_files.compare import compare_with_file
from .onnx_files.read import FIXED_BATCH, SOURCE, read_onnx
from .prepare import Captured, Model
from .sampling import Sample

ModelOrFile = Model | str | os.PathLike[str]


def open_model(model: ModelOrFile) -> Model:
    """The model itself, or that of an .onnx or .pt2 file. Raises CaptureError for a file that cannot be read."""
    if not isinstance(model, str | os.PathLike):
        return model
    path = Path(model)
    if path.suffix == ".onnx":
        return read_onnx(path)
    if path.suffix == ".pt2":
        return _load_exported(path)
    raise CaptureError(f"expected a model, an .onnx file or a .pt2 file of torch.export.save, found {str(model)!r}")


def fixes_its_batch(model: Model) -> bool:
    """Whether the model was read from an ONNX file for one batch size."""
    return isinstance(model, GraphModule) and bool(model.meta.get(FIXED_BATCH))


def compare_with_its_file(model: Model, captured: Captured, samples: Sequence[Sample]) -> str | None:
    """Where the model was read from an ONNX file, compare them; what was found as a note for the report."""
    path = model.meta.get(SOURCE) if isinstance(model, GraphModule) else None
    if path is None:
        return None
    names = [spec.name for spec in captured.signature.outputs]
    reference = MaskedModel(model, {}, captured.graph, captured.signature)
    found = compare_with_file(path, reference, names, samples)
    return f"{path.name} was read within {found.max_error:.1e} standard deviations of ONNX Runtime's own run of it"


def _load_exported(path: Path) -> ExportedProgram:
    if not path.is_file():
        raise CaptureError(f"there is no file {path}; torch.export.save writes one")
    try:
        return torch.export.load(path)
    except Exception as error:  # torch.export.load has no error class of its own
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise CaptureError(
            f"{path} cannot be loaded by torch.export.load ({reason}); save it again with this version of torch: "
            "torch.export.save"
        ) from error

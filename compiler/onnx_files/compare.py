"""A module that was read from an ONNX file against ONNX Runtime's run of the file itself: finds what was misread."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...passes.errors import CaptureError, VerificationError
from ..masked_model import MaskedModel
from ..sampling import Sample, tensors_of
from ..verify import Verification, verify

_TOLERANCE = 1e-4


def compare_with_file(
    path: Path, reference: MaskedModel, names: Sequence[str], samples: Sequence[Sample]
) -> Verification:
    """The file in ONNX Runtime, without its graph optimisations, against the module that was read from it.

    Raises CaptureError, naming the output, where they differ by more than verification allows, and where ONNX
    Runtime cannot run the file.
    """
    session = _session(path)
    inputs = [spec.name for spec in session.get_inputs()]

    def run(sample: Sample) -> list[Tensor]:
        feeds = {name: t.numpy() for name, t in zip(inputs, tensors_of(sample), strict=True)}
        return [torch.from_numpy(output) for output in session.run(None, feeds)]

    try:
        found = verify(run, reference, names, samples, _TOLERANCE)
    except VerificationError as error:
        raise CaptureError(f"{path} in ONNX Runtime is not what was read from it: {error}") from error
    if not found.passed:
        worst = found.worst
        raise CaptureError(
            f"{path} in ONNX Runtime is not what was read from it: output {worst.name!r} differs by "
            f"{worst.max_error:.2e} standard deviations (bound {worst.bound:.2e}). An operator was misread; please "
            "report this with the file, and compile the PyTorch model that it was exported from instead"
        )
    return found


def _session(path: Path) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime has a class for every status
        raise CaptureError(f"ONNX Runtime cannot run {path}: {str(error).strip().splitlines()[0]}") from error

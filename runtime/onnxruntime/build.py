"""An ONNX Runtime engine and the files that it was made of."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch.fx import GraphModule

from ...passes.errors import TargetError
from .. import custom_op_library
from ..build import Build
from ..engine import Engine
from ..latency.time_cache import processor
from ..targets import WEIGHTS
from .known_times import known_times
from .layer_models import LayerForm
from .layer_times import LayerTime
from .lower import lower_to_onnx
from .session import onnxruntime_engine

_SHORT = (torch.float16, torch.bfloat16)  # types that the CPU has few operators for


def _advice(graph_module: GraphModule) -> str:
    """What to do with a model of a type that ONNX Runtime has few operators for."""
    tensors = [*graph_module.parameters(), *graph_module.buffers()]
    short = sorted({str(t.dtype).removeprefix("torch.") for t in tensors if t.dtype in _SHORT})
    return f". The model has {short[0]} weights: compile model.float(), or for a GPU" if short else ""


class OnnxRuntimeBuild(Build):
    """A graph lowered and loaded on the CPU; with precision bf16 condensed linear layers have bfloat16 weights.

    Raises TargetError where an operator has no ONNX form, or ONNX Runtime refuses the file.
    """

    model: Path

    @classmethod
    def kernels(cls) -> Path | None:
        return custom_op_library()

    def lower(self) -> None:
        self.model = lower_to_onnx(self.graph_module, self.signature, self.folder)
        self.states.reach("parsed", "ONNX file")
        self.states.reach("built", "by the session, when it is loaded")
        try:
            self.engine  # noqa: B018 - a file that ONNX Runtime refuses is found now
        except TargetError as error:
            raise TargetError(f"{error}{_advice(self.graph_module)}") from error

    def load(self) -> Engine:
        return onnxruntime_engine(
            self.model, self.signature, self.settings.threads, self.custom_operators, WEIGHTS[self._precision]
        )

    @property
    def _precision(self) -> str:
        return "fp32" if self.custom_operators is None else self.settings.precision

    @property
    def device(self) -> str:
        return processor()

    @property
    def facts(self) -> dict[str, Any]:
        return self.engine.session.settings()

    def layer_times(self, forms: Sequence[LayerForm]) -> list[LayerTime]:
        threads = self.engine.session.settings()["threads"]
        return known_times(forms, threads, custom_op_library(), WEIGHTS[self.settings.precision])

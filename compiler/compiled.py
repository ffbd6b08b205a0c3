"""What a compilation hands back: the slim graph, its engine, the report."""

from __future__ import annotations

import os
import shutil
import tempfile
import weakref
from pathlib import Path

from torch.fx import GraphModule

from ..passes.errors import TargetError
from ..passes.signature import Signature
from ..runtime.engine import Engine
from ..runtime.onnxruntime.lower import lower_to_onnx
from ..runtime.onnxruntime.session import onnxruntime_engine
from ..runtime.targets import TORCH
from .bundle import MODEL, BuildSettings, save_bundle
from .report import Report


class CompiledModel:
    """A compiled model. `graph_module` is callable like the original; `engine()` is the real thing."""

    def __init__(
        self, graph_module: GraphModule, signature: Signature, settings: BuildSettings, report: Report
    ) -> None:
        self.graph_module = graph_module
        self.signature = signature
        self.settings = settings
        self.report = report
        self._folder = Path(tempfile.mkdtemp(prefix="sparsefx-"))
        weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
        self._engine: Engine | None = None

    @property
    def model_file(self) -> Path:
        """The engine's ONNX file, lowered when first asked for."""
        self.engine()
        return self._folder / MODEL

    def engine(self) -> Engine:
        """The engine, ready to run. Raises TargetError for the target `torch`, which has none."""
        if self.settings.target == TORCH.name:
            raise TargetError(
                "target torch stops at the graph: call compiled.graph_module, or compile for onnxruntime:cpu"
            )
        if self._engine is None:
            model = lower_to_onnx(self.graph_module, self.signature, self._folder)
            self._engine = onnxruntime_engine(model, self.signature, self.settings.threads)
            self.report.engine = {"target": self.settings.target, **self._engine.session.settings()}
        return self._engine

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the bundle that `sparsefx.load` reads: a folder, complete or not at all.

        Raises BundleError where something other than a bundle is at `path`, TargetError for the target `torch`.
        """
        self.engine()
        save_bundle(Path(path), self._folder, self.signature, self.settings, self.report.to_dict())

    def __repr__(self) -> str:
        totals = self.report.totals
        share = totals.macs_after / max(totals.macs_before, 1)
        return f"CompiledModel({self.report.model} for {self.settings.target}, {share:.0%} of the multiply-accumulates)"

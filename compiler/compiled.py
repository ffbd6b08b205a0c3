"""What a compilation hands back: the slim graph, its engine, the report."""

from __future__ import annotations

import os
from pathlib import Path

from torch.fx import GraphModule

from ..passes.errors import TargetError
from ..passes.signature import Signature
from ..runtime.build import Build
from ..runtime.engine import Engine
from ..runtime.targets import BuildSettings
from .bundle import save_bundle
from .report import Report


class CompiledModel:
    """A compiled model. `graph_module` is callable like the original; `engine()` is the real thing."""

    def __init__(
        self,
        graph_module: GraphModule,
        signature: Signature,
        settings: BuildSettings,
        report: Report,
        build: Build | None,
    ) -> None:
        self.graph_module = graph_module
        self.signature = signature
        self.settings = settings
        self.report = report
        self.build_or_none = build

    @property
    def build(self) -> Build:
        """The engine with its files. Raises TargetError for the target `torch`, which has none."""
        if self.build_or_none is None:
            raise TargetError(
                "target torch stops at the graph: call compiled.graph_module, or compile for onnxruntime:cpu"
            )
        return self.build_or_none

    def engine(self) -> Engine:
        """The engine, ready to run.

        Raises TargetError for the target `torch`, which has none, and where this machine cannot run the engine.
        """
        return self.build.engine

    def save(self, path: str | os.PathLike[str], *, embed_kernels: bool = False) -> None:
        """Write the bundle that `sparsefx.load` reads: a folder, complete or not at all.

        `embed_kernels` puts the compiled kernels of condensed layers into it, for machines without a C++ compiler;
        `load(..., trust_kernels=True)` uses them. Raises BundleError where something other than a bundle is at
        `path`, or where there are no condensed layers to embed kernels for; TargetError for the target `torch`.
        """
        save_bundle(Path(path), self.build, self.settings, self.report.to_dict(), embed_kernels=embed_kernels)

    def __repr__(self) -> str:
        totals = self.report.totals
        share = totals.macs_after / max(totals.macs_before, 1)
        return f"CompiledModel({self.report.model} for {self.settings.target}, {share:.0%} of the multiply-accumulates)"

"""What a compilation hands back: the slim graph, its engine, the report."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from torch.fx import GraphModule

from ..passes.errors import TargetError
from ..passes.signature import Signature
from ..runtime.build import Build
from ..runtime.engine import Engine
from ..runtime.files import write_whole
from ..runtime.latency.table import LatencyTable
from ..runtime.targets import BuildSettings
from .bundle import save_bundle, versions
from .report import Report
from .reporting.card import model_card
from .reporting.data import PageData
from .reporting.page import report_page
from .reporting.staircases import staircase_charts
from .reporting.training import training_charts

if TYPE_CHECKING:
    from ..training.history import MaskUpdate
    from ..training.recipes.trained import EpochLog


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

    def save_report(
        self,
        path: str | os.PathLike[str],
        *,
        name: str | None = None,
        latency_table: LatencyTable | str | os.PathLike[str] | None = None,
        history: Sequence[MaskUpdate] = (),
        epochs: Sequence[EpochLog] = (),
    ) -> None:
        """Write the report as one HTML page that needs nothing else: no network, no scripts.

        `name` is the page's title (the model's class). A `latency_table` of the model adds its layers' staircases;
        `history` (`sparsifier.history`) and `epochs` (`Trained.log`) what training did. The file appears whole or not
        at all. Raises TableError for a table that cannot be read, SparsefxError where the page cannot be written.
        """
        given = latency_table
        table = LatencyTable.load(Path(given)) if isinstance(given, str | os.PathLike) else given
        page = replace(
            self._page(name),
            staircases=() if table is None else staircase_charts(table, self.report.to_dict()),
            training=training_charts([asdict(u) for u in history], [asdict(e) for e in epochs]),
        )
        write_whole(Path(path), report_page(page).encode())

    def model_card(self, name: str | None = None) -> str:
        """A model card in Markdown, with its metadata in front: the report's figures, and how to load the bundle."""
        return model_card(self._page(name))

    def _page(self, name: str | None) -> PageData:
        files = None if self.build_or_none is None else sum(file.stat().st_size for file in self.build_or_none.files)
        return PageData(
            self.report.to_dict(), asdict(self.settings), name or self.report.model, files, versions=versions()
        )

    def __repr__(self) -> str:
        totals = self.report.totals
        share = totals.macs_after / max(totals.macs_before, 1)
        return f"CompiledModel({self.report.model} for {self.settings.target}, {share:.0%} of the multiply-accumulates)"

"""`sparsefx.profile`: a latency table of a model's layers, measured in the model's own engine."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.fx import GraphModule

from ...passes.describe import describe
from ...passes.errors import TableError
from .context import WhatIf, this_setting
from .prepared import prepared_with, specs
from .profiler import OnProgress, Profiler
from .record import WARM
from .table import LatencyTable


def profile(
    model: nn.Module | GraphModule,
    example_inputs: tuple[Any, ...],
    *,
    target: str = "onnxruntime:cpu",
    grid: Sequence[float] | None = None,
    threads: int | None = None,
    path: str | Path | None = None,
    time_limit: float | None = None,
    tight: float = 0.02,
    weights: str = WARM,
    precision: str = "fp32",
    shard: tuple[int, int] = (1, 1),
    on_progress: OnProgress | None = None,
) -> LatencyTable:
    """Measure how long every operator of a model's engine takes at other widths, as a table.

    The model is prepared and lowered as `compile` does it, cut to designed widths, and its engine's operators are
    timed in their place. `grid` are the levels, shares of the full width (a prime number of them, 1.0 first), all of
    which are then measured; without it a first round is, of about 75 networks in blocks and beside them, and a second
    one between its levels until networks not measured before are foretold within 2% in the median and 5% at most.
    The batch is the examples'. A table at `path` is gone on with: what it has is not measured again, and
    a kill loses one network at most. `time_limit` in seconds ends early. Each network is repeated until its median
    is certain within `tight`; `weights` are "warm" as in an engine that runs again and again, or "cold", where other
    memory is read before every run. `shard` (i, n) measures the i-th of n parts, to be merged.

    Tables are made of every target whose engines run here and tell the time of every operator: `torch` has none, and
    `onnxruntime:tensorrt` tells one time for all. `precision` is that of a GPU's engines; on the CPU it is fp32, and on
    a GPU weights are warm. Nothing of tables for GPUs has run on one yet.

    Raises CaptureError, TargetError where the target cannot be profiled here (before any work), and TableError where
    `path` holds a table of another setting.
    """
    _check(grid, shard)
    tensors = [t for t in example_inputs if isinstance(t, Tensor)]
    batch = int(tensors[0].shape[0]) if tensors and tensors[0].ndim else 1
    setting = this_setting(target, threads, batch, weights, precision)
    graph = model if isinstance(model, GraphModule) else prepared_with(model, tuple(example_inputs))
    what_if = WhatIf(graph, describe(graph), setting)
    header = {
        "setting": dict(setting.__dict__),
        "inputs": specs(tuple(example_inputs)),
        "date": datetime.now(UTC).date().isoformat(),
        "versions": {name: version(name) for name in ("sparsefx", "torch", "onnx")},
    }
    file = Path(path) if path is not None else None
    profiler = Profiler(
        what_if, _name(model, graph), setting, header, file, grid, time_limit, tight, shard, on_progress
    )
    return profiler.run()


def _name(model: nn.Module, graph: GraphModule) -> str:
    """The model's class, and a digest of its operators and sizes."""
    text = "\n".join(
        f"{n.op} {n.target} {tuple(n.meta['val'].shape) if isinstance(n.meta.get('val'), Tensor) else ''}"
        for n in graph.graph.nodes
    )
    return f"{type(model).__name__} {hashlib.sha256(text.encode()).hexdigest()[:8]}"


def _check(grid: Sequence[float] | None, shard: tuple[int, int]) -> None:
    if grid is not None and (len(grid) < 2 or any(not 0 < level <= 1 for level in grid)):
        raise TableError(f"grid must be shares of the full width between 0 and 1, at least two, found {list(grid)}")
    if grid is not None and any(len(grid) % divisor == 0 for divisor in range(2, len(grid))):
        raise TableError(f"grid must have a prime number of levels (2, 3, 5, 7, ...), found {len(grid)}")
    if not 1 <= shard[0] <= shard[1]:
        raise TableError(f"shard must be (i, n) with 1 <= i <= n, found {shard}")

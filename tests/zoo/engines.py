"""A model of the sweep as NVIDIA engines, built without a GPU: dense in fp32 and fp16, and with condensed layers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn

from sparsefx.compiler.choice import CONDENSED, DENSE
from sparsefx.compiler.choose import choose
from sparsefx.compiler.pipeline import run_pipeline
from sparsefx.compiler.prepare import capture_masked
from sparsefx.compiler.sampling import Sample
from sparsefx.runtime.targets import BuildSettings
from sparsefx.runtime.tensorrt.build import TensorRTBuild
from sparsefx.runtime.tensorrt.builder import run_job
from sparsefx.runtime.tensorrt.job import Job, Outcome, Plan
from sparsefx.runtime.tensorrt.precision import convert_precision

from . import masks
from .alive import images, revive_zero_layers
from .models import ZooModel

TARGET = "tensorrt-rtx:sm80+sm89+sm120"
_MAX_BATCH = 8


@dataclass(frozen=True)
class EngineRow:
    """One engine for all three processors, with a batch of 1 to 8; `scratch_bytes` of device memory at that batch."""

    model: str
    size: int
    form: str
    precision: str
    processors: tuple[str, ...]
    condensed_layers: int
    network_layers: int
    engine_bytes: int
    scratch_bytes: int
    build_seconds: float  # of the builder alone

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def build_engines(model: ZooModel) -> Iterator[EngineRow]:
    """Prune 30% of the filters and 95% of the weights, and build every form. Raises what building raises."""
    module = _pruned(model)
    example = images(1, model.size, torch.Generator().manual_seed(3)).float()
    captured = capture_masked(module, Sample((example,), {}), None, True, None)
    run_pipeline(captured.graph)
    dense = TensorRTBuild(
        captured.graph, captured.signature, BuildSettings(TARGET, "fp32", None, _MAX_BATCH), [example]
    )
    yield _row(model, DENSE, "fp32", dense.outcome)
    yield _row(model, DENSE, "fp16", _in_half(dense))
    condensed, choice = choose(captured.graph, dense, [example], CONDENSED)
    assert isinstance(condensed, TensorRTBuild)
    yield _row(model, CONDENSED, "fp32", condensed.outcome, sum(x.representation == CONDENSED for x in choice.layers))


def _pruned(model: ZooModel) -> nn.Module:
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    module = model.build().eval()
    revive_zero_layers(module)
    for pattern in ("filters 30%", "unstructured 95%"):
        masks.apply(module, masks.MASKS[pattern](module, generator))
    return module


def _row(model: ZooModel, form: str, precision: str, outcome: Outcome, condensed: int = 0) -> EngineRow:
    (engine,) = outcome.engines
    return EngineRow(
        model.name,
        model.size,
        form,
        precision,
        engine.processors,
        condensed,
        len(outcome.layers),
        engine.engine_bytes,
        engine.memory["scratch"],
        engine.seconds,
    )


def _in_half(build: TensorRTBuild) -> Outcome:
    """The same file in float16, without lowering the graph again."""
    source, engine = build.folder / "half.onnx", build.folder / "half.engine"
    convert_precision(build.model, source, "fp16")
    (built,) = build.outcome.engines
    return run_job(
        Job(TARGET.partition(":")[0], str(source), (Plan(str(engine), built.processors),), build.profile.shapes)
    )

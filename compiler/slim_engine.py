"""From a masked graph to the engine without the channels that can go."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor
from torch.fx import GraphModule

from ..passes.channels.rules import OperatorRule
from ..passes.signature import Signature
from ..runtime.build import Build
from ..runtime.latency.table import LatencyTable
from ..runtime.targets import TORCH, BuildSettings
from .backends import backend_of
from .choice import Choice
from .choose import choose
from .pipeline import PipelineResult, run_pipeline
from .stages import Stages


@dataclass(frozen=True)
class SlimEngine:
    """A graph without the channels that went, and the engine that was chosen for it; none for the target torch."""

    graph: GraphModule
    result: PipelineResult
    build: Build | None = None
    choice: Choice | None = None


@dataclass(frozen=True)
class EngineMaker:
    """How graphs become engines in one compilation; engines are measured on `inputs`.

    `table` decides representations where the engines cannot run here.
    """

    signature: Signature
    settings: BuildSettings
    inputs: Sequence[Tensor]
    representation: str
    rules: Mapping[str, OperatorRule] | None
    table: LatencyTable | None = None

    def make(self, graph: GraphModule, stages: Stages, least: Mapping[str, int] | None = None) -> SlimEngine:
        """Slim the graph, in place, but for the `least` output channels of layers, and build its fastest engine.

        Raises TargetError where it cannot be built.
        """
        with stages("passes"):
            result = run_pipeline(graph, self.rules, least=least)
        return self.finish(graph, result, stages)

    def finish(self, graph: GraphModule, result: PipelineResult, stages: Stages) -> SlimEngine:
        """The fastest engine of a graph whose channels are those that stay. Raises TargetError."""
        if self.settings.target == TORCH.name:
            return SlimEngine(graph, result)
        with stages("lowering"):
            make = backend_of(self.settings.target, self.settings.precision).build
            dense = make(graph, self.signature, self.settings, self.inputs)
        with stages("representations"):
            build, choice = choose(graph, dense, self.inputs, self.representation, self.table)
        return SlimEngine(graph, result, build, choice)

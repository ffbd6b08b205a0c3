"""The ordered list of passes, and running it to a fixed point."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from torch.fx import GraphModule

from ..passes.base import GraphPass
from ..passes.channels.analysis import ChannelAnalysis
from ..passes.channels.rules import OperatorRule
from ..passes.fold_batch_norm import FoldBatchNorm
from ..passes.fold_constants import FoldConstants
from ..passes.fold_unreached import FoldUnreached
from ..passes.remove_channels import RemoveChannels
from ..passes.share_constants import ShareConstants
from .report import Step

_MOST_ROUNDS = 20  # two are usual; the bound only turns a pass that never settles into an error


@dataclass(frozen=True)
class PipelineResult:
    """The steps taken, and the channel analysis of the final graph."""

    steps: tuple[Step, ...]
    analysis: ChannelAnalysis


def pipeline(
    rules: Mapping[str, OperatorRule] | None = None,
) -> tuple[list[GraphPass], list[GraphPass], list[GraphPass]]:
    """The passes in order: once at the start, repeated until none of them changes anything, once at the end."""
    return (
        [FoldConstants(), FoldBatchNorm()],
        [FoldUnreached(rules), FoldBatchNorm(), RemoveChannels(rules)],
        [ShareConstants()],
    )


class Observer(Protocol):
    """Sees the graph before and after every pass."""

    def before(self, graph_pass: GraphPass) -> None: ...

    def after(self, graph_pass: GraphPass, step: Step) -> None: ...


def run_pipeline(
    graph_module: GraphModule, rules: Mapping[str, OperatorRule] | None = None, observer: Observer | None = None
) -> PipelineResult:
    """Run the pipeline on a captured graph, in place."""
    first, repeated, last = pipeline(rules)
    steps: list[Step] = []

    def run(passes: list[GraphPass]) -> bool:
        before = len(steps)
        for graph_pass in passes:
            if observer is not None:
                observer.before(graph_pass)
            steps.append(_timed(graph_pass, graph_module))
            if observer is not None:
                observer.after(graph_pass, steps[-1])
        return any(step.modified for step in steps[before:])

    run(first)
    rounds = 1
    while run(repeated):
        rounds += 1
        if rounds > _MOST_ROUNDS:
            unsettled = [s.name for s in steps[-3:] if s.modified]
            raise RuntimeError(f"the passes {unsettled} did not settle in {_MOST_ROUNDS} rounds")
    run(last)
    analysis = next(p.analysis for p in repeated if isinstance(p, RemoveChannels))
    assert analysis is not None
    return PipelineResult(tuple(steps), analysis)


def _timed(graph_pass: GraphPass, graph_module: GraphModule) -> Step:
    start = time.perf_counter()
    result = graph_pass(graph_module)
    assert result is not None
    return Step(type(graph_pass).__name__, result.modified, time.perf_counter() - start)

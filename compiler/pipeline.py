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


@dataclass(frozen=True)
class Pipeline:
    """The passes in order: once at the start; then `fold` and `remove` in turn until nothing changes; once at the end.

    `remove` leaves nothing that it could remove, so the turns end as soon as `fold` finds nothing after it.
    """

    start: tuple[GraphPass, ...]
    fold: tuple[GraphPass, ...]
    remove: RemoveChannels
    end: tuple[GraphPass, ...]


def pipeline(rules: Mapping[str, OperatorRule] | None = None, least: Mapping[str, int] | None = None) -> Pipeline:
    """The passes that `compile` runs, with `rules` and `least` as in RemoveChannels."""
    return Pipeline(
        start=(FoldConstants(), FoldBatchNorm()),
        fold=(FoldUnreached(rules), FoldBatchNorm()),
        remove=RemoveChannels(rules, least),
        end=(ShareConstants(),),
    )


class Observer(Protocol):
    """Sees the graph before and after every pass."""

    def before(self, graph_pass: GraphPass) -> None: ...

    def after(self, graph_pass: GraphPass, step: Step) -> None: ...


def run_pipeline(
    graph_module: GraphModule,
    rules: Mapping[str, OperatorRule] | None = None,
    observer: Observer | None = None,
    least: Mapping[str, int] | None = None,
) -> PipelineResult:
    """Run the pipeline on a captured graph, in place; `rules` and `least` as in RemoveChannels."""
    passes = pipeline(rules, least)
    steps: list[Step] = []

    def run(*group: GraphPass) -> bool:
        before = len(steps)
        for graph_pass in group:
            if observer is not None:
                observer.before(graph_pass)
            steps.append(_timed(graph_pass, graph_module))
            if observer is not None:
                observer.after(graph_pass, steps[-1])
        return any(step.modified for step in steps[before:])

    run(*passes.start)
    run(*passes.fold)
    for _ in range(_MOST_ROUNDS):
        run(passes.remove)
        if not run(*passes.fold):
            break
    else:
        raise RuntimeError(f"the passes did not settle in {_MOST_ROUNDS} rounds")
    run(*passes.end)
    assert passes.remove.final_analysis is not None
    return PipelineResult(tuple(steps), passes.remove.final_analysis)


def _timed(graph_pass: GraphPass, graph_module: GraphModule) -> Step:
    start = time.perf_counter()
    result = graph_pass(graph_module)
    assert result is not None
    return Step(type(graph_pass).__name__, result.modified, time.perf_counter() - start)

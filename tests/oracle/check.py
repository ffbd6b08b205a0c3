"""A network, captured once, under many masks: run the pipeline and compare what is left with the oracle."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.fx import GraphModule

from sparsefx.compiler.pipeline import run_pipeline
from sparsefx.passes.capture import capture
from tests.helpers import TOLERANCE, MakeInputs, copied, inputs_like, worst_error

from .compare import Outcome, compare
from .masks import draw_weights
from .nets import OracleNet
from .patching import Oracle
from .smallest import Carriers


@dataclass(frozen=True)
class Case:
    """One network under one mask: what the oracle knows, and what the pipeline kept."""

    oracle: Oracle
    carriers: Carriers
    outcome: Outcome
    error: float  # of the rewritten graph, in deviations of the output over inputs

    def inexact(self) -> list[str]:
        return [] if self.error <= TOLERANCE else [f"the outputs are off by {self.error:.1e}"]


class Subject:
    """A captured network, to be put under masks."""

    def __init__(self, build: Callable[[], OracleNet], size: tuple[int, int] = (12, 12)) -> None:
        self.size = size
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.net = build().double().eval()
        self._captured: GraphModule = capture(self.net, self.inputs(0)(2))

    def inputs(self, seed: int) -> MakeInputs:
        return inputs_like((3, *self.size), seed=seed)

    def case(self, mask: str, seed: int) -> Case:
        """New weights under a mask of that kind; the seed decides everything."""
        make_inputs = self.inputs(seed)
        draw_weights(self.net, mask, make_inputs, torch.Generator().manual_seed(seed))
        graph_module = copied(self._captured)
        result = run_pipeline(graph_module)
        oracle = Oracle(self.net, make_inputs)
        outcome = compare(oracle, graph_module, result)
        error = worst_error(graph_module, self.net, make_inputs)
        return Case(oracle, Carriers(oracle, make_inputs), outcome, error)

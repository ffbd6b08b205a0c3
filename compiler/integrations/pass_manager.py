"""The passes for torch.fx's PassManager (torch.fx.passes.infra.pass_manager).

    passes = passes_in_order()
    manager = PassManager(passes, in_this_order(passes), steps=20, run_checks_after_each_pass=True)
    manager.add_checks(check_graph)
    manager(capture(model, (example,)))

`steps` is how often the list is run at most: it ends as soon as nothing changes. Passes of your own may go anywhere;
with constraints given the manager sorts its passes anew, and `in_this_order` is what keeps these in their order.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

from torch.fx.passes.infra.pass_manager import this_before_that_pass_constraint

from ...passes.base import GraphPass, check_graph
from ...passes.channels.rules import OperatorRule
from ..pipeline import pipeline

Constraint = Callable[[Callable[..., Any], Callable[..., Any]], bool]

__all__ = ["check_graph", "in_this_order", "passes_in_order"]


def passes_in_order(
    rules: Mapping[str, OperatorRule] | None = None, least: Mapping[str, int] | None = None
) -> list[GraphPass]:
    """What `sparsefx.compile` runs, as one list to be run until nothing changes; arguments as in RemoveChannels."""
    passes = pipeline(rules, least)
    return [*passes.start, *passes.fold, passes.remove, *passes.end]


def in_this_order(passes: Sequence[Callable[..., Any]]) -> list[Constraint]:
    """Constraints that keep each of these passes behind the one in front of it."""
    return [this_before_that_pass_constraint(first, second) for first, second in pairwise(passes)]

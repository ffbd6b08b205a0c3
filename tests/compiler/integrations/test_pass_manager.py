"""The passes in torch.fx's PassManager: the same graphs as sparsefx's own pipeline makes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.fx import GraphModule, symbolic_trace
from torch.fx.passes.infra.pass_base import PassBase, PassResult
from torch.fx.passes.infra.pass_manager import PassManager, this_before_that_pass_constraint

from sparsefx.compiler.integrations.pass_manager import check_graph, in_this_order, passes_in_order
from sparsefx.compiler.pipeline import run_pipeline
from sparsefx.passes.capture import capture
from sparsefx.passes.errors import PassError
from tests.helpers import copied

from .models import assert_same, images, masked, numbers, small


def managed(passes: list[Any], constraints: list[Any] | None = None) -> PassManager:
    manager = PassManager(passes, constraints, steps=20, run_checks_after_each_pass=True)
    manager.add_checks(check_graph)
    return manager


_LONG = [pytest.param(name, marks=pytest.mark.long) for name in ("mobilenet_v2", "densenet121", "vit_b_32")]


@pytest.mark.parametrize("name", [pytest.param("resnet18", marks=pytest.mark.ci), "squeezenet1_1", *_LONG])
def test_same_as_the_pipeline(name: str) -> None:
    model, size = masked(name)
    graph = capture(model, (images(2, size),))
    own = copied(graph)
    run_pipeline(own)
    result = managed(passes_in_order())(graph)
    assert result.modified
    assert_same(result.graph_module, model, size, batches=(2,))
    assert numbers(result.graph_module) == numbers(own) < numbers(model)


def test_plain_export() -> None:
    model = small()
    dynamic = ({0: torch.export.Dim("batch")},)
    graph = torch.export.export(model, (images(2),), dynamic_shapes=dynamic).module()
    result = managed(passes_in_order())(graph)
    assert_same(result.graph_module, model)
    assert numbers(result.graph_module) < 0.8 * numbers(model)


class CountOperators(PassBase):
    """A pass of the user's."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[int] = []

    def call(self, graph_module: GraphModule) -> PassResult:
        self.seen.append(numbers(graph_module))
        return PassResult(graph_module, False)


def test_among_passes_of_others() -> None:
    model, passes, first, last = small(), passes_in_order(), CountOperators(), CountOperators()
    constraints = [
        *in_this_order(passes),
        this_before_that_pass_constraint(first, passes[0]),
        this_before_that_pass_constraint(passes[-1], last),
    ]
    manager = managed([last, *reversed(passes), first], constraints)
    result = manager(capture(model, (images(2),)))
    assert manager.passes == [first, *passes, last]
    assert_same(result.graph_module, model)
    assert last.seen[0] < first.seen[0]
    assert first.seen[-1] == last.seen[-1]  # the last time round nothing changed


def test_it_ends_by_itself_and_finds_nothing_again() -> None:
    graph = capture(small(), (images(2),))
    counter = CountOperators()
    managed([counter, *passes_in_order()])(graph)
    assert 1 < len(counter.seen) < 6
    assert not managed(passes_in_order())(graph).modified


def test_a_graph_without_shapes_names_what_to_do() -> None:
    graph = symbolic_trace(nn.Sequential(nn.Linear(4, 4)))
    with pytest.raises(PassError, match=r"the graph has no shapes; capture it with sparsefx\.passes\.capture"):
        managed(passes_in_order())(graph)
    with pytest.raises(Exception, match="running the 'FoldConstants' pass") as error:
        PassManager(passes_in_order())(graph)
    assert isinstance(error.value.__cause__, PassError)


def test_the_check_finds_a_broken_graph() -> None:
    graph = capture(small(), (images(2),))
    check_graph(graph)
    layer = next(node for node in graph.graph.nodes if node.target is torch.ops.aten.linear.default)
    layer.args = (layer.args[0], layer.args[2], layer.args[1])
    with pytest.raises(PassError, match="a graph that does not hold together"):
        check_graph(graph)

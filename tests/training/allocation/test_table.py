"""Latency tables as costs of budgets: figures, what lies below them, what is no layer, and what they refuse."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sparsefx.passes.errors import SparsefxError, TableError
from sparsefx.runtime.latency.node import EngineNode
from sparsefx.runtime.latency.record import NodeTime, Record
from sparsefx.runtime.latency.table import LatencyTable
from sparsefx.training import HALP, ChannelIEE, UniformChannels
from sparsefx.training.allocation.costs import FLOPs
from sparsefx.training.allocation.layer import Layer, layers_of
from sparsefx.training.allocation.model import network_costs
from sparsefx.training.allocation.solve import solve
from sparsefx.training.allocation.table import TableCosts, as_costs

from ...runtime.latency.helpers import SETTING
from ..helpers import sgd
from .problems import best_of_all

STEM, WIDE = (4, 8, 12, 16), (6, 12, 18, 24)
EXAMPLE = (torch.zeros(2, 3, 8, 8),)
REST = 5e-5  # seconds of what is no layer, for every channel of the stem


class Depthwise(nn.Module):
    """Widths `stem` (two layers, one of them depthwise) and `wide`."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.depth = nn.Conv2d(16, 16, 3, padding=1, groups=16)
        self.wide = nn.Conv2d(16, 24, 1)
        self.head = nn.Linear(24, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.depth(F.relu(self.stem(x))))
        logits: Tensor = self.head(F.relu(self.wide(x)).mean((2, 3)))
        return logits


def seconds(layer: str, inputs: int, outputs: int) -> float:
    """Odd multiples of six inputs run on a kernel that is twice as slow; outputs are padded to blocks of four."""
    if layer == "depth":
        return 1e-5 + 2e-6 * outputs
    slow = 2 if layer == "head" and inputs % 12 else 1
    return slow * (1e-5 + 1e-6 * inputs * outputs)


def record(stem: int, wide: int, without: str = "") -> Record:
    channels = {"stem": (3, stem), "depth": (stem, stem), "wide": (stem, wide), "head": (wide, 5)}
    nodes = []
    for layer, (a, b) in channels.items():
        key = f"{layer}{', plain' if layer == 'head' and a % 12 else ''}"
        if layer != without:
            nodes.append(NodeTime(EngineNode(layer, key, (a, b), layer, (a, b)), seconds(layer, a, b), 0.01))
    nodes.append(NodeTime(EngineNode("pool", "Pool", (64 * stem, stem)), REST * stem, 0.01))
    whole = sum(timed.seconds for timed in nodes)
    return Record("net", {"stem": stem, "wide": wide}, tuple(nodes), whole, 0.01, 10, 1e-3)


def table(without: str = "") -> LatencyTable:
    return LatencyTable(SETTING, [record(a, b, without) for a, b in product(STEM, WIDE)])


def layers() -> dict[str, Layer]:
    return {layer.name: layer for layer in layers_of(Depthwise(), EXAMPLE)}


def test_costs_are_the_tables_milliseconds_and_all_channels_cost_what_their_engine_took() -> None:
    whole = network_costs(Depthwise(), EXAMPLE, table())
    assert isinstance(whole.costs, TableCosts) and whole.costs.unit == "ms"
    layers_of_all = sum(seconds(*s) for s in (("stem", 3, 16), ("depth", 16, 16), ("wide", 16, 24), ("head", 24, 5)))
    around = 1 + 16 * REST / layers_of_all
    assert whole.costs.around == pytest.approx(around)
    assert whole.cost([16, 24]) == pytest.approx(1e3 * record(16, 24).whole, rel=0.02)
    expected = {
        "stem.weight": seconds("stem", 3, 8),
        "depth.weight": seconds("depth", 8, 8),
        "wide.weight": seconds("wide", 8, 18),
        "head.weight": seconds("head", 18, 5),
    }
    found = whole.by_layer([8, 18])
    assert found == pytest.approx({name: 1e3 * around * s for name, s in expected.items()}, rel=0.05)


def test_of_two_kernels_the_one_that_runs_at_these_inputs_counts() -> None:
    costs, head = TableCosts(table()), layers()["head.weight"]
    slow, fast = costs.cost(head, np.array([18, 24]), np.array([5]))[:, 0]
    assert slow > fast
    cheapest = TableCosts(table(), envelope=True).cost(head, np.array([18, 24]), np.array([5]))[:, 0]
    assert cheapest[0] <= fast < slow and cheapest[1] == pytest.approx(fast)


def test_counts_below_the_measured_ones_cost_as_much_as_the_least() -> None:
    costs, wide = TableCosts(table()), layers()["wide.weight"]
    found = costs.cost(wide, np.array([1, 3, 4]), np.array([1, 6, 12]))
    assert found.shape == (3, 3)
    assert (found == found[2]).all() and (found[:, 0] == found[:, 1]).all() and (found[:, 1] < found[:, 2]).all()


def test_a_depthwise_layer_is_asked_for_equal_counts() -> None:
    whole = network_costs(Depthwise(), EXAMPLE, table())
    problem = whole.choose([np.ones(n) for n in whole.full])
    (term,) = [t for t in problem.terms if t.name == "depth.weight"]
    assert term.table.ndim == 1 and term.table[3] < term.table[7] < term.table[15]
    budget = 0.5 * whole.cost(whole.full)
    found = solve(problem, budget)
    assert found.optimal and found.value == pytest.approx(best_of_all(problem, budget))


def test_a_table_of_something_else_is_refused() -> None:
    with pytest.raises(TableError, match=r"layer 'wide' is not in the latency table; it has stem, depth, head"):
        network_costs(Depthwise(), EXAMPLE, table(without="wide")).cost([16, 24])
    other = Depthwise()
    other.wide, other.head = nn.Conv2d(16, 20, 1), nn.Linear(20, 5)
    with pytest.raises(TableError, match=r"has wide with 16 inputs and 24 outputs, this model with 16 and 20; profile"):
        network_costs(other, EXAMPLE, table()).cost([16, 20])


def test_costs_are_taken_as_a_table_its_file_or_as_they_are(tmp_path: Path) -> None:
    file = tmp_path / "net.latency"
    table().save(file)
    read = as_costs(file)
    assert isinstance(read, TableCosts) and read.around == as_costs(table()).around  # type: ignore[attr-defined]
    assert as_costs(str(file)).unit == "ms"
    flops = FLOPs()
    assert as_costs(flops) is flops and isinstance(as_costs(None), FLOPs)
    with pytest.raises(TableError, match="cannot be read"):
        as_costs(tmp_path / "missing.latency")
    with pytest.raises(TableError, match="must be a latency table, the path of one, or have cost and unit, found 3"):
        as_costs(3)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("method", "options"),
    [
        (ChannelIEE, {"stages": (2, 2, 2), "stop": 1.0}),
        (HALP, {"rounds": 1, "interval": 2}),
        (HALP, {"rounds": 2, "interval": 2, "solver": "exact"}),
        (UniformChannels, {}),
    ],
)
def test_methods_spend_milliseconds(method: Any, options: dict[str, Any]) -> None:
    """The last update is logged in the table's milliseconds, which are those of the masks."""
    torch.manual_seed(0)
    model, limit = Depthwise(), 0.6e3 * record(16, 24).whole
    given = {"total_steps": 12, "example_inputs": EXAMPLE, "costs": table(), "prune_first": True}
    sparsifier = method(model, sgd(model), latency_budget=limit, **given, **options)
    for step in range(12):
        images = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(step))
        sparsifier.zero_grad()
        F.cross_entropy(model(images), torch.arange(4)).backward()  # type: ignore[no-untyped-call]
        sparsifier.step()
    last = sparsifier.budget_history[-1]
    assert sparsifier.budget.total == limit and last.cost <= limit < sparsifier.budget.dense
    masks = sparsifier.masks()
    kept = [int(masks[f"{name}.weight"].flatten(1).any(1).sum()) for name in ("stem", "wide")]
    assert last.kept == dict(zip(("stem", "wide"), kept, strict=True))
    assert last.cost == pytest.approx(network_costs(Depthwise(), EXAMPLE, table()).cost(kept))


def test_a_budget_in_milliseconds_needs_a_table() -> None:
    model = Depthwise()
    given: dict[str, Any] = {"total_steps": 12, "example_inputs": EXAMPLE}
    with pytest.raises(SparsefxError, match="latency_budget is in milliseconds, the costs in FLOPs; give costs="):
        ChannelIEE(model, sgd(model), latency_budget=1.0, **given)
    with pytest.raises(SparsefxError, match="latency_budget must be positive, found 0"):
        HALP(model, sgd(model), latency_budget=0.0, costs=table(), **given)
    with pytest.raises(SparsefxError, match=r"a budget of 0.001 cannot be met: .* costs .* already"):
        UniformChannels(model, sgd(model), latency_budget=1e-3, costs=table(), **given)

"""A second round looks where times bend."""

from __future__ import annotations

import itertools

import numpy as np

from sparsefx.runtime.latency.node import EngineNode
from sparsefx.runtime.latency.record import NodeTime, Record
from sparsefx.runtime.latency.refine import refined_levels
from sparsefx.runtime.latency.table import LatencyTable
from sparsefx.runtime.latency.widths import WidthGroup

from .helpers import SETTING

EDGES = (1.0, 0.75, 0.5, 0.25)
GROUPS = [
    WidthGroup("bent", ("first",), ("second",), 400, tuple(range(400))),
    WidthGroup("straight", ("second",), ("third",), 400, tuple(range(400))),
]


def seconds(c_in: int, c_out: int) -> float:
    """Outputs beyond 300 cost twenty times as much; inputs are a straight line."""
    return 1e-6 * (c_in + c_out + 20 * max(0, c_out - 300))


def table() -> LatencyTable:
    records = []
    for a, b in itertools.product(EDGES, EDGES):
        widths = {"bent": int(400 * a), "straight": int(400 * b)}
        ends = {"first": (3, widths["bent"]), "second": (8, widths["straight"]), "third": (widths["straight"], 10)}
        nodes = tuple(
            NodeTime(
                EngineNode(name, name, channels, name, channels),
                seconds(*channels) if name == "first" else 1e-6 * sum(channels),
                0.0,
            )
            for name, channels in ends.items()
        )
        records.append(Record("net", widths, nodes, sum(n.seconds for n in nodes), 0.01, 8, 1e-3))
    return LatencyTable(SETTING, records)


def test_new_levels_lie_between_and_mostly_where_times_bend() -> None:
    levels = refined_levels(GROUPS, table(), EDGES, 7)
    assert all(len(of) == 7 and not set(of) & set(EDGES) and min(of) > 0.25 and max(of) < 1 for of in levels.values())
    highest = {name: sum(level > 0.75 for level in of) for name, of in levels.items()}
    assert highest["bent"] >= 5 > highest["straight"]


def test_without_bends_levels_are_spread_evenly() -> None:
    flat = LatencyTable(SETTING, [])
    (levels,) = refined_levels(GROUPS[:1], flat, EDGES, 6).values()
    counts = np.histogram(levels, bins=sorted(EDGES))[0]
    assert counts.tolist() == [2, 2, 2]

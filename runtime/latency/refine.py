"""Where a second round measures: between those widths of each group at which its layers' times bend most.

A bend shows as the error with which a measurement is foretold from all others of its kind.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np

from .design import Levels
from .surface import Floats, Surface
from .table import LatencyTable
from .widths import WidthGroup

_SLACK = 0.02  # of the full width: what rounding to blocks and beside them does to a level
_NOISE = 0.005  # relative errors that tell nothing
_PRIOR = 0.25  # of the mean cost of an interval, so that none is forgotten


def refined_levels(groups: Sequence[WidthGroup], table: LatencyTable, levels: Sequence[float], count: int) -> Levels:
    """For every group `count` new levels, shares of its full width, between the measured `levels`.

    The seconds by which the group's layers are foretold wrongly, at the ends of an interval and within, are what the
    interval costs; each new level goes to the one that costs most per level it has got, evenly spaced in the end.
    """
    costs = _costs(table)
    edges = np.array(sorted(set(levels)))
    return {group.name: _between(edges, _interval_costs(group, costs, edges), count) for group in groups}


_Costs = dict[str, list[tuple[tuple[int, int], float]]]  # layer -> (inputs, outputs) and seconds foretold wrongly


def _costs(table: LatencyTable) -> _Costs:
    wrong = {key: _wrong_seconds(surface) for key, surface in table.surfaces.items()}
    found: dict[str, dict[tuple[int, int], float]] = defaultdict(dict)
    for node in (timed.node for record in table.records for timed in record.nodes):
        if node.layer is not None and node.channels is not None and node.width in wrong[node.key]:
            found[node.layer][node.channels] = wrong[node.key][node.width]
    return {layer: sorted(points.items()) for layer, points in found.items()}


def _wrong_seconds(surface: Surface) -> dict[tuple[int, int], float]:
    errors = np.maximum(np.abs(surface.errors_left_out()), _NOISE)
    return {
        (int(x), int(y)): float(error * seconds)
        for (x, y), error, seconds in zip(surface.widths, errors, surface.seconds, strict=False)
    }


def _interval_costs(group: WidthGroup, costs: _Costs, edges: Floats) -> Floats:
    found: list[list[float]] = [[] for _ in edges[1:]]
    for share, cost in _points(group, costs):
        for i, (low, high) in enumerate(pairwise(edges)):
            if low - _SLACK <= share <= high + _SLACK:
                found[i].append(cost)
    means = np.array([np.mean(interval) if interval else 0.0 for interval in found])
    return np.asarray(means * (edges[1:] - edges[:-1]), np.float64)


def _points(group: WidthGroup, costs: _Costs) -> Iterator[tuple[float, float]]:
    """The group's width, as a share, and what its layers cost there."""
    for layers, axis in ((group.consumers, 0), (group.producers, 1)):
        for layer in layers:
            for channels, cost in costs.get(layer, []):
                yield min(1.0, channels[axis] / group.full), cost


def _between(edges: Floats, costs: Floats, count: int) -> tuple[float, ...]:
    costs = costs + _PRIOR * max(float(costs.mean()), 1e-12) * (edges[1:] - edges[:-1]) / (edges[-1] - edges[0])
    given = np.zeros(len(costs), np.int64)
    for _ in range(count):
        given[np.argmax(costs / (given + 1))] += 1
    return tuple(
        float(low + (high - low) * (place + 1) / (number + 1))
        for (low, high), number in zip(pairwise(edges), given, strict=True)
        for place in range(number)
    )

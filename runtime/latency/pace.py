"""How fast the machine was during every record.

Speed drifts by a few percent between measurements that are minutes apart. A record holds dozens of operators, most of
which other records hold at other widths: the median over its operators of time over what the fit of all records says
(weighted by time) is how slow the machine was. Two rounds of fitting settle it. Networks all of whose operators run
faster than the fit, as those in whole blocks, would pass for a fast machine; so what the calibration engine took
beside them counts as much.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from .record import Record
from .surface import Floats, Surface

_ROUNDS = 2
_DISTURBED = 1.25  # pace over the usual one from which operators are slowed down each in its own way
_TICK = 5e-7  # seconds: half of what ONNX Runtime's profile can tell apart


def surfaces_of(records: Sequence[Record], paces: Floats) -> dict[str, Surface]:
    """Time over widths for every kind of operator; the records' times are divided by their paces.

    Records taken while the machine was clearly slowed down count only where the others do not span the same widths.
    """
    rows: dict[str, list[tuple[float, float, float, float]]] = defaultdict(list)
    products: dict[str, bool] = {}
    for record, pace in zip(records, paces, strict=True):
        for timed in record.nodes:
            rows[timed.node.key].append((*timed.node.width, max(timed.seconds, _TICK) / pace, pace))
            products[timed.node.key] = timed.node.layer is not None
    usual = float(np.percentile(paces, 25)) if len(paces) else 1.0
    return {key: _surface(np.array(rows[key]), usual, products[key]) for key in sorted(rows)}


def _surface(rows: Floats, usual: float, products: bool) -> Surface:
    """`rows` are two widths, seconds and pace."""
    steady = rows[rows[:, 3] <= _DISTURBED * usual]
    spans = len(steady) > 0 and all((ends(steady[:, :2], 0) == ends(rows[:, :2], 0)).all() for ends in (np.min, np.max))
    used = steady if spans else rows
    return Surface(used[:, :2], used[:, 2], products=products)


def paces_of(records: Sequence[Record]) -> Floats:
    """One number per record, 1 in the median."""
    paces = np.ones(len(records))
    if len(records) <= 2:
        return paces
    beside = np.array([record.calibration for record in records])
    for _ in range(_ROUNDS):
        trends = _trends(records, surfaces_of(records, paces))
        found = np.array([_pace(record, trend) for record, trend in zip(records, trends, strict=True)])
        paces = np.sqrt(found / np.median(found) * beside / np.median(beside))
    return paces


def _trends(records: Sequence[Record], surfaces: dict[str, Surface]) -> list[Floats]:
    """What the fit says of every operator of every record."""
    places: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for i, record in enumerate(records):
        for j, timed in enumerate(record.nodes):
            places[timed.node.key].append((i, j))
    trends = [np.empty(len(record.nodes)) for record in records]
    for key, found in places.items():
        widths = np.array([records[i].nodes[j].node.width for i, j in found], np.float64)
        for (i, j), seconds in zip(found, surfaces[key].trend(widths), strict=True):
            trends[i][j] = seconds
    return trends


def _pace(record: Record, trend: Floats) -> float:
    """The median, weighted by time, of operators' times over the fit."""
    seconds = np.array([max(timed.seconds, _TICK) for timed in record.nodes])
    order = np.argsort(seconds / trend)
    shares = np.cumsum(seconds[order])
    return float((seconds / trend)[order][np.searchsorted(shares, shares[-1] / 2)])

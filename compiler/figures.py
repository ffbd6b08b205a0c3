"""Figures that a report has only on request: latency beside the dense engine, and the user's own evaluation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

DENSE, MASKED, COMPILED = "dense", "masked", "compiled"


@dataclass(frozen=True)
class EngineTime:
    """One engine as a whole. `spread_ms` is the middle half of its runs; `ratio` its time relative to the dense one,
    the median over rounds.
    """

    name: str
    median_ms: float
    p99_ms: float
    spread_ms: float
    runs: int
    ratio: float
    file_bytes: int


@dataclass(frozen=True)
class LayerTimes:
    """Median milliseconds of a layer in both engines; None where it is gone."""

    name: str
    dense_ms: float | None
    compiled_ms: float | None


@dataclass(frozen=True)
class Comparison:
    """The dense and the compiled engine, timed in turn. `rest` is what is no layer's; `notes` say what is missing."""

    engines: tuple[EngineTime, ...] = ()
    layers: tuple[LayerTimes, ...] = ()
    rest: LayerTimes | None = None
    sizes: Mapping[str, int] = field(default_factory=dict)
    threads: int | None = None
    device: str | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Evaluation:
    """What the user's evaluation returned, by model (dense, masked, compiled) and figure."""

    results: Mapping[str, Mapping[str, float]]
    notes: tuple[str, ...] = ()

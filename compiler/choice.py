"""How layers that stay sparse inside are executed: what was decided, and the figures behind it."""

from __future__ import annotations

from dataclasses import dataclass

MEASURED, DENSE, CONDENSED = "measured", "dense", "condensed"
REPRESENTATIONS = (MEASURED, DENSE, CONDENSED)


@dataclass(frozen=True)
class LayerChoice:
    """One sparse layer: how it is executed, and the microseconds of both forms where they were measured."""

    layer: str
    density: float
    representation: str
    dense_us: float | None = None
    condensed_us: float | None = None


@dataclass(frozen=True)
class Choice:
    """What was decided, on what grounds; times of whole engines in milliseconds."""

    asked: str
    layers: tuple[LayerChoice, ...] = ()
    threads: int | None = None
    processor: str | None = None
    dense_ms: float | None = None
    chosen_ms: float | None = None
    notes: tuple[str, ...] = ()

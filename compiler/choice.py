"""What was decided by measurement, representations, widths and thinner layers, and the figures behind it."""

from __future__ import annotations

from dataclasses import dataclass

MEASURED, DENSE, CONDENSED = "measured", "dense", "condensed"
REPRESENTATIONS = (MEASURED, DENSE, CONDENSED)
EXACT = "exact"
WIDTHS = (EXACT, MEASURED)


@dataclass(frozen=True)
class LayerChoice:
    """One sparse layer: how it is executed, and the microseconds of both forms where they were measured."""

    layer: str
    density: float
    representation: str
    dense_us: float | None = None
    condensed_us: float | None = None


@dataclass(frozen=True)
class WidthChoice:
    """Layers that share channels: outputs that exact removal leaves and that stay, and what the latency table says.

    Milliseconds are of all layers that read or write these channels; None without a table.
    """

    layers: tuple[str, ...]
    exact: int
    kept: int
    exact_ms: float | None
    kept_ms: float | None


@dataclass(frozen=True)
class WidthDecision:
    """The fastest plan of wider layers, whether it was `taken`, and what whole engines took, in milliseconds."""

    taken: bool
    groups: tuple[WidthChoice, ...] = ()
    exact_ms: float | None = None
    kept_ms: float | None = None


@dataclass(frozen=True)
class ThinChoice:
    """The inputs or outputs of a layer of which it needs `kept` of `full`: what it takes, and what it would take thin.

    Milliseconds; `moving_ms`, which `thin_ms` includes, is what gathering its inputs or scattering its outputs takes.
    """

    layer: str
    side: str
    full: int
    kept: int
    full_ms: float
    thin_ms: float
    moving_ms: float
    taken: bool = False


@dataclass(frozen=True)
class ThinDecision:
    """Every layer that could be thinner, and what whole engines took, in milliseconds, where one was built."""

    taken: bool
    layers: tuple[ThinChoice, ...] = ()
    full_ms: float | None = None
    thin_ms: float | None = None


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

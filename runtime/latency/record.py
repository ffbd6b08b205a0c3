"""One measured configuration of a network, and the setting in which a table's configurations were measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...passes.errors import TableError
from .node import EngineNode

WARM, COLD = "warm", "cold"  # weights and activations: the engine has just run, or other memory was touched before it


@dataclass(frozen=True)
class NodeTime:
    """Median seconds of one operator, and the middle half of its runs over the median."""

    node: EngineNode
    seconds: float
    spread: float

    def to_json(self) -> list[Any]:
        node = self.node
        return [node.name, node.key, *node.width, node.layer, node.channels, self.seconds, self.spread]

    @classmethod
    def from_json(cls, row: Sequence[Any]) -> NodeTime:
        name, key, read, written, layer, channels, seconds, spread = row
        own = None if channels is None else (int(channels[0]), int(channels[1]))
        node = EngineNode(str(name), str(key), (int(read), int(written)), layer, own)
        if not float(seconds) >= 0:
            raise ValueError(f"{name} takes {seconds} seconds")
        return cls(node, float(seconds), float(spread))


@dataclass(frozen=True)
class Record:
    """A network at some widths: what every operator took, and the engine as a whole without a profiler.

    `widths` is None for a graph that was measured as it came. `calibration` is what the calibration engine took in
    turn with it; `spread` the half-width of the whole's median over the median.
    """

    model: str
    widths: dict[str, int] | None
    nodes: tuple[NodeTime, ...]
    whole: float
    spread: float
    runs: int
    calibration: float

    @property
    def name(self) -> str:
        """What tells configurations apart."""
        widths = "as it is" if self.widths is None else ",".join(f"{k}={v}" for k, v in sorted(self.widths.items()))
        return f"{self.model}: {widths}" if self.widths is not None else f"{self.model}: {widths} {self.whole}"

    def to_json(self) -> dict[str, Any]:
        return {**self.__dict__, "nodes": [timed.to_json() for timed in self.nodes]}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Record:
        """Raises TableError where something is missing or of another type."""
        try:
            nodes = tuple(NodeTime.from_json(row) for row in data["nodes"])
            widths = data["widths"] if data["widths"] is None else {str(k): int(v) for k, v in data["widths"].items()}
            figures = (float(data["whole"]), float(data["spread"]), int(data["runs"]), float(data["calibration"]))
            return cls(str(data["model"]), widths, nodes, *figures)
        except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
            raise TableError(f"a record of the latency table is damaged: {error!r}; measure again") from error


@dataclass(frozen=True)
class Setting:
    """What decides a time beside the layer. Tables of different settings are never mixed."""

    target: str
    device: str
    engine: str
    threads: int
    batch: int
    precision: str = "fp32"
    weights: str = WARM

    def differences(self, other: Setting) -> list[str]:
        """Where another setting deviates, as text."""
        return [
            f"{name} {mine!r} (found {theirs!r})"
            for (name, mine), theirs in zip(self.__dict__.items(), other.__dict__.values(), strict=True)
            if mine != theirs
        ]

    @classmethod
    def from_json(cls, data: Any) -> Setting:
        """Raises TableError."""
        try:
            found = cls(**data)
            return cls(**{name: type(getattr(found, name))(value) for name, value in data.items()})
        except (TypeError, ValueError) as error:
            raise TableError(f"the latency table's setting is damaged: {error}") from error

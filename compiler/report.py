"""The report of a compilation: what left each layer, what stayed and why, what it costs, and how exact it is.

Plain data, free of torch, so that a bundle's report can be read where only the engine runs.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from .choice import Choice, ThinDecision, WidthDecision
from .figures import Comparison, Evaluation
from .report_text import report_text


@dataclass(frozen=True)
class LayerReport:
    """One layer before and after. `kept_outputs` and `kept_inputs` are original indices, new index by position."""

    name: str
    node: str  # of the captured graph
    operator: str
    shape_before: tuple[int, ...]
    shape_after: tuple[int, ...] | None  # None: the layer is gone
    parameters_before: int
    parameters_after: int
    macs_before: int
    macs_after: int
    outputs_before: int
    nonzeros_before: int  # weights that are not zero, masked
    nonzeros_after: int
    kept_outputs: tuple[int, ...]
    kept_inputs: tuple[int, ...]
    stays: Mapping[str, int]  # channels that the masks made useless here and that stay, by reason


@dataclass(frozen=True)
class GroupReport:
    """Layers that write the same channels, and those that read them; `pinned` is why the channels can never go."""

    producers: tuple[str, ...]
    consumers: tuple[str, ...]
    channels: int  # that are left
    pinned: tuple[str, ...]


@dataclass(frozen=True)
class Totals:
    """Sums over the model; multiply-accumulates for one sample."""

    parameters_before: int
    parameters_after: int
    macs_before: int
    macs_after: int
    channels_before: int
    channels_after: int


@dataclass(frozen=True)
class Step:
    """One pass over the graph: whether it changed anything, and how long it took."""

    name: str
    modified: bool
    seconds: float


@dataclass
class Report:
    """Everything a compilation found out; `str()` is a table, `to_dict()` is JSON."""

    model: str
    layers: tuple[LayerReport, ...]
    totals: Totals
    unknown_operators: Mapping[str, Sequence[str]]
    steps: tuple[Step, ...]
    groups: tuple[GroupReport, ...] = ()
    engine_layers: tuple[str, ...] = ()  # those with a weight, in the order in which the engine runs them
    notes: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    engine: dict[str, Any] = field(default_factory=dict)
    states: dict[str, dict[str, Any]] = field(default_factory=dict)  # how far the engine came, see runtime.states
    choice: Choice | None = None
    widths: WidthDecision | None = None
    thinner: ThinDecision | None = None
    verification: dict[str, Any] | None = None
    masks: dict[str, Any] | None = None  # how they were made; None where the zeros in the weights are the mask
    latency: Comparison | None = None
    evaluation: Evaluation | None = None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def to_json(self) -> str:
        return json.dumps(self.to_dict(), indent=1)

    def __str__(self) -> str:
        return report_text(self.to_dict())

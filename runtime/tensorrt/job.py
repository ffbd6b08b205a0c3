"""What a builder's process is asked for, and what it answers: plain JSON in files."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Plan:
    """One engine to build: its file, and the processors that it is for."""

    file: str
    processors: tuple[str, ...]


@dataclass(frozen=True)
class Job:
    """One model, parsed once, and the engines to build of it.

    `shapes` are the smallest, the typical and the largest shape by input; none for one of fixed sizes. `reduced`
    allows TF32 inside float32 layers, `sparse` the use of 2:4 weights. `timing_cache` is a file that is read where it
    is there, and written. `plugins` is the architecture, 90 for sm90, to register our plugins for. `detailed`
    engines tell which nodes of the model each of their layers runs.
    """

    backend: str
    model: str
    plans: tuple[Plan, ...]
    shapes: Mapping[str, Sequence[Sequence[int]]]
    sparse: bool = False
    reduced: bool = False
    timing_cache: str | None = None
    plugins: int | None = None
    detailed: bool = False

    def write(self, file: Path) -> None:
        file.write_text(json.dumps(asdict(self)))

    @staticmethod
    def read(file: Path) -> Job:
        data = json.loads(file.read_text())
        plans = tuple(Plan(plan["file"], tuple(plan["processors"])) for plan in data.pop("plans"))
        return Job(plans=plans, **data)


@dataclass(frozen=True)
class Built:
    """One engine: its size, and the bytes that the builder says it takes on the device."""

    processors: tuple[str, ...]
    seconds: float
    engine_bytes: int
    memory: Mapping[str, int]


@dataclass(frozen=True)
class Outcome:
    """What came of a job. `stage` is what was being done last: import, parse, build, done; `problem` ended it there.

    `layers` are the network's after parsing: name, type, and the types of its outputs.
    """

    stage: str
    problem: str = ""
    version: str = ""
    parse_seconds: float = 0.0
    layers: tuple[tuple[str, str, str], ...] = ()
    engines: tuple[Built, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_dict(data: dict[str, Any]) -> Outcome:
        layers = tuple((name, kind, types) for name, kind, types in data.pop("layers"))
        engines = tuple(
            Built(tuple(e["processors"]), e["seconds"], e["engine_bytes"], e["memory"]) for e in data.pop("engines")
        )
        return Outcome(layers=layers, engines=engines, **data)

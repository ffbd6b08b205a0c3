"""What a latency table needs of a kind of target: its engines at any widths, and every operator's time."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

from torch.fx import GraphModule

from ...passes.errors import TargetError
from ...passes.signature import Signature
from ..engine import Array
from ..inputs import dynamic_sizes, random_arrays
from .node import EngineNode
from .record import WARM, Setting
from .widths import WidthSpace

NO_THREADS = 0  # in the setting of a GPU: its engines run on none of the processor's threads

Run = Callable[[], object]


class ProfiledEngine(Protocol):
    """One engine with its inputs, told operator by operator."""

    def run(self) -> object:
        """Run once, and note what every operator takes."""

    def plain(self) -> Run:
        """The same engine without a profiler: a call that runs it once and waits for its end."""

    def finish(self) -> list[tuple[EngineNode, list[float]]]:
        """Every operator with its seconds in every `run`, in the order in which they run; nothing runs after it."""


EnginesByWidth = Callable[[Mapping[str, int], Path], ProfiledEngine]  # widths by group, and a folder for its files


class Profiling(ABC):
    """How the engines of one kind of target are made and timed; a row of the table in .backends."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting

    @classmethod
    @abstractmethod
    def setting_here(cls, target: str, threads: int | None, batch: int, weights: str, precision: str) -> Setting:
        """The setting of measurements made on this machine.

        Raises TargetError, saying what is missing, where the target's engines do not run here.
        """

    @abstractmethod
    def of_graph(self, graph_module: GraphModule, signature: Signature, folder: Path) -> ProfiledEngine:
        """The engine of a graph as it is."""

    def by_width(self, space: WidthSpace, signature: Signature) -> EnginesByWidth:
        """The engines of a network whose widths can be chosen."""
        return lambda widths, folder: self.of_graph(space.cut(widths), signature, folder)

    @abstractmethod
    def calibration(self, folder: Path) -> Run:
        """A small engine whose time tells how fast the machine is just now: a call that runs it once."""

    def inputs(self, signature: Signature) -> list[Array]:
        return random_arrays(signature, dict.fromkeys(dynamic_sizes(signature), self.setting.batch))


def gpu_setting(target: str, device: str, engine: str, batch: int, weights: str, precision: str) -> Setting:
    """The setting of a GPU. Raises TargetError for cold weights: what empties a processor's caches leaves a GPU's."""
    if weights != WARM:
        raise TargetError(f"weights are {WARM} in tables of {target}, found {weights!r}; a processor's can be cold")
    return Setting(target, device, engine, NO_THREADS, batch, precision, weights)

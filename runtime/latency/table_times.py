"""What other parts of the runtime ask a latency table for, which itself stands on them."""

from __future__ import annotations

from typing import Protocol

from numpy.typing import ArrayLike

from .node import EngineNode
from .surface import Floats


class TableTimes(Protocol):
    """A LatencyTable, by what it tells of layers and operators. Each raises TableError where it lacks them."""

    def channel_range(self, layer: str) -> tuple[tuple[int, int], tuple[int, int]]: ...

    def cost(self, layer: str, c_in: ArrayLike, c_out: ArrayLike) -> Floats: ...

    def seconds(self, node: EngineNode) -> float: ...

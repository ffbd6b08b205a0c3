"""What a page is drawn from: plain data, wherever it was read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .charts import Chart


@dataclass(frozen=True)
class PageData:
    """A report as `Report.to_dict` gives it, what it was built for, and charts that somebody added.

    `name` is what the page is called by, `file_bytes` the size of the engine's files (None for the target torch).
    """

    report: Mapping[str, Any]
    settings: Mapping[str, Any]  # target, precision, threads
    name: str
    file_bytes: int | None = None
    created: str | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    staircases: tuple[Chart, ...] = ()
    training: tuple[Chart, ...] = ()

    @property
    def layers(self) -> list[Mapping[str, Any]]:
        """Layers with a weight; products of computed tensors have neither widths nor density."""
        return [layer for layer in self.report["layers"] if layer["shape_before"]]

"""The profiler: networks at designed widths are measured one by one until their latencies can be foretold."""

from __future__ import annotations

import tempfile
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ...passes.errors import TableError
from ..onnxruntime.calibration import calibration_engine
from ..onnxruntime.context import WhatIf
from . import table_file
from .design import Widths, design, rounds
from .record import Record, Setting
from .surface import Floats
from .table import WARN, LatencyTable

_LAST = 8  # configurations that the profiler looks back on
_GOOD, _FAIR = 0.02, 0.05  # relative error with which the last ones were foretold, in the median and at most
_TRIES, _SLOW = 3, 1.1  # a network measured while the machine was so much slower, or that stays uncertain, is repeated

OnProgress = Callable[[float, str], None]


@dataclass
class Profiler:
    """Fills a table, and its file where there is a path: every measurement is appended when it is made.

    `tight` is the uncertainty of a whole engine's median at which its repetitions end. `share` (i, n) takes every n-th
    configuration of the design from the i-th on (from 1).
    """

    what_if: WhatIf
    model: str
    setting: Setting
    header: Mapping[str, Any]
    path: Path | None = None
    grid: Sequence[float] | None = None
    time_limit: float | None = None
    tight: float = 0.02
    share: tuple[int, int] = (1, 1)
    on_progress: OnProgress | None = None
    records: list[Record] = field(default_factory=list)
    errors: list[float] = field(default_factory=list)  # relative, of networks foretold before they were measured

    def run(self) -> LatencyTable:
        """Measure what is missing. Raises TableError where the path holds a table of another setting."""
        self._resume()
        start, known = time.monotonic(), {record.name for record in self.records}
        plan = [w for w in self._plan() if self._name(w) not in known]
        with tempfile.TemporaryDirectory(prefix="sparsefx-") as folder:
            calibration = calibration_engine(self.setting.threads, Path(folder))
            for number, widths in enumerate(plan):
                spent = time.monotonic() - start
                if self._is_settled() or (self.time_limit is not None and number and spent > self.time_limit):
                    break
                self._tell(number, len(plan), spent)
                record = self._measure(widths, calibration)
                self._foretell(record)
                self.records.append(record)
                if self.path is not None:
                    table_file.append(self.path, record)
        self._tell(1, 1, 0.0)
        return self._table()

    def _plan(self) -> list[Widths]:
        """Widths in the order in which they are measured: a first round over the grid, then one between its levels."""
        groups = self.what_if.space.groups
        plan = design(groups, self.grid) if self.grid is not None else [w for part in rounds(groups) for w in part]
        unique = list({self._name(w): w for w in plan}.values())
        first, count = self.share
        return unique[first - 1 :: count]

    def _is_settled(self) -> bool:
        """Whether a full round is done, and its last networks were foretold well, each of them unseen.

        A given grid is measured in full.
        """
        last = np.abs(self.errors[-_LAST:])
        own = sum(record.model == self.model for record in self.records)
        round_done = own * self.share[1] >= len(rounds(self.what_if.space.groups)[0])
        return self.grid is None and round_done and self._is_good(last)

    @staticmethod
    def _is_good(errors: Floats) -> bool:
        return len(errors) == _LAST and bool(np.median(errors) <= _GOOD and errors.max() <= _FAIR)

    def _measure(self, widths: Widths, calibration: Callable[[], object]) -> Record:
        """The tightest of up to three measurements; one is enough on a quiet machine."""
        found: list[Record] = []
        while len(found) < _TRIES:
            found.append(self.what_if.measure(self.model, widths, calibration, self.tight))
            usual = np.median([r.calibration for r in (*self.records, *found)])
            if found[-1].spread <= self.tight and found[-1].calibration <= _SLOW * usual:
                return found[-1]
        return min(found, key=lambda record: (record.calibration, record.spread))

    def _foretell(self, record: Record) -> None:
        """How far a new measurement is from what the table so far says; nothing while kinds of operators are new."""
        if len(self.records) < _LAST:  # too few to foretell anything
            return
        table = self._table()
        with suppress(TableError), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            foretold = table.total([t.node for t in record.nodes], outside=WARN) * table.drift(record.calibration)
            self.errors.append(foretold * 1e-3 / record.whole - 1)

    def _resume(self) -> None:
        if self.path is None:
            return
        if not self.path.exists():
            table_file.write(self.path, self.header, [])
            return
        header, records = table_file.repair(self.path)
        found = Setting.from_json(header.get("setting")).differences(self.setting)
        if found:
            raise TableError(
                f"{self.path} was measured with {', '.join(found)}; give another path, or the setting it has"
            )
        for record in records:
            self._foretell(record)
            self.records.append(record)

    def _table(self) -> LatencyTable:
        return LatencyTable(self.setting, self.records, self.header)

    def _name(self, widths: Widths) -> str:
        return Record(self.model, widths, (), 0.0, 0.0, 0, 1.0).name

    def _tell(self, done: int, of: int, spent: float) -> None:
        if self.on_progress is None:
            return
        share = done / max(of, 1)
        if self.time_limit and done < of:
            share = max(share, min(spent / self.time_limit, 0.99))
        error = f", the last ones foretold within {max(np.abs(self.errors[-_LAST:])):.1%}" if self.errors else ""
        self.on_progress(share, f"{len(self.records)} networks measured{error}")

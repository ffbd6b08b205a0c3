"""The profiler: networks at designed widths are measured one by one until their latencies can be foretold."""

from __future__ import annotations

import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ...passes.errors import TableError
from . import table_file
from .context import WhatIf
from .design import LEVELS, MIDDLES, Widths, design, first_round
from .record import Record, Setting
from .refine import refined_levels
from .surface import Floats
from .table import WARN, LatencyTable

_LAST = 8  # configurations that the profiler looks back on
_GOOD, _FAIR = 0.02, 0.05  # relative error with which the last ones were foretold, in the median and at most
_TRIES, _SLOW = 3, 1.1  # a network measured while the machine was so much slower is repeated, then and at the end
_SHARES = ((0.0, 0.7), (0.7, 1.0))  # of the progress bar, by round: the second is seldom needed in full

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
    _start: float = 0.0
    _resumed: int = 0  # records that were there

    def run(self) -> LatencyTable:
        """Measure what is missing. Raises TableError where the path holds a table of another setting."""
        self._resume()
        known, self._start = {record.name for record in self.records}, time.monotonic()
        self._resumed = len(known)
        with tempfile.TemporaryDirectory(prefix="sparsefx-") as folder:
            calibration = self.what_if.calibration(Path(folder))
            for plan, (begin, end) in zip(self._rounds(), _SHARES, strict=False):
                self._fill(plan, calibration, begin, end)
            for slow in [r for r in self.records if r.name not in known and self._is_slow(r)]:
                if self._spent() < 1:
                    self._keep(min(slow, self._measure(slow.widths or {}, calibration), key=lambda r: r.calibration))
        self._tell(1.0)
        return self._table()

    def _fill(self, plan: Sequence[Widths], calibration: Callable[[], object], begin: float, end: float) -> None:
        """Measure what a round lacks, until networks are foretold or the time is up, but one network in any case."""
        known = {record.name for record in self.records}
        missing = [w for w in plan if self._name(w) not in known]
        for number, widths in enumerate(missing):
            if self._is_settled() or (len(self.records) > self._resumed and self._spent() >= 1):
                break
            self._tell(max(begin + (end - begin) * number / len(missing), min(self._spent(), 0.99)))
            record = self._measure(widths, calibration)
            self._foretell(record)
            self._keep(record)

    def _spent(self) -> float:
        """The share of the time limit that has gone."""
        gone = time.monotonic() - self._start
        return 0.0 if self.time_limit is None else gone / self.time_limit if self.time_limit else 1.0

    def _keep(self, record: Record) -> None:
        """A network measured again takes the place of what was there; of two lines of a file the later one counts."""
        if record in self.records:
            return
        self.records = [*(r for r in self.records if r.name != record.name), record]
        if self.path is not None:
            table_file.append(self.path, record)

    def _rounds(self) -> Iterator[list[Widths]]:
        """Widths in the order in which they are measured: a first round over the grid, then one between its levels.

        Shards do not know of each other's measurements: theirs are the same levels for all groups.
        """
        groups, (first, count) = self.what_if.space.groups, self.share
        if self.grid is not None:
            yield design(groups, self.grid)[first - 1 :: count]
            return
        plan = first_round(groups)
        yield plan[first - 1 :: count]
        if self._is_settled():
            return
        names = {self._name(widths) for widths in plan}
        table = LatencyTable(self.setting, [r for r in self.records if r.name in names], self.header)
        levels = refined_levels(groups, table, LEVELS, len(LEVELS)) if count == 1 else MIDDLES
        yield design(groups, levels)[first - 1 :: count]

    def _is_settled(self) -> bool:
        """Whether a full round is done, and its last networks were foretold well, each of them unseen.

        A given grid is measured in full.
        """
        last = np.abs(self.errors[-_LAST:])
        own = sum(record.model == self.model for record in self.records)
        round_done = own * self.share[1] >= len(first_round(self.what_if.space.groups))
        return self.grid is None and round_done and self._is_good(last)

    @staticmethod
    def _is_good(errors: Floats) -> bool:
        return len(errors) == _LAST and bool(np.median(errors) <= _GOOD and errors.max() <= _FAIR)

    def _measure(self, widths: Widths, calibration: Callable[[], object]) -> Record:
        """The tightest of up to three measurements; one is enough on a quiet machine."""
        found: list[Record] = []
        while len(found) < _TRIES:
            found.append(self.what_if.measure(self.model, widths, calibration, self.tight))
            if found[-1].spread <= self.tight and not self._is_slow(found[-1]):
                return found[-1]
        return min(found, key=lambda record: (record.calibration, record.spread))

    def _is_slow(self, record: Record) -> bool:
        """Whether the machine was slower than it usually is when others leave it alone."""
        return record.calibration > _SLOW * float(np.percentile([r.calibration for r in (*self.records, record)], 25))

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

    def _tell(self, share: float) -> None:
        if self.on_progress is None:
            return
        error = f", the last ones foretold within {max(np.abs(self.errors[-_LAST:])):.1%}" if self.errors else ""
        self.on_progress(share, f"{len(self.records)} networks measured{error}")

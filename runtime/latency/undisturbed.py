"""Runs that nobody interrupted: the rule by which outliers are left out.

Beside the wall clock of a run stands the processor time that its threads got. A run with clearly less of it than the
others was put to sleep by the operating system, and does not count. Medians are of the runs that remain. Where the
processor only waits for a GPU (no threads), every run counts.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

_LEAST_SHARE = 0.98  # of the processor time per second that the best runs got
_FEWEST = 5  # runs that count in any case: those with the largest shares


@dataclass
class TimedRuns:
    """A contender that notes wall and processor time of its runs; of `repeat` in a row only the last counts.

    `before` is called before the first of them.
    """

    run: Callable[[], object]
    threads: int
    repeat: int = 1
    before: Callable[[], object] | None = None
    seconds: list[float] = field(default_factory=list)
    shares: list[float] = field(default_factory=list)
    made: list[int] = field(default_factory=list)  # place of every counted run among all runs
    total: int = 0

    def __call__(self) -> None:
        clock = time.thread_time if self.threads == 1 else time.process_time
        if self.before is not None:
            self.before()
        for _ in range(self.repeat):
            wall, cpu = time.perf_counter(), clock()
            self.run()
            wall, cpu = time.perf_counter() - wall, clock() - cpu
            self.total += 1
        self.seconds.append(wall)
        self.shares.append(cpu / wall)
        self.made.append(self.total - 1)

    def forget(self) -> None:
        """What has run so far was to warm up."""
        self.seconds.clear()
        self.shares.clear()
        self.made.clear()

    def undisturbed(self) -> NDArray[np.int64]:
        """Places of the counted runs that nobody interrupted, at least five of them."""
        shares = np.array(self.shares)
        if self.threads == 0:
            return np.arange(len(shares))
        good = np.flatnonzero(shares >= _LEAST_SHARE * np.percentile(shares, 90))
        best: NDArray[np.int64] = np.argsort(-shares, kind="stable")[:_FEWEST]
        return good if len(good) >= min(_FEWEST, len(shares)) else np.sort(best)

    @property
    def median(self) -> float:
        return float(np.median(np.array(self.seconds)[self.undisturbed()]))

    @property
    def uncertainty(self) -> float:
        """Half the width of the median's 95% interval over the median (McGill, Tukey and Larsen 1978)."""
        return uncertainty(np.array(self.seconds)[self.undisturbed()])


def uncertainty(seconds: NDArray[np.float64]) -> float:
    """1.57 times the middle half over the root of the number of runs, over the median."""
    low, middle, high = np.percentile(seconds, [25, 50, 75])
    return float(1.57 * (high - low) / np.sqrt(len(seconds)) / middle)

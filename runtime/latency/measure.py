"""The one measurement core: contenders timed in turn, in one process, so that drift hits all alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Measurement:
    """Seconds of every counted run of one contender, in order."""

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        return float(np.median(self.seconds))

    @property
    def p99(self) -> float:
        """The 99th percentile; with fewer than 100 runs, close to the slowest of them."""
        return float(np.percentile(self.seconds, 99))

    @property
    def spread(self) -> float:
        """The middle half of the runs: 75th minus 25th percentile."""
        low, high = np.percentile(self.seconds, [25, 75])
        return float(high - low)

    def ratio_to(self, other: Measurement) -> float:
        """Median over rounds of this contender's time divided by the other's."""
        return float(np.median(np.array(self.seconds) / np.array(other.seconds)))


def measure(
    contenders: Mapping[str, Callable[[], object]],
    *,
    seconds: float = 5.0,
    least_runs: int = 20,
    warm_up: int = 3,
    burst: float = 0.0,
    seconds_of: Callable[[Callable[[], object]], float] | None = None,
    on_round: Callable[[int, float], None] | None = None,
) -> dict[str, Measurement]:
    """Time the contenders in turn, round by round, the order reversed every other round.

    Rounds go on for `seconds` in all, and until each contender has `least_runs`; the first `warm_up` rounds do not
    count. With a `burst`, a turn is as many runs as fit into so many seconds, and counts as the median of its second
    half: threads of the contender before have stopped spinning by then. `seconds_of` runs a contender and tells its
    seconds by another clock than the processor's. `on_round` is told the number of counted rounds and the share of the
    work done.
    """
    for _ in range(warm_up):
        for run in contenders.values():
            run()
    times: dict[str, list[float]] = {name: [] for name in contenders}
    start, rounds = time.perf_counter(), 0
    while rounds < least_runs or time.perf_counter() - start < seconds:
        for name in list(contenders)[:: 1 if rounds % 2 == 0 else -1]:
            times[name].append(_turn(contenders[name], burst, seconds_of or _seconds))
        rounds += 1
        if on_round is not None:
            on_round(rounds, min(rounds / least_runs, (time.perf_counter() - start) / seconds if seconds else 1.0, 1.0))
    return {name: Measurement(tuple(t)) for name, t in times.items()}


def _turn(run: Callable[[], object], burst: float, seconds_of: Callable[[Callable[[], object]], float]) -> float:
    end, taken = time.perf_counter() + burst, list[float]()
    while not taken or time.perf_counter() < end:
        taken.append(seconds_of(run))
    return float(np.median(taken[len(taken) // 2 :]))


def _seconds(run: Callable[[], object]) -> float:
    before = time.perf_counter()
    run()
    return time.perf_counter() - before

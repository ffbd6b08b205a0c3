"""Bundles timed against each other: one interleaved run, with medians, tails and peak memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..runtime.engine import Engine
from ..runtime.inputs import check_sizes, dynamic_sizes, random_arrays
from ..runtime.latency.measure import Measurement, measure
from ..runtime.onnxruntime.session import available_threads
from .bundle import load
from .figures import EngineTime
from .memory import peak_memory


@dataclass(frozen=True)
class BenchRow:
    """One bundle's figures. `ratio` is its time relative to the first bundle, median over rounds."""

    name: str
    latency: Measurement
    ratio: float
    peak_memory: int | None
    file_bytes: int

    def engine_time(self) -> EngineTime:
        """As a report has it."""
        times = (1e3 * self.latency.median, 1e3 * self.latency.p99, 1e3 * self.latency.spread)
        return EngineTime(self.name, *times, len(self.latency.seconds), self.ratio, self.file_bytes)

    def to_dict(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "median_ms": self.latency.median * 1e3,
            "p99_ms": self.latency.p99 * 1e3,
            "spread_ms": self.latency.spread * 1e3,
            "runs": len(self.latency.seconds),
            "ratio_to_first": self.ratio,
            "peak_memory_bytes": self.peak_memory,
            "file_bytes": self.file_bytes,
        }


def bench(
    bundles: Mapping[str, Path],
    *,
    sizes: Mapping[str, int] | None = None,
    threads: int | None = None,
    seconds: float = 5.0,
    memory: bool = True,
    trust_kernels: bool = False,
    on_round: Callable[[int, float], None] | None = None,
) -> list[BenchRow]:
    """Time bundles in one interleaved run. Dynamic sizes default to 1; `threads` to all that are available.

    `trust_kernels` as in `load`. Raises TargetError for a size that none of the bundles has.
    """
    threads = threads or available_threads()
    engines = {name: load(path, threads, trust_kernels=trust_kernels) for name, path in bundles.items()}
    known = {name: dynamic_sizes(engine.signature) for name, engine in engines.items()}
    check_sizes(sizes or {}, [size for names in known.values() for size in names])
    chosen = {name: dict.fromkeys(names, 1) | dict(sizes or {}) for name, names in known.items()}
    runs = {name: _runner(engine, chosen[name]) for name, engine in engines.items()}
    results = measure(runs, seconds=seconds, on_round=on_round)
    first = next(iter(results.values()))
    return [
        BenchRow(
            name,
            results[name],
            results[name].ratio_to(first),
            peak_memory(path, threads, chosen[name], trust_kernels) if memory else None,
            sum(file.stat().st_size for file in path.glob("model.*")),
        )
        for name, path in bundles.items()
    ]


def _runner(engine: Engine, sizes: Mapping[str, int]) -> Callable[[], object]:
    return engine.session.prepare(random_arrays(engine.signature, sizes))


def bench_text(rows: list[BenchRow]) -> str:
    """The figures as a table."""
    names = ("median", 11), ("p99", 11), ("middle half", 12), ("time", 6), ("peak memory", 11), ("file", 9)
    width = max(len("engine"), *(len(row.name) for row in rows))
    header = f"{'engine':{width}s} " + " ".join(name.rjust(size) for name, size in names)
    lines = [header, "-" * len(header)]
    for row in rows:
        memory = f"{row.peak_memory / 2**20:7.1f} MiB" if row.peak_memory is not None else ""
        lines.append(
            f"{row.name:{width}s} {row.latency.median * 1e3:8.3f} ms {row.latency.p99 * 1e3:8.3f} ms "
            f"{row.latency.spread * 1e3:9.3f} ms {row.ratio:5.2f}x {memory:>11s} {row.file_bytes / 2**20:5.1f} MiB"
        )
    return "\n".join(lines)

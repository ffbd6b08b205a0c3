"""Progress on standard error: a live line with elapsed time on a terminal, one line per stage elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@contextmanager
def stages(quiet: bool) -> Iterator[Callable[[str], None]]:
    """A function to announce each stage with; the stage before is then over."""
    if quiet:
        yield lambda name: None
    elif sys.stderr.isatty():
        yield from _live()
    else:
        yield from _lines()


def _live() -> Iterator[Callable[[str], None]]:
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(finished_text="done"), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:

        def announce(name: str) -> None:
            for task in progress.task_ids:
                progress.update(task, total=1, completed=1)
            progress.add_task(name, total=None)

        yield announce
        for task in progress.task_ids:
            progress.update(task, total=1, completed=1)


def _lines() -> Iterator[Callable[[str], None]]:
    running: list[tuple[str, float]] = []

    def finish() -> None:
        if running:
            name, start = running.pop()
            print(f"{name}: {time.perf_counter() - start:.1f} s", file=sys.stderr, flush=True)

    def announce(name: str) -> None:
        finish()
        running.append((name, time.perf_counter()))

    yield announce
    finish()


@dataclass(frozen=True)
class Bar:
    """`update` is told the share of the work done; `say` writes a line that stays."""

    update: Callable[[float], None]
    say: Callable[[str], None]


@contextmanager
def bar(name: str, quiet: bool) -> Iterator[Bar]:
    """A bar with the remaining time; where nobody watches, only the lines that stay, and with `quiet` nothing."""
    if quiet:
        yield Bar(lambda share: None, lambda line: None)
        return
    if not sys.stderr.isatty():
        yield Bar(lambda share: None, lambda line: print(line, file=sys.stderr, flush=True))
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(name, total=1.0)
        yield Bar(lambda share: progress.update(task, completed=share), progress.console.print)

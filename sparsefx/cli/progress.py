"""Progress on standard error: a live line with elapsed time on a terminal, one line per stage elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


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


@contextmanager
def bar(name: str, quiet: bool) -> Iterator[Callable[[float], None]]:
    """A bar with the remaining time; told the share of the work done. Silent where nobody watches."""
    if quiet or not sys.stderr.isatty():
        yield lambda share: None
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
        yield lambda share: progress.update(task, completed=share)

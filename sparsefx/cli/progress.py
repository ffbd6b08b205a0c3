"""Progress on standard error: bars with the remaining time on a terminal, a line per stage elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress


@dataclass(frozen=True)
class StageWatch:
    """Called with the name of the stage that begins, the one before is then over; `share` says how much is done."""

    begin: Callable[[str], None]
    share: Callable[[float], None]

    def __call__(self, name: str) -> None:
        self.begin(name)


@contextmanager
def stages(quiet: bool) -> Iterator[StageWatch]:
    """Told what is being done; to be called with the name of every stage. What is printed meanwhile is no result."""
    with redirect_stdout(sys.stderr):
        if quiet:
            yield StageWatch(lambda name: None, lambda share: None)
        elif sys.stderr.isatty():
            yield from _live()
        else:
            yield from _lines()


def _live() -> Iterator[StageWatch]:
    with _progress() as progress:

        def finish() -> None:
            for task in progress.task_ids:
                progress.update(task, total=1.0, completed=1.0)

        def begin(name: str) -> None:
            finish()
            progress.add_task(name, total=None)

        yield StageWatch(begin, lambda share: progress.update(progress.task_ids[-1], total=1.0, completed=share))
        finish()


def _lines() -> Iterator[StageWatch]:
    running: list[tuple[str, float]] = []

    def finish() -> None:
        if running:
            name, start = running.pop()
            print(f"{name}: {time.perf_counter() - start:.1f} s", file=sys.stderr, flush=True)

    def begin(name: str) -> None:
        finish()
        running.append((name, time.perf_counter()))

    yield StageWatch(begin, lambda share: None)
    finish()


@dataclass(frozen=True)
class Bar:
    """`update` is told the share of the work done; `say` writes a line that stays."""

    update: Callable[[float], None]
    say: Callable[[str], None]


@contextmanager
def bar(name: str, quiet: bool) -> Iterator[Bar]:
    """A bar with the remaining time; where nobody watches, only the lines that stay, and with `quiet` nothing.

    What is printed meanwhile is no result.
    """
    with redirect_stdout(sys.stderr):
        if quiet:
            yield Bar(lambda share: None, lambda line: None)
        elif not sys.stderr.isatty():
            yield Bar(lambda share: None, lambda line: print(line, file=sys.stderr, flush=True))
        else:
            with _progress() as progress:
                task = progress.add_task(name, total=1.0)
                yield Bar(lambda share: progress.update(task, completed=share), progress.console.print)


def _progress() -> Progress:
    """Description, bar, time so far and, where the share of the work done is known, time left."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeElapsedColumn
    from rich.text import Text

    class TimeLeft(ProgressColumn):
        """Nothing where it is not known, or nothing is left."""

        max_refresh = 0.5

        def render(self, task: Task) -> Text:
            left = None if task.finished else task.time_remaining
            return Text("" if left is None else f"{int(left) // 60}:{int(left) % 60:02d} left")

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        TimeElapsedColumn(),
        TimeLeft(),
        console=Console(stderr=True, highlight=False),
    )

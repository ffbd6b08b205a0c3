"""The stages of a long job: told to whoever watches, timed, and named where memory or the disk is at its end."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ..passes.exhaustion import naming_exhaustion


class Stages:
    """`with stages("passes"):` announces a stage and records its seconds; `share` tells how much of it is done.

    Raises SparsefxError where the stage runs out of memory or of disk space.
    """

    def __init__(
        self,
        announce: Callable[[str], None] | None = None,
        share: Callable[[float], None] | None = None,
    ) -> None:
        self.announce = announce
        self.share = share or (lambda done: None)
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        if self.announce is not None:
            self.announce(name)
        start = time.perf_counter()
        try:
            with naming_exhaustion(name):
                yield
        finally:
            self.seconds[name] = time.perf_counter() - start

"""Run a measurement in a process of its own: its memory is its own, and a process that dies takes nothing with it."""

from __future__ import annotations

import multiprocessing
import resource
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any, TypeVar, cast

T = TypeVar("T")


def run_in_child(function: Callable[..., T], *arguments: Any, memory_gib: float | None = None) -> T:
    """The function's result from a forked process that may take `memory_gib`.

    Raises RuntimeError with the words of what it raised, or where the process died.
    """
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=_run, args=(sender, function, arguments, memory_gib))
    child.start()
    sender.close()
    answer: tuple[T, None] | tuple[None, str]
    try:
        answer = receiver.recv()
    except EOFError:
        answer = None, "the process died, of memory most likely"
    child.join()
    result, failure = answer
    if failure is not None:
        raise RuntimeError(failure)
    return cast(T, result)


def _run(sender: Connection, function: Callable[..., Any], arguments: tuple[Any, ...], memory: float | None) -> None:
    if memory is not None:
        limit = int(memory * 2**30)
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    try:
        sender.send((function(*arguments), None))
    except Exception as error:  # sent as text: not every exception survives the way between processes
        sender.send((None, f"{type(error).__name__}: {error}"))

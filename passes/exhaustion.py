"""Memory or disk space that is at its end, recognised in the errors of the libraries that meet it."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from .errors import SparsefxError

_MEMORY = ("can't allocate memory", "not enough memory", "bad_alloc", "bad allocation", "out of memory")
_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def exhausted(error: BaseException) -> str | None:
    """What an error, or one that it comes from, says to be at its end, and what to do; None where it is another."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, MemoryError) or (isinstance(cause, RuntimeError) and _speaks_of_memory(cause)):
            return (
                "out of memory; close other programs, take a machine with more, or give smaller example inputs "
                "(batch 1 is enough: the batch stays dynamic)"
            )
        if isinstance(cause, OSError) and cause.errno in _DISK:
            where = f" for {cause.filename}" if cause.filename else ""
            return (
                f"no disk space{where} ({cause.strerror}); free some, or let TMPDIR name a folder that has it: engines "
                "are built there before they are saved"
            )
        cause = cause.__cause__
    return None


@contextmanager
def naming_exhaustion(doing: str) -> Iterator[None]:
    """Errors of memory or disk space as a SparsefxError that says in the middle of what it happened."""
    try:
        yield
    except SparsefxError:
        raise
    except Exception as error:
        found = exhausted(error)
        if found is None:
            raise
        raise SparsefxError(f"{doing}: {found}") from error


def _speaks_of_memory(error: RuntimeError) -> bool:
    text = str(error).lower()
    return any(words in text for words in _MEMORY)

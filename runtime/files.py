"""Files and folders that appear whole or not at all: written beside their place, and moved there in the end.

Whoever is killed in between leaves a temporary `.NAME.*.partial` behind; the next one to write NAME removes it. A lock
of the system, which ends with its process, tells what is left behind from what somebody else is writing.
"""

from __future__ import annotations

import errno
import glob
import os
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ..passes.errors import SparsefxError

try:
    import fcntl
except ImportError:  # Windows, where nothing is cleared
    fcntl = None  # type: ignore[assignment]

_SETTLED = 60.0  # seconds after which whoever made a temporary has locked it
_FULL = "free some space, or choose another folder"
_FORBIDDEN = "choose a folder that you may write to"
_ADVICE = {
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
    errno.EFBIG: "allow larger files (ulimit -f), or choose another folder",
    errno.EACCES: _FORBIDDEN,
    errno.EPERM: _FORBIDDEN,
    errno.EROFS: _FORBIDDEN,
    errno.ENOTDIR: "a part of this path is a file: choose another path",
    errno.EEXIST: "a part of this path is a file: choose another path",
    errno.EISDIR: "it is a folder: choose another path",
    errno.ENAMETOOLONG: "choose a shorter name",
}


def write_whole(path: Path, data: bytes, error: type[SparsefxError] = SparsefxError) -> None:
    """Write a file so that nobody ever sees a part of it. Raises `error` where it cannot be; nothing is left then."""
    with _naming(path, error):
        temporary = _temporary(path)
        try:
            with open(temporary, "xb") as file:
                _lock(file.fileno())
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


@contextmanager
def folder_beside(path: Path, error: type[SparsefxError]) -> Iterator[Path]:
    """A temporary folder beside `path`, gone in the end. Raises `error` where something cannot be written."""
    with _naming(path, error):
        folder = _temporary(path)
        folder.mkdir(mode=0o700)
        held = os.open(folder, os.O_RDONLY) if fcntl is not None else None
        try:
            if held is not None:
                _lock(held)
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            if held is not None:
                os.close(held)


def sync(folder: Path) -> None:
    """Files of a folder, at any depth, are on the disk when this returns."""
    for file in folder.rglob("*"):
        if file.is_file():
            with file.open("rb") as stream:
                os.fsync(stream.fileno())


def advice(problem: OSError) -> str:
    """What to do about a file that cannot be written."""
    return _ADVICE.get(problem.errno or 0, "see that it can be written, or choose another path")


@contextmanager
def _naming(path: Path, error: type[SparsefxError]) -> Iterator[None]:
    """An OSError as `error`, with the path that was to be written and what to do."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _clear_leftovers(path)
        yield
    except OSError as problem:
        text = problem.strerror or str(problem)
        raise error(f"cannot write {path}: {text}; nothing was changed. To go on: {advice(problem)}") from problem


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.partial")


def _lock(descriptor: int) -> None:
    if fcntl is not None:
        with suppress(OSError):  # a file system without locks
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _clear_leftovers(path: Path) -> None:
    """Remove what writers of `path` who were killed left behind."""
    for leftover in path.parent.glob(f".{glob.escape(path.name)}.????????.partial"):
        with suppress(OSError):
            if time.time() - leftover.stat().st_mtime > _SETTLED and _nobody_writes(leftover):
                shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()


def _nobody_writes(temporary: Path) -> bool:
    if fcntl is None:
        return False
    descriptor = os.open(temporary, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True

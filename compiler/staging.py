"""Folders and files that are written beside their place, and moved there only when whole."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..passes.errors import BundleError


@contextmanager
def folder_beside(path: Path) -> Iterator[Path]:
    """A temporary folder beside `path`, gone in the end. Raises BundleError where something cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
    except OSError as error:
        raise BundleError(f"cannot write {path}: {error}") from error
    try:
        yield folder
    except OSError as error:
        raise BundleError(f"cannot write {path}: {error}; nothing was changed") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """Write a file that appears whole or not at all. Raises BundleError where it cannot be written."""
    if path.is_dir():
        raise BundleError(f"cannot write {path}: it is a folder; name a file in it")
    with folder_beside(path) as folder:
        (folder / path.name).write_text(text, encoding="utf-8")
        sync(folder)
        os.replace(folder / path.name, path)


def sync(folder: Path) -> None:
    """Files of a folder, at any depth, are on the disk when this returns."""
    for file in folder.rglob("*"):
        if file.is_file():
            with file.open("rb") as stream:
                os.fsync(stream.fileno())

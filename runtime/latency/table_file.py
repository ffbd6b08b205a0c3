"""The file of a latency table: JSON lines, a header and then one line per measured configuration.

A line is appended when its measurement is done, so that a kill loses at most the one under way; a last line that is
damaged is dropped with a warning, any other is an error.
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from ...passes.errors import TableError
from ..files import advice, write_whole
from .record import Record

FORMAT, VERSION = "sparsefx latency table", 1


def read(path: Path) -> tuple[dict[str, Any], list[Record]]:
    """Header and records. Raises TableError where the file is none, or is damaged before its last line."""
    header, records, _ = _read(path)
    return header, records


def write(path: Path, header: Mapping[str, Any], records: Sequence[Record]) -> None:
    """The whole file, in place of what was there."""
    lines = [_line(data) for data in [_with_format(header), *(r.to_json() for r in records)]]
    write_whole(path, "".join(lines).encode(), TableError)


def append(path: Path, record: Record) -> None:
    """Add a record; it is on the disk when this returns. Raises TableError where it cannot be written."""
    intact = path.stat().st_size if path.exists() else 0
    try:
        with path.open("a") as file:
            file.write(_line(record.to_json()))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        with suppress(OSError):
            os.truncate(path, intact)
        raise TableError(
            f"cannot write {path}: {error.strerror}; what was measured before is in it. To go on: {advice(error)}"
        ) from error


def repair(path: Path) -> tuple[dict[str, Any], list[Record]]:
    """As `read`; a damaged last line is cut off, so that records can be appended."""
    header, records, intact = _read(path)
    if intact < path.stat().st_size:
        with path.open("r+b") as file:
            file.truncate(intact)
    return header, records


def _read(path: Path) -> tuple[dict[str, Any], list[Record], int]:
    try:
        lines = path.read_bytes().splitlines(keepends=True)
    except OSError as error:
        raise TableError(f"{path} cannot be read: {error.strerror}; make a table with sparsefx profile") from error
    parsed: list[dict[str, Any]] = []
    intact = 0
    for number, line in enumerate(lines):
        data = _parse(line)
        if data is None and number and number == len(lines) - 1:
            warnings.warn(f"{path}: the last measurement is damaged and left out", stacklevel=3)
            break
        if data is None:
            raise TableError(f"{path}: line {number + 1} is damaged; restore the file, or delete it and profile again")
        parsed.append(data)
        intact += len(line)
    if not parsed or parsed[0].get("format") != FORMAT:
        raise TableError(f"{path} is no latency table; make one with sparsefx profile")
    if parsed[0].get("version") != VERSION:
        raise TableError(
            f"{path} has version {parsed[0].get('version')} of the format, this sparsefx reads {VERSION}; profile again"
        )
    return parsed[0], [Record.from_json(data) for data in parsed[1:]], intact


def _parse(line: bytes) -> dict[str, Any] | None:
    try:
        data = json.loads(line)
    except ValueError:
        return None
    return data if isinstance(data, dict) and line.endswith(b"\n") else None


def _line(data: Mapping[str, Any]) -> str:
    return json.dumps(data) + "\n"


def _with_format(header: Mapping[str, Any]) -> dict[str, Any]:
    return {"format": FORMAT, "version": VERSION, **header}

"""The page of a bundle, from what its files say. No torch."""

from __future__ import annotations

from pathlib import Path

from ...passes.errors import BundleError
from ..bundle import REPORT, read_manifest, read_report
from .data import PageData

_LATER = ("groups", "engine_layers", "masks", "latency", "evaluation")  # what reports of earlier versions lack


def read_page(folder: Path, name: str | None = None) -> PageData:
    """What a bundle's report says; `name` is the page's title (the folder's name).

    Raises BundleError where the bundle is damaged, foreign, or of a version whose reports had less.
    """
    manifest, report = read_manifest(folder), read_report(folder)
    missing = [key for key in _LATER if key not in report]
    if missing:
        raise BundleError(f"{folder}: {REPORT} is that of an earlier version: it lacks {missing[0]}; compile it again")
    return PageData(
        report,
        manifest["settings"],
        name or folder.name,
        engine_bytes(folder),
        manifest.get("created"),
        manifest["versions"],
    )


def engine_bytes(folder: Path) -> int:
    """The size of the engine's own files."""
    return sum(file.stat().st_size for file in folder.glob("model.*"))

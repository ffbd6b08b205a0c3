"""A model repository as a folder: what is one, and how models are put into it.

    REPOSITORY/
      resnet50/
        config.pbtxt     the server's configuration
        sparsefx.json    where the versions come from
        1/model.onnx     a version: the engine, with what it needs beside it

Models are written beside the repository and moved into it when all of them are complete.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ...passes.errors import BundleError
from ...runtime.files import folder_beside, sync

CONFIG, RECORD = "config.pbtxt", "sparsefx.json"
_FORMAT, _SCHEMA = "sparsefx-serving", 1


def check_repository(path: Path) -> None:
    """Raise BundleError where `path` is something other than a model repository, or nothing at all."""
    if not path.exists():
        return
    if not path.is_dir():
        raise BundleError(f"{path} is a file; choose a folder for the model repository")
    strange = [entry.name for entry in sorted(path.iterdir()) if not _is_model(entry)]
    if strange:
        raise BundleError(f"{path} is no model repository: {strange[0]} is no model; choose another folder")


def _is_model(entry: Path) -> bool:
    if entry.name.startswith("."):
        return True
    return entry.is_dir() and ((entry / CONFIG).is_file() or any(inside.name.isdigit() for inside in entry.iterdir()))


def write_record(model: Path, versions: dict[str, Any]) -> None:
    record = {"format": _FORMAT, "schema": _SCHEMA, "versions": versions}
    (model / RECORD).write_text(json.dumps(record, indent=1))


def read_versions(model: Path) -> dict[str, Any]:
    """What is recorded of a model's versions, by number; none where there is no model. Raises BundleError."""
    if not model.exists():
        return {}
    try:
        record = json.loads((model / RECORD).read_text())
        if record["format"] == _FORMAT and record["schema"] <= _SCHEMA:
            return dict(record["versions"])
    except (OSError, ValueError, KeyError, TypeError):
        pass
    raise BundleError(f"{model} was not written by this version of serve-export; remove it, or choose another name")


@contextmanager
def staging(repository: Path) -> Iterator[Path]:
    """A temporary folder whose models move into the repository at the end; on an error nothing is changed."""
    check_repository(repository)
    with folder_beside(repository, BundleError) as folder:
        (folder / "models").mkdir()
        yield folder / "models"
        sync(folder)
        _place(folder, repository)


def keep_version(old: Path, new: Path) -> None:
    """Another version of a model goes on to be served: its files again, without copying where that can be."""
    shutil.copytree(old, new, copy_function=_link)


def keep_others(old: Path, new: Path) -> None:
    """What somebody else put beside a model's versions (labels, a warm-up folder) stays."""
    for entry in sorted(old.iterdir()) if old.exists() else []:
        if entry.name in (CONFIG, RECORD) or (new / entry.name).exists():
            continue
        if entry.name.isdigit():
            raise BundleError(f"{entry} was not written by serve-export; remove it, or choose another name")
        if entry.is_dir():
            shutil.copytree(entry, new / entry.name, copy_function=_link)
        else:
            _link(str(entry), str(new / entry.name))


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _place(folder: Path, repository: Path) -> None:
    """Move every model to its place. Older ones step aside, and back where one cannot be placed."""
    repository.mkdir(exist_ok=True)
    aside = folder / "aside"
    aside.mkdir()
    placed: list[str] = []
    try:
        for model in sorted((folder / "models").iterdir()):
            target = repository / model.name
            if target.exists():
                target.rename(aside / model.name)
            placed.append(model.name)
            model.rename(target)
    except OSError:
        for name in placed:
            shutil.rmtree(repository / name, ignore_errors=True)
            if (aside / name).exists():
                (aside / name).rename(repository / name)
        raise

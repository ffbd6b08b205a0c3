"""Bundles: a folder with an engine, its manifest, its report and the checksums of every file.

    model.onnx        the engine (with model.onnx.data beside it where the weights are large; the file that each
                      kind of target has is in the table of sparsefx.runtime.targets)
    report.json       what the compilation found out
    manifest.json     format, versions, target, signature, and size and SHA-256 of every other file
    libsparsefx-*.so  only on request: the compiled kernels of condensed layers

Nothing in a bundle is unpickled, and no code comes from it unless the caller trusts it. Loading needs NumPy and
the target's own runtime; for ONNX Runtime no torch.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..passes.errors import BundleError
from ..passes.signature import Signature
from ..runtime.engine import Engine
from ..runtime.files import folder_beside, sync
from ..runtime.targets import BuildSettings, find_kind
from .bundle_kernels import describe_kernels
from .loaders import LOADERS, Stored

if TYPE_CHECKING:
    from ..runtime.build import Build

FORMAT, SCHEMA = "sparsefx-bundle", 1
MANIFEST, REPORT = "manifest.json", "report.json"
_LIBRARIES = ("sparsefx", "torch", "onnx", "onnxscript", "onnxruntime", "numpy")


def save_bundle(
    path: Path, build: Build, settings: BuildSettings, report: dict[str, Any], *, embed_kernels: bool = False
) -> None:
    """Write a bundle with the files of a build; `path` changes only once all is written."""
    library = build.custom_operators
    if embed_kernels and library is None:
        raise BundleError("there are no kernels to embed: no layer runs by them; save without embed_kernels")
    with _replacing(path) as folder:
        for file in [*build.files, *([library] if embed_kernels and library else [])]:
            shutil.copyfile(file, folder / file.name)
        (folder / REPORT).write_text(json.dumps(report, indent=1))
        manifest = {
            "format": FORMAT,
            "schema": SCHEMA,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "settings": {name: value for name, value in asdict(settings).items() if name != "max_batch" or value},
            "versions": versions(),
            "signature": build.signature.to_json(),
            "engine": build.facts | build.details,
            "states": build.states.to_dict(),
            "kernels": describe_kernels(build, embed_kernels),
            "files": {file.name: _fingerprint(file) for file in sorted(folder.iterdir())},
        }
        (folder / MANIFEST).write_text(json.dumps(manifest, indent=1))


def load(path: str | os.PathLike[str], threads: int | None = None, *, trust_kernels: bool = False) -> Engine:
    """The engine of a bundle. `threads` inside an operator: those it was built with, else all that are available.

    Condensed layers run by kernels that are compiled on this machine at first use. With `trust_kernels`, by those that
    `save(..., embed_kernels=True)` put into the bundle, where it has any for this system: code from its author. Where
    there are neither, they run as dense layers, and a RuntimeWarning says so; it also says where layers were chosen for
    another number of threads.

    Raises BundleError where the bundle is damaged, foreign or newer than this version, TargetError where its backend
    is not installed.
    """
    folder = Path(path)
    manifest = read_manifest(folder)
    verify_files(folder, manifest)
    settings = _settings(folder, manifest)
    kind = find_kind(settings.target)
    assert kind is not None
    return LOADERS[kind.name](Stored(folder, manifest, settings, threads, trust_kernels))


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a bundle of this or an older schema. Raises BundleError."""
    if not folder.is_dir():
        found = "a file" if folder.exists() else "nothing"
        raise BundleError(f"{folder} is no bundle: expected a folder that CompiledModel.save wrote, found {found}")
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
    except FileNotFoundError as error:
        raise BundleError(f"{folder} is no bundle: it has no {MANIFEST}") from error
    except (ValueError, OSError) as error:
        raise BundleError(f"{folder}: {MANIFEST} cannot be read ({error}); save the bundle again") from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise BundleError(f"{folder}: {MANIFEST} is not that of a {FORMAT}; this folder was written by something else")
    if not isinstance(manifest.get("schema"), int) or manifest["schema"] > SCHEMA:
        writer = manifest.get("versions", {}).get("sparsefx", "a newer version")
        raise BundleError(
            f"{folder}: bundle schema {manifest.get('schema')}, written by sparsefx {writer}; "
            f"this version reads up to schema {SCHEMA}: upgrade sparsefx"
        )
    missing = {"settings", "signature", "files", "versions"} - manifest.keys()
    if missing:
        raise BundleError(f"{folder}: {MANIFEST} lacks {sorted(missing)}; save the bundle again")
    try:
        Signature.from_json(manifest["signature"])
        {str(file): known["sha256"] for file, known in manifest["files"].items()}
    except (TypeError, KeyError, ValueError, AttributeError, IndexError) as error:
        raise BundleError(
            f"{folder}: {MANIFEST} is damaged ({error}); copy it again or save the bundle again"
        ) from error
    return manifest


def _settings(folder: Path, manifest: dict[str, Any]) -> BuildSettings:
    """What the bundle was built for: a target that can be loaded, with its file."""
    try:
        settings = BuildSettings(**manifest["settings"])
    except TypeError as error:
        raise BundleError(f"{folder}: {MANIFEST} has other settings than this version knows ({error})") from error
    kind = find_kind(settings.target)
    if kind is None or kind.name not in LOADERS:
        raise BundleError(f"{folder}: built for target {settings.target}; this version loads {', '.join(LOADERS)}")
    if kind.file not in manifest["files"]:
        raise BundleError(f"{folder}: {MANIFEST} lacks {kind.file}; save the bundle again")
    return settings


def read_report(folder: Path) -> dict[str, Any]:
    """The report of a bundle as plain data, its checksum verified."""
    verify_files(folder, read_manifest(folder))
    report: dict[str, Any] = json.loads((folder / REPORT).read_text())
    return report


def verify_files(folder: Path, manifest: dict[str, Any]) -> None:
    """Raise BundleError unless every file is there, inside the folder, with the size and checksum it was saved with."""
    for name, wanted in manifest["files"].items():
        file = folder / name
        if Path(name).name != name or file.is_symlink():
            raise BundleError(f"{folder}: {name!r} is not a plain file of the bundle; it is not to be trusted")
        if not file.is_file():
            raise BundleError(f"{folder}: {name} is missing; copy the whole folder or save the bundle again")
        found = _fingerprint(file)
        if found != wanted:
            what = f"{found['bytes']} bytes" if found["bytes"] != wanted.get("bytes") else "another checksum"
            raise BundleError(
                f"{folder}: {name} is damaged: {what} where {wanted.get('bytes')} bytes with SHA-256 "
                f"{str(wanted.get('sha256'))[:12]}... were saved; copy it again or save the bundle again"
            )


def _fingerprint(file: Path) -> dict[str, Any]:
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while block := stream.read(2**22):
            digest.update(block)
    return {"bytes": file.stat().st_size, "sha256": digest.hexdigest()}


def versions() -> dict[str, str]:
    """Of Python and the libraries that make a bundle."""
    found = {"python": platform.python_version()}
    for library in _LIBRARIES:
        try:
            found[library] = version(library)
        except PackageNotFoundError:
            found[library] = "not installed"
    return found


def check_place(path: Path) -> None:
    """Raise BundleError where a bundle cannot be written at `path`, as far as that is known before it is made."""
    _refuse_all_but_bundles(path)
    if path.parent.is_dir():
        with folder_beside(path, BundleError):
            pass


def _refuse_all_but_bundles(path: Path) -> None:
    if path.exists() and not (path / MANIFEST).is_file() and (not path.is_dir() or any(path.iterdir())):
        raise BundleError(f"{path} exists and is no bundle; choose another path or remove it")


@contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """A temporary folder beside `path` that takes its place at the end; on an error nothing is left behind."""
    _refuse_all_but_bundles(path)
    with folder_beside(path, BundleError) as folder:
        yield folder
        sync(folder)
        folder.chmod(0o755)
        _swap(folder, path)


def _swap(folder: Path, path: Path) -> None:
    """Move `folder` to `path`; an older bundle there steps aside first and is then deleted."""
    if not path.exists():
        folder.rename(path)
        return
    old = Path(tempfile.mkdtemp(prefix=f".{path.name}-old-", dir=path.parent))
    path.rename(old / "bundle")
    try:
        folder.rename(path)
    except OSError:
        (old / "bundle").rename(path)
        raise
    finally:
        shutil.rmtree(old, ignore_errors=True)

"""`sparsefx.serve_export`: bundles become a model repository of NVIDIA Triton Inference Server."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ...passes.errors import BundleError
from ...runtime.inputs import check_sizes, dynamic_sizes
from ...runtime.serving.config import Served, batch_size_name, config_text, model_config
from ...runtime.serving.options import ServingOptions
from .model_files import KernelOptions, write_onnx, write_plans
from .repository import CONFIG, keep_others, keep_version, read_versions, staging, write_record
from .sources import Paths, Source, read_sources


@dataclass(frozen=True)
class Exported:
    """A model as it was written: its folder, the versions in it, and notes on what was left out."""

    name: str
    folder: Path
    backend: str
    max_batch_size: int
    versions: tuple[int, ...]
    files: tuple[str, ...]
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self) | {"folder": str(self.folder)}


def serve_export(
    bundles: Mapping[str, Paths] | Sequence[str | os.PathLike[str]],
    repository: str | os.PathLike[str],
    options: ServingOptions | None = None,
    *,
    mounted_at: str | None = None,
    use_kernels: bool = True,
    kernels: str | os.PathLike[str] | None = None,
    trust_kernels: bool = False,
) -> list[Exported]:
    """Write bundles into a model repository, as models of their names or of those in a mapping.

    The repository is made where there is none; models of other names in it stay, and so do other versions of these.
    Several bundles under one name are TensorRT engines of one model for different GPUs. The server's tensors are the
    signature's, by name: structures around them (dicts, tuples) do not exist there.

    Condensed layers need a library of kernels at the server. It is compiled here, or is the library `kernels` (of
    `sparsefx kernels build`, in the server's container), or with `trust_kernels` that of the bundle, and is copied into
    the repository; the server finds it where the repository is `mounted_at` (by default where it is written). Without
    `use_kernels` the layers run as dense ones.

    Raises BundleError where a bundle is damaged, a name taken, or the folder no repository; TargetError where the
    server cannot run a bundle, carry a tensor or take such batches or sizes, or kernels cannot be had. Then nothing is
    changed.
    """
    options = options or ServingOptions()
    folder = Path(repository)
    sources = read_sources(bundles)
    check_sizes(options.sizes, (size for found in sources.values() for size in dynamic_sizes(found[0].signature)))
    choice = KernelOptions(use_kernels, None if kernels is None else Path(kernels), trust_kernels)
    at = mounted_at if mounted_at is not None else os.path.abspath(folder)
    with staging(folder) as models:
        return [_export(name, found, models, folder, at, options, choice) for name, found in sources.items()]


def _export(
    name: str,
    sources: Sequence[Source],
    models: Path,
    repository: Path,
    mounted_at: str,
    options: ServingOptions,
    kernels: KernelOptions,
) -> Exported:
    """One model, under `models` until all of them are complete."""
    first, model = sources[0], models / name
    version = model / str(options.version)
    version.mkdir(parents=True)
    versions = _keep_versions(repository / name, model, options.version, sources)
    keep_others(repository / name, model)
    plans: dict[str, str] = {}
    library, notes = None, []
    if first.backend.name == "tensorrt":
        plans = write_plans(sources, version)
        builders = {str(source.manifest.get("engine", {}).get("builder", "its own")) for source in sources}
        notes.append(f"the engines of {name} load in the TensorRT that built them: {', '.join(sorted(builders))}")
    else:
        library = write_onnx(first, version, kernels, options.threads)
    versions[version.name] = _record(sources, library)
    libraries = _libraries(versions, version.name, f"{mounted_at.rstrip('/')}/{name}")
    if first.manifest.get("kernels") is not None and not libraries:
        notes.append(f"the condensed layers of {name} run as dense ones: it is exported without kernels")
    notes += [
        f"the server must find the kernels of {name} at {path}; see mounted_at (--mounted-at)" for path in libraries
    ]
    served = Served(name, first.signature, first.backend, _largest_batch(sources), _threads(first), plans, libraries)
    config, more = model_config(served, options)
    (model / CONFIG).write_text(config_text(config))
    write_record(model, versions)
    files = sorted(str(file.relative_to(model)) for file in model.rglob("*") if file.is_file())
    numbers = tuple(sorted(map(int, versions)))
    return Exported(
        name, repository / name, first.backend.name, config["max_batch_size"], numbers, tuple(files), (*notes, *more)
    )


def _libraries(versions: Mapping[str, Any], own: str, model: str) -> list[str]:
    """The library of kernels as the server sees it: one for all versions, this one's where it has any."""
    found = {number: record["kernels"] for number, record in versions.items() if record["kernels"] is not None}
    number = own if own in found else next(iter(found), None)
    return [] if number is None else [f"{model}/{number}/{found[number]}"]


def _keep_versions(old: Path, new: Path, version: int, sources: Sequence[Source]) -> dict[str, Any]:
    """Take the other versions of a model along; they must have the configuration's tensors, backend and GPUs."""
    fixed = _record(sources, None)
    alike = ("signature", "backend", *(["targets"] if fixed["backend"] == "tensorrt" else []))
    kept = {number: record for number, record in read_versions(old).items() if number != str(version)}
    for number, record in kept.items():
        if any(record[key] != fixed[key] for key in alike):
            raise BundleError(
                f"{old} has a version {number} with other tensors or for another backend than {sources[0].folder}; "
                "choose another name, or remove it"
            )
        keep_version(old / number, new / number)
    return kept


def _record(sources: Sequence[Source], library: Path | None) -> dict[str, Any]:
    first = sources[0]
    return {
        "bundles": [source.folder.name for source in sources],
        "targets": [source.target for source in sources],
        "backend": first.backend.name,
        "signature": first.manifest["signature"],
        "kernels": None if library is None else library.name,
        "libraries": first.manifest["versions"],
    }


def _threads(source: Source) -> int | None:
    """Those that the engine was built, or its layers were chosen, for."""
    described = source.manifest.get("kernels") or {}
    threads = source.manifest["settings"]["threads"] or described.get("threads")
    return None if threads is None else int(threads)


def _largest_batch(sources: Sequence[Source]) -> int | None:
    """The largest batch that every engine takes, by the sizes it was built for; None where there is no limit."""
    batch = batch_size_name(sources[0].signature)
    sizes = [source.manifest.get("engine", {}).get("sizes", {}) for source in sources]
    return min((size[batch]["most"] for size in sizes if batch in size), default=None)

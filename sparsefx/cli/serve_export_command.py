"""`sparsefx serve-export`."""

from __future__ import annotations

import json
from argparse import Namespace
from pathlib import Path

from sparsefx.cli.progress import stages
from sparsefx.compiler.serving.export import Exported, serve_export
from sparsefx.compiler.serving.sources import Paths
from sparsefx.passes.errors import TargetError
from sparsefx.runtime.inputs import parse_sizes
from sparsefx.runtime.serving.options import ServingOptions


def run(arguments: Namespace) -> int:
    options = ServingOptions(
        max_batch_size=arguments.max_batch_size,
        preferred_batch_sizes=_numbers("--preferred-batch-sizes", arguments.preferred_batch_sizes),
        max_queue_delay_us=arguments.max_queue_delay,
        instances=arguments.instances,
        threads=arguments.threads,
        gpus=_numbers("--gpus", arguments.gpus),
        warm_up=not arguments.no_warm_up,
        sizes=parse_sizes(arguments.sizes),
        version=arguments.version,
        served_versions=arguments.serve_versions,
    )
    bundles: dict[str, Paths] | list[str] = arguments.bundles
    if arguments.name is not None:
        bundles = {arguments.name: arguments.bundles}
    with stages(arguments.quiet) as announce:
        announce("export")
        exported = serve_export(
            bundles,
            arguments.output,
            options,
            mounted_at=arguments.mounted_at,
            use_kernels=not arguments.no_kernels,
            kernels=arguments.kernels,
            trust_kernels=arguments.trust_kernels,
        )
    print(json.dumps([model.to_dict() for model in exported], indent=1) if arguments.json else _text(exported, options))
    return 0


def _numbers(flag: str, text: str) -> tuple[int, ...]:
    parts = text.split(",") if text else []
    if not all(part.isdigit() for part in parts):
        raise TargetError(f"{flag} takes numbers as 4,8; found {text!r}")
    return tuple(map(int, parts))


def _text(exported: list[Exported], options: ServingOptions) -> str:
    lines = []
    for model in exported:
        batches = f"batches of up to {model.max_batch_size}" if model.max_batch_size else "no batches by the server"
        lines.append(f"{model.folder}: {model.backend}, {batches}, version {options.version} of {list(model.versions)}")
        lines += [f"  {file}" for file in model.files]
        lines += [f"Note: {note}" for note in model.notes]
    repository = Path(exported[0].folder).parent
    return "\n".join([*lines, f"Next: tritonserver --model-repository {repository}"])

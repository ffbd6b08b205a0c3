"""`sparsefx serve-export`."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from sparsefx.cli.exit_codes import OK
from sparsefx.cli.flags import threads_flag, trust_flag
from sparsefx.cli.output import show
from sparsefx.cli.progress import stages
from sparsefx.passes.errors import TargetError

if TYPE_CHECKING:
    from sparsefx.compiler.serving.export import Exported
    from sparsefx.compiler.serving.sources import Paths
    from sparsefx.runtime.serving.options import ServingOptions


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("bundles", nargs="+", metavar="bundle", help="bundles to serve")
    parser.add_argument(
        "-o", "--output", required=True, metavar="REPOSITORY", help="model repository; its other models stay"
    )
    parser.add_argument("--name", help="the model's name (that of the folder); several TensorRT bundles are one model")
    parser.add_argument("--max-batch-size", type=int, help="requests run as one at most; 0: no batching (8)")
    parser.add_argument("--preferred-batch-sizes", default="", metavar="N,N", help="batches that run at once")
    parser.add_argument(
        "--max-queue-delay", type=int, default=0, metavar="MICROSECONDS", help="wait so long for more requests (0)"
    )
    parser.add_argument("--instances", type=int, default=1, help="copies that run side by side (1)")
    parser.add_argument("--gpus", default="", metavar="N,N", help="devices that serve a GPU engine (all)")
    parser.add_argument("--sizes", default="", help="dynamic sizes of warm-up requests, as height=224,width=224")
    parser.add_argument("--no-warm-up", action="store_true", help="no requests before the model is ready")
    parser.add_argument("--version", type=int, default=1, help="number to export as; other versions stay (1)")
    parser.add_argument("--serve-versions", default="latest:1", help="latest:N, all, or numbers as 1,3 (latest:1)")
    parser.add_argument(
        "--mounted-at", metavar="PATH", help="where the server finds the repository (where it is written)"
    )
    parser.add_argument(
        "--kernels", metavar="LIBRARY", help="of `sparsefx kernels build` at the server (compiled here)"
    )
    parser.add_argument("--no-kernels", action="store_true", help="condensed layers run as dense ones")
    trust_flag(parser)
    threads_flag(parser)


def run(arguments: Namespace) -> int:
    from sparsefx.compiler.serving.export import serve_export
    from sparsefx.runtime.inputs import parse_sizes
    from sparsefx.runtime.serving.options import ServingOptions

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
    show(arguments.json, [model.to_dict() for model in exported], _text(exported, options))
    return OK


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

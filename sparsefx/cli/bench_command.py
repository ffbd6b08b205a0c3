"""`sparsefx bench`."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

from sparsefx.cli.exit_codes import OK
from sparsefx.cli.flags import threads_flag, trust_flag
from sparsefx.cli.output import show
from sparsefx.cli.progress import bar


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("bundles", nargs="+", metavar="bundle", help="bundles to time; ratios are to the first")
    parser.add_argument("--sizes", default="", help="dynamic sizes, as batch=8,height=224 (default: 1 each)")
    parser.add_argument("--seconds", type=float, default=5.0, help="time to measure for (5)")
    parser.add_argument("--no-memory", action="store_true", help="do not measure peak memory in separate processes")
    trust_flag(parser)
    threads_flag(parser)


def run(arguments: Namespace) -> int:
    from sparsefx.compiler.bench import bench, bench_text
    from sparsefx.runtime.inputs import parse_sizes

    with bar("bench", arguments.quiet) as progress:
        rows = bench(
            _names([Path(bundle) for bundle in arguments.bundles]),
            sizes=parse_sizes(arguments.sizes),
            threads=arguments.threads,
            seconds=arguments.seconds,
            trust_kernels=arguments.trust_kernels,
            memory=not arguments.no_memory,
            on_round=lambda rounds, share: progress.update(share),
        )
    show(arguments.json, [row.to_dict() for row in rows], bench_text(rows))
    return OK


def _names(paths: list[Path]) -> dict[str, Path]:
    """Bundles by name; by path where two have the same name."""
    names = [path.name for path in paths]
    return {path.name if names.count(path.name) == 1 else f"{i + 1}: {path}": path for i, path in enumerate(paths)}

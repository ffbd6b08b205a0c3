"""`sparsefx bench`."""

from __future__ import annotations

import json
from argparse import Namespace
from pathlib import Path

from sparsefx.cli.progress import bar
from sparsefx.compiler.bench import bench, bench_text
from sparsefx.runtime.inputs import parse_sizes


def run(arguments: Namespace) -> int:
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
    print(json.dumps([row.to_dict() for row in rows], indent=1) if arguments.json else bench_text(rows))
    return 0


def _names(paths: list[Path]) -> dict[str, Path]:
    """Bundles by name; by path where two have the same name."""
    names = [path.name for path in paths]
    return {path.name if names.count(path.name) == 1 else f"{i + 1}: {path}": path for i, path in enumerate(paths)}

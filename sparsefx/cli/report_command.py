"""`sparsefx report`: a bundle's report as an HTML page, and as a model card."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from sparsefx.cli.exit_codes import OK
from sparsefx.cli.flags import threads_flag, trust_flag
from sparsefx.cli.output import to_json
from sparsefx.cli.progress import stages
from sparsefx.passes.errors import SparsefxError

if TYPE_CHECKING:
    from sparsefx.compiler.reporting.data import PageData


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("bundle", help="folder of a bundle")
    parser.add_argument("-o", "--output", metavar="FILE", help="page to write, usually report.html")
    parser.add_argument("--card", metavar="FILE", help="model card to write, usually README.md")
    parser.add_argument("--name", help="the page's title (the bundle's name)")
    parser.add_argument("--dense", metavar="BUNDLE", help="the dense model's bundle: time both in turn, layer by layer")
    parser.add_argument("--latency-table", metavar="FILE", help="of `sparsefx profile`: draw the layers' staircases")
    parser.add_argument("--training", metavar="FOLDER", help="of `sparsefx train`: draw what it did")
    parser.add_argument("--sizes", default="", help="dynamic sizes to time with, as batch=8,height=224 (1 each)")
    parser.add_argument("--seconds", type=float, default=5.0, help="time to measure for (5)")
    trust_flag(parser)
    threads_flag(parser)


def run(arguments: Namespace) -> int:
    from sparsefx.compiler.reporting.card import SIGNATURE, figures, model_card
    from sparsefx.compiler.reporting.page import report_page
    from sparsefx.runtime.files import write_whole

    outputs = {arguments.output: report_page, arguments.card: model_card}
    outputs.pop(None, None)
    if not outputs:
        raise SparsefxError("say what to write: -o report.html, --card README.md, or both")
    card = Path(arguments.card or "")
    if card.is_file() and SIGNATURE not in card.read_text(errors="replace"):
        raise SparsefxError(f"{card} exists and is no model card of sparsefx; choose another path or remove it")
    with stages(arguments.quiet) as announce:
        page = _page(arguments, announce)
    for file, draw in outputs.items():
        write_whole(Path(file), draw(page).encode())
    result = {"written": list(outputs), "figures": figures(page)}
    print(to_json(result) if arguments.json else f"Wrote {', '.join(outputs)}")
    return OK


def _page(arguments: Namespace, announce: Callable[[str], None]) -> PageData:
    """The bundle's report, with what was asked for beside it."""
    from sparsefx.compiler.reporting.read import read_page

    announce("read")
    page = read_page(Path(arguments.bundle), arguments.name)
    if arguments.training is not None:
        from sparsefx.compiler.reporting.training import read_training

        page = replace(page, training=read_training(Path(arguments.training)))
    if arguments.latency_table is not None:
        from sparsefx.compiler.reporting.staircases import staircase_charts
        from sparsefx.runtime.latency.table import LatencyTable

        table = LatencyTable.load(arguments.latency_table)
        page = replace(page, staircases=staircase_charts(table, page.report))
    if arguments.dense is not None:
        from sparsefx.compiler.compare_bundles import compare_bundles
        from sparsefx.runtime.inputs import parse_sizes

        announce("time beside the dense engine")
        found = compare_bundles(
            Path(arguments.dense),
            Path(arguments.bundle),
            sizes=parse_sizes(arguments.sizes),
            threads=arguments.threads,
            seconds=arguments.seconds,
            trust_kernels=arguments.trust_kernels,
        )
        page = replace(page, report={**page.report, "latency": asdict(found)})
    return page

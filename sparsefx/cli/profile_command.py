"""`sparsefx profile`."""

from __future__ import annotations

import re
from argparse import ArgumentParser, Namespace
from itertools import count

from sparsefx.cli.exit_codes import OK
from sparsefx.cli.flags import INPUT_HELP, MODEL_HELP, threads_flag
from sparsefx.cli.output import show
from sparsefx.cli.progress import bar
from sparsefx.cli.table_command import summary, summary_text
from sparsefx.passes.errors import TableError

_LINES = 10  # networks between two lines that stay


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("model", help=MODEL_HELP)
    parser.add_argument("--weights", metavar="FILE", help="safetensors file, or a checkpoint that loads without pickle")
    parser.add_argument("--input", metavar="SHAPE", action="append", required=True, help=INPUT_HELP)
    parser.add_argument(
        "-o", "--output", required=True, metavar="TABLE", help="the table's file; goes on if there is one"
    )
    parser.add_argument("--target", default="onnxruntime:cpu", help="engine to profile (onnxruntime:cpu)")
    parser.add_argument(
        "--precision", default="fp32", choices=["fp32", "fp16", "bf16"], help="of a GPU's engine (fp32)"
    )
    parser.add_argument("--grid", metavar="LEVELS", help="shares of the full width to measure, as 1,0.75,0.5,0.25,0.1")
    parser.add_argument("--time-limit", type=float, metavar="SECONDS", help="end then with what is measured")
    parser.add_argument("--spread", type=float, default=0.02, help="certainty at which repetitions end (0.02)")
    parser.add_argument("--cold", action="store_true", help="read other memory before every run (default: run twice)")
    parser.add_argument("--shard", metavar="I/N", help="measure the I-th of N parts, to be merged")
    threads_flag(parser)


def run(arguments: Namespace) -> int:
    import torch

    from sparsefx.cli.model_arguments import example_inputs, load_model
    from sparsefx.passes.capture import capture
    from sparsefx.runtime.latency.profile import profile
    from sparsefx.runtime.latency.record import COLD, WARM

    arguments.masks = None
    model, _ = load_model(arguments)
    inputs = example_inputs(arguments)
    with bar("profile", arguments.quiet) as progress:
        told = count()

        def tell(share: float, text: str) -> None:
            progress.update(share)
            if next(told) % _LINES == 0 or share == 1.0:
                progress.say(text)

        table = profile(
            model if isinstance(model, torch.nn.Module) else capture(model, inputs),
            inputs,
            target=arguments.target,
            grid=_levels(arguments.grid),
            threads=arguments.threads,
            path=arguments.output,
            time_limit=arguments.time_limit,
            tight=arguments.spread,
            weights=COLD if arguments.cold else WARM,
            precision=arguments.precision,
            shard=_shard(arguments.shard),
            on_progress=tell,
        )
    show(arguments.json, summary(table), summary_text(table))
    return OK


def _levels(text: str | None) -> list[float] | None:
    try:
        return None if text is None else [float(level) for level in text.split(",")]
    except ValueError:
        raise TableError(f"--grid must look like 1,0.75,0.5, found {text!r}") from None


def _shard(text: str | None) -> tuple[int, int]:
    if text is None:
        return 1, 1
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    if match is None:
        raise TableError(f"--shard must look like 1/4, found {text!r}")
    return int(match[1]), int(match[2])

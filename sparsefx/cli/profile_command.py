"""`sparsefx profile`."""

from __future__ import annotations

import json
import re
from argparse import Namespace
from itertools import count

import torch

from sparsefx.cli.model_arguments import example_inputs, load_model
from sparsefx.cli.progress import bar
from sparsefx.cli.table_command import summary, summary_text
from sparsefx.passes.capture import capture
from sparsefx.passes.errors import TableError
from sparsefx.runtime.latency.profile import profile
from sparsefx.runtime.latency.record import COLD, WARM

_LINES = 10  # networks between two lines that stay


def run(arguments: Namespace) -> int:
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
    print(json.dumps(summary(table), indent=1) if arguments.json else summary_text(table))
    return 0


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

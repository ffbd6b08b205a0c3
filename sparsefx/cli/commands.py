"""The table of commands: one row each, one file each. The files import what is heavy inside `run`."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from dataclasses import dataclass

from sparsefx.cli import (
    bench_command,
    compile_command,
    completion_command,
    inspect_command,
    kernels_command,
    profile_command,
    quickstart_command,
    report_command,
    serve_export_command,
    slim_command,
    table_command,
    train_command,
    verify_command,
)


@dataclass(frozen=True)
class Command:
    """What a command is for, its flags, what it does (`run` returns the exit code), and what Ctrl-C leaves."""

    summary: str
    add_arguments: Callable[[ArgumentParser], None]
    run: Callable[[Namespace], int]
    interrupted: str = "nothing half-written is left"


COMMANDS = {
    "quickstart": Command(
        "train a small sparse network on real digits, compile, verify and time it",
        quickstart_command.add_arguments,
        quickstart_command.run,
    ),
    "train": Command(
        "train a network sparse, with checkpoints, to weights and masks",
        train_command.add_arguments,
        train_command.run,
        interrupted="the last checkpoint is whole: go on with the same -o and --resume",
    ),
    "compile": Command(
        "compile a masked model into a bundle",
        compile_command.add_arguments,
        compile_command.run,
    ),
    "slim": Command(
        "make a model's own layers smaller, to be trained on",
        slim_command.add_arguments,
        slim_command.run,
    ),
    "verify": Command(
        "compare a bundle's engine with the masked model",
        verify_command.add_arguments,
        verify_command.run,
    ),
    "bench": Command(
        "time bundles against each other in one interleaved run",
        bench_command.add_arguments,
        bench_command.run,
    ),
    "report": Command(
        "draw a bundle's report as one HTML page, or write it as a model card",
        report_command.add_arguments,
        report_command.run,
    ),
    "inspect": Command(
        "show what is in a bundle or in a file of masks",
        inspect_command.add_arguments,
        inspect_command.run,
    ),
    "profile": Command(
        "measure a model's layers in its engine at other widths, as a latency table",
        profile_command.add_arguments,
        profile_command.run,
        interrupted="what was measured is in the table: the same command goes on from there",
    ),
    "table": Command(
        "show, merge, compare or draw latency tables",
        table_command.add_arguments,
        table_command.run,
    ),
    "serve-export": Command(
        "write bundles as a model repository of NVIDIA Triton Inference Server",
        serve_export_command.add_arguments,
        serve_export_command.run,
    ),
    "completion": Command(
        "print the script that completes commands, flags and files in a shell",
        completion_command.add_arguments,
        completion_command.run,
    ),
    "kernels": Command(
        "compile the kernels of condensed layers ahead of their first use",
        kernels_command.add_arguments,
        kernels_command.run,
    ),
}

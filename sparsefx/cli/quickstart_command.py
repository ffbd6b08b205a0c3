"""`sparsefx quickstart`."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from sparsefx.cli.flags import threads_flag


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "-o",
        "--output",
        default="quickstart",
        metavar="FOLDER",
        help="where bundles, weights and masks go (quickstart)",
    )
    parser.add_argument("--method", choices=("srigl", "chase"), default="srigl", help="how to train (srigl)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the training (0)")
    threads_flag(parser)


def run(arguments: Namespace) -> int:
    from sparsefx.cli import quickstart

    return quickstart.run(arguments)

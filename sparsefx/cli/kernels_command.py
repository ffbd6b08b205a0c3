"""`sparsefx kernels build`."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

from sparsefx.cli.exit_codes import OK
from sparsefx.cli.output import to_json
from sparsefx.cli.progress import stages


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("action", choices=("build",), help="build: compile them, and print where the library is")
    parser.add_argument("-o", "--output", metavar="FOLDER", help="where the library goes (the user's cache)")
    parser.add_argument(
        "--march", metavar="NAME", help="processor that all of it may rely on, as the compiler calls it"
    )


def run(arguments: Namespace) -> int:
    from sparsefx.runtime.kernels.build import build_library

    folder = Path(arguments.output) if arguments.output is not None else None
    flags = (f"-march={arguments.march}",) if arguments.march is not None else ()
    with stages(arguments.quiet) as announce:
        announce("compile the kernels")
        library = build_library(folder, flags=flags)
    print(to_json({"library": str(library)}) if arguments.json else library)
    return OK

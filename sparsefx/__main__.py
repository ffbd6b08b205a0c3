"""The `sparsefx` command: parses arguments, and leaves everything heavy to the command itself."""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Sequence
from typing import TextIO

from sparsefx import __version__
from sparsefx.cli.parser import build_parser
from sparsefx.passes.errors import SparsefxError


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command: 0 for success, 1 where sparsefx reports an error, 2 for wrong usage, 130 when interrupted."""
    arguments = build_parser(__version__).parse_args(argv)
    command = importlib.import_module(f"sparsefx.cli.{arguments.command.replace('-', '_')}_command")
    warnings.showwarning = _show_warning
    try:
        return int(command.run(arguments))
    except SparsefxError as error:
        print(f"sparsefx {arguments.command}: {type(error).__name__}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"sparsefx {arguments.command}: interrupted; nothing half-written is left", file=sys.stderr)
        return 130
    except BrokenPipeError:
        sys.stderr.close()  # the reader of a pipe has gone
        return 0


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Without the line of our code that warns."""
    print(f"warning: {message}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())

"""The `sparsefx` command: parses arguments, and leaves everything heavy to the command itself."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TextIO

from sparsefx import __version__
from sparsefx.cli.commands import COMMANDS
from sparsefx.cli.exit_codes import OK
from sparsefx.cli.failures import report_failure
from sparsefx.cli.parser import build_parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; the codes that it returns are those of sparsefx.cli.exit_codes."""
    arguments = build_parser(__version__).parse_args(argv)
    command = COMMANDS[arguments.command]
    try:
        with _warnings_in_a_line():
            code = command.run(arguments)
            sys.stdout.flush()
        return code
    except BrokenPipeError:
        return _reader_has_gone()
    except (Exception, KeyboardInterrupt) as error:
        return report_failure(error, arguments, command.interrupted)


def _reader_has_gone() -> int:
    """What reads our output wants no more of it, as `head`: no failure, and nothing to say at the exit either."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return OK


@contextmanager
def _warnings_in_a_line() -> Iterator[None]:
    """Warnings without the line of our code that warns."""
    shown = warnings.showwarning
    warnings.showwarning = _show_warning
    try:
        yield
    finally:
        warnings.showwarning = shown


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    print(f"warning: {message}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())

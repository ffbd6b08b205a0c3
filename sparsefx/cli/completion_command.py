"""`sparsefx completion`."""

from __future__ import annotations

from argparse import Action, ArgumentParser, Namespace, _SubParsersAction
from collections.abc import Iterator

from sparsefx.cli.exit_codes import OK
from sparsefx.cli.output import to_json

SHELLS = ("bash", "zsh", "fish")
_FILES = ("FILE", "LIBRARY", "TABLE", "model", "path", "table", "masks")  # metavars, or names of positional arguments
_FOLDERS = ("FOLDER", "BUNDLE", "REPOSITORY", "bundle")


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("shell", choices=SHELLS, help="the shell that is to complete")


def run(arguments: Namespace) -> int:
    import shtab

    parser: ArgumentParser = arguments.parser
    for action in _actions(parser):
        name = action.metavar or action.dest
        if name in _FILES or name in _FOLDERS:
            action.complete = shtab.FILE if name in _FILES else shtab.DIRECTORY  # type: ignore[attr-defined]
    script = shtab.complete(parser, arguments.shell)
    print(to_json({"shell": arguments.shell, "script": script}) if arguments.json else script)
    return OK


def _actions(parser: ArgumentParser) -> Iterator[Action]:
    """Flags and positional arguments of a parser and of its commands."""
    for action in parser._actions:
        if isinstance(action, _SubParsersAction):
            for command in action.choices.values():
                yield from _actions(command)
        else:
            yield action

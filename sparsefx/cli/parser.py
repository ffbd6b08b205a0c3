"""The parser of the command line, from the table of commands; imports nothing heavy, so that --help is instant."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Sequence
from typing import Any, NoReturn

from sparsefx.cli.commands import COMMANDS
from sparsefx.cli.examples import EXAMPLES
from sparsefx.cli.exit_codes import TEXT as EXIT_CODES
from sparsefx.cli.exit_codes import USER
from sparsefx.cli.flags import common_flags
from sparsefx.passes.near_names import closest


class Parser(ArgumentParser):
    """An ArgumentParser whose complaints name the nearest command or flag."""

    commands: dict[str, ArgumentParser]

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        given = list(sys.argv[1:] if args is None else args)
        if given and given[0] in self.commands:
            self._check_flags(self.commands[given[0]], given[1:])
        return super().parse_args(given, namespace)

    def _check_flags(self, command: ArgumentParser, given: Sequence[str]) -> None:
        """A flag that does not exist is named first, whatever else is missing."""
        known = command._option_string_actions
        for text in given:
            flag = text.partition("=")[0]
            if flag.startswith("--") and len(flag) > 2 and not any(option.startswith(flag) for option in known):
                command.error(f"there is no flag {flag}{closest(flag, known)}")

    def error(self, message: str) -> NoReturn:
        if "argument command: invalid choice" in message:
            given = message.split("'")[1]
            message = f"there is no command {given!r}{closest(given, COMMANDS)}; commands are {', '.join(COMMANDS)}"
        self.print_usage(sys.stderr)
        self.exit(USER, f"{self.prog}: error: {message}\nSee {self.prog} --help, which has examples.\n")


def build_parser(version: str) -> Parser:
    """The parser of the whole command line."""
    parser = Parser(
        prog="sparsefx",
        description="Compile sparse-trained PyTorch models into smaller engines that are exactly the same function.",
        epilog=f"{EXAMPLES['main']}\n\n{EXIT_CODES}",
        formatter_class=RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"sparsefx {version}")
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="command")
    for name, command in COMMANDS.items():
        subparser = subparsers.add_parser(
            name,
            help=command.summary,
            description=command.summary[0].upper() + command.summary[1:] + ".",
            epilog=f"{EXAMPLES[name]}\n\n{EXIT_CODES}",
            formatter_class=RawDescriptionHelpFormatter,
        )
        common_flags(subparser)
        command.add_arguments(subparser)
    parser.commands = dict(subparsers.choices)
    parser.set_defaults(parser=parser)  # for the command that describes the others
    return parser

"""The bash blocks of the documentation: every command is one that exists, with flags that exist; some are run."""

from __future__ import annotations

import importlib.util
import itertools
import re
import shlex
import string
import tomllib
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack

from sparsefx import __version__
from sparsefx.__main__ import main
from sparsefx.cli.parser import build_parser
from tests.docs.pages import ROOT, Block
from tests.runtime.serving.server import serving

_EXTRAS = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"])
_ELSEWHERE = {"python3.11", ".", "git", "cd", "ruff", "mypy", "sphinx-build", "bash"}  # commands of others'
_ASSIGNMENT = re.compile(r"(\w+)=(.*)", re.DOTALL)


class Shell:
    """Commands of one page: variables, and the address of the server that a page has started."""

    def __init__(self, stack: ExitStack) -> None:
        self.server: str | None = None
        self._stack = stack
        self._variables: dict[str, str] = {}

    def take(self, block: Block) -> None:
        """Check every command of a block, and run those of a block with the attribute `run`."""
        for words in self._commands(block.text):
            assert words[0] in _PROGRAMS or words[0] in _ELSEWHERE, f"{words[0]} is no command that is known here"
            if words[0] in _PROGRAMS:
                _PROGRAMS[words[0]](words[1:])
            if "run" in block.attributes:
                self._run(words)

    def _commands(self, text: str) -> Iterator[list[str]]:
        """Words of every command, variables put in as bash does: an unquoted one may be several words."""
        for line in text.replace("\\\n", " ").splitlines():
            assignment = _ASSIGNMENT.fullmatch(line.strip())
            if assignment:
                (self._variables[assignment[1]],) = shlex.split(assignment[2])
                continue
            words = shlex.split(string.Template(line).safe_substitute(self._variables), comments=True)
            words = list(itertools.takewhile(lambda word: word not in (">", "|"), words))  # what they print is not kept
            while words:
                end = words.index("&&") if "&&" in words else len(words)
                yield words[:end]
                words = words[end + 1 :]

    def _run(self, words: list[str]) -> None:
        if words[0] == "sparsefx":
            assert main(words[1:]) == 0, f"{shlex.join(words)} failed"
        elif words[0] == "tritonserver":
            self.server = self._stack.enter_context(serving(ROOT.cwd() / words[words.index("--model-repository") + 1]))
        else:
            raise AssertionError(f"{words[0]} is not run here; leave `run` away")


def _parse_sparsefx(words: list[str]) -> None:
    try:
        build_parser(__version__).parse_args(words)
    except SystemExit as stop:
        if stop.code:
            raise AssertionError(f"sparsefx {shlex.join(words)}: the parser refuses it") from stop


def _parse_python(words: list[str]) -> None:
    """A module or a file that exists."""
    if words[0] == "-m":
        assert words[1] == "pytest" or importlib.util.find_spec(words[1]) is not None, f"no module {words[1]}"
    elif not words[0].startswith("-"):
        assert (ROOT / words[0]).is_file(), f"no file {words[0]}"


def _parse_pip(words: list[str]) -> None:
    """Extras that pyproject has."""
    for extras in re.findall(r"(?:sparsefx|\.)\[([\w,-]+)\]", " ".join(words)):
        assert set(extras.split(",")) <= _EXTRAS, f"extras {extras}: pyproject has {sorted(_EXTRAS)}"


def _parse_tritonserver(words: list[str]) -> None:
    assert words[0] == "--model-repository"


_PROGRAMS: Mapping[str, Callable[[list[str]], None]] = {
    "sparsefx": _parse_sparsefx,
    "python": _parse_python,
    "pip": _parse_pip,
    "tritonserver": _parse_tritonserver,
}

"""What the command line imports before it is asked for work: nothing that takes time."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from sparsefx.cli.commands import COMMANDS

HEAVY = ("torch", "onnxruntime", "onnx", "onnxscript", "numpy", "rich", "matplotlib", "safetensors", "sympy")
LINES = [["--help"], ["--version"], *([name, "--help"] for name in COMMANDS)]
LINES += [["completion", shell] for shell in ("bash", "zsh", "fish")]
WRONG = [[], ["complie"], ["compile"], ["bench", "--no-such-flag"]]

CODE = """
import contextlib, io, json, sys
from sparsefx.__main__ import main
lines, heavy = json.loads(sys.argv[1])
loaded = {}
for line in lines:
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()):
        try:
            code = main(line)
        except SystemExit as stop:
            code = stop.code
    loaded[" ".join(line)] = [code, len(out.getvalue()), [name for name in heavy if name in sys.modules]]
print(json.dumps(loaded))
"""


@pytest.fixture(scope="module")
def after() -> dict[str, list[Any]]:
    """For every line: its exit code, how much it printed, and what is loaded after it; all in one process."""
    done = subprocess.run(
        [sys.executable, "-c", CODE, json.dumps([LINES + WRONG, HEAVY])], capture_output=True, text=True, check=True
    )
    found: dict[str, list[Any]] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("line", LINES, ids=" ".join)
def test_asking_for_help_loads_nothing_heavy(after: dict[str, list[Any]], line: list[str]) -> None:
    code, printed, loaded = after[" ".join(line)]
    assert (code, loaded) == (0, []) and printed > 10


@pytest.mark.parametrize("line", WRONG, ids=lambda line: " ".join(line) or "nothing")
def test_nor_does_wrong_usage(after: dict[str, list[Any]], line: list[str]) -> None:
    assert after[" ".join(line)] == [2, 0, []]

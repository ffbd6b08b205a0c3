"""The completion scripts, in the shells that they are for."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sparsefx.__main__ import main
from sparsefx.cli.commands import COMMANDS
from sparsefx.cli.completion_command import SHELLS

# What bash does at TAB: words so far, the cursor in the last one, and the function that `complete -p` names.
BASH = """
source ./script
function=$(complete -p sparsefx | sed 's/.*-F \\([^ ]*\\) .*/\\1/')
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMP_LINE="$*"; COMP_POINT=${#COMP_LINE}
$function sparsefx "${@: -1}" "${@: -2:1}"
printf '%s\\n' "${COMPREPLY[@]}"
"""
CASES = [
    ("sparsefx ", set(COMMANDS)),
    ("sparsefx com", {"compile", "completion"}),
    ("sparsefx compile --rep", {"--representation"}),
    ("sparsefx quickstart --method ", {"srigl", "chase"}),
    ("sparsefx completion ", set(SHELLS)),
    ("sparsefx compile --weights w", {"weights.safetensors"}),
    ("sparsefx bench b", {"bundle.sfx"}),
    ("sparsefx bench bundle.sfx b", {"bundle.sfx"}),
    ("sparsefx inspect w", {"weights.safetensors"}),
]


def _output(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return done.stdout


@pytest.fixture
def script(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The script of a shell in a folder with a bundle and weights."""
    shell: str = request.param
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bundle.sfx").mkdir()
    (tmp_path / "weights.safetensors").touch()
    done = subprocess.run(
        [sys.executable, "-m", "sparsefx", "completion", shell], capture_output=True, text=True, check=True
    )
    (tmp_path / "script").write_text(done.stdout)
    return tmp_path / "script"


@pytest.mark.parametrize("script", ["bash"], indirect=True)
def test_bash_completes(script: Path) -> None:
    for line, wanted in CASES:
        words = line.split(" ")
        done = subprocess.run(
            ["bash", "--norc", "-c", BASH, "bash", *words], capture_output=True, text=True, check=True
        )
        assert {word.rstrip("/") for word in done.stdout.split()} == wanted, line


@pytest.mark.parametrize("script", ["fish"], indirect=True)
def test_fish_completes(script: Path) -> None:
    for line, wanted in CASES:
        code = f"source {script}; complete -C '{line}'"
        found = {row.split("\t")[0].rstrip("/") for row in _output("fish", "--no-config", "-c", code).splitlines()}
        assert wanted <= found and (found == wanted or line.split()[1] in ("bench", "inspect", "compile")), line


@pytest.mark.parametrize("script", ["zsh"], indirect=True)
def test_zsh_takes_the_script(script: Path) -> None:
    code = f'autoload -U compinit && compinit -u -D && eval "$(cat {script})" && echo $_comps[sparsefx]'
    assert _output("zsh", "-f", "-c", code).startswith("_shtab_sparsefx")


def test_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", "fish", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["shell"] == "fish" and "complete -c sparsefx" in found["script"]

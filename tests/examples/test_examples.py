"""The programs of examples/, as users run them: in short by default, as they stand with `-m long`."""

from __future__ import annotations

import re
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import sparsefx
from sparsefx.training import MaskSet
from tests.cli.test_train import in_proportion
from tests.runtime.kernels.needs import needs_compiler

EXAMPLES = Path(__file__).parents[2] / "examples"
SHORT = {
    "srigl_online": ["--steps", "60", "--seconds", "0.2"],
    "chase_resnet": ["--epochs", "1", "--seconds", "0.2"],
    "iee_latency": ["--epochs", "1", "--seconds", "0.2"],
    "foreign_checkpoint": [],
    "custom_pass": [],
}


@pytest.fixture
def output(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> str:
    """What an example prints, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [request.param, *SHORT[request.param]])
    threads = torch.get_num_threads()
    runpy.run_path(str(EXAMPLES / f"{request.param}.py"), run_name="__main__")
    torch.set_num_threads(threads)
    return capsys.readouterr().out


def test_all_are_tested() -> None:
    assert {path.stem for path in EXAMPLES.glob("*.py")} == set(SHORT)


@needs_compiler
@pytest.mark.parametrize("output", ["srigl_online"], indirect=True)
def test_srigl_online(output: str) -> None:
    assert "constant_fan_in in the large layer" in output
    assert re.search(r"^sparse +[\d.]+ ms", output, re.MULTILINE) and "accuracy of the engine" in output
    assert Path("online/models/sparse/config.pbtxt").is_file()


@pytest.mark.ci
@pytest.mark.parametrize("output", ["chase_resnet"], indirect=True)
def test_chase_resnet(output: str) -> None:
    assert "verified on test images: passed" in output
    before, after = map(int, re.findall(r"^channels: (\d+) -> (\d+)$", output, re.MULTILINE)[0])
    assert after < before
    masked, engine = re.findall(r"masked model ([\d.]+)%, engine ([\d.]+)%", output)[0]
    assert masked == engine
    assert MaskSet.load("chase/masks.safetensors").method == "Chase"


@pytest.fixture
def short_profile(monkeypatch: pytest.MonkeyPatch) -> None:
    """A table of few networks, with times that the machine has no part in."""
    profile = sparsefx.profile

    def in_short(model: Any, inputs: Any, *, threads: int, path: Path) -> sparsefx.LatencyTable:
        measured = profile(model, inputs, threads=threads, grid=(1.0, 0.1), tight=10.0)
        table = sparsefx.LatencyTable(measured.setting, map(in_proportion, measured.records), measured.header)
        table.save(path)
        return table

    monkeypatch.setattr(sparsefx, "profile", in_short)


@pytest.mark.long  # the table, a training and two engines: half a minute
@pytest.mark.usefixtures("short_profile")
@pytest.mark.filterwarnings("ignore:.*extrapolated")
@pytest.mark.parametrize("output", ["iee_latency"], indirect=True)
def test_iee_latency(output: str) -> None:
    assert re.search(r"^within budget: [\d.]+ ms, [\d.]+ of dense$", output, re.MULTILINE)
    assert "by the table: " in output
    assert Path("iee/model.sfx/manifest.json").is_file()


@pytest.mark.parametrize("output", ["foreign_checkpoint"], indirect=True)
def test_foreign_checkpoint(output: str) -> None:
    assert "torch.nn.utils.prune" in output and "rigl-torch" in output
    errors = [float(number) for number in re.findall(r"masked model by (\S+) at most", output)]
    assert len(errors) == 2 and max(errors) < 1e-4


@pytest.mark.parametrize("output", ["custom_pass"], indirect=True)
def test_custom_pass(output: str) -> None:
    assert "without a rule 32 of 32 channels stay" in output and "with it 16 stay" in output
    errors = [float(number) for number in re.findall(r"off by (\S+)", output)]
    assert len(errors) == 2 and max(errors) < 1e-4


@pytest.mark.long
@pytest.mark.parametrize("name", SHORT)
def test_as_it_stands(name: str, tmp_path: Path) -> None:
    program = [sys.executable, str(EXAMPLES / f"{name}.py")]
    done = subprocess.run(program, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr

"""`sparsefx slim`: what it writes, and how it fails."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_model, save_file

import sparsefx
from sparsefx.__main__ import main
from tests.compiler.models import Residual, half_of_conv1, masked, residual

FACTORY = "from tests.compiler.models import residual\n"


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "slim_factory.py").write_text(FACTORY)
    save_file(residual(seed=1).state_dict(), tmp_path / "weights.safetensors")
    half_of_conv1(residual()).save(tmp_path / "masks.safetensors")
    yield tmp_path
    sys.modules.pop("slim_factory", None)


def _slim(*more: str) -> int:
    inputs = ["--input", "1x3x8x8", "--weights", "weights.safetensors", "--masks", "masks.safetensors"]
    return main(["slim", "slim_factory:residual", *inputs, *more])


def test_a_folder_to_train_on(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _slim("-o", "slim") == 0
    out, err = capsys.readouterr()
    assert out.startswith("Residual: ") and out.endswith("Saved in slim\n")
    assert [line.split(":")[0] for line in err.splitlines()] == ["load", "slim", "save"]
    again = sparsefx.rebuild_slim(Residual(), json.loads(Path("slim/slim.json").read_text())).eval()
    load_model(again, "slim/slim.safetensors")
    sparsefx.MaskSet.load("slim/masks.safetensors").check(again)
    model, x = residual(seed=1), torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(again(x).detach(), masked(model, half_of_conv1(model), x), rtol=1e-4, atol=1e-5)
    assert _slim("-o", "slim", "--json", "--quiet", "--fixed-sizes") == 0  # its own folder is written anew
    facts = json.loads(capsys.readouterr().out)
    assert facts["parameters_after"] < facts["parameters_before"] and facts["verified"]


def test_errors(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("other").mkdir()
    Path("other/notes.txt").write_text("mine")
    assert _slim("-o", "other", "--quiet") == 2
    assert "BundleError: other exists and holds no slim module" in capsys.readouterr().err
    assert sorted(p.name for p in Path("other").iterdir()) == ["notes.txt"]
    with pytest.raises(SystemExit) as stop:
        main(["slim", "slim_factory:residual", "--input", "1x3x8x8"])
    assert stop.value.code == 2

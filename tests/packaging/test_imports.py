"""What is loaded when: importing and asking for help is cheap, and an engine runs without torch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import sparsefx

_HEAVY = ("torch", "onnx", "onnxruntime", "onnxscript", "numpy", "safetensors", "sympy")
_NO_TORCH = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "onnx", "onnxscript", "safetensors", "sympy", "sklearn", "rich"):
            raise ImportError(f"{name} is not installed here")
sys.meta_path.insert(0, Blocker())
"""


_OTHERS = '"triton", "tensorrt", "tensorrt_rtx", "tritonclient", "torch_tensorrt"'


def _python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)


def test_importing_sparsefx_loads_nothing_heavy() -> None:
    done = _python(f"import sys, sparsefx; print([m for m in {_HEAVY} if m in sys.modules])")
    assert done.stdout.strip() == "[]", done.stderr


@pytest.mark.parametrize("arguments", [["--help"], ["compile", "--help"], ["--version"]])
def test_help_loads_nothing_heavy(arguments: list[str]) -> None:
    code = (
        "import sys, sparsefx.__main__ as m\n"
        "try: m.main(sys.argv[1:])\n"
        "except SystemExit as e: assert e.code == 0\n"
        f"assert not [m for m in {_HEAVY} if m in sys.modules]"
    )
    done = _python(code, *arguments)
    assert done.returncode == 0, done.stderr
    assert "sparsefx" in done.stdout


def test_the_builder_of_nvidia_engines_loads_no_torch() -> None:
    code = "import sys, sparsefx.runtime.tensorrt.child; print([m for m in ('torch', 'onnx') if m in sys.modules])"
    done = _python(code)
    assert done.stdout.strip() == "[]", done.stderr


def test_compiling_needs_no_package_of_another_target() -> None:
    code = _NO_TORCH.replace('"torch", "onnx", "onnxscript", "safetensors", "sympy", "sklearn", "rich"', _OTHERS)
    done = _python(code + "import sparsefx\nsparsefx.compile, sparsefx.load, sparsefx.profile")
    assert done.returncode == 0, done.stderr


def test_every_public_name_resolves() -> None:
    for name in sparsefx.__all__:
        assert getattr(sparsefx, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'compyle'"):
        _ = sparsefx.compyle


def test_a_bundle_runs_without_torch(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4)).eval()
    bundle = tmp_path / "mlp.sfx"
    sparsefx.compile(model, (torch.randn(1, 8),)).save(bundle)
    x = torch.randn(3, 8)
    code = _NO_TORCH + (
        "import json, numpy, sparsefx\n"
        "engine = sparsefx.load(sys.argv[1], threads=1)\n"
        "y = engine(numpy.array(json.loads(sys.argv[2]), dtype='float32'))\n"
        "assert type(y) is numpy.ndarray\n"
        "print(json.dumps(y.tolist()))"
    )
    done = _python(code, str(bundle), json.dumps(x.tolist()))
    assert done.returncode == 0, done.stderr
    with torch.no_grad():
        torch.testing.assert_close(torch.tensor(json.loads(done.stdout)), model(x))


def test_reports_are_read_without_torch(tmp_path: Path) -> None:
    bundle = tmp_path / "mlp.sfx"
    sparsefx.compile(nn.Sequential(nn.Linear(8, 4)).eval(), (torch.randn(1, 8),)).save(bundle)
    done = _python(
        _NO_TORCH + "from sparsefx.__main__ import main\nsys.exit(main(['inspect', sys.argv[1]]))", str(bundle)
    )
    assert done.returncode == 0, done.stderr
    assert "multiply-accumulates per sample" in done.stdout

"""The command line: what it prints, what it leaves behind, and how it fails."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import sparsefx
from sparsefx.__main__ import main
from tests.compiler.models import half_of_conv1, residual
from tests.runtime.kernels.needs import needs_compiler

FACTORY = """
import torch
from torch import nn
def residual():
    from tests.compiler.models import residual
    return residual()
def sparse_layer():
    torch.manual_seed(0)
    layer = nn.Linear(64, 64)
    layer.weight.data.mul_(torch.rand(64, 64) < 0.1)
    return layer
def not_a_model():
    return 3
def needs_an_argument(x):
    return nn.Linear(x, x)
"""
INPUT = ["--input", "1x3x8x8"]


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with a model factory, weights and masks, from which commands run."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "factory.py").write_text(FACTORY)
    model = residual(seed=1)
    save_file(model.state_dict(), tmp_path / "weights.safetensors")
    torch.save({"state_dict": {f"module.{k}": v for k, v in model.state_dict().items()}}, tmp_path / "weights.pth")
    half_of_conv1(model).save(tmp_path / "masks.safetensors")
    yield tmp_path
    sys.modules.pop("factory", None)


def _compile(*more: str) -> int:
    return main(["compile", "factory:residual", "--masks", "masks.safetensors", *INPUT, "-o", "model.sfx", *more])


def test_compile_verify_inspect_and_bench(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _compile("--weights", "weights.safetensors", "--threads", "1") == 0
    out, err = capsys.readouterr()
    assert "Compiled Residual into model.sfx" in out and "verified on 5 batches" in out
    assert "multiply-accumulates" in out and "next" in out
    assert [line.split(":")[0] for line in err.splitlines()] == [
        "load",
        "capture",
        "passes",
        "lowering",
        "representations",
        "verification",
        "save",
    ]
    model = ["factory:residual", "--weights", "weights.pth", "--masks", "masks.safetensors", *INPUT]
    assert main(["verify", "model.sfx", *model]) == 0
    assert capsys.readouterr().out.endswith("passed\n")
    assert main(["inspect", "model.sfx"]) == 0
    assert "model.sfx: bundle for onnxruntime:cpu (fp32)" in capsys.readouterr().out
    assert main(["bench", "model.sfx", "--seconds", "0", "--sizes", "batch=2"]) == 0
    assert "peak memory" in capsys.readouterr().out


def test_results_as_json(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _compile("--json", "--quiet") == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["totals"]["channels_before"] == 37
    assert err == ""
    assert main(["inspect", "masks.safetensors", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["masks"][0]["structure"]["kind"] == "channel"
    assert main(["inspect", "model.sfx", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["manifest"]["format"] == "sparsefx-bundle"
    assert main(["bench", "model.sfx", "--seconds", "0", "--json", "--no-memory"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert row["ratio_to_first"] == 1.0 and row["runs"] >= 20 and row["peak_memory_bytes"] is None


def test_masks_are_shown_with_their_structure(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", "masks.safetensors"]) == 0
    assert "conv1.weight" in (out := capsys.readouterr().out) and "channel" in out and "50.00%" in out


def test_a_deviating_engine_fails_verification(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _compile("--quiet") == 0
    assert main(["verify", "model.sfx", "factory:residual", "--weights", "weights.pth", *INPUT]) == 1
    out = " ".join(capsys.readouterr().out.split())
    assert out.endswith("where they are, compile again") and "FAILED: the engine is not this model" in out


@needs_compiler
def test_rounded_weights_are_named_where_they_fail_verification(
    workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    how = ["--representation", "condensed", "--precision", "bf16", "--quiet"]
    model = ["factory:sparse_layer", "--input", "1x64"]
    assert main(["compile", *model, *how, "-o", "rounded.sfx"]) == 0
    assert main(["verify", "rounded.sfx", *model]) == 1
    assert "rounded to bfloat16" in capsys.readouterr().out
    assert main(["verify", "rounded.sfx", *model, "--tolerance", "0.05"]) == 0


def test_an_exported_program_compiles(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    batch = torch.export.Dim("batch")
    program = torch.export.export(residual(), (torch.randn(2, 3, 8, 8),), dynamic_shapes=({0: batch},))
    torch.export.save(program, workplace / "model.pt2")
    assert main(["compile", "model.pt2", *INPUT, "-o", "exported.sfx", "--quiet"]) == 0
    assert sparsefx.load("exported.sfx")(torch.randn(4, 3, 8, 8)).shape == (4, 5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["compile", "factory:nothing", *INPUT, "-o", "x"], "CaptureError: module factory has no function nothing"),
        (["compile", "nowhere:x", *INPUT, "-o", "x"], "CaptureError: there is no module nowhere"),
        (
            ["compile", "factory", *INPUT, "-o", "x"],
            "the model must be module:function, a .pt2 file or an .onnx file, found 'factory'",
        ),
        (["compile", "factory:not_a_model", *INPUT, "-o", "x"], "must return a torch.nn.Module, found int"),
        (["compile", "factory:needs_an_argument", *INPUT, "-o", "x"], "must be callable without arguments"),
        (["compile", "missing.pt2", *INPUT, "-o", "x"], "there is no file missing.pt2"),
        (["compile", "factory.py.pt2", *INPUT, "-o", "x", "--weights", "w"], "factory.py.pt2 has its weights inside"),
        (["compile", "factory:residual", "--input", "3x", "-o", "x"], "--input must look like 1x3x224x224"),
        (["compile", "factory:residual", "--input", "3:int3", "-o", "x"], "int3 is no torch dtype"),
        (["compile", "factory:residual", *INPUT, "-o", "x", "--masks", "no"], "no"),
        (["compile", "factory:residual", *INPUT, "-o", "x", "--weights", "no.pth"], "there is no weights file no.pth"),
        (["compile", "factory:residual", *INPUT, "-o", "x", "--weights", "factory.py"], "cannot be read safely"),
        (["compile", "factory:residual", *INPUT, "-o", "x", "--weights", "other.pth"], "does not fit Residual"),
        (["compile", "factory:residual", *INPUT, "-o", "x", "--weights", "list.pth"], "holds no state dict"),
        (["compile", "factory:residual", *INPUT, "-o", "x", "--target", "tpu"], "TargetError: unknown target 'tpu'"),
        (["compile", "factory:residual", "--input", "1x4x8x8", "-o", "x"], "CaptureError"),
        (["inspect", "nowhere"], "BundleError: there is nothing at nowhere"),
        (["inspect", "weights.safetensors"], "MaskError"),
        (["bench", "."], "BundleError: . is no bundle"),
        (["verify", "nowhere.sfx", "factory:residual", *INPUT], "BundleError: nowhere.sfx is no bundle"),
    ],
)
def test_errors_say_what_is_wrong_and_leave_nothing(
    workplace: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    torch.save({"other": torch.ones(1)}, workplace / "other.pth")
    torch.save([1, 2], workplace / "list.pth")
    before = sorted(p.name for p in workplace.iterdir() if p.name != "__pycache__")
    assert main([*arguments, *([] if arguments[0] == "bench" else ["--quiet"])]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err and err.startswith(f"sparsefx {arguments[0]}: ")
    assert sorted(p.name for p in workplace.iterdir() if p.name != "__pycache__") == before


def test_a_place_that_cannot_be_written_is_refused_before_any_work(
    workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (workplace / "model.sfx").write_text("notes")
    assert _compile() == 2
    assert capsys.readouterr().err.startswith("sparsefx compile: BundleError: model.sfx exists and is no bundle")
    assert (workplace / "model.sfx").read_text() == "notes"


def test_sizes_that_no_bundle_has_are_refused(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _compile("--quiet", "--no-verify", "--representation", "dense") == 0
    for sizes, message in {
        "bach=8": "there is no dynamic size bach (did you mean batch?); dynamic sizes are batch",
        "batch=0": "the size batch must be at least 1, found 0",
    }.items():
        assert main(["bench", "model.sfx", "--seconds", "0", "--no-memory", "--sizes", sizes]) == 2
        assert message in " ".join(capsys.readouterr().err.split())
    assert _compile("--quiet", "--static-batch", "--no-verify", "--representation", "dense") == 0
    assert main(["bench", "model.sfx", "--seconds", "0", "--no-memory", "--sizes", "batch=1"]) == 2
    assert "all sizes are fixed" in capsys.readouterr().err


@pytest.mark.parametrize("threads", ["0", "-1", "two"])
def test_threads_are_counted_from_one(capsys: pytest.CaptureFixture[str], threads: str) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["bench", "model.sfx", f"--threads={threads}"])
    assert stop.value.code == 2
    assert f"--threads: must be a number from 1 up, found '{threads}'" in capsys.readouterr().err


def test_wrong_usage_exits_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["compile"])
    assert stop.value.code == 2
    assert "usage: sparsefx compile" in capsys.readouterr().err


def test_an_interrupt_exits_with_130(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from sparsefx.compiler import bench

    def interrupted(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(bench, "bench", interrupted)
    assert main(["bench", "x.sfx"]) == 130
    assert "interrupted" in capsys.readouterr().err


def test_integer_inputs_have_a_range() -> None:
    from sparsefx.cli.model_arguments import _example

    tokens = _example("2x50:int64:7", torch.Generator().manual_seed(0))
    assert (tokens.dtype, tuple(tokens.shape), int(tokens.max())) == (torch.int64, (2, 50), 6)


def test_kernels_are_built_ahead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    compiler = tmp_path / "cxx"  # writes down its flags in place of compiling
    compiler.write_text(
        '#!/bin/sh\necho "$@" >> "$0.log"\nwhile [ $# -gt 1 ]; do [ "$1" = -o ] && : > "$2"; shift; done\n'
    )
    compiler.chmod(0o755)
    monkeypatch.setenv("CXX", str(compiler))
    monkeypatch.chdir(tmp_path)
    assert main(["kernels", "build", "--march", "x86-64-v4", "-o", "lib", "--json", "--quiet"]) == 0
    library = Path(json.loads(capsys.readouterr().out)["library"])
    assert library.parent == Path("lib") and [library.name] == [p.name for p in Path("lib").iterdir()]
    assert "-march=x86-64-v4" in (tmp_path / "cxx.log").read_text()
    assert main(["kernels", "build", "-o", "cxx"]) == 2
    assert "cannot write compiled kernels into cxx" in capsys.readouterr().err

"""How commands fail: one screen on standard error with the cause and the next step, an exit code, nothing left "
"behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import sparsefx
from sparsefx.__main__ import main
from sparsefx.cli.commands import COMMANDS
from sparsefx.cli.exit_codes import BUG, INTERRUPTED, NEGATIVE, OK, USER
from tests.runtime.latency.helpers import SETTING

FACTORY = """
import signal
import time
from pathlib import Path
import torch
from torch import nn
def mlp():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))
def broken():
    raise ValueError("there is no learning rate")
def not_a_model():
    return 3
def needs_an_argument(width, depth=3):
    return nn.Linear(width, depth)
class Branching(nn.Module):
    def forward(self, x):
        return x if x.sum() > 0 else -x
class Random(nn.Module):
    def forward(self, x):
        return x + torch.randn_like(x)
class Slow(nn.Linear):
    def __init__(self):
        super().__init__(8, 4)
    def forward(self, x):
        if not torch.compiler.is_exporting():
            # ignored where a shell runs the tests in the background
            signal.signal(signal.SIGINT, signal.default_int_handler)
            Path("running").touch()
            time.sleep(600)
        return super().forward(x)
settings = 3
"""
MLP = ["factory:mlp", "--input", "1x8"]
COMPILE = ["compile", *MLP, "-o", "model.sfx"]
VERIFY = ["verify", "model.sfx", *MLP]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model factory, checkpoints that fit and that do not, a bundle and a table of another machine."""
    folder = tmp_path_factory.mktemp("made")
    (folder / "factory.py").write_text(FACTORY)
    (folder / "needs.py").write_text("import a_package_that_nobody_has\n")
    (folder / "failing.py").write_text("1 / 0\n")
    (folder / "notes").mkdir()
    (folder / "notes" / "diary.txt").write_text("dear diary")
    (folder / "empty").mkdir()
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))
    state = model.state_dict()
    save_file(state, folder / "weights.safetensors")
    save_file({**state, "0.weight": torch.ones(16, 9)}, folder / "wider.safetensors")
    save_file({"0.weight": state["0.weight"], "extra": torch.ones(1)}, folder / "other.safetensors")
    sparsefx.LatencyTable(SETTING, []).save(folder / "elsewhere.latency")
    sparsefx.compile(model, (torch.randn(1, 8),), representation="dense").save(folder / "old.sfx")
    return folder


@pytest.fixture
def workplace(made: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(made)
    yield made
    for module in ("factory", "needs", "failing"):
        sys.modules.pop(module, None)


CASES: dict[str, tuple[list[str], tuple[str, ...]]] = {
    "no such module": (["compile", "factry:mlp", *COMPILE[2:]], ("no module factry", "run sparsefx in the folder")),
    "a module that needs another": (
        ["compile", "needs:mlp", *COMPILE[2:]],
        ("needs a_package_that_nobody_has, which is not installed", "needs.py, line 1"),
    ),
    "a module that fails": (
        ["compile", "failing:mlp", *COMPILE[2:]],
        ("raised ZeroDivisionError", "failing.py, line 1"),
    ),
    "no such factory": (["compile", "factory:mpl", *COMPILE[2:]], ("has no function mpl", "did you mean mlp?")),
    "a factory that raises": (
        ["compile", "factory:broken", *COMPILE[2:]],
        ("ValueError: there is no learning rate", "factory.py, line 11", "called without arguments"),
    ),
    "a factory with arguments": (
        ["compile", "factory:needs_an_argument", *COMPILE[2:]],
        ("it needs width", "write a function around it"),
    ),
    "no factory": (["compile", "factory:settings", *COMPILE[2:]], ("must be a function or class, found int",)),
    "a factory of something else": (["compile", "factory:not_a_model", *COMPILE[2:]], ("found int", "torch.nn.Module")),
    "no colon": (["compile", "factory.mlp", *COMPILE[2:]], ("found 'factory.mlp'", "mymodels:thename")),
    "an input that cannot be read": (["compile", "factory:mlp", "--input", "1,8", "-o", "x"], ("'1,8'", "1x3x224x224")),
    "an input of an unknown type": (["compile", "factory:mlp", "--input", "1x8:f32", "-o", "x"], ("f32", "float32, ")),
    "an input of another shape": (
        ["compile", "factory:mlp", "--input", "1x9", "-o", "x"],
        ("float32[2, 9]", "give a tuple of what its forward takes"),
    ),
    "weights that lack some": (
        [*COMPILE, "--weights", "other.safetensors"],
        ("3 missing: 0.bias, 2.weight, 2.bias", "1 unknown to the model: extra", "Use the factory"),
    ),
    "weights of another shape": (
        [*COMPILE, "--weights", "wider.safetensors"],
        ("1 of another shape: 0.weight ([16, 9], the model has [16, 8])", "the sizes that it was trained with"),
    ),
    "no weights": ([*COMPILE, "--weights", "none.pth"], ("no weights file none.pth",)),
    "weights for masks": (
        [*COMPILE, "--masks", "weights.safetensors"],
        ("no mask file", "On the command line: --weights without --masks (MaskSet.from_zeros)"),
    ),
    "data-dependent control flow": (
        ["compile", "factory:Branching", *COMPILE[2:]],
        ("Branching could not be captured", "if x.sum() > 0", "torch.where"),
    ),
    "a bundle over something else": (
        [*COMPILE[:-1], "notes"],
        ("notes exists and is no bundle", "choose another path"),
    ),
    "a target without a file": (
        ["compile", "factory:model", "--input", "1x3x8x8", "--target", "torch", "-o", "x.sfx"],
        ("target torch stops at the graph", "graph_module"),
    ),
    "a bundle below a file": (
        [*COMPILE[:-1], "factory.py/model.sfx"],
        ("cannot write factory.py/model.sfx", "a part of this path is a file"),
    ),
    "an unknown target": ([*COMPILE, "--target", "onnxruntime"], ("unknown target 'onnxruntime'", "onnxruntime:cpu")),
    "a package that is missing": ([*COMPILE, "--target", "tensorrt:sm90"], ("tensorrt", "pip install")),
    "a table of another machine": (
        [*COMPILE, "--latency-table", "elsewhere.latency"],
        ("the latency table was measured with device 'a processor'", "profile again"),
    ),
    "a bundle that is not there": (["bench", "none.sfx"], ("none.sfx is no bundle", "found nothing")),
    "a file for a bundle": (["bench", "factory.py"], ("factory.py is no bundle", "found a file")),
    "sizes that cannot be read": (["bench", "old.sfx", "--sizes", "8"], ("batch=8,height=224", "found '8'")),
    "nothing to inspect": (["inspect", "none"], ("nothing at none", "a bundle or a file of masks")),
    "a table that is none": (["table", "factory.py"], ("line 1 is damaged", "profile again")),
    "a difference of one table": (["table", "elsewhere.latency", "--diff"], ("compares two tables, found 1",)),
    "a picture of no layer": (["table", "elsewhere.latency", "-o", "x.png"], ("the picture of --plot", "--plot LAYER")),
    "a grid that cannot be read": (["profile", *MLP, "-o", "t", "--grid", "1;0.5"], ("found '1;0.5'", "1,0.75,0.5")),
    "training into nowhere": (["train"], ("-o FOLDER",)),
    "a method with a slip": (["train", "-o", "run", "--method", "SRigl"], ("unknown method 'SRigl'", "mean SRigL?")),
    "an option with a slip": (["train", "-o", "run", "--set", "gama=0.5"], ("no option gama", "did you mean gamma?")),
    "an option without a value": (["train", "-o", "run", "--set", "gamma"], ("NAME=VALUE", "found 'gamma'")),
    "sparsity in percent": (["train", "-o", "run", "--sparsity", "90"], ("found 90", "for 90% write 0.9")),
    "data that is not there": (
        ["train", "-o", "run", "--data", "folders", "--folder", "empty"],
        ("no folder empty/train", "a folder per class"),
    ),
    "no training to go on with": (["train", "-o", "empty", "--resume"], ("no checkpoint empty/", "without --resume")),
}


@pytest.mark.parametrize("name", CASES)
def test_a_mistake_fits_a_screen_and_leaves_nothing(
    workplace: Path, capfd: pytest.CaptureFixture[str], name: str
) -> None:
    line, words = CASES[name]
    before = _files(workplace)
    assert main([*line, "--quiet"]) == USER
    out, err = capfd.readouterr()
    assert out == "" and err.startswith(f"sparsefx {line[0]}: ") and "Traceback" not in err
    assert sum(1 + len(text) // 80 for text in err.splitlines()) <= 20, "one screen of 80 columns"
    for word in words:
        assert word in err, f"{word!r} is not in: {err}"
    assert _files(workplace) == before


def _files(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if "__pycache__" not in str(p))


WRONG_USAGE: dict[str, tuple[list[str], tuple[str, ...]]] = {
    "no command": ([], ("required: command", "See sparsefx --help")),
    "a command with a slip": (["complie"], ("no command 'complie'", "did you mean compile?")),
    "a flag with a slip": (["compile", "--qiet"], ("no flag --qiet", "did you mean --quiet?")),
    "flags that are missing": (
        ["compile", "factory:mlp"],
        ("required: --input, -o/--output", "sparsefx compile --help"),
    ),
    "a number that is none": (
        ["bench", "x.sfx", "--threads", "two"],
        ("--threads", "must be a number from 1 up, found 'two'"),
    ),
    "a choice that is none": (["quickstart", "--method", "rigl"], ("invalid choice: 'rigl'", "srigl")),
}


@pytest.mark.parametrize("name", WRONG_USAGE)
def test_wrong_usage_is_told_with_where_to_look(capfd: pytest.CaptureFixture[str], name: str) -> None:
    line, words = WRONG_USAGE[name]
    with pytest.raises(SystemExit) as stop:
        main(line)
    out, err = capfd.readouterr()
    assert (stop.value.code, out) == (USER, "")
    assert "usage: sparsefx" in err and all(word in err for word in words), err


def test_a_negative_finding_is_no_mistake(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", "old.sfx", *MLP, "--quiet"]) == OK
    assert capsys.readouterr().out.endswith("\npassed\n")
    assert main(["verify", "old.sfx", *MLP, "--weights", "weights.safetensors", "--quiet", "--json"]) == OK
    assert json.loads(capsys.readouterr().out)["passed"] is True
    masks = sparsefx.MaskSet({"0.weight": torch.arange(128).reshape(16, 8) % 2})
    masks.save("half.safetensors")
    assert main(["verify", "old.sfx", *MLP, "--masks", "half.safetensors", "--quiet"]) == NEGATIVE
    os.unlink("half.safetensors")
    assert main(["compile", "factory:Random", "--input", "1x8", "-o", "x", "--quiet"]) == NEGATIVE
    assert "it is random" in capsys.readouterr().err


def test_a_bug_of_ours_says_how_to_report_it(
    workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def failing(*arguments: object, **options: object) -> None:
        raise KeyError("rows")

    monkeypatch.setattr("sparsefx.compiler.bench.bench", failing)
    assert main(["bench", "old.sfx"]) == BUG
    err = capsys.readouterr().err
    assert "a bug of sparsefx: KeyError: 'rows' (test_failures.py, line" in err and "Traceback" not in err
    assert "Please report it" in err and "--traceback" in err and "sparsefx --version" in err
    assert main(["bench", "old.sfx", "--traceback"]) == BUG
    assert "Traceback (most recent call last)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (MemoryError(), "out of memory; close other programs"),
        (OSError(28, "No space left on device", "x.tmp"), "no disk space for x.tmp (No space left on device)"),
        (PermissionError(13, "Permission denied", "x.sfx"), "Permission denied: x.sfx"),
        (ModuleNotFoundError("No module named 'torch'", name="torch"), "this needs torch, which is not installed: pip"),
    ],
)
def test_what_the_machine_lacks_is_no_bug(
    workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: Exception, words: str
) -> None:
    def failing(*arguments: object, **options: object) -> None:
        raise error

    monkeypatch.setattr("sparsefx.compiler.bench.bench", failing)
    assert main(["bench", "old.sfx", "--quiet"]) == USER
    assert words in capsys.readouterr().err


def test_tracebacks_are_there_for_who_asks(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for flags, value, shown in (([], "1", True), ([], "0", False), (["--traceback"], "", True)):
        monkeypatch.setenv("SPARSEFX_TRACEBACK", value)
        assert main(["bench", "none.sfx", *flags]) == USER
        err = capsys.readouterr().err
        assert ("Traceback" in err) == shown and "none.sfx is no bundle" in err.splitlines()[-1]


def test_every_command_has_the_common_flags(capsys: pytest.CaptureFixture[str]) -> None:
    for name in COMMANDS:
        with pytest.raises(SystemExit):
            main([name, "--help"])
        text = capsys.readouterr().out
        assert all(flag in text for flag in ("--json", "--quiet", "--traceback", "exit codes:", "example"))
        for code in (OK, NEGATIVE, USER, BUG, INTERRUPTED):
            assert f"\n  {code:3d}  " in text


@pytest.mark.ci
def test_ctrl_c_in_a_compilation_leaves_nothing(workplace: Path, tmp_path: Path) -> None:
    (tmp_path / "factory.py").write_text(FACTORY)
    line = [sys.executable, "-m", "sparsefx", "compile", "factory:Slow", "--input", "1x8", "-o", "model.sfx"]
    (tmp_path / "temporary").mkdir()
    environment = {**os.environ, "TMPDIR": str(tmp_path / "temporary"), "PYTHONDONTWRITEBYTECODE": "1"}
    process = subprocess.Popen(line, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not (tmp_path / "running").exists():
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == INTERRUPTED
    assert err.splitlines()[-1] == "sparsefx compile: interrupted; nothing half-written is left"
    assert "Traceback" not in err
    assert sorted(os.listdir(tmp_path)) == ["factory.py", "running", "temporary"]
    assert not list((tmp_path / "temporary").glob("sparsefx*"))


HUNGRY = """
import resource, sys
import torch, sparsefx, sparsefx.compiler.compile
from torch import nn
from sparsefx.passes.errors import SparsefxError
model = nn.Linear(4096, 4096)
sparsefx.compile(nn.Linear(8, 4), (torch.randn(1, 8),), representation="dense")
pages = int(open("/proc/self/statm").read().split()[0])
resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + 100 * 2**20, -1))
try:
    sparsefx.compile(model, (torch.randn(1, 4096),), representation="dense")
except SparsefxError as error:
    print(type(error).__name__, error)
"""


@pytest.mark.ci
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads the size of the process from Linux")
def test_memory_that_is_at_its_end_is_named_with_the_stage() -> None:
    done = subprocess.run([sys.executable, "-c", HUNGRY], capture_output=True, text=True, check=False)
    assert done.stdout.startswith("SparsefxError "), done.stdout + done.stderr
    assert "out of memory" in done.stdout and "smaller example inputs" in done.stdout

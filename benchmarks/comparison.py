"""One task in several libraries: a ResNet-18 without 30% of its filters as a smaller ONNX file (examples/comparison).

    python -m benchmarks.comparison

Every program runs in a process of its own; lines are those with code in them, that of its docstring and blank ones left
away. The error is the largest difference of an output to the masked model in float64, in standard deviations of the
output over inputs; latencies are of ONNX Runtime for batch 1 and one thread, in turn.
"""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import tempfile
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Any

import onnxruntime
import torch

import tests.torchvision_shim  # noqa: F401  before anything imports torchvision
from benchmarks.results_file import write_results
from sparsefx.runtime.latency.measure import measure

_ROOT = Path(__file__).parents[1]
_PROGRAMS = _ROOT / "examples" / "comparison"
_RESULTS = {  # a way to do it: the package, the program and the file that it writes
    "torch": ("torch", "with_torch.py", "torch.onnx"),
    "torch-pruning": ("torch-pruning", "with_torch_pruning.py", "torch_pruning.onnx"),
    "sparsefx": ("sparsefx", "with_sparsefx.py", "sparsefx.sfx/model.onnx"),
    "sparsefx, measured widths": ("sparsefx", "with_sparsefx_widths.py", "widths.sfx/model.onnx"),
}
_SECONDS = 10.0


def lines_of(program: Path) -> int:
    """Lines with code: the module's docstring, comments and blank lines do not count."""
    text = program.read_text()
    docstring = ast.parse(text).body[0].end_lineno or 0
    lines = [line.strip() for line in text.splitlines()[docstring:]]
    return sum(bool(line) and not line.startswith("#") for line in lines)


def run_program(program: Path, folder: Path) -> str:
    """What went wrong, or nothing."""
    paths = os.pathsep.join((str(_ROOT), str(_PROGRAMS)))
    code = f"import runpy, tests.torchvision_shim; runpy.run_path({str(program)!r}, run_name='__main__')"
    command = [sys.executable, "-c", code]
    environment = os.environ | {"PYTHONPATH": paths}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else (done.stderr.strip().splitlines() or ["no message"])[-1]


def session(path: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def main() -> None:
    warnings.simplefilter("ignore")
    sys.path.insert(0, str(_PROGRAMS))
    import task

    images = torch.randn(8, *task.EXAMPLE.shape[1:], generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        exact = task.masked(*task.model_and_masks()).double()(images.double())
    scale = float(exact.std(dim=0, correction=0).square().mean().sqrt())
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        sessions = {}
        for name, (package, program, file) in _RESULTS.items():
            problem = run_program(_PROGRAMS / program, Path(folder))
            row: dict[str, Any] = {"library": name, "version": version(package), "lines": lines_of(_PROGRAMS / program)}
            if not problem:
                sessions[name] = session(Path(folder, file))
                (found,) = sessions[name].run(None, {sessions[name].get_inputs()[0].name: images.numpy()})
                row["error"] = float((torch.from_numpy(found).double() - exact).abs().max()) / scale
                row["mib"] = (
                    sum(f.stat().st_size for f in Path(folder, file).parent.glob(f"{Path(file).name}*")) / 2**20
                )
            rows.append(row | {"failure": problem})
        feed = images[:1].numpy()
        runs = {n: (lambda s=s: s.run(None, {s.get_inputs()[0].name: feed})) for n, s in sessions.items()}
        times = measure(runs, seconds=_SECONDS)
    for row in rows:
        if not row["failure"]:
            row["median_ms"] = 1e3 * times[row["library"]].median
            row["ratio_to_torch"] = times[row["library"]].ratio_to(times["torch"])
        print(row, flush=True)
    print(f"written to {write_results('comparison', rows)}")


if __name__ == "__main__":
    main()

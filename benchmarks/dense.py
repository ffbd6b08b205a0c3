"""A dense model with empty masks comes back equal and not slower: its engine beside a plain ONNX export.

    python -m benchmarks.dense [MODEL ...] [--seconds N] [--threads N]

Both are ONNX Runtime sessions with the same options, timed interleaved in one run at batch 1; `time` is the ratio
of the engine to the plain export of the untouched model, `again` that of a second session of that same export, which
shows what the machine's noise amounts to. `difference` is the largest between the two outputs.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import io
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import sparsefx
import tests.torchvision_shim  # noqa: F401 - torchvision imports only after this
from benchmarks.results_file import write_results
from sparsefx.runtime.latency.measure import measure
from sparsefx.runtime.onnxruntime.session import OnnxRuntimeSession
from tests.zoo.alive import bring_to_life, images, revive_zero_layers

_MODELS = ("resnet18", "resnet50", "mobilenet_v2", "vit_b_32", "swin_t")
_SIZE = 224

Row = dict[str, Any]


def compare(name: str, seconds: float, threads: int) -> Row:
    """Both engines of one dense model in one interleaved run."""
    import torchvision

    generator = torch.Generator().manual_seed(0)
    model: nn.Module = torchvision.models.get_model(name, weights=None).eval()
    revive_zero_layers(model)
    bring_to_life(model, images(4, _SIZE, generator), generator)
    example = images(1, _SIZE, generator)
    with tempfile.TemporaryDirectory() as folder:
        plain_file = _plain_export(model, example, Path(folder))
        plain, again = (OnnxRuntimeSession(plain_file, threads) for _ in range(2))
        session = sparsefx.compile(model, (example,), masks=sparsefx.MaskSet({}), threads=threads).engine().session
        inputs = [example.numpy()]
        timed = {"plain": plain, "again": again, "sparsefx": session}
        results = measure({k: functools.partial(s.run, inputs) for k, s in timed.items()}, seconds=seconds)
        difference = float(np.abs(session.run(inputs)[0] - plain.run(inputs)[0]).max())
    return {
        "model": name,
        "threads": plain.threads,
        "difference": difference,
        "median_ms": {k: r.median * 1e3 for k, r in results.items()},
        "spread_ms": {k: r.spread * 1e3 for k, r in results.items()},
        "time": results["sparsefx"].ratio_to(results["plain"]),
        "again": results["again"].ratio_to(results["plain"]),
    }


def _plain_export(model: nn.Module, example: torch.Tensor, folder: Path) -> Path:
    path = folder / "plain.onnx"
    batch = {0: torch.export.Dim("batch")}
    with contextlib.redirect_stdout(io.StringIO()):
        exported = torch.onnx.export(
            model, (example.repeat(2, 1, 1, 1),), dynamo=True, dynamic_shapes=(batch,), verbose=False
        )
    assert exported is not None
    exported.save(str(path))
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=list(_MODELS))
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--threads", type=int, default=1, help="several sessions' waiting threads disturb each other")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    rows = []
    print(f"{'model':14s} {'plain':>10s} {'sparsefx':>10s} {'time':>7s} {'again':>7s} {'difference':>11s}")
    for name in options.models:
        row = compare(name, options.seconds, options.threads)
        rows.append(row)
        medians = f"{row['median_ms']['plain']:7.2f} ms {row['median_ms']['sparsefx']:7.2f} ms"
        print(f"{name:14s} {medians} {row['time']:6.3f}x {row['again']:6.3f}x {row['difference']:11.1e}", flush=True)
    print(f"written to {write_results('dense', rows)}")


if __name__ == "__main__":
    main()

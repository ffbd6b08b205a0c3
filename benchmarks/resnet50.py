"""Whole networks with sparse layers, batch 1: the compiled engine beside dense ONNX Runtime and torch.

    python -m benchmarks.resnet50 [--case NAME ...] [--threads 1 2] [--seconds N]

uniform       ResNet-50, 224x224, 90% with a constant fan-in, the same in every layer; stem and classifier dense
erk           the same budget, spread by Erdos-Renyi-Kernel (4.1x fewer multiply-accumulates)
unstructured  90% at random, the same in every layer; stem and classifier dense
vit           ViT-B/16 with 90% constant fan-in in its MLPs, which are 63% of its multiply-accumulates

Patterns are seeded and random, by SRigL's and RigL's own initial masks; statistics are calibrated, so that the engine
can be verified. All contenders run the same masked model and are timed in turn in one run. Per layer, what was chosen
and measured is printed and kept.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

import sparsefx
import tests.torchvision_shim  # noqa: F401 - torchvision imports only after this
from benchmarks.results_file import write_results
from sparsefx.compiler.compiled import CompiledModel
from sparsefx.runtime.latency.measure import Measurement, measure
from sparsefx.training import RigL, SRigL
from tests.zoo.alive import bring_to_life, images, revive_zero_layers

_SIZE, _SPARSITY = 224, 0.9
_BURST = 0.4  # seconds of a turn: several runs of each engine, after the threads of the one before have gone to sleep

Row = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """A torchvision model, the method whose initial masks it gets, and that method's options."""

    model: str
    method: Callable[..., Any]
    options: Mapping[str, Any] = field(default_factory=dict)


_STEM_AND_HEAD = ["conv1", "fc"]
CASES = {
    "uniform": Case("resnet50", SRigL, {"distribution": "uniform", "exclude": _STEM_AND_HEAD}),
    "erk": Case("resnet50", SRigL, {"distribution": "erdos_renyi_kernel", "exclude": _STEM_AND_HEAD}),
    "unstructured": Case("resnet50", RigL, {"distribution": "uniform", "exclude": _STEM_AND_HEAD}),
    "vit": Case("vit_b_16", SRigL, {"distribution": "uniform", "include": ["*.mlp.*"]}),
}


def masked_model(case: Case) -> nn.Module:
    """The model with its masks applied, varying with its input as a trained one does."""
    import torchvision

    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    model: nn.Module = torchvision.models.get_model(case.model, weights=None).eval()
    revive_zero_layers(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    case.method(model, optimizer, sparsity=_SPARSITY, total_steps=1000, **case.options)  # multiplies the masks in
    bring_to_life(model, images(4, _SIZE, generator), generator)
    return model


def run_case(name: str, threads: int, seconds: float) -> Row:
    model = masked_model(CASES[name])
    example = images(1, _SIZE, torch.Generator().manual_seed(1))
    torch.set_num_threads(threads)
    dense = sparsefx.compile(model, (example,), representation="dense", threads=threads, verify=False)
    sparse = sparsefx.compile(model, (example,), threads=threads)
    arrays = [example.numpy()]

    def eager() -> Tensor:
        with torch.inference_mode():
            result: Tensor = model(example)
            return result

    contenders: dict[str, Callable[[], object]] = {
        "ONNX Runtime": lambda: dense.engine().session.run(arrays),
        "torch": eager,
        "sparsefx": lambda: sparse.engine().session.run(arrays),
    }
    results = measure(contenders, seconds=seconds, least_runs=7, burst=_BURST)
    return _row(name, threads, results, sparse, dense)


def _row(
    name: str, threads: int, results: Mapping[str, Measurement], sparse: CompiledModel, dense: CompiledModel
) -> Row:
    choice, verification = sparse.report.choice, sparse.report.verification
    assert choice is not None and verification is not None
    fastest = min(results["ONNX Runtime"].median, results["torch"].median)
    return {
        "case": name,
        "threads": threads,
        "median_ms": {k: r.median * 1e3 for k, r in results.items()},
        "spread_ms": {k: r.spread * 1e3 for k, r in results.items()},
        "speedup": fastest / results["sparsefx"].median,
        "largest_error": max(check["max_error"] for check in verification["outputs"]),
        "representations": dict(Counter(layer.representation for layer in choice.layers)),
        "file_mb": {
            k: (c.build.folder / "model.onnx").stat().st_size / 1e6 for k, c in (("dense", dense), ("sparsefx", sparse))
        },
        "layers": [asdict(layer) for layer in choice.layers],
    }


def _print(row: Row, with_layers: bool) -> None:
    times = "  ".join(f"{k} {ms:.2f} ms" for k, ms in row["median_ms"].items())
    print(
        f"{row['case']}, {row['threads']} threads: {times}  {row['speedup']:.2f}x  {row['representations']}  "
        f"files {row['file_mb']['dense']:.0f} and {row['file_mb']['sparsefx']:.0f} MB  "
        f"error {row['largest_error']:.1e}",
        flush=True,
    )
    for layer in row["layers"] if with_layers else ():
        print(
            f"  {layer['layer']:40s} {layer['density']:6.1%} {layer['representation']:9s} "
            f"dense {layer['dense_us']:7.0f} us  condensed {layer['condensed_us']:7.0f} us"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", nargs="*", default=list(CASES), choices=list(CASES))
    parser.add_argument("--threads", nargs="*", type=int, default=[1, 2])
    parser.add_argument("--seconds", type=float, default=15.0, help="of measurement for each case")
    parser.add_argument("--layers", action="store_true", help="print every layer's choice")
    options = parser.parse_args()
    rows = []
    for threads in options.threads:
        for name in options.case:
            rows.append(run_case(name, threads, options.seconds))
            _print(rows[-1], options.layers)
    write_results("resnet50", rows)


if __name__ == "__main__":
    main()

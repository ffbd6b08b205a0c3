"""Speed on an NVIDIA GPU beside what the papers report, by the GPU's own clock.

    python -m benchmarks.cuda [--case srigl density chase] [--seconds N]
    python -m benchmarks.cuda --device cpu --small      # rehearse without a GPU: nothing is written, no time means much

srigl    a linear layer of ViT-B/16, 768 -> 3072, 90% constant fan-in, 256 samples and one: ours, dense, CSR
density  the same at 80 to 99%, 256 samples
chase    ResNet-50 with half of its channels gone, without and with those of the skip connections, batch 2 and 128

All contenders of a row are timed in turn in one run, recorded as CUDA graphs where they can be; times are medians of
device events. Inputs are transposed within what is timed. Float32 has no TF32. Every result is compared with float64
before it is timed. Figures go to results/cuda.json with the GPU's name and versions.
"""

from __future__ import annotations

import argparse
import copy
import functools
import os
import sys
import tempfile
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Row = dict[str, Any]
Run = Callable[[], Any]

PAPERS = {  # how many times faster, and where it is said
    "srigl": {"to": {"dense": 1.7, "CSR": 13.0}, "source": "SRigL, figure 4b: batch 256, float32, Titan V"},
    "chase": {"to": {"dense": 1.31}, "source": "Chase, table 5: S_c 0.5, batch 2, float32, 2080 Ti"},
    "chase, prune skip": {"to": {"dense": 1.68}, "source": "Chase, table 5: S_c 0.5, batch 2, float32, 2080 Ti"},
}
PRECISIONS = ("fp32", "fp16", "bf16")
DENSITIES = (0.2, 0.1, 0.05, 0.01)
_ROUNDING = {"fp32": 1e-5, "fp16": 5e-3, "bf16": 4e-2}  # of the largest result, for the check in front of the clock


@dataclass(frozen=True)
class Place:
    """Where contenders run, and by which clock."""

    device: str
    small: bool

    @property
    def on_gpu(self) -> bool:
        return self.device == "cuda"

    def measure(self, contenders: Mapping[str, Run], seconds: float) -> dict[str, Any]:
        from sparsefx.runtime.latency.device_events import measure_on_device
        from sparsefx.runtime.latency.measure import measure

        if self.on_gpu:
            return measure_on_device(contenders, seconds=seconds)
        return measure(contenders, seconds=0.0, least_runs=1, warm_up=0)

    def recorded(self, run: Run) -> Run:
        """As a CUDA graph, where its work can be one."""
        from sparsefx.runtime.latency.device_events import recorded

        return recorded(run) if self.on_gpu else run


def linear_row(case: str, samples: int, density: float, precision: str, place: Place, seconds: float) -> Row:
    """One linear layer in every form."""
    import torch

    from benchmarks.condensed import constant_fan_in
    from sparsefx.passes.operators import compressed_rows
    from sparsefx.runtime.kernels.cuda.layers import LinearLayer
    from sparsefx.runtime.pytorch.precision import PRECISIONS as TYPES

    outputs, inputs = (96, 64) if place.small else (3072, 768)
    kind, device = TYPES[precision], torch.device(place.device)
    weight = torch.from_numpy(constant_fan_in(outputs, inputs, density, 0)).to(device, kind)
    x = torch.randn(samples, inputs, generator=torch.Generator().manual_seed(1)).to(device, kind)
    values, columns, starts = compressed_rows(weight)
    runs = LinearLayer(columns, starts, (outputs, inputs)).runs(x, values, None, None, "none")
    contenders: dict[str, Run] = {
        "sparsefx, rows": runs["rows"],
        "sparsefx, columns": runs["columns"],
        "dense": lambda: torch.nn.functional.linear(x, weight),
    }
    exact = x.double() @ weight.double().T
    for name, run in contenders.items():
        _check(name, run(), exact, precision)
    contenders = {name: place.recorded(run) for name, run in contenders.items()}
    contenders |= _csr(x, weight, exact, precision, place)
    results = place.measure(contenders, seconds)
    name = f"{case}: {inputs} -> {outputs}, {1 - density:.0%}, {samples} samples"
    return _row(name, precision, results, PAPERS["srigl"] if case == "srigl" and samples > 1 else None)


def _csr(x: Any, weight: Any, exact: Any, precision: str, place: Place) -> dict[str, Run]:
    """cuSPARSE by torch; the layout that it wants is not counted against it. None where it has no such type."""
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that sparse CSR is in beta
        matrix = weight.to_sparse_csr()
    turned = x.T.contiguous()

    def run() -> Any:
        return matrix @ turned

    try:
        _check("CSR", run().T, exact, precision)
    except RuntimeError as error:
        print(f"no CSR in {precision}: {str(error).splitlines()[0]}", flush=True)
        return {}
    try:
        return {"CSR": place.recorded(run)}
    except RuntimeError:  # its library allocates as it goes
        torch.cuda.synchronize()
        return {"CSR": run}


def chase_row(skip: bool, batch: int, precision: str, place: Place, seconds: float) -> Row:
    """ResNet-50 dense, and without the channels that Chase would have removed."""
    import torch

    from sparsefx.runtime.onnxruntime.lower import flatten_signature
    from sparsefx.runtime.pytorch.graph_file import read_graph, write_graph
    from sparsefx.runtime.pytorch.precision import PRECISIONS as TYPES
    from sparsefx.runtime.pytorch.precision import in_precision

    size = 32 if place.small else 224
    kind, device = TYPES[precision], torch.device(place.device)
    model, compiled, zeroed = compiled_half(skip, place.small, size)
    model = copy.deepcopy(model)  # it is converted in place
    with tempfile.TemporaryDirectory() as folder:
        write_graph(flatten_signature(in_precision(compiled.graph_module, precision)), Path(folder))
        slim = read_graph(Path(folder), device)
    x = torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        exact = model.double()(x[:2].double())
        dense, given = model.to(device, kind), x.to(device, kind)
        (found,) = slim(x[:2].to(device))
        _check("sparsefx", found, exact.to(device), precision)
        eager: dict[str, Run] = {"dense, eager": lambda: dense(given), "sparsefx, eager": lambda: slim(x_there)}
        x_there = x.to(device)
        contenders = {name.removesuffix(", eager"): place.recorded(run) for name, run in eager.items()} | eager
        results = place.measure(contenders, seconds)
    case = "chase, prune skip" if skip else "chase"
    totals = compiled.report.totals
    row = _row(f"{case}: batch {batch}", precision, results, PAPERS[case] if batch == 2 else None)
    return row | {"filters zeroed": zeroed, "multiply-accumulates": totals.macs_after / totals.macs_before}


@functools.cache
def compiled_half(skip: bool, small: bool, size: int) -> tuple[Any, Any, float]:
    """The masked model, what the compiler makes of it, and the share of filters that are zeroed."""
    import torch

    import sparsefx

    model, zeroed = half_of_the_channels(skip, small)
    example = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1))
    return model, sparsefx.compile(model, (example,), target="torch"), zeroed


def half_of_the_channels(skip: bool, small: bool) -> tuple[Any, float]:
    """ResNet-50 with random halves of the filters of every block's inner layers zeroed, and the share of all channels.

    With `skip` also those of the stem and of what is added up: the same ones in all that meet there.
    """
    import torch

    from tests.torchvision_shim import torchvision
    from tests.zoo.alive import bring_to_life, images

    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    resnet = torchvision.models.resnet
    model = resnet.ResNet(resnet.Bottleneck, [1, 1, 1, 1] if small else [3, 4, 6, 3]).eval()
    zeroed = total = 0
    groups: dict[str, Any] = {}
    with torch.no_grad():
        for name, layer in model.named_modules():
            if not isinstance(layer, torch.nn.Conv2d):
                continue
            inner = name.endswith(("conv1", "conv2")) and "layer" in name
            total += layer.out_channels
            if inner or skip:
                group = name if inner or name == "conv1" else name.partition(".")[0]
                gone = groups.setdefault(group, torch.randperm(layer.out_channels, generator=generator))
                layer.weight[gone[: layer.out_channels // 2]] = 0
                zeroed += layer.out_channels // 2
    bring_to_life(model, images(4, 64 if small else 224, generator), generator)
    return model, zeroed / total


def _check(name: str, found: Any, exact: Any, precision: str) -> None:
    """Wrong results are not timed."""
    error = float((found.double() - exact).abs().max() / exact.abs().max())
    if not error <= _ROUNDING[precision] * (10 if found.ndim == 2 and found.shape[-1] == 1000 else 1):
        raise SystemExit(f"error: {name} is wrong in {precision}: {error:.1e} of the largest result")


def _row(case: str, precision: str, results: Mapping[str, Any], paper: Mapping[str, Any] | None) -> Row:
    """Medians, and how many times faster the fastest of ours is than every other."""
    medians = {name: result.median * 1e6 for name, result in results.items()}
    ours = min((name for name in medians if "sparsefx" in name), key=lambda name: medians[name])
    speedup = {name: us / medians[ours] for name, us in medians.items() if "sparsefx" not in name}
    row: Row = {
        "case": case,
        "precision": precision,
        "median_us": medians,
        "spread_us": {name: result.spread * 1e6 for name, result in results.items()},
        "fastest of ours": ours,
        "speedup": speedup,
    }
    if paper is not None and precision == "fp32":
        ahead = {name: speedup[name] >= times for name, times in paper["to"].items() if name in speedup}
        row |= {"paper": dict(paper), "ahead of the paper": ahead}
    return row


def _print(row: Row) -> None:
    times = "  ".join(f"{name} {us:.1f} us" for name, us in row["median_us"].items())
    faster = ", ".join(f"{times:.2f}x {name}" for name, times in row["speedup"].items())
    print(f"{row['case']}, {row['precision']}: {times}; {row['fastest of ours']}: {faster}", flush=True)
    for name, times in row.get("paper", {}).get("to", {}).items():
        print(f"    paper: {times}x {name} ({row['paper']['source']})", flush=True)


def run_cases(cases: list[str], precisions: list[str], place: Place, seconds: float) -> list[Row]:
    """All rows of these cases, in order."""
    rows = []
    many = 40 if place.small else 256

    def keep(row: Row) -> None:
        rows.append(row)
        _print(row)

    for precision in precisions:
        if "srigl" in cases:
            for samples in (many, 1):
                keep(linear_row("srigl", samples, 0.1, precision, place, seconds))
        if "density" in cases:
            for density in DENSITIES:
                keep(linear_row("density", many, density, precision, place, seconds))
        if "chase" in cases:
            for skip in (False, True):
                for batch in (2, 4) if place.small else (2, 128):
                    keep(chase_row(skip, batch, precision, place, seconds))
    return rows


def main(arguments: list[str] | None = None) -> int:
    """1 where there is no GPU, or something that it needs is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--case", nargs="*", default=["srigl", "density", "chase"], choices=["srigl", "density", "chase"]
    )
    parser.add_argument("--precision", nargs="*", default=list(PRECISIONS), choices=PRECISIONS)
    parser.add_argument("--seconds", type=float, default=3.0, help="of measurement for each row")
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--small", action="store_true", help="tiny sizes; required on the CPU")
    options = parser.parse_args(arguments)
    place = Place(options.device, options.small)
    if not place.on_gpu:
        if not options.small:
            parser.error("--device cpu is a rehearsal through Triton's interpreter: add --small")
        os.environ["TRITON_INTERPRET"] = "1"
        print("a rehearsal on the CPU: no time below says anything about a GPU", flush=True)
    from sparsefx.passes.errors import TargetError
    from sparsefx.runtime.kernels.cuda.tools import find_gpu, gpu_description, import_triton

    try:
        import_triton()
        if place.on_gpu:
            find_gpu()
            _no_tf32()
        rows = run_cases(options.case, options.precision, place, options.seconds)
    except TargetError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if place.on_gpu and not options.small:
        from benchmarks.results_file import write_results

        print(write_results("cuda", {"gpu": gpu_description(), "rows": rows}))
    return 0


def _no_tf32() -> None:
    import torch

    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = True


if __name__ == "__main__":
    sys.exit(main())

"""Gathers in front of layers and partial sums behind them, by measurement: masks of residual branches.

    python -m benchmarks.gathers [MODEL ...] [--shares 0.3 0.5 0.7 0.9] [--cases inputs outputs both] [--size 112]

A table is profiled for each model. A mask takes a share of the channels, drawn anew for each layer, from (inputs) the
first layer of every residual branch, (outputs) the last one, or both: all of these channels stay in the residual stream
for others. What `compile` takes with the table, and what it would take were every layer thinned that could be, is
timed in turn with the engine in which every layer is as wide as the stream. `decided` is what both engines took when
`compile` decided: the ratio has wider layers in it too, where those were taken. Figures are written after each case,
beside those of other cases that are there.
"""

from __future__ import annotations

import argparse
import json
import re
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import nn

import sparsefx
import tests.torchvision_shim  # noqa: F401 - torchvision imports only after this
from benchmarks.results_file import RESULTS, write_results
from sparsefx.passes.fold_batch_norm import FoldBatchNorm
from sparsefx.passes.gather_inputs import GatherInputs
from sparsefx.passes.scatter_outputs import ScatterOutputs
from sparsefx.runtime.latency.measure import measure
from sparsefx.runtime.onnxruntime.build import OnnxRuntimeBuild
from sparsefx.runtime.targets import BuildSettings
from tests.zoo.alive import bring_to_life, images, revive_zero_layers

_FIRST, _LAST = "inputs", "outputs"
_SIDES: dict[str, tuple[str, ...]] = {_FIRST: (_FIRST,), _LAST: (_LAST,), "both": (_FIRST, _LAST)}
_RESNET = r"layer\d\.\d+\."
_LAYERS = {  # of residual branches: the first, and the last
    "resnet18": (_RESNET + "(conv1|downsample.0)", _RESNET + "conv2"),
    "resnet50": (_RESNET + "(conv1|downsample.0)", _RESNET + "conv3"),
    "vit_small": (r".*mlp\.0", r".*mlp\.3"),
}
_BURST = 0.1  # seconds of a turn

Row = dict[str, Any]


def dense_model(name: str, size: int) -> nn.Module:
    import torchvision

    if name == "vit_small":
        sizes = {"num_layers": 12, "num_heads": 6, "hidden_dim": 384, "mlp_dim": 1536}
        model: nn.Module = torchvision.models.VisionTransformer(image_size=size, patch_size=16, **sizes)
        return model.eval()
    model = torchvision.models.get_model(name, weights=None)
    return model.eval()


def masked_model(name: str, size: int, share: float, case: str) -> nn.Module:
    """The model varying with its input as a trained one does, with that share of channels dead on one side, or both."""
    generator = torch.Generator().manual_seed(round(100 * share))
    torch.manual_seed(0)
    model = dense_model(name, size)
    revive_zero_layers(model)
    first, last = _LAYERS[name]
    with torch.no_grad():
        for layer_name, layer in model.named_modules():
            weight = getattr(layer, "weight", None)
            for side, pattern in ((_FIRST, first), (_LAST, last)):
                if side in _SIDES[case] and re.fullmatch(pattern, layer_name) and isinstance(weight, torch.Tensor):
                    axis = 1 if side == _FIRST else 0
                    dead = torch.randperm(weight.shape[axis], generator=generator)[: round(share * weight.shape[axis])]
                    weight.index_fill_(axis, dead, 0.0)
    bring_to_life(model, images(4, size, generator), generator)
    return model


def thinned(compiled: sparsefx.CompiledModel) -> OnnxRuntimeBuild:
    """Every layer that can be thinner, without asking a table."""
    graph = compiled.graph_module
    for graph_pass in (GatherInputs(), ScatterOutputs(), FoldBatchNorm()):
        graph_pass(graph)
    return OnnxRuntimeBuild(graph, compiled.signature, BuildSettings("onnxruntime:cpu", "fp32", 1), ())


def run_case(name: str, size: int, share: float, case: str, table: sparsefx.LatencyTable, seconds: float) -> Row:
    model, example = masked_model(name, size, share, case), images(1, size, torch.Generator().manual_seed(1))
    options: dict[str, Any] = {"threads": 1, "representation": "dense"}
    full = sparsefx.compile(model, (example,), verify=False, **options)
    chosen = sparsefx.compile(model, (example,), latency_table=table, **options)  # verified
    everything = thinned(sparsefx.compile(model, (example,), verify=False, **options))
    decision = chosen.report.thinner
    assert decision is not None and chosen.report.widths is not None and chosen.report.verification is not None
    arrays = [example.numpy()]
    sessions = {"full": full.engine(), "chosen": chosen.engine(), "everything": everything.engine}
    runs = {key: lambda session=engine.session: session.run(arrays) for key, engine in sessions.items()}
    times = measure(runs, seconds=seconds, burst=_BURST)
    row = {
        "model": name,
        "dead": share,
        "case": case,
        "taken": decision.taken,
        "wider": chosen.report.widths.taken,
        "thin": sum(layer.taken for layer in decision.layers) if decision.taken else 0,
        "considered": len(decision.layers),
        "full_ms": times["full"].median * 1e3,
        "chosen_ms": times["chosen"].median * 1e3,
        "ratio": times["chosen"].ratio_to(times["full"]),
        "decided_full_ms": decision.full_ms,
        "decided_thin_ms": decision.thin_ms,
        "everything_ratio": times["everything"].ratio_to(times["full"]),
        "largest_error": max(check["max_error"] for check in chosen.report.verification["outputs"]),
        "layers": [vars(layer) for layer in decision.layers],
    }
    print(
        f"{name}, {share:.0%} of {case} dead: {row['thin']} of {row['considered']} thin, {row['full_ms']:.2f} ms full, "
        f"{row['chosen_ms']:.2f} ms chosen, {row['ratio']:.3f}x, everything thin {row['everything_ratio']:.3f}x",
        flush=True,
    )
    return row


def keep(row: Row) -> None:
    """Write a case's figures in place of older ones of it."""
    file = RESULTS / "gathers.json"
    known = json.loads(file.read_text())["figures"] if file.exists() else []
    same = [all(old[key] == row[key] for key in ("model", "dead", "case")) for old in known]
    write_results("gathers", [old for old, is_same in zip(known, same, strict=True) if not is_same] + [row])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=list(_LAYERS), choices=[*_LAYERS, []])
    parser.add_argument("--shares", nargs="*", type=float, default=[0.3, 0.5, 0.7, 0.9])
    parser.add_argument("--cases", nargs="*", default=list(_SIDES), choices=list(_SIDES))
    parser.add_argument("--size", type=int, default=112)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--tables", type=Path, help="a folder that keeps the tables for another time")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for name in arguments.models:
        example = images(1, arguments.size, torch.Generator().manual_seed(1))
        with tempfile.TemporaryDirectory() as folder:
            path = (arguments.tables or Path(folder)) / f"{name}_{arguments.size}.latency"
            table = sparsefx.profile(dense_model(name, arguments.size), (example,), threads=1, path=path)
        for share in arguments.shares:
            for case in arguments.cases:
                keep(run_case(name, arguments.size, share, case, table, arguments.seconds))


if __name__ == "__main__":
    main()

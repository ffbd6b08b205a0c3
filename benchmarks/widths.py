"""Widths by measurement against exact removal alone: random filter masks, engines compiled with and without a table.

    python -m benchmarks.widths [MODEL ...] [--masks 15] [--size 112] [--seconds 2]

A table is profiled for each model. Every mask zeroes a random share, 20% to 70%, of the filters of every convolution
but the first. The engines that `compile` chose with the table, and with `widths="measured"` without one, are timed
against the one of exact removal, in turn in one run of their own: where no other width was taken they are the same
engine, and their ratio is the noise. Results of other models in the file stay.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import sparsefx
import tests.torchvision_shim  # noqa: F401 - torchvision imports only after this
from benchmarks.results_file import RESULTS, write_results
from sparsefx.compiler.compiled import CompiledModel
from sparsefx.runtime.latency.measure import measure
from tests.zoo.alive import bring_to_life, images, revive_zero_layers

_MODELS = ("resnet18", "mobilenet_v2")
_SHARES = (0.2, 0.7)
_BURST = 0.1  # seconds of a turn

Row = dict[str, Any]


def masked_model(name: str, size: int, seed: int) -> nn.Module:
    """The model with filters zeroed, varying with its input as a trained one does."""
    import torchvision

    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    model: nn.Module = torchvision.models.get_model(name, weights=None).eval()
    revive_zero_layers(model)
    convolutions = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
    with torch.no_grad():
        for layer in convolutions[1:]:
            share = torch.empty(()).uniform_(*_SHARES, generator=generator)
            layer.weight[torch.rand(len(layer.weight), generator=generator) < share] = 0
    bring_to_life(model, images(4, size, generator), generator)
    return model


def run_mask(name: str, size: int, seed: int, table: sparsefx.LatencyTable, seconds: float) -> Row:
    model, example = masked_model(name, size, seed), images(1, size, torch.Generator().manual_seed(1))
    options: dict[str, Any] = {"threads": 1, "representation": "dense"}
    exact = sparsefx.compile(model, (example,), verify=False, **options)
    chosen = sparsefx.compile(model, (example,), latency_table=table, **options)  # verified
    blocks = sparsefx.compile(model, (example,), widths="measured", verify=False, **options)
    decision = chosen.report.widths
    assert decision is not None and chosen.report.verification is not None
    arrays = [example.numpy()]

    def runner(compiled: CompiledModel) -> Any:
        session = compiled.engine().session
        return lambda: session.run(arrays)

    runs = {"exact": runner(exact), "blocks": runner(blocks), "chosen": runner(chosen)}
    times = measure(runs, seconds=seconds, burst=_BURST)
    row = {
        "model": name,
        "mask": seed,
        "taken": decision.taken,
        "groups": len(decision.groups),
        "channels_kept": sum(g.kept - g.exact for g in decision.groups) if decision.taken else 0,
        "exact_ms": times["exact"].median * 1e3,
        "chosen_ms": times["chosen"].median * 1e3,
        "ratio": times["chosen"].ratio_to(times["exact"]),
        "blocks_ratio": times["blocks"].ratio_to(times["exact"]),
        "thinner": chosen.report.thinner is not None and chosen.report.thinner.taken,
    }
    print(
        f"{name}, mask {seed}: {'wider' if row['taken'] else 'exact'}, {row['exact_ms']:.2f} ms exact, "
        f"{row['chosen_ms']:.2f} ms chosen, {row['ratio']:.3f}x; blocks without a table {row['blocks_ratio']:.3f}x",
        flush=True,
    )
    return row


def _others(models: Sequence[str]) -> list[Row]:
    """Rows of an earlier run for other models."""
    path = RESULTS / "widths.json"
    rows: list[Row] = json.loads(path.read_text())["figures"] if path.exists() else []
    return [row for row in rows if row["model"] not in models]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=_MODELS)
    parser.add_argument("--masks", type=int, default=15)
    parser.add_argument("--size", type=int, default=112)
    parser.add_argument("--seconds", type=float, default=2.0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = _others(arguments.models)
    for name in arguments.models:
        example = images(1, arguments.size, torch.Generator().manual_seed(1))
        with tempfile.TemporaryDirectory() as folder:
            dense = masked_model(name, arguments.size, 0)
            table = sparsefx.profile(dense, (example,), threads=1, path=Path(folder) / "table.latency")
        for seed in range(1, arguments.masks + 1):
            rows.append(run_mask(name, arguments.size, seed, table, arguments.seconds))
            write_results("widths", sorted(rows, key=lambda row: (row["model"], row["mask"])))
    ratios = np.array([row["ratio"] for row in rows])
    taken = np.array([row["taken"] for row in rows])
    for text, part in (("wider", ratios[taken]), ("exact", ratios[~taken])):
        if len(part):
            print(f"{text}: {len(part)} masks, ratio {np.median(part):.3f} ({part.min():.3f} to {part.max():.3f})")


if __name__ == "__main__":
    main()

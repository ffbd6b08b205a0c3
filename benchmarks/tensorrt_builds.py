"""Every model of the sweep as TensorRT-RTX engines for three processors, built without a GPU: nothing of it has run.

    python -m benchmarks.tensorrt_builds [--model NAME ...] [--minutes N] [--workers N]

Each model loses 30% of its filters and 95% of its weights and is built for batches of 1 to 8, one engine for SM80,
SM89 and SM120 together: slim in fp32 and fp16, and with every sparse layer condensed. Models in the results file are
not built again, so a run that was stopped goes on where it was; one that failed is tried again. Every model has a
process of its own.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any

import torch

import tests.torchvision_shim  # noqa: F401 - torchvision imports only after this
from benchmarks.child import run_in_child
from benchmarks.results_file import RESULTS, write_results
from tests.zoo.engines import build_engines
from tests.zoo.models import ZooModel, all_models

_NAME = "tensorrt_builds"
_SMALL_FIRST = (
    "squeezenet", "mnasnet", "mobilenet", "shufflenet", "resnet18", "resnet34", "resnet50", "unet", "vit_b_32",
    "regnet_x_400mf", "regnet_y_400mf", "googlenet", "densenet121", "efficientnet_b0", "convnext_tiny", "swin_t",
    "regnet_x_800mf",
)  # fmt: skip
_LARGEST_LAST = (
    "convnext_large", "swin_b", "swin_v2_b", "regnet_y_16gf", "regnet_x_32gf", "efficientnet_v2_l", "wide_resnet101_2",
    "maxvit_t", "regnet_y_32gf", "vit_l_32", "vit_l_16", "vit_h_14", "regnet_y_128gf",
)  # fmt: skip

Row = dict[str, Any]


def run(model: ZooModel) -> list[Row]:
    """One model's rows; a single one with its failure, where one of its engines cannot be built."""
    try:
        return run_in_child(_figures, model)
    except RuntimeError as error:
        return [{"model": model.name, "failure": str(error)}]


def _figures(model: ZooModel) -> list[Row]:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    return [row.to_dict() for row in build_engines(model)]


def lines(rows: list[Row]) -> list[str]:
    """A model's engines for the table, one line for each form and precision."""
    if "failure" in rows[0]:
        return [f"{rows[0]['model']:36s} FAILED: {rows[0]['failure'][:300]}"]
    return [
        f"{row['model']:36s} {row['form']:9s} {row['precision']} {row['network_layers']:7d} "
        f"{row['condensed_layers']:9d} {_mib(row['engine_bytes'])} {_mib(row['scratch_bytes'])} "
        f"{row['build_seconds']:7.1f}"
        for row in rows
    ]


def _mib(size: int) -> str:
    return f"{size / 2**20:8.1f}"


def _done() -> dict[str, list[Row]]:
    path = RESULTS / f"{_NAME}.json"
    rows = json.loads(path.read_text())["figures"] if path.exists() else []
    models = dict.fromkeys(row["model"] for row in rows if "failure" not in row)
    return {model: [row for row in rows if row["model"] == model] for model in models}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", nargs="*", default=[m.name for m in all_models()])
    parser.add_argument("--minutes", type=float, default=float("inf"), help="start no model after this time")
    parser.add_argument("--workers", type=int, default=1, help="models at a time, each on one thread")
    options = parser.parse_args()
    models = sorted((m for m in all_models() if m.name in options.model), key=lambda m: _rank(m.name))
    rows, end = _done(), time.monotonic() + 60 * options.minutes
    header = f"{'layers':>7s} {'condensed':>9s} {'MiB':>8s} {'scratch':>8s} {'build s':>7s}"
    print(f"{'model':36s} {'form':9s} {'type':4s} {header}")
    for name in [model.name for model in models if model.name in rows]:
        print("\n".join(lines(rows[name])))
    with ThreadPoolExecutor(options.workers) as workers:
        left = [workers.submit(_run_in_time, model, end) for model in models if model.name not in rows]
        for done in as_completed(left):
            if new := done.result():
                rows[new[0]["model"]] = new
                write_results(_NAME, [row for name in sorted(rows) for row in rows[name]])
                print("\n".join(lines(new)), flush=True)
    failed = [name for name, found in rows.items() if "failure" in found[0]]
    print(f"{len(rows)} models of {len(all_models())}, {len(failed)} failed: {', '.join(failed)}")
    raise SystemExit(1 if failed else 0)


def _run_in_time(model: ZooModel, end: float) -> list[Row]:
    return run(model) if time.monotonic() < end else []


def _rank(name: str) -> tuple[int, int]:
    """Quick ones first, in case a run is stopped."""
    first = next((i for i, start in enumerate(_SMALL_FIRST) if name.startswith(start)), len(_SMALL_FIRST))
    return _LARGEST_LAST.index(name) + 1 if name in _LARGEST_LAST else 0, first


if __name__ == "__main__":
    main()

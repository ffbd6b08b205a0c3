"""Every torchvision classifier, segmentation model and detection backbone, and a U-Net, under five sparsity patterns.

    python -m benchmarks.torchvision_sweep [--model NAME ...] [--mask NAME ...] [--minutes N]

Each case is compiled in float64 to a graph, which must be within 1e-9 of the masked model, and in float32 to an
ONNX Runtime engine, which must be within 1e-4 or three times the model's own rounding error; errors are in standard
deviations of the output over inputs. Cases in the results file are not run again, so a run that was stopped goes
on where it was; a case that fails is tried again. Every case has a process of its own. Hours on two cores.
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
from tests.zoo.case import run_case
from tests.zoo.masks import MASKS
from tests.zoo.models import ZooModel, all_models

_NAME = "torchvision_sweep"
_LARGEST_LAST = (
    "vit_h_14", "vit_l_16", "vit_l_32", "regnet_y_128gf", "regnet_y_32gf", "regnet_y_16gf", "regnet_x_32gf",
    "convnext_large", "efficientnet_v2_l", "swin_b", "swin_v2_b", "maxvit_t", "wide_resnet101_2",
)  # fmt: skip

Row = dict[str, Any]


def run(model: ZooModel, mask: str) -> Row:
    """One case's row, run in a process of its own."""
    try:
        row: Row = run_in_child(_figures, model, mask)
    except RuntimeError as error:
        row = {"failure": str(error)}
    return {"model": model.name, "mask": mask, **row}


def _figures(model: ZooModel, mask: str) -> Row:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    result = run_case(model, mask)
    return result.to_dict() if result is not None else {"skipped": "the pattern does not apply"}


def line(row: Row) -> str:
    """One case as a line of the table."""
    start = f"{row['model']:36s} {row['mask']:17s}"
    if "graph_error" not in row:
        return f"{start} {' '.join(str(row[k]) for k in ('failure', 'skipped') if k in row)[:200]}"
    channels = f"{row['channels_kept']}/{row['channels']}"
    share = row["parameters_kept"] / row["parameters"], row["macs_kept"] / row["macs"]
    figures = f"{channels:>14s} {share[0]:6.1%} {share[1]:6.1%} {row['graph_error']:8.1e} {row['engine_error']:8.1e}"
    return f"{start} {figures} {row['engine_bound']:8.1e} {row['seconds']:6.0f}"


def _done() -> dict[tuple[str, str], Row]:
    path = RESULTS / f"{_NAME}.json"
    rows = json.loads(path.read_text())["figures"] if path.exists() else []
    return {(row["model"], row["mask"]): row for row in rows if "failure" not in row}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", nargs="*", default=[m.name for m in all_models()])
    parser.add_argument("--mask", nargs="*", default=list(MASKS), choices=list(MASKS))
    parser.add_argument("--minutes", type=float, default=float("inf"), help="start no case after this time")
    parser.add_argument("--workers", type=int, default=1, help="cases at a time, each on one thread")
    options = parser.parse_args()
    models = sorted((m for m in all_models() if m.name in options.model), key=lambda m: m.name in _LARGEST_LAST)
    rows, end = _done(), time.monotonic() + 60 * options.minutes
    header = f"{'channels kept':>14s} {'params':>6s} {'MACs':>6s} {'graph':>8s} {'engine':>8s} {'bound':>8s} {'s':>6s}"
    print(f"{'model':36s} {'mask':17s} {header}")
    asked = [(model, mask) for mask in options.mask for model in models]
    for row in [rows[model.name, mask] for model, mask in asked if (model.name, mask) in rows]:
        print(line(row))
    with ThreadPoolExecutor(options.workers) as workers:
        left = [(model, mask, end) for model, mask in asked if (model.name, mask) not in rows]
        for done in as_completed([workers.submit(_run_in_time, *case) for case in left]):
            if (new := done.result()) is not None:
                rows[new["model"], new["mask"]] = new
                write_results(_NAME, [rows[key] for key in sorted(rows)])
                print(line(new), flush=True)
    failed = [key for key, row in rows.items() if "failure" in row]
    print(f"{len(rows)} cases of {len(all_models()) * len(MASKS)}, {len(failed)} failed")
    raise SystemExit(1 if failed else 0)


def _run_in_time(model: ZooModel, mask: str, end: float) -> Row | None:
    return run(model, mask) if time.monotonic() < end else None


if __name__ == "__main__":
    main()

"""One small model of each family of timm and of transformers, with 30% of the filters of every layer zero.

    python -m benchmarks.interoperation [--model PART ...] [--minutes N]

Random weights, nothing is downloaded. Each model is compiled to an ONNX Runtime engine, which must be within 1e-4 or
three times the model's own rounding error, and to a graph, which is compared with the captured model in float64;
errors are in standard deviations of the output over inputs. Cases in the results file are not run again, those that
failed are. Needs timm and transformers. About half an hour on one core.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from typing import Any

import torch

import tests.torchvision_shim  # noqa: F401 - timm and torchmetrics import torchvision
from benchmarks.child import run_in_child
from benchmarks.results_file import RESULTS, write_results
from tests.zoo.foreign import ForeignModel, all_models
from tests.zoo.foreign_case import run_case

_NAME = "interoperation"
Row = dict[str, Any]


def run(model: ForeignModel) -> Row:
    """One model's row, run in a process of its own."""
    try:
        return run_in_child(_figures, model)
    except RuntimeError as error:
        return {"model": model.name, "failure": str(error)}


def _figures(model: ForeignModel) -> Row:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    return run_case(model).to_dict()


def line(row: Row) -> str:
    """One model as a line of the table."""
    if "failure" in row:
        return f"{row['model']:44s} {row['failure'][:300]}"
    channels = f"{row['channels_kept']}/{row['channels']}"
    share = row["parameters_kept"] / row["parameters"], row["macs_kept"] / row["macs"]
    figures = f"{channels:>13s} {share[0]:6.1%} {share[1]:6.1%} {row['graph_error']:8.1e} {row['engine_error']:8.1e}"
    unknown = ", ".join(row["unknown_operators"])
    return f"{row['model']:44s} {figures} {row['engine_bound']:8.1e} {row['seconds']:5.0f} {unknown}"


def _rows() -> dict[str, Row]:
    path = RESULTS / f"{_NAME}.json"
    rows = json.loads(path.read_text())["figures"] if path.exists() else []
    return {row["model"]: row for row in rows}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", nargs="*", default=[""], help="only models whose name has one of these parts")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="start no case after this time")
    options = parser.parse_args()
    models = [m for m in all_models() if any(part in m.name for part in options.model)]
    rows, end = _rows(), time.monotonic() + 60 * options.minutes
    for model in sorted(models, key=lambda m: "failure" in rows.get(m.name, {})):
        known = rows.get(model.name)
        if time.monotonic() < end and (known is None or "failure" in known):
            rows[model.name] = run(model)
            write_results(_NAME, [rows[name] for name in sorted(rows)])
            print(line(rows[model.name]), flush=True)
    failed = [name for name, row in rows.items() if "failure" in row]
    print(f"{len(rows)} models of {len(all_models())}, {len(failed)} failed: {', '.join(failed) or 'none'}")


if __name__ == "__main__":
    main()

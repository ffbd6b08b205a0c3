"""What every method learns: digits (five folds, all 1797 images) and the harder textures, three seeds each.

    python -m benchmarks.learning [--task digits|textures] [--variant NAME ...] [--workers 2] [--minutes N] [--table]

Trains the same small residual network with the same recipe under every method, in mixed precision; seeds decide
weights, masks and order. Trainings in the results file are not repeated, so a run that was stopped goes on where it
was. Prints accuracy (mean and 95% confidence interval over seeds and folds), and the difference to the dense network
and to static random masks trained on the same seed and fold. An hour on two cores; `--table` prints what there is.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy import stats

from benchmarks.child import run_in_child
from benchmarks.results_file import RESULTS, write_results
from sparsefx.training.recipes.config import TrainConfig
from sparsefx.training.recipes.data.digits import FOLDS
from sparsefx.training.recipes.run import run

_NAME = "learning"
_SEEDS = (0, 1, 2)
_EPOCHS = {"digits": 10, "textures": 12}
_FOLDS = {"digits": FOLDS, "textures": 1}


@dataclass(frozen=True)
class Variant:
    """A method with options at a sparsity."""

    name: str
    method: str | None
    sparsity: float = 0.9
    options: Mapping[str, Any] = field(default_factory=dict)


VARIANTS = (
    Variant("dense", None, 0.0),
    Variant("Random", "Random"),
    Variant("SNIP", "SNIP"),
    Variant("GraSP", "GraSP"),
    Variant("SynFlow", "SynFlow"),
    Variant("SET", "SET"),
    Variant("RigL", "RigL"),
    Variant("SRigL", "SRigL"),
    Variant("SRigL without ablation", "SRigL", options={"ablation": False}),
    Variant("SRigL gamma 0.9", "SRigL", options={"gamma": 0.9}),
    Variant("SRigL block-balanced", "SRigL", options={"block": 32}),
    Variant("GMP", "GMP"),
    Variant("GraNet sparse to sparse", "GraNet"),
    Variant("GraNet dense to sparse", "GraNet", options={"initial_sparsity": 0.0}),
    Variant("Chase S_c 0", "Chase", options={"channel_sparsity": 0.0}),
    Variant("Chase S_c 0.5", "Chase", options={"minimum_width": 0.5}),
    Variant("Chase S_c 0.5, prune skip", "Chase", options={"minimum_width": 0.5, "prune_skip": True}),
    Variant("IEE", "IEE"),
    Variant("IEE 2:4", "IEE", 0.5, {"n_m": [2, 4]}),
    Variant("Campfire window", "Campfire", options={"pattern": "window"}),
    Variant("Campfire CK", "Campfire", options={"pattern": "kernel"}),
    Variant("Campfire combined", "Campfire"),
    Variant("Random 98%", "Random", 0.98),
    Variant("RigL 98%", "RigL", 0.98),
    Variant("SRigL 98%", "SRigL", 0.98),
    Variant("SRigL 98% without ablation", "SRigL", 0.98, {"ablation": False}),
    Variant("Random 99%", "Random", 0.99),
    Variant("RigL 99%", "RigL", 0.99),
    Variant("SRigL 99%", "SRigL", 0.99),
    Variant("SRigL 99% without ablation", "SRigL", 0.99, {"ablation": False}),
)

Key = tuple[str, str, int, int]
Row = dict[str, Any]


def keys(tasks: list[str], names: list[str]) -> Iterator[Key]:
    """Task, variant, seed and fold of every training; seed by seed, so that an unfinished table is fair."""
    for seed in _SEEDS:
        for fold in range(FOLDS):
            for task in tasks:
                if fold < _FOLDS[task]:
                    yield from ((task, name, seed, fold) for name in names)


def train(key: Key) -> Row:
    """One training on one thread."""
    task, name, seed, fold = key
    variant = next(v for v in VARIANTS if v.name == name)
    options = dict(variant.options) if variant.method is None or "n_m" in variant.options else {
        "sparsity": variant.sparsity, **variant.options
    }  # fmt: skip
    config = TrainConfig(
        method=variant.method,
        options=options,
        data=task,
        fold=fold,
        epochs=_EPOCHS[task],
        precision="bfloat16",
        seed=seed,
    )
    start = time.perf_counter()
    trained = run(config, threads=1)
    return {
        "task": task,
        "variant": name,
        "seed": seed,
        "fold": fold,
        "accuracy": trained.accuracy,
        "sparsity": trained.log[-1].sparsity,
        "active_channels": trained.log[-1].active_channels,
        "seconds": round(time.perf_counter() - start, 1),
    }


def table(rows: Mapping[Key, Row], task: str) -> str:
    """Per variant: accuracy, differences, sparsity; a difference is taken over the trainings that both have."""
    accuracy = {key: 100 * row["accuracy"] for key, row in rows.items() if key[0] == task}
    header = f"{'accuracy %':>18s} {'to dense':>18s} {'to Random':>18s}"
    lines = [f"{task:28s} {'n':>3s} {header} {'zeros':>7s} {'active':>7s}"]
    for variant in VARIANTS:
        own = {key[2:]: value for key, value in accuracy.items() if key[1] == variant.name}
        if not own:
            continue
        random = next((v.name for v in VARIANTS if v.method == "Random" and v.sparsity == variant.sparsity), "")
        columns = [_interval(list(own.values()))]
        for other in ("dense", random):
            both = [own[place] - accuracy[task, other, *place] for place in own if (task, other, *place) in accuracy]
            columns.append(_interval(both, signed=True))
        found = [row for key, row in rows.items() if key[:2] == (task, variant.name)]
        zeros = np.mean([row["sparsity"] for row in found])
        active = [row["active_channels"] for row in found if row["active_channels"] is not None]
        channels = f"{np.mean(active):.0f}" if active else "-"
        columns = [f"{column:>18s}" for column in columns]
        lines.append(f"{variant.name:28s} {len(own):3d} {' '.join(columns)} {zeros:7.2%} {channels:>7s}")
    return "\n".join(lines)


def _interval(values: list[float], *, signed: bool = False) -> str:
    """Mean and half the 95% confidence interval by Student's t."""
    if not values:
        return "-"
    mean = f"{np.mean(values):+.2f}" if signed else f"{np.mean(values):.2f}"
    if len(values) < 2:
        return mean
    half = stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values))
    return f"{mean} ± {half:.2f}"


def _done() -> dict[Key, Row]:
    path = RESULTS / f"{_NAME}.json"
    rows = json.loads(path.read_text())["figures"] if path.exists() else []
    return {(row["task"], row["variant"], row["seed"], row["fold"]): row for row in rows}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", nargs="*", default=list(_EPOCHS), choices=list(_EPOCHS))
    parser.add_argument("--variant", nargs="*", default=[v.name for v in VARIANTS])
    parser.add_argument("--workers", type=int, default=1, help="trainings at a time, each on one thread")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="start no training after this time")
    parser.add_argument("--table", action="store_true", help="print the table only")
    options = parser.parse_args()
    rows, end = _done(), time.monotonic() + 60 * options.minutes
    left = [] if options.table else [key for key in keys(options.task, options.variant) if key not in rows]
    with ThreadPoolExecutor(options.workers) as workers:
        for done in as_completed([workers.submit(_train_in_time, key, end) for key in left]):
            if (row := done.result()) is not None:
                key = row["task"], row["variant"], row["seed"], row["fold"]
                rows[key] = row
                write_results(_NAME, [rows[key] for key in sorted(rows)])
                print(f"{len(rows)}: {key} {row['accuracy']:.2%} in {row['seconds']:.0f} s", flush=True)
    print("\n\n".join(table(rows, task) for task in options.task))


def _train_in_time(key: Key, end: float) -> Row | None:
    """None where the time is over, or the training failed: it is tried again by the next run."""
    try:
        return run_in_child(train, key) if time.monotonic() < end else None
    except RuntimeError as error:
        print(f"{key} failed: {error}", flush=True)
        return None


if __name__ == "__main__":
    main()

"""Channel methods under a budget: accuracy at measured latency, on the small tasks of benchmarks.learning.

    python -m benchmarks.latency_methods [--task digits|textures] [--minutes N] [--costs latency|FLOPs] [--table]

IEE and uniform channels train the small residual network from scratch, HALP (one-shot, by its own knapsack and by the
exact solver), IEE and uniform channels finetune a trained one for as many epochs again. Budgets are 55% and 30% of what
the dense network costs: by a latency table of that network on batches of 32 and one thread, which is profiled first, by
FLOPs, or by what `--costs module:function` returns (see LayerCosts). What is trained is compiled (dense layers, one
thread), and its accuracy is the engine's. In the end engines of all widths that were found are timed on such batches,
in turn with the dense one in one process; runs that were interrupted do not count. Trainings in the results file are
not repeated; three seeds.
"""

from __future__ import annotations

import argparse
import copy
import fcntl
import importlib
import json
import math
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.child import run_in_child
from benchmarks.results_file import RESULTS, write_results
from sparsefx import training
from sparsefx.compiler.compile import compile
from sparsefx.runtime.latency.measure import measure
from sparsefx.runtime.latency.profile import profile
from sparsefx.runtime.latency.undisturbed import TimedRuns
from sparsefx.training import MaskSet, Sparsifier, UniformChannels
from sparsefx.training.recipes.config import TrainConfig
from sparsefx.training.recipes.data.task import ImageTask
from sparsefx.training.recipes.learning_rate import learning_rate_schedule
from sparsefx.training.recipes.nets import build_net
from sparsefx.training.recipes.run import load_task
from sparsefx.training.recipes.trained import accuracy

_NAME = "latency_methods"
_SEEDS = (0, 1, 2)
_BUDGETS = (0.55, 0.3)
_EPOCHS = {"digits": 10, "textures": 6}
_BATCH = 32
_SECONDS = 0.5  # of timing for every engine
_DENSE: Any = {"representation": "dense", "verify": False}
_MEASURED = "latency"  # costs that come from a table
Row = dict[str, Any]
Key = tuple[str, str, str, float, int]


@dataclass(frozen=True)
class Variant:
    """A method with options, from scratch or on a trained network."""

    method: str
    pretrained: bool
    options: Mapping[str, Any] = field(default_factory=dict)


VARIANTS = {
    "uniform": Variant("UniformChannels", False),
    "IEE": Variant("ChannelIEE", False),
    "uniform, finetuned": Variant("UniformChannels", True),
    "HALP": Variant("HALP", True, {"rounds": 1, "interval": 10}),
    "HALP, solved exactly": Variant("HALP", True, {"rounds": 1, "interval": 10, "solver": "exact"}),
    "IEE, finetuned": Variant("ChannelIEE", True),
}


def keys(tasks: list[str], variants: list[str], costs: str) -> list[Key]:
    """Task, variant, costs, budget and seed of every training, seed by seed."""
    return [
        (task, name, costs, budget, seed)
        for seed in _SEEDS
        for task in tasks
        for name, budget in [("dense", 1.0), *((n, b) for n in variants for b in _BUDGETS)]
    ]


def train(key: Key, folder: str) -> Row:
    """One training on one thread, compiled."""
    task_name, name, costs, budget, seed = key
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    config = TrainConfig(method=None, data=task_name, epochs=_EPOCHS[task_name], seed=seed)
    task = load_task(config)
    dense_file = Path(folder) / f"{task_name}_{seed}.pt"
    model = build_net(config.net, task.image_shape, task.classes).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if name == "dense":
        fit(model, None, config, task)
        torch.save(model.state_dict(), dense_file)
        return {**_identity(key), "accuracy": accuracy(model, task), "cost": 1.0, "kept": {}}
    variant = VARIANTS[name]
    if variant.pretrained:
        if not dense_file.exists():
            run_in_child(train, (task_name, "dense", costs, 1.0, seed), folder)
        model.load_state_dict(torch.load(dense_file, weights_only=True))
    images = next(iter(task.test_batches(_BATCH)))[0]
    options = {"budget": budget, "seed": seed, "costs": _costs(costs, folder, task_name), **variant.options}
    sparsifier = fit(model, (variant.method, options), config, task)
    assert sparsifier is not None
    masks: Any = sparsifier.masks()
    small = compile(model, (images,), masks=masks, threads=1, representation="dense").engine()
    method: Any = sparsifier
    return {
        **_identity(key),
        "accuracy": accuracy(small, task),
        "cost": method.budget.cost / method.budget.dense,
        "kept": dict(method.budget_history[-1].kept),
    }


def fit(
    model: nn.Module, method: tuple[str, dict[str, Any]] | None, config: TrainConfig, task: ImageTask
) -> Sparsifier | None:
    """Train as `sparsefx train` does, in mixed precision; the model is in evaluation mode afterwards."""
    steps = math.ceil(task.train_size / config.batch_size)
    sgd = torch.optim.SGD(
        model.parameters(), config.learning_rate, momentum=0.9, weight_decay=config.weight_decay, nesterov=True
    )
    sparsifier: Sparsifier | None = None
    if method is not None:
        example = next(iter(task.test_batches(2)))[0]
        build = getattr(training, method[0])
        sparsifier = build(model, sgd, total_steps=config.epochs * steps, example_inputs=(example,), **method[1])
    optimizer: torch.optim.Optimizer = sgd if sparsifier is None else sparsifier
    schedule = learning_rate_schedule(optimizer, config, steps)
    for epoch in range(1, config.epochs + 1):
        model.train()
        for images, labels in task.train_batches(config.batch_size, config.seed, epoch):
            with torch.autocast("cpu", torch.bfloat16):
                loss = F.cross_entropy(model(images.contiguous(memory_format=torch.channels_last)), labels)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
    model.eval()
    return sparsifier


def time_engines(task_name: str, widths: Sequence[Mapping[str, int]], lock: str | None) -> list[float]:
    """Milliseconds of the small network's engine with so many channels of every kind, none named means all of them."""
    torch.set_num_threads(1)
    config = TrainConfig(method=None, data=task_name)
    task = load_task(config)
    images = next(iter(task.test_batches(_BATCH)))[0]
    model = build_net(config.net, task.image_shape, task.classes).eval()
    engines = [compile(model, (images,), masks=_masks(model, images, kept), threads=1, **_DENSE) for kept in widths]
    runs = [TimedRuns(partial(compiled.engine(), images), threads=1) for compiled in engines]
    with alone(lock):
        for run in runs:
            run()
            run.forget()
        measure({str(number): run for number, run in enumerate(runs)}, seconds=_SECONDS * len(runs))
    return [1e3 * run.median for run in runs]


def _masks(model: nn.Module, images: Tensor, kept: Mapping[str, int]) -> MaskSet:
    """Of the first channels of every kind; the time does not depend on which."""
    copied = copy.deepcopy(model)  # a method masks what it is given
    sgd = torch.optim.SGD(copied.parameters(), lr=1.0)
    method = UniformChannels(copied, sgd, total_steps=1, example_inputs=(images,), budget=1.0)
    removed = torch.zeros_like(method.budget.channels.removed)
    for kind, members in zip(method.budget.network.kinds, method.budget.members, strict=True):
        removed[members[kept.get(kind.name, len(members)) :]] = True
    method.budget.channels.restore(removed)
    return MaskSet(method.channel_masks())


def add_times(rows: dict[Key, Row], task_name: str, lock: str | None) -> None:
    """Time all engines of a task, into the rows: milliseconds, and the latency as a share of the dense engine's."""
    own = [row for row in rows.values() if row["task"] == task_name]
    distinct = [dict(kept) for kept in sorted({tuple(sorted(row["kept"].items())) for row in own} | {()})]
    times = dict(zip(map(str, distinct), run_in_child(time_engines, task_name, distinct, lock), strict=True))
    for row in own:
        row["milliseconds"] = times[str(dict(sorted(row["kept"].items())))]
        row["latency"] = row["milliseconds"] / times["{}"]


def profile_task(task_name: str, folder: str, lock: str | None) -> None:
    """The latency table of the small network on a task's images, in the folder; gone on with where there is one."""
    torch.set_num_threads(1)
    config = TrainConfig(method=None, data=task_name)
    task = load_task(config)
    model = build_net(config.net, task.image_shape, task.classes)
    with alone(lock):
        profile(model, (next(iter(task.test_batches(_BATCH)))[0],), threads=1, path=_table_file(folder, task_name))


@contextmanager
def alone(lock: str | None) -> Iterator[None]:
    """Hold a file's lock, where one is given, so that nobody else measures meanwhile."""
    if lock is None:
        yield
        return
    with Path(lock).open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _table_file(folder: str, task_name: str) -> Path:
    return Path(folder) / f"{task_name}.latency"


def _costs(given: str, folder: str, task_name: str) -> Any:
    if given == _MEASURED:
        return _table_file(folder, task_name)
    module, _, function = given.partition(":")
    return getattr(importlib.import_module(module), function)() if function else None


def _identity(key: Key) -> Row:
    return dict(zip(("task", "variant", "costs", "budget", "seed"), key, strict=True))


def table(rows: Mapping[Key, Row], task: str, costs: str) -> str:
    """Means over seeds and their spread; differences to uniform channels at the same budget, seed by seed."""
    lines = [
        f"{task}, budgets of {costs}",
        f"{'':22s} {'budget':>6s} {'n':>2s} {'accuracy %':>16s} {'cost':>6s} {'latency':>8s}",
    ]
    for name, budget in [("dense", 1.0), *((n, b) for b in _BUDGETS for n in VARIANTS)]:
        found = [r for k, r in rows.items() if k[:4] == (task, name, costs, budget)]
        if found:
            shown = [100 * r["accuracy"] for r in found]
            spread = f"{np.mean(shown):.2f} ± {np.std(shown, ddof=1) if len(shown) > 1 else 0:.2f}"
            means = [float(np.mean([r[figure] for r in found])) for figure in ("cost", "latency")]
            lines.append(f"{name:22s} {budget:6.0%} {len(found):2d} {spread:>16s} {means[0]:6.1%} {means[1]:7.2f}x")
    return "\n".join(lines)


def _done() -> dict[Key, Row]:
    path = RESULTS / f"{_NAME}.json"
    rows = json.loads(path.read_text())["figures"] if path.exists() else []
    return {(r["task"], r["variant"], r["costs"], r["budget"], r["seed"]): r for r in rows}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", nargs="*", default=list(_EPOCHS), choices=list(_EPOCHS))
    parser.add_argument("--variants", nargs="*", default=list(VARIANTS), choices=list(VARIANTS))
    parser.add_argument("--costs", default=_MEASURED, help="latency, FLOPs, or module:function that returns LayerCosts")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="start no training after this time")
    parser.add_argument("--folder", default=None, help="of trained dense networks and tables, kept for a next run")
    parser.add_argument("--lock", default=None, help="file whose lock is held while engines are timed")
    parser.add_argument("--table", action="store_true", help="print the table only")
    options = parser.parse_args()
    rows, end = _done(), time.monotonic() + 60 * options.minutes
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or temporary
        Path(folder).mkdir(exist_ok=True)
        for task in [] if options.table or options.costs != _MEASURED else options.task:
            run_in_child(profile_task, task, folder, options.lock)
        for key in [] if options.table else keys(options.task, options.variants, options.costs):
            if key in rows or time.monotonic() > end:
                continue
            rows[key] = run_in_child(train, key, folder)
            write_results(_NAME, [rows[k] for k in sorted(rows)])
            print(f"{len(rows)}: {key} {rows[key]['accuracy']:.2%}", flush=True)
    for task in [] if options.table else options.task:
        add_times(rows, task, options.lock)
        write_results(_NAME, [rows[k] for k in sorted(rows)])
    print("\n\n".join(table(rows, task, options.costs) for task in options.task))


if __name__ == "__main__":
    main()

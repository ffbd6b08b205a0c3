"""What `sparsefx quickstart` does: the whole way on real data, from training to a timed engine."""

from __future__ import annotations

from argparse import Namespace
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sparsefx.cli.exit_codes import OK
from sparsefx.cli.output import show
from sparsefx.cli.progress import bar, stages
from sparsefx.cli.quickstart_report import ACCURACY, write_report
from sparsefx.compiler.bench import BenchRow, bench, bench_text
from sparsefx.compiler.bundle import load
from sparsefx.compiler.compile import compile
from sparsefx.compiler.compiled import CompiledModel
from sparsefx.compiler.report_text import report_text
from sparsefx.training.recipes.checkpoint import write_weights
from sparsefx.training.recipes.config import TrainConfig
from sparsefx.training.recipes.data.digits import load_digits
from sparsefx.training.recipes.data.task import ImageTask
from sparsefx.training.recipes.presets import preset_config
from sparsefx.training.recipes.run import run as train
from sparsefx.training.recipes.trained import Trained, accuracy

_BENCH_SECONDS = 6.0
_TRAINING_THREADS = 1  # networks this small lose more to waiting for a second core than it gives
_PRESETS = {"srigl": "digits-srigl", "chase": "digits-chase"}


@dataclass(frozen=True)
class _Result:
    """What the run found out."""

    accuracy: dict[str, float]
    sparsity: float
    active_channels: str
    test_images: int
    compiled: CompiledModel
    latency: list[BenchRow]

    def to_dict(self) -> dict[str, Any]:
        return {
            "accuracy": self.accuracy,
            "sparsity": self.sparsity,
            "report": self.compiled.report.to_dict(),
            "bench": [row.to_dict() for row in self.latency],
        }


def run(arguments: Namespace) -> int:
    folder = Path(arguments.output)
    folder.mkdir(parents=True, exist_ok=True)
    result = _run(folder, arguments.method, arguments.seed, arguments.threads, quiet=arguments.quiet)
    show(arguments.json, result.to_dict(), _text(folder, arguments.method, result))
    return OK


def _run(folder: Path, method: str, seed: int, threads: int | None, *, quiet: bool) -> _Result:
    task = load_digits()
    example, _ = next(iter(task.test_batches(1)))
    few, _ = next(iter(task.test_batches(32)))
    config = preset_config(_PRESETS[method], {"seed": seed})
    dense = _train(replace(config, method=None, options={}), task, quiet)
    sparse = _train(config, task, quiet)
    assert sparse.sparsifier is not None
    masks = sparse.sparsifier.masks()
    with stages(quiet) as announce:
        announce("saving weights and masks")
        write_weights(folder / "weights.safetensors", sparse.model)
        masks.save(folder / "masks.safetensors")
        announce("compiling the dense model")
        compile(dense.model, (example,), threads=threads).save(folder / "dense.sfx")
        announce("compiling and verifying the sparse model")
        compiled = compile(
            sparse.model,
            (example,),
            masks=masks,
            threads=threads,
            verify_inputs=(few,),
            evaluate=lambda model: {ACCURACY: accuracy(model, task)},
        )
        compiled.save(folder / f"{method}.sfx")
    accuracies = {
        "dense": dense.accuracy,
        "masked": sparse.accuracy,
        "compiled": accuracy(load(folder / f"{method}.sfx"), task),
    }
    with bar("timing dense against compiled", quiet) as progress:
        rows = bench(
            {"dense": folder / "dense.sfx", "compiled": folder / f"{method}.sfx"},
            threads=threads,
            seconds=_BENCH_SECONDS,
            on_round=lambda rounds, share: progress.update(share),
        )
    with stages(quiet) as announce:
        announce("timing layers and drawing the report")
        bundles = (folder / "dense.sfx", folder / f"{method}.sfx")
        write_report(folder / "report.html", bundles, (dense, sparse), rows, threads)
    active = f"{sparse.log[-1].active_channels} of {sum(masks.shape(name)[0] for name in masks)}"
    return _Result(accuracies, sparse.sparsifier.sparsity, active, task.test_size, compiled, rows)


def _train(config: TrainConfig, task: ImageTask, quiet: bool) -> Trained:
    with bar(f"training, {config.method or 'dense'}", quiet) as progress:
        return train(config, task=task, threads=_TRAINING_THREADS, on_step=progress.update)


def _text(folder: Path, method: str, result: _Result) -> str:
    accuracy = ", ".join(f"{name} {share:.2%}" for name, share in result.accuracy.items())
    return "\n".join(
        [
            report_text(result.compiled.report.to_dict()),
            "",
            f"Zero weights: {result.sparsity:.2%}; output channels left with a weight: {result.active_channels}",
            f"Accuracy on {result.test_images} test digits: {accuracy}",
            "",
            "Batch 1, one interleaved run:",
            bench_text(result.latency),
            "",
            f"In {folder}: {method}.sfx and dense.sfx (bundles), weights.safetensors, masks.safetensors, report.html",
            f"To look at: {folder / 'report.html'}",
            f"Next: sparsefx inspect {folder / method}.sfx",
        ]
    )

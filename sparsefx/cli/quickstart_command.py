"""`sparsefx quickstart`: the whole way on real data, from training to a timed engine."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from sparsefx.cli.progress import bar, stages
from sparsefx.compiler.bench import BenchRow, bench, bench_text
from sparsefx.compiler.bundle import load
from sparsefx.compiler.compile import compile
from sparsefx.compiler.compiled import CompiledModel
from sparsefx.compiler.report_text import report_text
from sparsefx.training.recipes import digits

_BENCH_SECONDS = 6.0


@dataclass(frozen=True)
class _Result:
    """What the run found out."""

    accuracy: dict[str, float]
    sparsity: float
    removed_groups: str
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
    result = _run(folder, arguments.seed, arguments.threads, quiet=arguments.quiet)
    print(json.dumps(result.to_dict(), indent=1) if arguments.json else _text(folder, result))
    return 0


def _run(folder: Path, seed: int, threads: int | None, *, quiet: bool) -> _Result:
    data = digits.load_data()
    example = (data.train_images[:1],)
    with _epochs("training, dense", quiet) as progress:
        dense = digits.train(sparsity=0.0, channel_sparsity=0.0, seed=seed, data=data, progress=progress)
    with _epochs("training, Chase at 90% and half the channels", quiet) as progress:
        sparse = digits.train(seed=seed, data=data, progress=progress)
    with stages(quiet) as announce:
        announce("saving weights and masks")
        state: dict[str, Tensor] = {name: tensor.contiguous() for name, tensor in sparse.model.state_dict().items()}
        save_file(state, folder / "weights.safetensors")
        sparse.masks.save(folder / "masks.safetensors")
        announce("compiling the dense model")
        compile(dense.model, example, threads=threads).save(folder / "dense.sfx")
        announce("compiling and verifying the sparse model")
        compiled = compile(
            sparse.model, example, masks=sparse.masks, threads=threads, verify_inputs=(data.test_images[:32],)
        )
        compiled.save(folder / "chase.sfx")
    accuracy = {
        "dense": dense.accuracy,
        "masked": sparse.accuracy,
        "compiled": digits.accuracy(load(folder / "chase.sfx"), data),
    }
    with bar("timing dense against compiled", quiet) as update:
        rows = bench(
            {"dense": folder / "dense.sfx", "compiled": folder / "chase.sfx"},
            threads=threads,
            seconds=_BENCH_SECONDS,
            on_round=lambda rounds, share: update(share),
        )
    removed = f"{sparse.sparsifier.removed_channels} of {len(sparse.sparsifier.channels.candidates)}"
    return _Result(accuracy, sparse.sparsifier.sparsity, removed, len(data.test_labels), compiled, rows)


@contextmanager
def _epochs(name: str, quiet: bool) -> Iterator[Callable[[digits.Progress], None]]:
    with bar(name, quiet) as update:
        yield lambda progress: update(progress.epoch / progress.epochs)


def _text(folder: Path, result: _Result) -> str:
    accuracy = ", ".join(f"{name} {share:.2%}" for name, share in result.accuracy.items())
    return "\n".join(
        [
            report_text(result.compiled.report.to_dict()),
            "",
            f"Zero weights: {result.sparsity:.2%}; channel groups removed by training: {result.removed_groups}",
            f"Accuracy on {result.test_images} test digits: {accuracy}",
            "",
            "Batch 1, one interleaved run:",
            bench_text(result.latency),
            "",
            f"In {folder}: chase.sfx and dense.sfx (bundles), weights.safetensors, masks.safetensors",
            f"Next: sparsefx inspect {folder / 'chase.sfx'}",
        ]
    )

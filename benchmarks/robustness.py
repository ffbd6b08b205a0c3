"""Campfire's Table 6 at a small scale: accuracy under FGSM of dense, masked and compiled networks side by side.

    python -m benchmarks.robustness [--task textures] [--epochs 12] [--seed 0]

The attack follows the gradient of the masked network; the compiled engine, which has none, is judged on the same
images. Epsilons are in standard deviations of a pixel. Four minutes on two cores.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from torch import Tensor

from benchmarks.results_file import write_results
from sparsefx.compiler.compile import compile
from sparsefx.training.recipes.config import TrainConfig
from sparsefx.training.recipes.run import load_task, run
from sparsefx.training.recipes.trained import Trained
from sparsefx.training.robustness import accuracy_under

_EPSILONS = (0.0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3)
_NETWORKS: dict[str, tuple[str | None, dict[str, Any]]] = {
    "dense": (None, {}),
    "combined 60%": ("Campfire", {"sparsity": 0.6}),
    "combined 70%": ("Campfire", {"sparsity": 0.7}),
    "window 60%": ("Campfire", {"sparsity": 0.6, "pattern": "window"}),
    "window 70%": ("Campfire", {"sparsity": 0.7, "pattern": "window"}),
    "CK 60%": ("Campfire", {"sparsity": 0.6, "pattern": "kernel"}),
    "CK 70%": ("Campfire", {"sparsity": 0.7, "pattern": "kernel"}),
}


def judge(name: str, trained: Trained) -> list[dict[str, Any]]:
    """A row for the network and one for its engine: accuracy by epsilon."""
    images, labels = next(iter(trained.task.test_batches(trained.task.test_size)))
    engine = compile(trained.model, (images[:1],), masks=trained.masks).engine()
    judged: dict[str, Callable[[Tensor], Any]] = {
        "dense" if trained.masks is None else "masked": trained.model,
        "compiled": engine,
    }
    return [
        {
            "network": name,
            "form": form,
            "sparsity": trained.log[-1].sparsity,
            "accuracy": {str(e): accuracy_under(trained.model, model, images, labels, e) for e in _EPSILONS},
        }
        for form, model in judged.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", default="textures", choices=("digits", "textures"))
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    print(f"{'network':14s} {'form':9s} {'zeros':>7s} {' '.join(f'{e:>7.2f}' for e in _EPSILONS)}")
    rows = []
    for name, (method, settings) in _NETWORKS.items():
        config = TrainConfig(
            method=method, options=settings, data=options.task, epochs=options.epochs, seed=options.seed
        )
        trained = run(config, task=load_task(config), threads=1)
        for row in judge(name, trained):
            rows.append(row)
            figures = " ".join(f"{100 * accuracy:7.2f}" for accuracy in row["accuracy"].values())
            print(f"{name:14s} {row['form']:9s} {row['sparsity']:7.2%} {figures}", flush=True)
    print(f"Written to {write_results('robustness', rows)}")


if __name__ == "__main__":
    main()

"""A checkpoint that was pruned elsewhere: read it without pickle, look at its masks, compile it.

    python examples/foreign_checkpoint.py

Two checkpoints are written first, as other people's code writes them: one of torch.nn.utils.prune, one in the layout of
rigl-torch, whose masks have no names but stand in the order of the layers.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import nn
from torch.nn.utils import prune

import sparsefx
from sparsefx.training.importers import read_checkpoint


def network() -> nn.Sequential:
    """What the checkpoints' authors trained; the class is yours, only weights and masks are read from files."""
    return nn.Sequential(
        *[nn.Conv2d(3, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU()],
        *[nn.Conv2d(32, 64, 3, stride=2, padding=1), nn.BatchNorm2d(64), nn.ReLU()],
        *[nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10)],
    )


def write_pruned(path: Path) -> None:
    """Half of the first layer's filters by their norm, 80% of the second layer's weights by magnitude."""
    model = network()
    prune.ln_structured(model[0], "weight", amount=0.5, n=2, dim=0)
    prune.l1_unstructured(model[3], "weight", amount=0.8)
    torch.save({"epoch": 90, "state_dict": model.state_dict()}, path)


def write_rigl(path: Path) -> None:
    """Three masks in order: convolution, convolution, and None for the classifier, which stays dense."""
    model = network()
    masks: list[torch.Tensor | None] = [
        (torch.arange(32) % 2 == 0).view(32, 1, 1, 1).expand(32, 3, 3, 3).clone(),
        torch.rand(64, 32, 3, 3) < 0.2,
        None,
    ]
    pruner = {"dense_allocation": 0.2, "step": 1000, "backward_masks": masks}
    torch.save({"model": model.state_dict(), "pruner": pruner}, path)


def use(path: Path) -> None:
    checkpoint = read_checkpoint(path)  # recognised by content; no code of the file runs
    print(f"{path.name}: {checkpoint.source}")
    for name in checkpoint.masks:
        structure = checkpoint.masks.structure(name)
        print(f"  {name}: {checkpoint.masks.density(name):.0%} left, {structure.kind}")

    model = network()
    model.load_state_dict(checkpoint.weights)
    compiled = sparsefx.compile(model.eval(), (torch.randn(1, 3, 32, 32),), masks=checkpoint.masks, threads=1)
    print(compiled.report)
    bundle = path.with_suffix(".sfx")
    compiled.save(bundle)

    images = torch.randn(4, 3, 32, 32)
    checkpoint.masks.apply(model)  # the masked model is the reference: weights behind a zero of the mask do not count
    error = (sparsefx.load(bundle, threads=1)(images) - model(images)).abs().max()
    print(f"  {bundle.name} differs from the masked model by {float(error):.1e} at most\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("foreign"))
    folder = parser.parse_args().output
    torch.manual_seed(0)
    folder.mkdir(parents=True, exist_ok=True)
    write_pruned(folder / "pruned.pth")
    write_rigl(folder / "rigl.pth")
    with torch.no_grad():
        use(folder / "pruned.pth")
        use(folder / "rigl.pth")


if __name__ == "__main__":
    main()

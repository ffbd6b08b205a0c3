"""Sparse training in Accelerate: a sparsifier goes through `prepare` as any optimizer does; this logs and saves it."""

from __future__ import annotations

from pathlib import Path

from accelerate import Accelerator
from torch.optim import Optimizer

from .figures import figures, find_sparsifier


def log_sparsifier(accelerator: Accelerator, optimizer: Optimizer, step: int | None = None) -> dict[str, float]:
    """Send sparsity and the last mask update's figures to the accelerator's trackers; they are returned too.

    `optimizer` is what `prepare` returned for the sparsifier. Raises SparsefxError where it is none.
    """
    found = figures(find_sparsifier([optimizer]))
    accelerator.log(found, step=step)
    return found


def save_masks(accelerator: Accelerator, optimizer: Optimizer, path: str | Path) -> None:
    """Save the masks of a prepared sparsifier from the main process. Raises SparsefxError where it is none."""
    sparsifier = find_sparsifier([optimizer])
    if accelerator.is_main_process:
        sparsifier.masks().save(path)
    accelerator.wait_for_everyone()

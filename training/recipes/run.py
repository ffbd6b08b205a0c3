"""Run a training as a config says; the same result whether interrupted or not."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from ...passes.errors import SparsefxError
from .checkpoint import CHECKPOINT
from .config import TrainConfig
from .data.cifar import load_cifar
from .data.digits import load_digits
from .data.folders import load_folders
from .data.task import ImageTask
from .data.textures import make_textures
from .trained import Trained
from .training import OnEpoch, OnStep, Training


def run(
    config: TrainConfig,
    *,
    folder: Path | None = None,
    resume: bool = False,
    threads: int | None = None,
    task: ImageTask | None = None,
    on_step: OnStep = lambda share: None,
    on_epoch: OnEpoch = lambda log: None,
) -> Trained:
    """Train as `config` says. With a `folder`, checkpoints go there, and `resume` goes on from the last.

    A resumed training gives bit for bit what an uninterrupted one gives on the same number of `threads`. The caller's
    random numbers and threads are left as they were. Raises SparsefxError where folder and checkpoint do not fit.
    """
    if folder is not None and not resume and (folder / CHECKPOINT).exists():
        raise SparsefxError(f"{folder} holds a training already; resume it (--resume), or choose another folder")
    task = task or load_task(config)
    with torch.random.fork_rng(devices=[]), _on_threads(threads):
        torch.manual_seed(config.seed)
        training = Training(config, task, folder)
        if resume:
            training.load()
        return training.run(on_step, on_epoch)


def load_task(config: TrainConfig) -> ImageTask:
    """The data of a config. Raises SparsefxError where they are missing."""
    if config.data == "digits":
        return load_digits(config.fold)
    if config.data == "textures":
        return make_textures()
    if config.folder is None:
        raise SparsefxError(f"the data {config.data} are not in the package; say where they are (--folder)")
    if config.data == "folders":
        return load_folders(Path(config.folder), config.image_size)
    return load_cifar(config.data, Path(config.folder))


@contextmanager
def _on_threads(threads: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)

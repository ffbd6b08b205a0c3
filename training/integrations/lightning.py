"""Sparse training in Lightning: a callback that makes the optimizer a sparsifier, logs it and saves its masks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import nn
from torch.optim import Optimizer

from ...passes.errors import SparsefxError
from ..sparsifier import Sparsifier
from .figures import figures, find_sparsifier

Make = Callable[[nn.Module, Optimizer, int], Sparsifier]


class SparsifierCallback(Callback):  # type: ignore[misc]  # its types are not looked at
    """Logs sparsity and exploration at every mask update, and saves the masks when training ends.

    `make(model, optimizer, total_steps)` wraps the one optimizer that `configure_optimizers` returned; without it,
    `configure_optimizers` returns a sparsifier itself. `total_steps` counts optimizer steps, accumulation considered.
    `network` is the attribute of the LightningModule that holds the network: then the masks' names are those of the
    network by itself, which is what is compiled; "" is the whole LightningModule. `masks` is the file to save.

    Works with automatic optimization, accumulated gradients and mixed precision. Checkpoints hold the sparsifier's
    state where the optimizer's would be, and `fit(ckpt_path=...)` goes on with it; without this callback the weights
    that Lightning loads would be masked by the masks that a new sparsifier starts with.
    Raises SparsefxError for manual optimization, several optimizers, or none that is a sparsifier.
    """

    def __init__(self, make: Make | None = None, *, network: str = "", masks: str | Path | None = None) -> None:
        self._make, self._network, self._masks = make, network, masks
        self._updates_logged = 0
        self._loaded: Mapping[str, Any] | None = None
        self.sparsifier: Sparsifier | None = None

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Remember the weights: Lightning loads them before the sparsifier is made, whose first masks act on them."""
        self._loaded = checkpoint["state_dict"]

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Wrap the optimizer; what a checkpoint holds of it is loaded after this."""
        if not pl_module.automatic_optimization:
            raise SparsefxError(
                f"{type(pl_module).__name__} optimizes manually; SparsifierCallback needs automatic_optimization=True, "
                "or make the sparsifier in configure_optimizers and call its step() yourself"
            )
        if self._make is not None:
            trainer.strategy.optimizers = [self._wrap(trainer, pl_module)]
        self.sparsifier = find_sparsifier(trainer.optimizers)

    def _wrap(self, trainer: Trainer, pl_module: LightningModule) -> Sparsifier:
        assert self._make is not None
        if len(trainer.optimizers) != 1:
            raise SparsefxError(
                f"SparsifierCallback wraps one optimizer, found {len(trainer.optimizers)}; "
                "return sparsifiers from configure_optimizers instead"
            )
        optimizer = trainer.optimizers[0]
        if isinstance(optimizer, Sparsifier):
            raise SparsefxError(
                f"the optimizer of {type(pl_module).__name__} is a sparsifier already, {type(optimizer).__name__}; "
                "leave out make, or return the plain optimizer from configure_optimizers"
            )
        total_steps = trainer.estimated_stepping_batches
        if total_steps == float("inf"):
            raise SparsefxError("the number of training steps is not known; give the Trainer max_steps or max_epochs")
        try:
            network = pl_module.get_submodule(self._network)
        except AttributeError as error:
            raise SparsefxError(f"{type(pl_module).__name__} has no module {self._network!r}: {error}") from error
        return self._make(network, optimizer, int(total_steps))

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Load a checkpoint's weights again, now that its masks are in place."""
        if self._loaded is not None:
            pl_module.load_state_dict(self._loaded, strict=pl_module.strict_loading)
            self._loaded = None
        self._updates_logged = len(self._running.history)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if len(self._running.history) > self._updates_logged:
            self._updates_logged = len(self._running.history)
            pl_module.log_dict(figures(self._running), on_step=True, on_epoch=False)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._masks is not None and trainer.is_global_zero:
            self._running.masks().save(self._masks)

    @property
    def _running(self) -> Sparsifier:
        assert self.sparsifier is not None, "on_fit_start comes first"
        return self.sparsifier

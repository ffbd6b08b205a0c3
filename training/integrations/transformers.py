"""Sparse training in the Trainer of transformers: `Trainer(optimizers=(sparsifier, scheduler), callbacks=[...])`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ..sparsifier import Sparsifier
from .figures import figures, find_sparsifier


class SparsifierCallback(TrainerCallback):  # type: ignore[misc]  # its types are not looked at
    """Adds sparsity and exploration to what the Trainer logs, and saves the masks when training ends.

    `masks` is the file to save. Checkpoints of the Trainer hold the sparsifier's state as the optimizer's.
    Raises SparsefxError where the Trainer's optimizer is no sparsifier.
    """

    def __init__(self, *, masks: str | Path | None = None) -> None:
        self._masks = masks
        self.sparsifier: Sparsifier | None = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.sparsifier = find_sparsifier([kwargs["optimizer"]])

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """The entry of the log that has just been written."""
        if self.sparsifier is not None and state.log_history:
            state.log_history[-1].update(figures(self.sparsifier))

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self.sparsifier is not None and self._masks is not None and state.is_world_process_zero:
            self.sparsifier.masks().save(self._masks)

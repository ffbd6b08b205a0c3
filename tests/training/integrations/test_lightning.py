"""Sparsifiers in Lightning's Trainer: masks hold, accumulation, bfloat16, checkpoints, logging, what is refused."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from sparsefx.passes.errors import SparsefxError
from sparsefx.training import MaskSet, RigL

from .task import STEPS_AN_EPOCH, assert_on_masks, assert_same, loader, rigl, small_net

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of its own imports
    pytest.importorskip("lightning.pytorch", reason="needs lightning")
    import lightning.pytorch as L
from sparsefx.training.integrations.lightning import SparsifierCallback

pytestmark = pytest.mark.filterwarnings("ignore")  # Lightning's advice on workers, loggers and torch's own functions


class Plain(L.LightningModule):
    """A module as a user has it, with an ordinary optimizer and a schedule."""

    def __init__(self) -> None:
        super().__init__()
        self.net = small_net()
        self.losses: list[float] = []

    def training_step(self, batch: tuple[Tensor, Tensor], index: int) -> Tensor:
        loss = F.cross_entropy(self.net(batch[0]), batch[1])
        self.losses.append(float(loss.detach()))
        return loss

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.net.parameters(), lr=0.1, momentum=0.9)
        return [optimizer], [torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 20)]


class Sparse(Plain):
    """A module whose optimizer is a sparsifier."""

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.net.parameters(), lr=0.1, momentum=0.9)
        return rigl(self.net, optimizer, int(self.trainer.estimated_stepping_batches))


class Records(L.Callback):
    """What the trainer was told to log, by step."""

    def __init__(self) -> None:
        self.logged: list[dict[str, float]] = []

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        names = [name for name in trainer.callback_metrics if name.startswith("sparsifier/")]
        self.logged.append({name: float(trainer.callback_metrics[name]) for name in names})


def fit(module: Any, callbacks: list[Any], folder: Path, *, resume: Path | None = None, **options: Any) -> Any:
    quiet = dict.fromkeys(("enable_progress_bar", "enable_model_summary", "logger"), False)
    settings = {"max_epochs": 2, "accelerator": "cpu", "enable_checkpointing": False, **quiet, **options}
    trainer = L.Trainer(default_root_dir=folder, callbacks=callbacks, **settings)
    trainer.fit(module, loader(), ckpt_path=resume, weights_only=True if resume else None)
    return trainer


def test_a_callback_sparsifies_logs_and_saves(tmp_path: Path) -> None:
    module, records = Plain(), Records()
    callback = SparsifierCallback(rigl, network="net", masks=tmp_path / "masks.safetensors")
    fit(module, [callback, records], tmp_path)
    assert isinstance(callback.sparsifier, RigL) and callback.sparsifier.step_count == 2 * STEPS_AN_EPOCH
    assert_on_masks(module.net, callback.sparsifier)
    saved = MaskSet.load(tmp_path / "masks.safetensors")
    assert saved.equals(callback.sparsifier.masks()) and set(saved) <= set(module.net.state_dict())
    assert callback.sparsifier.history and records.logged[-1]["sparsifier/nonzeros"] == callback.sparsifier.nonzeros
    assert records.logged[-1]["sparsifier/iou"] == pytest.approx(callback.sparsifier.history[-1].iou)
    assert module.losses[-1] < module.losses[0]


def test_it_trains_as_a_loop_written_by_hand(tmp_path: Path) -> None:
    """Two batches to a step: Lightning averages their losses, and steps on what is left at the end of an epoch."""
    module = Sparse()
    fit(module, [SparsifierCallback()], tmp_path, accumulate_grad_batches=2)
    net = small_net()
    sparsifier = rigl(net, torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9), STEPS_AN_EPOCH)
    for _ in range(2):
        for i, (images, labels) in enumerate(loader()):
            (F.cross_entropy(net(images), labels) / 2).backward()
            if i % 2 == 1:
                sparsifier.step()
                sparsifier.zero_grad()
    assert_same(module.net, net)


def test_bfloat16(tmp_path: Path) -> None:
    module, callback = Sparse(), SparsifierCallback()
    fit(module, [callback], tmp_path, precision="bf16-mixed")
    assert_on_masks(module.net, callback.sparsifier)
    assert module.net[0].weight.dtype == torch.float32


@pytest.mark.parametrize(
    "make",
    [lambda: (Plain(), SparsifierCallback(rigl, network="net")), lambda: (Sparse(), SparsifierCallback())],
    ids=["callback", "configure_optimizers"],
)
def test_a_resumed_run_equals_one_that_was_not_stopped(make: Any, tmp_path: Path) -> None:
    whole, whole_callback = make()
    fit(whole, [whole_callback], tmp_path, max_epochs=3)
    first, first_callback = make()
    keep = L.callbacks.ModelCheckpoint(dirpath=tmp_path, save_last=True, save_top_k=0)
    schedule_of_three = _StopAfter(2)
    fit(first, [first_callback, keep, schedule_of_three], tmp_path, max_epochs=3, enable_checkpointing=True)
    second, second_callback = make()
    fit(second, [second_callback], tmp_path, max_epochs=3, resume=tmp_path / "last.ckpt")
    assert first_callback.sparsifier.step_count == 2 * STEPS_AN_EPOCH
    assert second_callback.sparsifier.step_count == 3 * STEPS_AN_EPOCH
    assert_same(second.net, whole.net)
    assert second_callback.sparsifier.masks().equals(whole_callback.sparsifier.masks())
    assert second_callback.sparsifier.history == whole_callback.sparsifier.history


class _StopAfter(L.Callback):
    """Ends training after so many epochs, without changing how long it was planned to be."""

    def __init__(self, epochs: int) -> None:
        self.epochs = epochs

    def on_train_epoch_end(self, trainer: Any, *_: Any) -> None:
        trainer.should_stop = trainer.current_epoch + 1 >= self.epochs


class TwoOptimizers(Plain):
    def configure_optimizers(self) -> Any:
        return [torch.optim.SGD(layer.parameters(), lr=0.1) for layer in (self.net[0], self.net[3])]


@pytest.mark.parametrize(
    ("module", "callback", "message"),
    [
        (Plain, lambda: SparsifierCallback(), r"found 0 \(the optimizers: SGD\)"),
        (Plain, lambda: SparsifierCallback(rigl, network="body"), "Plain has no module 'body'"),
        (Sparse, lambda: SparsifierCallback(lambda m, o, n: rigl(m, o, n), network="net"), "is a sparsifier already"),
    ],
)
def test_what_does_not_fit_is_refused(module: Any, callback: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(SparsefxError, match=message):
        fit(module(), [callback()], tmp_path)


@pytest.mark.parametrize(
    ("make", "message"), [(Plain, "Plain optimizes manually"), (TwoOptimizers, "optimizes manually")]
)
def test_manual_optimization_is_refused(make: Any, message: str, tmp_path: Path) -> None:
    module = make()
    module.automatic_optimization = False
    with pytest.raises(SparsefxError, match=message):
        fit(module, [SparsifierCallback(rigl, network="net")], tmp_path)


def test_an_endless_training_has_no_schedule(tmp_path: Path) -> None:
    with pytest.raises(SparsefxError, match="give the Trainer max_steps or max_epochs"):
        fit(Plain(), [SparsifierCallback(rigl, network="net")], tmp_path, max_epochs=-1)

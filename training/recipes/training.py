"""A training between two steps: network, method, learning rate, log; written to a checkpoint and read back."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call
from torch.nn import functional as F
from torch.optim import SGD, Optimizer

from ...passes.errors import SparsefxError
from ..sparsifier import Sparsifier
from .checkpoint import CHECKPOINT, read_checkpoint, write_checkpoint
from .config import TrainConfig, method_class
from .data.task import ImageTask
from .learning_rate import learning_rate_schedule
from .nets import build_net
from .trained import EpochLog, Trained, accuracy

OnStep = Callable[[float], None]
OnEpoch = Callable[[EpochLog], None]


class Training:
    """Trains `task` as `config` says, with checkpoints in `folder` where one is given."""

    def __init__(self, config: TrainConfig, task: ImageTask, folder: Path | None) -> None:
        self.config, self.task, self.folder = config, task, folder
        self.memory_format = torch.channels_last if config.precision == "bfloat16" else torch.contiguous_format
        self.model = build_net(config.net, task.image_shape, task.classes)
        self.model.to(memory_format=self.memory_format)  # type: ignore[call-overload]
        self.steps_per_epoch = math.ceil(task.train_size / config.batch_size)
        self.total_steps = config.epochs * self.steps_per_epoch
        sgd = SGD(
            self.model.parameters(),
            config.learning_rate,
            momentum=0.9,
            weight_decay=config.weight_decay,
            nesterov=config.nesterov,
        )
        self.sparsifier = None if config.method is None else self._sparsifier(config.method, sgd)
        self.optimizer: Optimizer = sgd if self.sparsifier is None else self.sparsifier
        self.schedule = learning_rate_schedule(self.optimizer, config, self.steps_per_epoch)
        self.epoch, self.batch, self.losses = 1, 0, 0.0
        self.log: list[EpochLog] = []

    def run(self, on_step: OnStep, on_epoch: OnEpoch) -> Trained:
        while self.epoch <= self.config.epochs:
            self.model.train()
            for images, labels in self._batches(self.batch):
                self._step(images, labels)
                done = (self.epoch - 1) * self.steps_per_epoch + self.batch
                on_step(done / self.total_steps)
                if done % self.config.checkpoint_steps == 0 and self.batch < self.steps_per_epoch:
                    self.save()
            self.log.append(self._epoch_log())
            on_epoch(self.log[-1])
            self.epoch, self.batch, self.losses = self.epoch + 1, 0, 0.0
            self.save()
        self.model.eval()
        return Trained(self.model, self.task, self.log, self.sparsifier)

    def save(self) -> None:
        if self.folder is None:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        content = {
            "config": self.config.to_dict(),
            "epoch": self.epoch,
            "batch": self.batch,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "random": torch.get_rng_state(),
            "log": {"epochs": [asdict(entry) for entry in self.log], "losses": self.losses},
        }
        write_checkpoint(self.folder / CHECKPOINT, content)

    def load(self) -> None:
        if self.folder is None:
            raise SparsefxError("there is no folder to resume from")
        content = read_checkpoint(self.folder / CHECKPOINT)
        ours, theirs = self.config.to_dict(), content["config"]
        odd = next((key for key in ours if ours[key] != theirs.get(key)), None)
        if odd is not None:
            raise SparsefxError(
                f"the training in {self.folder} has {odd} {theirs.get(odd)!r}, asked is {ours[odd]!r}; resume it with "
                "the settings it was started with"
            )
        self.model.load_state_dict(content["model"])
        self.optimizer.load_state_dict(content["optimizer"])
        self.schedule.load_state_dict(content["schedule"])
        torch.set_rng_state(content["random"])
        self.epoch, self.batch = content["epoch"], content["batch"]
        self.log = [EpochLog(**entry) for entry in content["log"]["epochs"]]
        self.losses = content["log"]["losses"]

    def _step(self, images: Tensor, labels: Tensor) -> None:
        images = images.contiguous(memory_format=self.memory_format)
        with torch.autocast("cpu", torch.bfloat16, enabled=self.config.precision == "bfloat16"):
            loss = self._loss(self.model(images), labels)
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        self.schedule.step()
        self.batch += 1
        self.losses += loss.item()

    def _batches(self, first: int) -> Iterator[tuple[Tensor, Tensor]]:
        return self.task.train_batches(self.config.batch_size, self.config.seed, self.epoch, first)

    def _loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(logits, labels, label_smoothing=self.config.label_smoothing)

    def _epoch_log(self) -> EpochLog:
        self.model.eval()
        loss, sparsifier = self.losses / self.steps_per_epoch, self.sparsifier
        if sparsifier is None:
            return EpochLog(self.epoch, loss, accuracy(self.model, self.task), 0.0, None)
        active = sum(layer.active_channels for layer in sparsifier.layers.values())
        return EpochLog(
            self.epoch, loss, accuracy(self._masked_model(sparsifier), self.task), sparsifier.sparsity, active
        )

    def _masked_model(self, sparsifier: Sparsifier) -> Callable[[Tensor], Any]:
        """The model without the weights that are only being explored."""
        if not sparsifier.exploring:
            return self.model
        state = sparsifier.masks().masked_state(self.model)
        return lambda images: functional_call(self.model, state, (images,))

    def _sparsifier(self, method: str, optimizer: Optimizer) -> Sparsifier:
        """A method with what it needs of the data: an example, or a batch and its loss."""
        options = {"seed": self.config.seed, **self.config.options}
        build = method_class(method)
        wants = build.__init__.__annotations__
        images, labels = next(iter(self.task.train_batches(self.config.batch_size, self.config.seed, epoch=0)))
        if "loss_fn" in wants:
            options |= {"example_inputs": (images,), "loss_fn": lambda logits: self._loss(logits, labels)}
        elif "example_inputs" in wants:
            options |= {"example_inputs": (images[:2],)}
        try:
            sparsifier: Sparsifier = build(self.model, optimizer, total_steps=self.total_steps, **options)
        except TypeError as error:
            raise SparsefxError(
                f"{method} cannot work with the options {dict(self.config.options)}: {error}"
            ) from error
        return sparsifier

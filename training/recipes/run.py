"""Run a training: data, network, method, learning rate, checkpoints; the same result whether interrupted or not."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F
from torch.optim import SGD, Optimizer

from ...passes.errors import SparsefxError
from ..masks import MaskSet
from ..sparsifier import Sparsifier
from .checkpoint import read_checkpoint, write_checkpoint
from .config import TrainConfig, method_class
from .data.cifar import load_cifar
from .data.digits import load_digits
from .data.folders import load_folders
from .data.task import ImageTask
from .data.textures import make_textures
from .learning_rate import learning_rate_schedule
from .nets import build_net

CHECKPOINT = "checkpoint.pt"
_TEST_BATCH = 500


@dataclass(frozen=True)
class EpochLog:
    """After an epoch, which counts from 1: mean training loss, accuracy on the test images (0 to 1), sparsity, and
    output channels with a weight (None for a dense network).
    """

    epoch: int
    loss: float
    accuracy: float
    sparsity: float
    active_channels: int | None


@dataclass(frozen=True, eq=False)
class Trained:
    """A network in evaluation mode; `sparsifier` and `masks` are None for a dense one."""

    model: nn.Module
    task: ImageTask
    log: list[EpochLog]
    sparsifier: Sparsifier | None

    @property
    def masks(self) -> MaskSet | None:
        return None if self.sparsifier is None else self.sparsifier.masks()

    @property
    def accuracy(self) -> float:
        return self.log[-1].accuracy


OnStep = Callable[[float], None]
OnEpoch = Callable[[EpochLog], None]


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
        training = _Training(config, task, folder)
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


@torch.no_grad()
def accuracy(model: Callable[[Tensor], Any], task: ImageTask) -> float:
    """Share of the test images that a module, engine or function (images -> logits, torch or NumPy) gets right.

    A module is used in the mode it is in.
    """
    right = 0
    for images, labels in task.test_batches(_TEST_BATCH):
        right += int((torch.as_tensor(model(images)).argmax(1) == labels).sum())
    return right / task.test_size


class _Training:
    """The state of a training between two steps."""

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


@contextmanager
def _on_threads(threads: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)

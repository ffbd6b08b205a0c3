"""Everything that decides a training: what `sparsefx train` is told, a preset says, and a checkpoint remembers."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from ... import training
from ...passes.errors import SparsefxError
from ...passes.near_names import closest

METHODS = (
    "SET", "RigL", "SRigL", "GMP", "GraNet", "Chase", "IEE", "Campfire", "SNIP", "GraSP", "SynFlow", "Random",
    "ChannelIEE", "HALP", "UniformChannels",
)  # fmt: skip
DATA = ("digits", "textures", "cifar10", "cifar100", "folders")
SCHEDULES = ("one_cycle", "cosine", "steps")
PRECISIONS = ("float32", "bfloat16")


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Settings of a training with SGD, momentum 0.9.

    method, options  a method and its keyword arguments; None trains the dense model
    data, folder     see recipes/data; `folder` for cifar10, cifar100 and folders; `fold` for digits
    schedule         of the learning rate: "one_cycle" to `learning_rate` and down; "cosine" to zero behind
                     `warmup_epochs` of linear rise; "steps": divided by `decay` at each epoch of `milestones`
    precision        of the forward pass: "bfloat16" is autocast, with channels last; weights and tests stay float32
    checkpoint_steps steps between checkpoints
    """

    method: str | None = "SRigL"
    options: Mapping[str, Any] = field(default_factory=dict)
    data: str = "digits"
    folder: str | None = None
    fold: int = 0
    net: str = "small_resnet"
    epochs: int = 10
    batch_size: int = 64
    learning_rate: float = 0.1
    weight_decay: float = 5e-4
    nesterov: bool = True
    label_smoothing: float = 0.0
    schedule: str = "one_cycle"
    warmup_epochs: float = 0.0
    milestones: tuple[int, ...] = ()
    decay: float = 10.0
    image_size: int = 224
    precision: str = "float32"
    seed: int = 0
    checkpoint_steps: int = 100

    def __post_init__(self) -> None:
        _check_choice("method", self.method, (None, *METHODS))
        _check_choice("data", self.data, DATA)
        _check_choice("schedule", self.schedule, SCHEDULES)
        _check_choice("precision", self.precision, PRECISIONS)
        for name in ("epochs", "batch_size", "checkpoint_steps", "image_size"):
            if getattr(self, name) < 1:
                raise SparsefxError(f"{name} must be at least 1, found {getattr(self, name)}")
        if self.learning_rate <= 0:
            raise SparsefxError(f"learning_rate must be positive, found {self.learning_rate}")
        if self.method is not None:
            check_options(self.method, self.options)

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return {**asdict(self), "options": dict(self.options), "milestones": list(self.milestones)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """SparsefxError for a setting that does not exist."""
        unknown = sorted(set(values) - set(cls.__dataclass_fields__))
        if unknown:
            known = cls.__dataclass_fields__
            raise SparsefxError(
                f"there is no setting {unknown[0]}{closest(unknown[0], known)}; known are {', '.join(known)}"
            )
        return cls(**{**values, "milestones": tuple(values.get("milestones", ()))})


def method_class(name: str) -> Any:
    """The class of a method by its name."""
    return getattr(training, name)


def method_options(name: str) -> list[str]:
    """What a method can be told besides model, optimizer and data."""
    own = list(inspect.signature(method_class(name)).parameters)
    shared = ["include", "exclude", "dense", "seed"]
    given = {"model", "optimizer", "total_steps", "example_inputs", "loss_fn", "core", "layers"}
    distribution = ["distribution"] if "core" in own else []
    return [option for option in own if option not in given] + distribution + shared


def check_options(method: str, options: Mapping[str, Any]) -> None:
    """SparsefxError for an option that the method does not take."""
    known = method_options(method)
    unknown = next((option for option in options if option not in known), None)
    if unknown is not None:
        raise SparsefxError(f"{method} has no option {unknown}{closest(unknown, known)}; it takes {', '.join(known)}")


def _check_choice(name: str, value: Any, known: tuple[Any, ...]) -> None:
    if value not in known:
        names = [str(k) for k in known if k]
        raise SparsefxError(f"unknown {name} {value!r}{closest(str(value), names)}; known are {', '.join(names)}")

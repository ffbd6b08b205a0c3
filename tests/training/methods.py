"""Every method with settings for the short trainings of tests."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer

from sparsefx import training
from sparsefx.training import Sparsifier
from sparsefx.training.allocation.costs import Parameters

from .helpers import EXAMPLE, batch, sgd

STEPS = 40


def loss_fn(output: Tensor) -> Tensor:
    return F.cross_entropy(output, batch(0, size=len(output))[1])


@dataclass(frozen=True)
class Case:
    """A method with options; `name` tells variants of one method apart."""

    name: str
    method: str
    options: dict[str, Any] = field(default_factory=dict, repr=False)

    def __call__(self, model: nn.Module, optimizer: Optimizer | None = None, **options: Any) -> Sparsifier:
        build: Callable[..., Sparsifier] = getattr(training, self.method)
        return build(model, optimizer or sgd(model), **{"total_steps": STEPS, **self.options, **options})

    @property
    def takes_sparsity(self) -> bool:
        """Whether it is told how many zeros to make, rather than what the network may cost."""
        return "sparsity" in inspect.signature(getattr(training, self.method)).parameters

    def inputs_as(self, dtype: torch.dtype) -> dict[str, Any]:
        """The case's example inputs in another precision, as options."""
        inputs = self.options.get("example_inputs")
        return {"example_inputs": tuple(x.to(dtype) for x in inputs)} if inputs else {}


_DATA = {"example_inputs": (batch(0, size=8)[0],)}
_CHANNELS = {"example_inputs": EXAMPLE, "budget": 0.5}
_PARAMETERS = {"costs": Parameters(), "prune_first": True}
_CHASE = {"example_inputs": EXAMPLE, "update_interval": 3, "channel_interval": 6}

CASES = [
    Case("SET", "SET", {"update_interval": 3}),
    Case("RigL", "RigL", {"update_interval": 3}),
    Case("RigL, in time", "RigL", {"update_interval": 8, "drop_fraction": 0.5, "stop": 1.0}),
    Case("SRigL", "SRigL", {"update_interval": 3}),
    Case("SRigL, without ablation", "SRigL", {"update_interval": 3, "ablation": False}),
    Case("SRigL, ViT", "SRigL", {"update_interval": 3, "gamma": 0.95}),
    Case("SRigL, block-balanced", "SRigL", {"update_interval": 3, "block": 4, "sparsity": 0.6}),
    Case("GMP", "GMP", {"update_interval": 3}),
    Case("GraNet, dense to sparse", "GraNet", {"update_interval": 3, "initial_sparsity": 0.0}),
    Case("GraNet, sparse to sparse", "GraNet", {"update_interval": 3}),
    Case("Chase", "Chase", _CHASE),
    Case("Chase, S_c = 0", "Chase", {"channel_sparsity": 0.0, "update_interval": 3}),
    Case("Chase, prune skip", "Chase", {**_CHASE, "prune_skip": True, "prune_first": True, "criterion": "ws"}),
    Case("IEE", "IEE", {"stages": (3, 3, 3)}),
    Case("IEE, global", "IEE", {"stages": (3, 2, 4), "distribution": "global"}),
    Case("IEE, 2:4", "IEE", {"stages": (3, 3, 3), "n_m": (2, 4)}),
    Case("Campfire, window", "Campfire", {"pattern": "window"}),
    Case("Campfire, most in window", "Campfire", {"pattern": "window", "most_in_window": 3}),
    Case("Campfire, CK", "Campfire", {"pattern": "kernel", "linear": "block", "block": 2}),
    Case("Campfire, combined", "Campfire", {"example_inputs": EXAMPLE}),
    Case("ChannelIEE", "ChannelIEE", {**_CHANNELS, "stages": (3, 2, 4), "stop": 0.75}),
    Case("ChannelIEE, parameters", "ChannelIEE", {**_CHANNELS, "stages": (2, 1, 3), **_PARAMETERS}),
    Case("HALP", "HALP", {**_CHANNELS, "rounds": 4, "interval": 3}),
    Case("Random", "Random"),
    Case("SNIP", "SNIP", {**_DATA, "loss_fn": loss_fn}),
    Case("GraSP", "GraSP", {**_DATA, "loss_fn": loss_fn}),
    Case("SynFlow", "SynFlow", {"example_inputs": EXAMPLE, "rounds": 10}),
]

BY_NAME = {case.name: case for case in CASES}
SOME = [BY_NAME[name] for name in ("RigL", "SRigL", "GMP", "Chase", "IEE", "Campfire, combined", "SNIP", "SynFlow")]


def _with_marks() -> list[Any]:
    """All cases by name; a method's variants run in CI."""
    first = {case.method: case for case in reversed(CASES)}
    return [pytest.param(c, id=c.name, marks=[] if first[c.method] is c else [pytest.mark.ci]) for c in CASES]


every_method = pytest.mark.parametrize("case", _with_marks())
some_methods = pytest.mark.parametrize("case", SOME, ids=lambda case: case.name)

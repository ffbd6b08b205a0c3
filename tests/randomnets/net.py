"""A random network: a program of steps over a growing list of tensors, with inputs and outputs of many forms."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ..helpers import Inputs, MakeInputs, randomise
from .draw import Draw
from .outputs import draw_outputs
from .starts import Start, draw_starts
from .steps.attention import ATTENTION_STEPS
from .steps.channels import CHANNEL_STEPS
from .steps.convolutions import CONVOLUTION_STEPS
from .steps.families import FULLY_CONVOLUTIONAL
from .steps.gates import ANY_STEPS, GATE_STEPS
from .steps.gating_designs import DESIGN_STEPS, TOKEN_DESIGN_STEPS
from .steps.indexing import INDEXING_STEPS, TOKEN_INDEXING_STEPS
from .steps.joins import BRANCH_STEPS, JOINS
from .steps.layouts import IMAGE_STEPS, LAYOUT_STEPS
from .steps.mixing import MIXING_STEPS
from .steps.sharing import SHARING_STEPS
from .steps.tokens import TOKEN_STEPS
from .steps.windows import WINDOW_STEPS
from .values import Factory, Step, Value

SAMPLES = 6  # batch size of the tensors that steps are drawn on
_MOST_CHANNELS, _MOST_NUMBERS = 28, 1500

_SPATIAL = (
    CONVOLUTION_STEPS, BRANCH_STEPS, CONVOLUTION_STEPS, WINDOW_STEPS, CHANNEL_STEPS, GATE_STEPS, BRANCH_STEPS,
    CHANNEL_STEPS, WINDOW_STEPS,
)  # fmt: skip
_RARE = (SHARING_STEPS, MIXING_STEPS, ANY_STEPS, LAYOUT_STEPS, DESIGN_STEPS, INDEXING_STEPS)
FAMILIES: dict[str, tuple[tuple[Factory, ...], ...]] = {
    "image": (*_SPATIAL, *_RARE, IMAGE_STEPS),
    "any size": (FULLY_CONVOLUTIONAL, FULLY_CONVOLUTIONAL, BRANCH_STEPS),
    "signal": (*_SPATIAL, *_RARE),
    "volume": (*_SPATIAL, *_RARE),
    "tokens": (
        ATTENTION_STEPS,
        TOKEN_STEPS,
        ATTENTION_STEPS,
        TOKEN_STEPS,
        ANY_STEPS,
        LAYOUT_STEPS,
        MIXING_STEPS,
        TOKEN_DESIGN_STEPS,
        TOKEN_INDEXING_STEPS,
    ),
    "vector": (TOKEN_STEPS, TOKEN_STEPS, TOKEN_STEPS, ANY_STEPS, LAYOUT_STEPS, TOKEN_INDEXING_STEPS),
}


class RandomNet(nn.Module):
    """Runs the steps; `reads[i]` are the numbers of the tensors that step i is given."""

    def __init__(self, starts: list[Start]) -> None:
        super().__init__()
        self.starts = nn.ModuleList(start.module for start in starts)
        self.steps = nn.ModuleList()
        self.reads: list[tuple[int, ...]] = []
        self.outputs: nn.Module = nn.Identity()
        self.output_reads: tuple[int, ...] = ()

    def forward(self, first: Tensor, second: Tensor | None = None) -> Any:
        inputs = [first] if second is None else [first, second]
        values = [start(x) for start, x in zip(self.starts, inputs, strict=True)]
        for step, reads in zip(self.steps, self.reads, strict=True):
            values.append(step(*[values[i] for i in reads]))
        return self.outputs(*[values[i] for i in self.output_reads])


@dataclass
class Built:
    """A net with fresh inputs for it, and what it is made of."""

    net: RandomNet
    make_inputs: MakeInputs
    names: Counter[str] = field(default_factory=Counter)
    discarded: Counter[str] = field(default_factory=Counter)


def build(draw: Draw, *, any_size: bool = False) -> Built:
    """A network in evaluation mode, in float64, whose parameters are random throughout.

    With `any_size` it is fully convolutional: one image in, of whatever size, no position counted on.
    """
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        default = torch.get_default_dtype()
        torch.set_default_dtype(torch.float64)
        try:
            torch.manual_seed(draw.seed())
            return _build(draw, any_size)
        finally:
            torch.set_default_dtype(default)


def _build(draw: Draw, any_size: bool) -> Built:
    starts = draw_starts(draw, any_size=any_size)
    generator = torch.Generator().manual_seed(draw.seed())

    def make_inputs(batch: int) -> Inputs:
        return tuple(start.make(batch, generator) for start in starts)

    built = Built(RandomNet(starts), make_inputs)
    values = [Value(s.layout, s.module(x)) for s, x in zip(starts, make_inputs(SAMPLES), strict=True)]
    built.names.update(start.name for start in starts)
    for _ in range(draw.integer(4, 9)):
        _grow(draw, built, values, any_size)
    module, reads, names = draw_outputs(draw, values, starts, any_size=any_size)
    randomise(module, lambda: module(*[values[i].sample for i in reads]), generator)
    built.net.outputs, built.net.output_reads = module, reads
    built.names.update(names)
    built.net.eval()
    return built


def _grow(draw: Draw, built: Built, values: list[Value], any_size: bool) -> None:
    """One more step; drawn again where it does not fit."""
    for _ in range(6):
        reads, step = _draw_chain_step(draw, values) if any_size else _draw_step(draw, values)
        if step is None:
            continue
        value = _try(step, [values[i] for i in reads])
        if value is None:
            built.discarded[step.name] += 1
            continue
        built.net.steps.append(step.module)
        built.net.reads.append(reads)
        built.names[step.name] += 1
        values.append(value)
        return


def _draw_chain_step(draw: Draw, values: list[Value]) -> tuple[tuple[int, ...], Step | None]:
    last = len(values) - 1
    return (last,), draw.choice(draw.choice(FAMILIES["any size"]))(draw, values[last])


def _draw_step(draw: Draw, values: list[Value]) -> tuple[tuple[int, ...], Step | None]:
    last = len(values) - 1
    first = last if last == 0 or draw.chance(85) else draw.integer(0, last)
    if last > 0 and draw.chance(25):
        second = draw.integer(0, last)
        return (first, second), draw.choice(JOINS)(draw, values[first], values[second])
    return (first,), draw.choice(draw.choice(FAMILIES[values[first].layout]))(draw, values[first])


def _try(step: Step, operands: list[Value]) -> Value | None:
    """The step's output on the samples, None where shapes do not fit, numbers explode or nothing varies."""
    generator = torch.Generator().manual_seed(len(step.name))
    samples = [o.sample for o in operands]
    try:
        randomise(step.module, lambda: step.module(*samples), generator)
        step.module.eval()
        sample = step.module(*samples)
    except (RuntimeError, ValueError):  # torch's words for a window that does not fit
        return None
    value = Value(step.layout, sample)
    fits = value.channels <= _MOST_CHANNELS and 0 < sample[0].numel() <= _MOST_NUMBERS
    tame = bool(torch.isfinite(sample).all()) and float(sample.abs().max()) < 50 and float(sample.std()) > 1e-2
    return value if fits and tame else None

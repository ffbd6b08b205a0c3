"""Check one random net: capture it once, then for several masks rewrite a copy and compare with the masked module.

Capturing costs ten times as much as all the rest, so every net is tried under `MASKS` masks. The compared module is the
eager masked net in float64, on fresh inputs, at batch sizes 1, 2 and 3.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.export import Dim
from torch.fx import GraphModule

from sparsefx.compiler.pipeline import run_pipeline
from sparsefx.passes.capture import capture
from sparsefx.passes.errors import CaptureError
from sparsefx.passes.graph import operator_name
from sparsefx.passes.patterns import apply_patterns
from sparsefx.passes.remove_channels import RemoveChannels

from ..helpers import TOLERANCE, Inputs, copied, deviation, layer_weights, rewrite, run, worst_error
from .draw import Draw
from .masks import apply_masks, draw_masks
from .net import Built, build

MASKS = 3
_SIZES = ((9, 12), (16, 7), (7, 9), (12, 12), (8, 15))
_ATTEMPTS = 5  # masks drawn for one that lets the output vary


@dataclass
class Outcome:
    """What was found on some nets; outcomes add up."""

    nets: int = 0  # a net under one mask
    removed: int = 0  # nets of which channels went
    rejected: int = 0  # masks under which the output hardly depends on the input
    constant: int = 0  # nets wholly zero, compared with an absolute tolerance
    steps: Counter[str] = field(default_factory=Counter)
    operators: Counter[str] = field(default_factory=Counter)
    masks: Counter[str] = field(default_factory=Counter)
    passes: Counter[str] = field(default_factory=Counter)
    uncaptured: int = 0  # nets of any size that torch.export cannot keep so
    failures: list[str] = field(default_factory=list)

    def add(self, other: Outcome) -> None:
        for name in ("nets", "removed", "rejected", "constant", "uncaptured"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for name in ("steps", "operators", "masks", "passes"):
            getattr(self, name).update(getattr(other, name))
        self.failures += other.failures


def check_net(draw: Draw, label: str) -> Outcome:
    """Build, capture, and compare under several masks; failures are told, not raised."""
    outcome = Outcome()
    built = build(draw)
    dynamic = not draw.chance(10)
    try:
        graph_module = capture(built.net, built.make_inputs(2), dynamic_batch=dynamic)
    except Exception as error:
        outcome.failures.append(f"{label}: capture raised {type(error).__name__}: {str(error)[:300]}")
        return outcome
    _check_masks(draw, built, graph_module, (1, 2, 3) if dynamic else (2,), label, outcome)
    return outcome


def _check_masks(
    draw: Draw, built: Built, captured: GraphModule, batches: tuple[int, ...], label: str, outcome: Outcome
) -> None:
    weights = unmasked(built)
    outcome.steps.update(built.names)
    outcome.operators.update(operator_name(n) for n in captured.graph.nodes if n.op == "call_function")
    for number in range(MASKS):
        failure = _check_mask(draw, built, captured, weights, batches, outcome)
        if failure is not None:
            outcome.failures.append(f"{label} mask {number}: {failure}; steps {sorted(built.names)}")


def _check_mask(
    draw: Draw,
    built: Built,
    captured: GraphModule,
    weights: dict[str, Tensor],
    batches: tuple[int, ...],
    outcome: Outcome,
) -> str | None:
    for masks, names in drawn_masks(draw, built, weights):
        everything_zero = not any(m.any() for m in masks.values())
        if everything_zero or varies(built):
            outcome.masks.update(names)
            outcome.constant += everything_zero
            graph_module = copied(captured)
            if draw.chance(20):  # the patterns as values; here they are the zeros of the weights, or more than them
                apply_patterns(graph_module, masks)
            return compare(built, graph_module, draw.choice(("pipeline", "fold, remove", "remove")), batches, outcome)
        outcome.rejected += 1
    return None


def check_any_size(draw: Draw, label: str) -> Outcome:
    """As check_net, for a fully convolutional net whose height and width are dynamic too."""
    outcome = Outcome()
    built = build(draw, any_size=True)
    channels = built.make_inputs(1)[0].shape[1]
    generator = torch.Generator().manual_seed(draw.seed())
    sizes = iter([(10, 12), *_SIZES] * 100)  # another size at every call

    def make_inputs(batch: int) -> Inputs:
        return (torch.randn(batch, channels, *next(sizes), generator=generator, dtype=torch.float64),)

    dims = {0: Dim("batch"), 2: Dim("height", min=4), 3: Dim("width", min=4)}
    try:
        captured = capture(built.net, make_inputs(2), dynamic_shapes=(dims,))
    except CaptureError:  # torch.export wants some layers, circular padding for one, at a single size
        outcome.uncaptured += 1
        return outcome
    _check_masks(draw, dataclasses.replace(built, make_inputs=make_inputs), captured, (1, 2, 3), label, outcome)
    return outcome


def unmasked(built: Built) -> dict[str, Tensor]:
    """Copies of the net's weights."""
    return {name: p.detach().clone() for name, p in built.net.named_parameters()}


def drawn_masks(draw: Draw, built: Built, weights: dict[str, Tensor]) -> Iterator[tuple[dict[str, Tensor], list[str]]]:
    """Some masks and the names of their patterns, one after the other applied to the unmasked net."""
    for _ in range(_ATTEMPTS):
        _restore(built, weights)
        masks, names = draw_masks(draw, built.net)
        apply_masks(built.net, masks)
        yield masks, names


def _restore(built: Built, weights: dict[str, Tensor]) -> None:
    with torch.no_grad():
        for name, parameter in built.net.named_parameters():
            parameter.copy_(weights[name])


def varies(built: Built) -> bool:
    """Whether every floating-point output varies over inputs by at least 5% of its whole deviation."""
    outputs = run(built.net, built.make_inputs(16))
    return all(deviation(o).varies for o in outputs if isinstance(o, Tensor) and o.is_floating_point())


def compare(
    built: Built, graph_module: GraphModule, passes: str, batches: tuple[int, ...], outcome: Outcome
) -> str | None:
    """What is wrong with the rewritten graph, None where nothing is."""
    outcome.nets += 1
    outcome.passes[passes] += 1
    weights = layer_weights(graph_module)
    try:
        if passes == "pipeline":
            run_pipeline(graph_module)
        else:
            rewrite(graph_module, fold=passes == "fold, remove")
        outcome.removed += layer_weights(graph_module) < weights
        worst = worst_error(graph_module, built.net, built.make_inputs, batches)
        again = RemoveChannels()(graph_module).modified
    except Exception as error:
        return f"{type(error).__name__}: {str(error)[:400]}"
    if not worst <= TOLERANCE:
        return f"error {worst:.3g} of the deviation over inputs"
    return "a second pass found something to remove" if again else None

"""What tests share: random parameters, sparsity patterns, and how far two models are apart."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import GraphModule
from torch.utils import _pytree as pytree

from sparsefx.passes.capture import capture
from sparsefx.passes.fold_batch_norm import FoldBatchNorm
from sparsefx.passes.graph import operator_name
from sparsefx.passes.remove_channels import RemoveChannels

TOLERANCE = 1e-9  # of the output's standard deviation over inputs, in float64
VARIATION = 0.05  # least share of an output's deviation that must come from the input
FLOOR = 1e-9  # absolute tolerance where an output does not depend on the input

Inputs = tuple[Any, ...]
MakeInputs = Callable[[int], Inputs]
_LAYERS = ("aten::linear", *(f"aten::conv{kind}{n}d" for kind in ("", "_transpose") for n in (1, 2, 3)))
_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def inputs_like(*shapes: Sequence[int], seed: int = 0) -> MakeInputs:
    """Fresh normal inputs of the given shapes (without the batch) for any batch size."""
    generator = torch.Generator().manual_seed(seed)
    return lambda batch: tuple(torch.randn(batch, *shape, dtype=torch.float64, generator=generator) for shape in shapes)


# Random parameters


def randomise(model: nn.Module, run: Callable[[], object], generator: torch.Generator) -> None:
    """Random biases and affine parameters; batch statistics calibrated by `run`, then perturbed."""
    with torch.no_grad():
        for module in model.modules():
            _randomise_affine(module, generator)
        _calibrate(model, run)
        for module in model.modules():
            if isinstance(module, _BATCH_NORMS) and module.running_mean is not None:
                _perturb(module, generator)


def _randomise_affine(module: nn.Module, generator: torch.Generator) -> None:
    """Biases that matter and weights that keep the signal alive, after masking too."""
    for name, weight in module.named_parameters(recurse=False):
        if "bias" in name and weight.ndim == 1:
            weight.copy_(_normal(weight, generator) * 0.4)
        elif name == "weight" and weight.ndim == 1:
            weight.copy_(1.0 + 0.4 * _normal(weight, generator))
        elif "weight" in name and weight.ndim > 1 and not isinstance(module, nn.Embedding):
            weight *= 1.8


def _calibrate(model: nn.Module, run: Callable[[], object]) -> None:
    """Running statistics become those of the batches that `run` puts through the model."""
    norms = [m for m in model.modules() if isinstance(m, _BATCH_NORMS)]
    momenta = [m.momentum for m in norms]
    for m in norms:
        m.momentum = 1.0
        m.train()
    run()
    for m, momentum in zip(norms, momenta, strict=True):
        m.momentum = momentum
        m.eval()


def _perturb(norm: Any, generator: torch.Generator) -> None:
    norm.running_var.clamp_(min=1e-3)
    norm.running_mean += 0.3 * norm.running_var.sqrt() * _normal(norm.running_mean, generator)
    norm.running_var *= torch.exp(0.3 * _normal(norm.running_var, generator))


def _normal(like: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randn(like.shape, dtype=like.dtype, generator=generator)


# How far apart


@dataclass(frozen=True)
class Deviation:
    """Standard deviations of one output: over inputs alone, and over everything."""

    over_inputs: float
    total: float

    @property
    def varies(self) -> bool:
        return self.over_inputs >= VARIATION * self.total and self.over_inputs > 1e-6


def deviation(output: Tensor) -> Deviation:
    """Of an output whose first axis counts different inputs."""
    numbers = output.detach().double().reshape(len(output), -1)
    over_inputs = numbers.var(dim=0, correction=0).mean().sqrt()
    return Deviation(float(over_inputs), float(numbers.std(correction=0)))


def error(have: Tensor, want: Tensor, over_inputs: float) -> float:
    """max|have - want| in units of the output's deviation over inputs; infinite where only one is finite."""
    if have.shape != want.shape or have.dtype != want.dtype:
        return float("inf")
    if not want.is_floating_point():
        return 0.0 if torch.equal(have, want) else float("inf")
    if not torch.equal(torch.isfinite(have), torch.isfinite(want)):
        return float("inf")
    finite = torch.isfinite(want)
    difference = (have - want)[finite].abs().max().item() if finite.any() else 0.0
    return float(difference) / over_inputs if over_inputs > FLOOR else float(difference) * TOLERANCE / FLOOR


def run(model: Callable[..., Any], inputs: Inputs) -> list[Any]:
    """The outputs as a flat list."""
    with torch.no_grad():
        return pytree.tree_leaves(model(*inputs))


@dataclass(frozen=True)
class Rewritten:
    """A model's graph after the passes, with what they found."""

    graph_module: GraphModule
    remove: RemoveChannels
    modified: bool  # by RemoveChannels
    before: int  # weights of layers
    after: int

    @property
    def removed(self) -> int:
        """Weights that went."""
        return self.before - self.after


def rewrite(graph_module: GraphModule, *, fold: bool = True) -> Rewritten:
    """Run the passes on a captured graph, in place."""
    if fold:
        FoldBatchNorm()(graph_module)
    before, remove = layer_weights(graph_module), RemoveChannels()
    modified = remove(graph_module).modified
    return Rewritten(graph_module, remove, modified, before, layer_weights(graph_module))


def layer_weights(graph_module: GraphModule) -> int:
    """Weights of convolutions and linear layers, counted at every call."""
    layers = [n for n in graph_module.graph.nodes if n.op == "call_function" and operator_name(n) in _LAYERS]
    return sum(n.args[1].meta["val"].numel() for n in layers)


def copied(graph_module: GraphModule) -> GraphModule:
    """A deep copy; torch warns of its own tree specifications while copying them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return copy.deepcopy(graph_module)


def slim(model: nn.Module, make_inputs: MakeInputs, *, fold: bool = True) -> Rewritten:
    """Capture a model in float64 and run the passes."""
    return rewrite(capture(model.double().eval(), make_inputs(2)), fold=fold)


def worst_error(
    have: Callable[..., Any], want: Callable[..., Any], make_inputs: MakeInputs, batches: Sequence[int] = (1, 2, 3)
) -> float:
    """The largest error over fresh inputs and batch sizes, every output in its own units."""
    scales = [deviation(o).over_inputs if isinstance(o, Tensor) else 0.0 for o in run(want, make_inputs(8))]
    worst = 0.0
    for batch in batches:
        inputs = make_inputs(batch)
        a, b = run(have, inputs), run(want, inputs)
        assert len(a) == len(b) == len(scales)
        for x, y, scale in zip(a, b, scales, strict=True):
            same = error(x, y, scale) if isinstance(y, Tensor) else (0.0 if x == y else float("inf"))
            worst = max(worst, same)
    return worst


def assert_exact(rewritten: Rewritten, model: nn.Module, make_inputs: MakeInputs) -> None:
    """The rewritten graph is the model's function, a second pass finds nothing, and the graph is well formed."""
    worst = worst_error(rewritten.graph_module, model, make_inputs)
    assert worst <= TOLERANCE, f"error {worst:.2g} of the output's deviation over inputs"
    rewritten.graph_module.graph.lint()
    again = RemoveChannels()(copied(rewritten.graph_module))
    assert not again.modified, "a second RemoveChannels found something to remove"

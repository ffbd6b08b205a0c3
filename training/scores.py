"""Scores of every weight before training: SNIP, GraSP and SynFlow. All work on a copy of the model.

They return tensors by weight name, at least 0 and of the shape of the weight, higher for "keep"; where ranks run in
several processes, from the gradient averaged over them.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ..passes.errors import SparsefxError
from .criteria import magnitude
from .layers import SPARSIFIED_TYPES, bare_model
from .ranks import mean_over_ranks

LossFunction = Callable[[Any], Tensor]


def snip_scores(model: nn.Module, inputs: tuple[Any, ...], loss_fn: LossFunction) -> dict[str, Tensor]:
    """|w * gradient of the loss| (Lee et al. 2019, Eq. 6)."""
    with _copy(model) as copied:
        weights = _weights(copied)
        gradients = _gradients(loss_fn(copied(*inputs)), weights)
    return {name: magnitude(weight.detach() * gradients[name]) for name, weight in weights.items()}


def grasp_scores(
    model: nn.Module, inputs: tuple[Any, ...], loss_fn: LossFunction, temperature: float
) -> dict[str, Tensor]:
    """What removing a weight would take from the gradient's norm (Wang et al. 2020, Algorithm 1).

    The score of the paper is -w * Hg, with Hg the Hessian times the gradient, and the highest are removed. Here it is
    turned round and shifted, so that the lowest is 0. The loss is that of the output over `temperature`.
    """
    with _copy(model) as copied:
        weights = _weights(copied)
        loss = _number(loss_fn(_scaled(copied(*inputs), temperature)))
    gradients = torch.autograd.grad(loss, list(weights.values()), create_graph=True, allow_unused=True)
    flow = sum(((g * mean_over_ranks(g.detach())).sum() for g in gradients if g is not None), torch.zeros(()))
    products = _gradients(flow, weights)
    scores = {name: (weight * products[name]).detach().float().nan_to_num(0.0) for name, weight in weights.items()}
    lowest = min(float(score.min()) for score in scores.values())
    return {name: score - lowest for name, score in scores.items()}


def synflow_scores(model: nn.Module, inputs: tuple[Any, ...], masks: dict[str, Tensor]) -> dict[str, Tensor]:
    """|w| * gradient of the sum of outputs on an input of ones, all parameters positive (Tanaka et al. 2020, Eq. 2).

    `masks` are applied first. In float64, as products over many layers leave the range of float32.
    """
    copied = copy.deepcopy(bare_model(model)).double().eval()
    weights = _weights(copied)
    with torch.no_grad():
        for value in [*copied.parameters(), *copied.buffers()]:
            if value.is_floating_point():
                value.abs_()
        for name, mask in masks.items():
            weights[name].masked_fill_(~mask, 0)
    ones = tuple(torch.ones_like(x[:1], dtype=torch.float64) if _is_float(x) else x for x in inputs)
    gradients = _gradients(_total(copied(*ones)), weights)
    flow = {name: (weight * gradients[name]).detach().abs() for name, weight in weights.items()}
    largest = max(float(score.max()) for score in flow.values()) or 1.0
    return {name: (score / largest).float() for name, score in flow.items()}


@contextmanager
def _copy(model: nn.Module) -> Iterator[nn.Module]:
    """A copy to compute with; what is random in it, as dropout, leaves the random state as it was."""
    bare = bare_model(model)
    with torch.random.fork_rng(devices={p.device for p in bare.parameters() if p.is_cuda}):
        yield copy.deepcopy(bare)


def _weights(model: nn.Module) -> dict[str, nn.Parameter]:
    """Weights of the layers that can be sparsified, made to require gradients."""
    weights: dict[str, nn.Parameter] = {}
    for name, module in model.named_modules():
        if isinstance(module, SPARSIFIED_TYPES):
            assert isinstance(module.weight, nn.Parameter)
            module.weight.requires_grad_()
            weights[f"{name}.weight".lstrip(".")] = module.weight
    return weights


def _number(loss: Tensor) -> Tensor:
    if not isinstance(loss, Tensor) or loss.ndim or not loss.requires_grad:
        found = f"shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else type(loss).__name__
        raise SparsefxError(f"loss_fn must return one number that depends on the weights, found {found}")
    return loss


def _gradients(value: Tensor, weights: dict[str, nn.Parameter]) -> dict[str, Tensor]:
    gradients = torch.autograd.grad(_number(value), list(weights.values()), allow_unused=True)
    return {
        name: mean_over_ranks(torch.zeros_like(weight) if gradient is None else gradient)
        for (name, weight), gradient in zip(weights.items(), gradients, strict=True)
    }


def _scaled(output: Any, temperature: float) -> Any:
    if not isinstance(output, Tensor):
        raise SparsefxError(
            f"GraSP scales the output, which must be one tensor of logits, found {type(output).__name__}"
        )
    return output / temperature


def _total(output: Any) -> Tensor:
    """The sum over all floating-point tensors of an output."""
    if isinstance(output, Tensor):
        return output.sum()
    parts = output.values() if isinstance(output, dict) else output
    return torch.stack([_total(part) for part in parts if part is not None]).sum()


def _is_float(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()

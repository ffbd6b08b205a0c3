"""SNIP, GraSP and SynFlow: one mask before training, from scores of the untrained weights."""

from __future__ import annotations

from typing import Any, Unpack

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ..budget import budget_beside, target_nonzeros
from ..scores import LossFunction, grasp_scores, snip_scores, synflow_scores
from ..selection import highest_of_all
from ..settings import LayerOptions, Settings, require
from .static import Static


class _Scored(Static):
    """Keeps the weights with the highest of given scores over all explored layers together."""

    def __init__(self, model: nn.Module, optimizer: Optimizer, settings: Settings, scores: dict[str, Tensor]) -> None:
        self._scores = scores
        super().__init__(model, optimizer, settings)
        self._scores = {}

    def initial_masks(self) -> dict[str, Tensor]:
        eligible = {layer.name: layer.mask for layer in self.explored}
        return highest_of_all(self._scores.__getitem__, eligible, budget_beside(self.layers, self.target_nonzeros))


class SNIP(_Scored):
    """SNIP: Single-shot Network Pruning based on Connection Sensitivity (Lee et al. 2019).

    Keeps the weights with the largest |w * gradient| on one batch, over the whole network. `example_inputs` is the
    batch, `loss_fn` maps the model's output to its loss: `lambda logits: cross_entropy(logits, labels)`.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        *,
        total_steps: int,
        example_inputs: tuple[Any, ...],
        loss_fn: LossFunction,
        sparsity: float = 0.9,
        **layers: Unpack[LayerOptions],
    ) -> None:
        scores = snip_scores(model, example_inputs, loss_fn)
        super().__init__(model, optimizer, _settings(sparsity, total_steps, layers), scores)


class GraSP(_Scored):
    """Picking Winning Tickets Before Training by Preserving Gradient Flow (Wang et al. 2020).

    Keeps the weights whose removal would cost the gradient's norm most. `example_inputs` and `loss_fn` as for SNIP; the
    authors take ten samples of every class, and divide the logits by 200 first (`temperature`).
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        *,
        total_steps: int,
        example_inputs: tuple[Any, ...],
        loss_fn: LossFunction,
        sparsity: float = 0.9,
        temperature: float = 200.0,
        **layers: Unpack[LayerOptions],
    ) -> None:
        require(temperature > 0, f"temperature must be positive, found {temperature}")
        scores = grasp_scores(model, example_inputs, loss_fn, temperature)
        super().__init__(model, optimizer, _settings(sparsity, total_steps, layers), scores)


class SynFlow(Static):
    """Pruning neural networks without any data by iteratively conserving synaptic flow (Tanaka et al. 2020).

    In `rounds` rounds, the density of round k being (1 - sparsity)^(k / rounds), keeps the weights with the largest
    synaptic flow (Algorithm 1, 100 rounds). `example_inputs` tell the shape only; `loss_fn` is not needed.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        *,
        total_steps: int,
        example_inputs: tuple[Any, ...],
        sparsity: float = 0.9,
        rounds: int = 100,
        **layers: Unpack[LayerOptions],
    ) -> None:
        require(rounds > 0, f"rounds must be positive, found {rounds}")
        self._flow = (model, example_inputs, rounds)
        super().__init__(model, optimizer, _settings(sparsity, total_steps, layers))
        del self._flow

    def initial_masks(self) -> dict[str, Tensor]:
        model, inputs, rounds = self._flow
        masks = {layer.name: torch.ones_like(layer.mask) for layer in self.explored}
        for number in range(1, rounds + 1):
            sparsity = 1 - (1 - self.settings.sparsity) ** (number / rounds)
            with torch.enable_grad():
                scores = synflow_scores(model, inputs, masks)
            left = budget_beside(self.layers, target_nonzeros(self.size, sparsity))
            masks = highest_of_all(scores.__getitem__, masks, left)
        return masks


def _settings(sparsity: float, total_steps: int, layers: LayerOptions) -> Settings:
    return Settings(sparsity=sparsity, total_steps=total_steps, distribution="global", **layers)

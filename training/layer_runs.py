"""One forward pass, watched layer by layer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ..passes.capture import evaluation_mode
from .layers import SPARSIFIED_TYPES


def watch_layers(
    model: nn.Module, example_inputs: tuple[Any, ...], see: Callable[[str, nn.Module, Tensor, Tensor], None]
) -> None:
    """Run the model once in evaluation mode; `see` is told every run of a convolution or linear layer, in order.

    What it is told: the name of the layer's weight, the layer, its input and its output.
    """

    def watch(name: str) -> Any:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            see(name, module, inputs[0], output)

        return hook

    layers = [(n, m) for n, m in model.named_modules() if isinstance(m, SPARSIFIED_TYPES)]
    handles = [module.register_forward_hook(watch(f"{name}.weight".lstrip("."))) for name, module in layers]
    try:
        with evaluation_mode(model), torch.no_grad():
            model(*example_inputs)
    finally:
        for handle in handles:
            handle.remove()

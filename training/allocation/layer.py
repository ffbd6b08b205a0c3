"""The layers of a network as they run, for whoever knows what they cost."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

from torch import Tensor, nn

from ..layer_runs import watch_layers
from ..layers import bare_model


@dataclass(frozen=True)
class Layer:
    """One run of a convolution or linear layer. `name` is its weight's; sizes have neither batch nor channels.

    `kernel`, `stride`, `padding` and `dilation` are empty for linear layers; `padding` may be "same" or "valid".
    """

    name: str
    inputs: int
    outputs: int
    input_size: tuple[int, ...]
    output_size: tuple[int, ...]
    batch: int
    kernel: tuple[int, ...] = ()
    stride: tuple[int, ...] = ()
    padding: tuple[int, ...] | str = ()
    dilation: tuple[int, ...] = ()
    groups: int = 1
    bias: bool = False
    transposed: bool = False

    @property
    def is_depthwise(self) -> bool:
        """Whether it has one filter for every input channel: as many outputs as inputs, whatever is removed."""
        return self.groups > 1 and self.groups == self.inputs == self.outputs

    @property
    def visits(self) -> int:
        """Positions at which the kernel is applied to one sample."""
        return prod(self.input_size if self.transposed else self.output_size)


def layers_of(model: nn.Module, example_inputs: tuple[Any, ...]) -> list[Layer]:
    """Every run of a convolution or linear layer in one forward pass in evaluation mode, in order."""
    found: list[Layer] = []

    def see(name: str, module: nn.Module, given: Tensor, output: Tensor) -> None:
        found.append(_layer(name, module, given, output))

    watch_layers(bare_model(model), example_inputs, see)
    return found


def _layer(name: str, module: Any, given: Tensor, output: Tensor) -> Layer:
    if isinstance(module, nn.Linear):
        return Layer(
            name,
            module.in_features,
            module.out_features,
            tuple(given.shape[1:-1]),
            tuple(output.shape[1:-1]),
            len(given),
            bias=module.bias is not None,
        )
    return Layer(
        name,
        module.in_channels,
        module.out_channels,
        tuple(given.shape[2:]),
        tuple(output.shape[2:]),
        len(given),
        module.kernel_size,
        module.stride,
        module.padding,
        module.dilation,
        module.groups,
        module.bias is not None,
        "Transpose" in type(module).__name__,
    )

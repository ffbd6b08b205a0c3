"""Networks for the oracle: they say themselves which channels are summed, and which layer reads which.

`tied` lists layers whose outputs are summed, channel by channel; `reads` gives, for every layer, the layers whose
channels are its input columns, one after the other (of summed layers the first). Both are written by hand, so that
the oracle owes nothing to the analysis.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class SlantedSoftplus(nn.Module):
    """x + softplus(x): smooth, and nowhere flat, so that no effect fades on its way to the output."""

    def forward(self, x: Tensor) -> Tensor:
        return x + nn.functional.softplus(x)


class SlantedTanh(nn.Module):
    """x - tanh(x) / 2: likewise, and zero at zero."""

    def forward(self, x: Tensor) -> Tensor:
        return x - 0.5 * torch.tanh(x)


class OracleNet(nn.Module):
    """A network that ends in the linear layer `head`, whose outputs are the network's."""

    def __init__(self) -> None:
        super().__init__()
        self.tied: list[tuple[str, ...]] = []
        self.reads: dict[str, tuple[str, ...]] = {}

    def layer(self, name: str) -> nn.Conv2d | nn.Linear:
        """A convolution or linear layer by name."""
        module = self.get_submodule(name)
        assert isinstance(module, nn.Conv2d | nn.Linear)
        return module

    def layers(self) -> list[str]:
        """All convolutions and linear layers but the head, in order of definition."""
        names = [n for n, m in self.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)]
        return [n for n in names if n != "head"]


class Unit(nn.Sequential):
    """Convolution, batch normalisation, activation."""

    def __init__(self, inputs: int, outputs: int, kernel: int, act: type[nn.Module], *, stride: int = 1) -> None:
        conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=outputs % 2 == 0)
        super().__init__(conv, nn.BatchNorm2d(outputs), act())


class Chain(OracleNet):
    """Units one after the other, padded; means over positions; a linear head."""

    def __init__(
        self, widths: Sequence[int], kernels: Sequence[int], act: type[nn.Module], stride_at: int = -1
    ) -> None:
        super().__init__()
        channels = [3, *widths]
        self.units = nn.Sequential(
            *[
                Unit(a, b, kernel, act, stride=2 if i == stride_at else 1)
                for i, (a, b, kernel) in enumerate(zip(channels, channels[1:], kernels, strict=False))
            ]
        )
        self.head = nn.Linear(channels[-1], 3)
        names = [f"units.{i}.0" for i in range(len(widths))]
        self.reads = {b: (a,) for a, b in zip(names, [*names[1:], "head"], strict=True)}

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.units(x).mean(dim=(2, 3)))
        return out


class Block(nn.Module):
    """A basic residual block; with a stride or other width the shortcut is a projection."""

    def __init__(self, inputs: int, inner: int, outputs: int, act: type[nn.Module], stride: int = 1) -> None:
        super().__init__()
        self.first = Unit(inputs, inner, 3, act, stride=stride)
        self.second = nn.Conv2d(inner, outputs, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(outputs)
        self.act = act()
        self.project: nn.Conv2d | None = None
        if stride != 1 or inputs != outputs:
            self.project = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            self.project_norm = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.project is None else self.project_norm(self.project(x))
        out: Tensor = self.act(self.norm(self.second(self.first(x))) + shortcut)
        return out


class Residual(OracleNet):
    """Stages of `depth` basic blocks behind a stem; every stage after the first starts with a projection."""

    def __init__(self, widths: Sequence[int], inner: int, depth: int, act: type[nn.Module]) -> None:
        super().__init__()
        self.stem = Unit(3, widths[0], 3, act)
        self.blocks = nn.Sequential()
        stream, sums = "stem.0", [["stem.0"]]
        inputs = widths[0]
        for stage, width in enumerate(widths):
            for i in range(depth):
                name = f"blocks.{len(self.blocks)}"
                self.blocks.append(Block(inputs, inner, width, act, stride=2 if stage and not i else 1))
                self.reads |= {f"{name}.first.0": (stream,), f"{name}.second": (f"{name}.first.0",)}
                if stage and not i:
                    self.reads[f"{name}.project"] = (stream,)
                    stream, inputs = f"{name}.project", width
                    sums.append([stream])
                sums[-1].append(f"{name}.second")
        self.tied = [tuple(names) for names in sums]
        self.head = nn.Linear(widths[-1], 3)
        self.reads["head"] = (stream,)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.blocks(self.stem(x)).mean(dim=(2, 3)))
        return out


class DenseBlock(OracleNet):
    """A dense block as in DenseNet: every layer normalises, activates and reads all features so far."""

    def __init__(self, stem: int, growth: int, depth: int, act: type[nn.Module], *, transition: int = 0) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, stem, 3, padding=1)
        counts = [stem + growth * i for i in range(depth + 1)]
        self.norms = nn.ModuleList(nn.Sequential(nn.BatchNorm2d(c), act()) for c in counts)
        self.grow = nn.ModuleList(nn.Conv2d(c, growth, 3, padding=1, bias=False) for c in counts[:-1])
        features = ["stem", *[f"grow.{i}" for i in range(depth)]]
        self.reads = {f"grow.{i}": tuple(features[: i + 1]) for i in range(depth)}
        self.transition: nn.Sequential | None = None
        if transition:
            conv = nn.Conv2d(counts[-1], transition, 1, bias=False)
            unit = Unit(transition, transition, 3, act)
            self.transition = nn.Sequential(conv, nn.AvgPool2d(2), *unit)
            self.reads |= {"transition.0": tuple(features), "transition.2": ("transition.0",)}
        last = ("transition.2",) if transition else tuple(features)
        self.head = nn.Linear(transition or counts[-1], 3)
        self.reads["head"] = last

    def forward(self, x: Tensor) -> Tensor:
        features = self.stem(x)
        for norm, conv in zip(self.norms[:-1], self.grow, strict=True):
            features = torch.cat([features, conv(norm(features))], dim=1)
        features = self.norms[-1](features)
        if self.transition is not None:
            features = self.transition(features)
        out: Tensor = self.head(features.mean(dim=(2, 3)))
        return out


class Grouped(OracleNet):
    """A grouped convolution: its groups stay rectangular, so kept channels must be equally many in each."""

    def __init__(self, width: int, groups: int, act: type[nn.Module]) -> None:
        super().__init__()
        self.first = Unit(3, width, 3, act)
        self.grouped = nn.Conv2d(width, width, 3, padding=1, groups=groups)
        self.act = nn.Sequential(nn.BatchNorm2d(width), act())
        self.head = nn.Linear(width, 3)
        self.reads = {"grouped": ("first.0",), "head": ("grouped",)}

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.act(self.grouped(self.first(x))).mean(dim=(2, 3)))
        return out

"""Outputs of a random net: heads on some of its tensors, as a tensor, a tuple, a dict or something nested."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from .draw import Draw
from .starts import Start
from .values import SPATIAL_DIMS, Apply, Value


class Outputs(nn.Module):
    """One head per tensor; `form` says in what container the results leave."""

    def __init__(self, heads: list[nn.Module], form: str) -> None:
        super().__init__()
        self.heads = nn.ModuleList(heads)
        self.form = form

    def forward(self, *values: Tensor) -> Any:
        results = [head(value) for head, value in zip(self.heads, values, strict=True)]
        if self.form == "dict":
            return {f"output{i}": result for i, result in enumerate(results)}
        if self.form == "nested":
            return {"first": results[0], "rest": tuple(results[1:])}
        if self.form == "list":
            return results
        return results[0] if len(results) == 1 else tuple(results)


def _mean_linear(draw: Draw, value: Value) -> nn.Module:
    positions = [j for j in range(1, value.sample.ndim) if j != value.axis]
    layer = nn.Linear(value.channels, draw.choice((5, 3, 1)))
    return Apply(lambda m, x: m.layer(x.mean(positions) if positions else x), layer=layer)


def _flat_linear(draw: Draw, value: Value) -> nn.Module:
    return nn.Sequential(nn.Flatten(1), nn.Linear(value.sample[0].numel(), 4))


def _dense(draw: Draw, value: Value) -> nn.Module:
    """An output at every position."""
    if value.layout in SPATIAL_DIMS:
        return (nn.Conv1d, nn.Conv2d, nn.Conv3d)[SPATIAL_DIMS[value.layout] - 1](value.channels, 3, 1)
    return nn.Linear(value.channels, 3)


HEADS: dict[str, Callable[[Draw, Value], nn.Module]] = {
    "mean, linear": _mean_linear,
    "dense": _dense,
    "flatten, linear": _flat_linear,
    "as it is": lambda draw, value: nn.Identity(),
}


def draw_outputs(
    draw: Draw, values: list[Value], starts: list[Start], *, any_size: bool = False
) -> tuple[nn.Module, tuple[int, ...], list[str]]:
    """The output module, the numbers of the tensors it reads, and names for the report."""
    last = len(values) - 1
    reads = [last]
    if any_size:
        kind = draw.choice(("mean, linear", "dense"))
        return Outputs([HEADS[kind](draw, values[last])], "tensor"), (last,), [f"output {kind}"]
    if last > 0 and draw.chance(35):
        reads += [draw.integer(0, last) for _ in range(draw.choice((1, 2)))]
    kinds = [
        draw.choice(("mean, linear", "dense", "flatten, linear", "mean, linear", "dense", "mean, linear", "as it is"))
        for _ in reads
    ]
    heads = [HEADS[kind](draw, values[i]) for i, kind in zip(reads, kinds, strict=True)]
    names = [f"output {kind}" for kind in kinds]
    table = starts[0].embedding
    if table is not None and values[last].layout == "tokens" and values[last].channels == table.shape[1]:
        heads[0] = Apply(lambda m, x: nn.functional.linear(x, m.table), table=table)
        names[0] = "output tied to embedding"
    form = draw.choice(("tensor", "tensor", "dict", "list", "nested"))
    return Outputs(heads, form), tuple(reads), [*names, f"output form {form}"]

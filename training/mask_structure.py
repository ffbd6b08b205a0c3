"""The structure of a sparsity mask, and what it means for a mask to have it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Self

import torch
from torch import Tensor
from torch.nn import functional as F

from ..passes.errors import MaskError
from .weight_layout import WeightLayout

_PARAMETERS = {
    "dense": (),
    "channel": (),
    "constant_fan_in": ("fan_in",),
    "n_m": ("n", "m"),
    "kernel": (),
    "window": ("window",),
    "block": ("block",),
    "unstructured": (),
}


@dataclass(frozen=True)
class MaskStructure:
    """The pattern that the non-zeros of one parameter follow.

    dense            nothing is masked
    channel          whole output filters and whole input columns are zero, the rest is dense
    constant_fan_in  every active neuron has exactly `fan_in` non-zeros (SRigL)
    n_m              at most `n` non-zeros in every `m` consecutive inputs
    kernel           every RxS kernel is zero or dense (Campfire's CK)
    window           at most `window` non-zeros in every RxS kernel (Campfire)
    block            every block of (outputs, inputs) is zero or dense
    unstructured     anything

    `ablated` lists the output channels without a non-zero, whatever the kind. Raises MaskError for an unknown kind,
    or for parameters that are missing, superfluous or not positive.
    """

    kind: str
    fan_in: int | None = None
    n: int | None = None
    m: int | None = None
    window: int | None = None
    block: tuple[int, int] | None = None
    ablated: tuple[int, ...] = ()
    layout: WeightLayout = field(default_factory=WeightLayout)

    def __post_init__(self) -> None:
        if self.kind not in _PARAMETERS:
            raise MaskError(f"unknown mask structure {self.kind!r}; known are {', '.join(_PARAMETERS)}")
        for name in ("fan_in", "n", "m", "window", "block"):
            value, wanted = getattr(self, name), name in _PARAMETERS[self.kind]
            if wanted != (value is not None):
                need = "needs" if wanted else "takes no"
                raise MaskError(f"a {self.kind} mask structure {need} {name}, found {value}")
            if value is not None and not _is_size(value, 2 if name == "block" else 1):
                raise MaskError(f"{name} of a {self.kind} mask structure must be positive, found {value}")

    def to_dict(self) -> dict[str, Any]:
        """JSON-able, without what is not set."""
        return {key: value for key, value in asdict(self).items() if value is not None}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """The inverse of `to_dict`; raises TypeError, KeyError or MaskError where `data` is something else."""
        fields = {**data, "layout": WeightLayout(**data["layout"]), "ablated": tuple(data["ablated"])}
        if "block" in fields:
            fields["block"] = tuple(fields["block"])
        return cls(**fields)


def _is_size(value: Any, count: int) -> bool:
    """Whether `value` is a positive whole number, or a tuple of `count` of them."""
    sizes = value if isinstance(value, tuple) else (value,)
    return len(sizes) == count and all(type(size) is int and size >= 1 for size in sizes)


def ablated_channels(grid: Tensor) -> tuple[int, ...]:
    """Output channels of a mask grid (see WeightLayout) that have no non-zero."""
    empty: list[int] = (~grid.flatten(2).any(2)).flatten().nonzero().flatten().tolist()
    return tuple(empty)


def violation(mask: Tensor, structure: MaskStructure) -> str | None:
    """How a boolean mask departs from a structure; None where it has it. Empty `ablated` means not told."""
    if not structure.layout.fits(tuple(mask.shape)):
        return f"shape {tuple(mask.shape)} does not fit {structure.layout}"
    grid = structure.layout.grid(mask)
    ablated = ablated_channels(grid)
    if structure.ablated and structure.ablated != ablated:
        return f"its output channels without non-zeros are {list(ablated)}, not {list(structure.ablated)}"
    return _CHECKS[structure.kind](grid, structure)


def fan_ins(grid: Tensor) -> Tensor:
    """Non-zeros per active neuron."""
    counts = grid.flatten(2).sum(2).flatten()
    return counts[counts > 0]


def counts_per_group(grid: Tensor, m: int) -> Tensor:
    """Non-zeros in every `m` consecutive inputs, shape (groups, outputs, input groups, positions)."""
    short = -grid.shape[2] % m
    padded = F.pad(grid, (0, 0, 0, short)) if short else grid
    groups, outputs, inputs, positions = padded.shape
    return padded.reshape(groups, outputs, inputs // m, m, positions).sum(3)


def whole_blocks(grid: Tensor, block: tuple[int, int]) -> bool:
    """Whether blocks of (outputs, inputs) tile the weight, each of them zero or dense."""
    groups, outputs, inputs, positions = grid.shape
    if outputs % block[0] or inputs % block[1]:
        return False
    tiles = grid.reshape(groups, outputs // block[0], block[0], inputs // block[1], block[1], positions)
    return torch.equal(tiles.any(4).any(2), tiles.all(4).all(2))


def whole_channels(grid: Tensor) -> bool:
    """Whether the mask is dense but for whole output filters and whole input columns."""
    filters, columns = grid.flatten(2).any(2), grid.any(3).any(1)
    return torch.equal(grid, (filters[:, :, None, None] & columns[:, None, :, None]).expand_as(grid))


def _check_dense(grid: Tensor, structure: MaskStructure) -> str | None:
    return None if grid.all() else f"{int((~grid).sum())} weights are masked"


def _check_channel(grid: Tensor, structure: MaskStructure) -> str | None:
    return None if whole_channels(grid) else "a kept filter has zeros outside the removed input columns"


def _check_fan_in(grid: Tensor, structure: MaskStructure) -> str | None:
    found = sorted(set(fan_ins(grid).tolist()) - {structure.fan_in})
    return f"an active neuron has {found[0]} non-zeros, not {structure.fan_in}" if found else None


def _check_n_m(grid: Tensor, structure: MaskStructure) -> str | None:
    assert structure.n is not None and structure.m is not None
    most = int(counts_per_group(grid, structure.m).amax()) if grid.numel() else 0
    return f"{most} of {structure.m} consecutive inputs are non-zero, not {structure.n}" if most > structure.n else None


def _check_kernel(grid: Tensor, structure: MaskStructure) -> str | None:
    return None if torch.equal(grid.any(3), grid.all(3)) else "a kernel is neither zero nor dense"


def _check_window(grid: Tensor, structure: MaskStructure) -> str | None:
    assert structure.window is not None
    most = int(grid.sum(3).amax()) if grid.numel() else 0
    return f"a window has {most} non-zeros, not {structure.window}" if most > structure.window else None


def _check_block(grid: Tensor, structure: MaskStructure) -> str | None:
    assert structure.block is not None
    return None if whole_blocks(grid, structure.block) else f"it is not made of zero or dense blocks {structure.block}"


_CHECKS: dict[str, Callable[[Tensor, MaskStructure], str | None]] = {
    "dense": _check_dense,
    "channel": _check_channel,
    "constant_fan_in": _check_fan_in,
    "n_m": _check_n_m,
    "kernel": _check_kernel,
    "window": _check_window,
    "block": _check_block,
    "unstructured": lambda grid, structure: None,
}

"""Random inputs that look like the example inputs, for verification and benchmarks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from ..passes.errors import TargetError
from ..passes.signature import Signature
from ..runtime.engine import checked_arrays


@dataclass(frozen=True)
class Sample:
    """One call's arguments."""

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]


def random_sample(example: Sample, generator: torch.Generator, batch: int | None = None) -> Sample:
    """Arguments shaped and distributed like the example's, their first axis `batch` long where that is given.

    Floating-point tensors are normal with the example's mean and deviation, integers uniform over its range.
    """

    def draw(leaf: Any) -> Any:
        return _like(leaf, generator, batch) if isinstance(leaf, Tensor) else leaf

    return Sample(pytree.tree_map(draw, example.args), pytree.tree_map(draw, dict(example.kwargs)))


def _like(example: Tensor, generator: torch.Generator, batch: int | None) -> Tensor:
    shape = list(example.shape)
    if batch is not None and shape:
        shape[0] = batch
    if example.dtype == torch.bool:
        return torch.rand(shape, generator=generator) < example.double().mean().clamp(0.1, 0.9).float()
    if not example.is_floating_point():
        low, high = (int(example.min()), int(example.max())) if example.numel() else (0, 0)
        return torch.randint(low, high + 1, shape, generator=generator, dtype=example.dtype)
    values = example.double()
    deviation = float(values.std()) if values.numel() > 1 else 0.0
    mean = float(values.mean()) if values.numel() else 0.0
    if not deviation:
        mean, deviation = 0.0, 1.0
    return (mean + deviation * torch.randn(shape, generator=generator, dtype=torch.float64)).to(example.dtype)


def as_samples(inputs: Any, signature: Signature) -> list[Sample]:
    """User-given inputs: one tuple of arguments, or a list of such tuples.

    Raises TargetError where one is something else, or does not fit the signature.
    """
    given = inputs if isinstance(inputs, list) else [] if inputs is None else [inputs]
    for i, one in enumerate(given):
        if not isinstance(one, tuple):
            raise TargetError(
                "verify_inputs must be a tuple of the arguments of one call, or a list of such tuples, found "
                f"{type(one).__name__}; write (x,) for a single argument"
            )
        _check_fit(one, signature, f"verify_inputs[{i}]" if isinstance(inputs, list) else "verify_inputs")
    return [Sample(one, {}) for one in given]


def _check_fit(args: tuple[Any, ...], signature: Signature, name: str) -> None:
    try:
        checked_arrays(signature, signature.flatten(args, {}, TargetError))
    except TargetError as error:
        raise TargetError(f"{name}: {error}") from error


def tensors_of(sample: Sample) -> list[Tensor]:
    """The sample's tensors in flat order."""
    return [t for t in pytree.tree_leaves((sample.args, dict(sample.kwargs))) if isinstance(t, Tensor)]


def samples_for_verification(example: Sample, *, batches: bool, given: Sequence[Sample], seed: int = 0) -> list[Sample]:
    """Three random samples of one shape, with `batches` two of other batch sizes, then the given ones."""
    generator = torch.Generator().manual_seed(seed)
    sizes = [2, 2, 2, 1, 3] if batches else [None, None, None]
    return [random_sample(example, generator, size) for size in sizes] + list(given)

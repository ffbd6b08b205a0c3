"""Random NumPy inputs for an engine, from its signature alone."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import numpy as np

from ..passes.errors import TargetError
from ..passes.near_names import closest
from ..passes.signature import Signature, TensorSpec
from .engine import Array


def random_arrays(signature: Signature, sizes: Mapping[str, int], seed: int = 0) -> list[Array]:
    """Arrays for the signature's inputs in flat order: normal numbers, zeros for integers (always valid indices).

    `sizes` sets dynamic sizes by name. Raises TargetError where one is missing.
    """
    generator = np.random.default_rng(seed)
    return [_random(spec, sizes, generator) for spec in signature.inputs]


def dynamic_sizes(signature: Signature) -> list[str]:
    """Names of the signature's dynamic sizes, in order."""
    return list(dict.fromkeys(size for spec in signature.inputs for size in spec.shape if isinstance(size, str)))


def check_sizes(sizes: Mapping[str, int], known: Iterable[str]) -> None:
    """Raises TargetError for a size that is not among the `known` names of dynamic sizes, or that is below 1."""
    known = list(dict.fromkeys(known))
    for name, size in sizes.items():
        if name not in known:
            dynamic = f"dynamic sizes are {', '.join(known)}" if known else "all sizes are fixed"
            raise TargetError(f"there is no dynamic size {name}{closest(name, known)}; {dynamic}")
        if size < 1:
            raise TargetError(f"the size {name} must be at least 1, found {size}")


def parse_sizes(text: str) -> dict[str, int]:
    """`batch=8,height=224` as a dict. Raises TargetError where it is not of that form."""
    if not text:
        return {}
    if not re.fullmatch(r"\w+=\d+(,\w+=\d+)*", text):
        raise TargetError(f"sizes must look like batch=8,height=224, found {text!r}")
    return {name: int(size) for name, size in (part.split("=") for part in text.split(","))}


def _random(spec: TensorSpec, sizes: Mapping[str, int], generator: np.random.Generator) -> Array:
    missing = [size for size in spec.shape if isinstance(size, str) and size not in sizes]
    if missing:
        raise TargetError(f"input {spec} has the dynamic size {missing[0]}: set it, for example {missing[0]}=1")
    shape = [sizes[size] if isinstance(size, str) else size for size in spec.shape]
    dtype = np.dtype(spec.dtype)
    if np.issubdtype(dtype, np.floating):
        return generator.standard_normal(shape).astype(dtype)
    return np.zeros(shape, dtype)

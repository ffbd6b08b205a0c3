"""One row of the table of ONNX operators."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Operator:
    """How torch runs an operator: `run(*inputs, **attributes)`, absent inputs None, attributes by ONNX's names.

    A keyword `opset` is given the version of the operator set, `outputs` the number of results. `fixed` are keyword
    arguments of the row; with `several` the function returns a tuple. Constants at the positions in
    `literal` are given as lists of numbers.
    """

    run: Callable[..., Any]
    fixed: Mapping[str, Any] = field(default_factory=dict)
    several: bool = False
    literal: tuple[int, ...] = ()

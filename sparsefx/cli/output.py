"""Results on standard output: JSON, or tables that fit 80 columns and carry no control characters into a pipe."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console


def to_json(data: Any) -> str:
    """Valid JSON: what is not finite becomes null."""
    return json.dumps(_finite(data), indent=1, allow_nan=False)


def _finite(data: Any) -> Any:
    if isinstance(data, float):
        return data if math.isfinite(data) else None
    if isinstance(data, Mapping):
        return {key: _finite(value) for key, value in data.items()}
    return [_finite(value) for value in data] if isinstance(data, list | tuple) else data


def console() -> Console:
    """Of standard output: as wide as the terminal, 80 columns where there is none; NO_COLOR is respected."""
    from rich.console import Console

    return Console(highlight=False, markup=False, emoji=False)

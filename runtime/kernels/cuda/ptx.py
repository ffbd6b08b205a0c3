"""What a PTX file declares."""

from __future__ import annotations

import re

_ENTRY = re.compile(r"\.entry\s+([\w$]+)\s*\(([^)]*)\)")
_PARAMETER = re.compile(r"\.param\s+(?:\.align\s+\d+\s+)?\.(\w+)")


def entry_parameters(ptx: str) -> dict[str, tuple[str, ...]]:
    """The kernels with the types of their parameters, such as u64 for an address, in order."""
    return {name: tuple(_PARAMETER.findall(parameters)) for name, parameters in _ENTRY.findall(ptx)}

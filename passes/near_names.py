"""What somebody may have meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def closest(name: str, names: Iterable[str]) -> str:
    """` (did you mean X?)`, or nothing where no name is near."""
    known = {known.lower(): known for known in names}
    near = difflib.get_close_matches(name.lower(), list(known), n=1)
    return f" (did you mean {known[near[0]]}?)" if near else ""

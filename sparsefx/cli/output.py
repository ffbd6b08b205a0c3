"""Results on standard output: JSON, or tables that fit 80 columns and carry no control characters into a pipe."""

from __future__ import annotations

import json
import math
import shutil
import textwrap
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

_WHOLE_WORDS: dict[str, Any] = {"break_long_words": False, "break_on_hyphens": False}


def show(as_json: bool, data: Any, text: str) -> None:
    """A command's result: the data as JSON, or the text."""
    if as_json:
        print(to_json(data))
    else:
        print_text(text)


def to_json(data: Any) -> str:
    """Valid JSON: what is not finite becomes null."""
    return json.dumps(_finite(data), indent=1, allow_nan=False)


def _finite(data: Any) -> Any:
    if isinstance(data, float):
        return data if math.isfinite(data) else None
    if isinstance(data, Mapping):
        return {key: _finite(value) for key, value in data.items()}
    return [_finite(value) for value in data] if isinstance(data, list | tuple) else data


def print_text(text: str) -> None:
    """Print sentences at the width of the terminal, 80 columns where there is none; tables and commands stay whole."""
    width = shutil.get_terminal_size((80, 24)).columns
    for line in text.splitlines():
        whole = "  " in line.strip() or set(line) == {"-"} or line.startswith("Next:")
        wrapped = [line] if whole else textwrap.wrap(line, width, subsequent_indent="  ", **_WHOLE_WORDS)
        print("\n".join(wrapped))


def console() -> Console:
    """Of standard output: as wide as the terminal, 80 columns where there is none; NO_COLOR is respected."""
    from rich.console import Console

    return Console(highlight=False, markup=False, emoji=False)


def print_tidily(out: Console, *parts: RenderableType) -> None:
    """Print without the blanks that tables end lines with."""
    with out.capture() as captured:
        for part in parts:
            out.print(part)
    print("\n".join(line.rstrip() for line in captured.get().splitlines()))

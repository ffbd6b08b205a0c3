"""Protocol buffers' text format, as far as a configuration needs it.

Written here, since the package that carries the server's schema brings gRPC along; the tests read what is
written with that schema.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

_ESCAPES = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t"}


class Symbol(str):
    """A value of an enumeration: written without quotes."""


def to_pbtxt(message: Mapping[str, Any], indent: int = 0) -> str:
    """A message by field names: numbers, truth values, strings, Symbols, messages, and sequences of any of them.

    An empty sequence is left out, since a repeated field has no other way of being empty; an empty message is written.
    """
    space = "  " * indent
    lines = []
    for name, value in message.items():
        items = list(value) if _is_sequence(value) else [value]
        messages = [item for item in items if isinstance(item, Mapping)]
        for item in messages:
            inside = to_pbtxt(item, indent + 1)
            lines.append(f"{space}{name} {{\n{inside}{space}}}\n" if inside else f"{space}{name} {{}}\n")
        if items and not messages:
            texts = ", ".join(map(_scalar, items))
            lines.append(f"{space}{name}: [{texts}]\n" if _is_sequence(value) else f"{space}{name}: {texts}\n")
    return "".join(lines)


def entries(values: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A map field: its entries as messages with a key and a value."""
    return [{"key": key, "value": value} for key, value in values.items()]


def _is_sequence(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)


def _scalar(value: Any) -> str:
    if isinstance(value, Symbol):
        return str(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return '"' + "".join(_ESCAPES.get(character, character) for character in value) + '"'
    return str(value)

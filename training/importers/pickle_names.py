"""What a pickle would import and which strings it holds, read from its opcodes; nothing is executed."""

from __future__ import annotations

import pickletools
import warnings
from contextlib import suppress
from dataclasses import dataclass
from typing import IO, Any, Self

_PICKLES = 4  # an old torch.save file starts with a magic number, a version and sizes, each a pickle of its own
_NO_VALUE = {"PROTO", "FRAME"}


@dataclass(frozen=True)
class PickleNames:
    """Dotted names of imported classes and functions in order of appearance, and all strings.

    `foreign` are the imports that tensors and dictionaries do not need.
    """

    imports: tuple[str, ...]
    foreign: tuple[str, ...]
    strings: frozenset[str]

    @classmethod
    def found_in(cls, file: IO[bytes], complaint: str = "") -> Self:
        """The names up to the first damaged opcode; what torch.load complains of is foreign, too."""
        collector = _Collector()
        # damaged parts make pickletools warn and fail
        with warnings.catch_warnings(action="ignore"), suppress(ValueError, EOFError, OverflowError):
            for _ in range(_PICKLES):
                for opcode, argument, _ in pickletools.genops(file):
                    collector.see(opcode.name, argument)
        imports = tuple(dict.fromkeys(collector.imports))
        foreign = tuple(name for name in imports if _is_foreign(name) or f"GLOBAL {name} " in complaint)
        return cls(imports, foreign, frozenset(collector.strings))


def _is_foreign(name: str) -> bool:
    tensor_part = name.startswith("torch.") and not name.startswith("torch.nn.")
    return not tensor_part and name not in ("collections.OrderedDict", "_codecs.encode")


class _Collector:
    """Follows strings through the pickle's memo: newer protocols take the names of imports from there."""

    def __init__(self) -> None:
        self.imports: list[str] = []
        self.strings: list[str] = []
        self._memo: dict[int, str | None] = {}
        self._top: str | None = None

    def see(self, opcode: str, argument: Any) -> None:
        if opcode in ("GLOBAL", "INST"):
            self._import(argument.replace(" ", "."))
        elif opcode == "STACK_GLOBAL":
            self._import(".".join(self.strings[-2:]))
        elif opcode == "MEMOIZE":
            self._memo[len(self._memo)] = self._top
        elif opcode.endswith("PUT"):
            self._memo[argument] = self._top
        elif opcode.endswith("GET"):
            self._push(self._memo.get(argument))
        elif opcode not in _NO_VALUE:
            self._push(argument if isinstance(argument, str) else None)

    def _import(self, name: str) -> None:
        self.imports.append(name)
        self._top = None

    def _push(self, value: str | None) -> None:
        self._top = value
        if value is not None:
            self.strings.append(value)

"""Kinds of coupled channels: those that the same layers write and read, so that only their number matters to a cost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from ..channels import CoupledChannels

Counted = tuple[tuple[str, int], ...]  # layers by weight name, and how often each occurs for one channel


@dataclass(frozen=True)
class Kind:
    """Interchangeable candidates of a CoupledChannels, by number; `writers` and `readers` are sorted."""

    name: str
    members: tuple[int, ...]
    writers: Counted
    readers: Counted


def kinds_of(channels: CoupledChannels) -> list[Kind]:
    """In the order of their first channel; named after the first layer that writes them."""
    members: dict[tuple[Counted, Counted], list[int]] = {}
    names: list[str] = []
    for index in range(len(channels.candidates)):
        written, read = channels.written_by(index), channels.read_by(index)
        key = _counted(written), _counted(read)
        if key not in members:
            names.append(_free(written[0].removesuffix(".weight"), names))
        members.setdefault(key, []).append(index)
    return [Kind(name, tuple(found), *key) for name, (key, found) in zip(names, members.items(), strict=True)]


def _counted(names: Iterable[str]) -> Counted:
    return tuple(sorted(Counter(names).items()))


def _free(name: str, taken: list[str]) -> str:
    """`conv1`, or `conv1 (2)` for the second kind that it writes."""
    same = sum(other == name or other.startswith(f"{name} (") for other in taken)
    return f"{name} ({same + 1})" if same else name

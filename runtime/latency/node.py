"""One operator of an engine as a latency table knows it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class EngineNode:
    """An operator as the engine runs it, after fusion and changes of layout.

    `key` has all that decides its time but two numbers, the `width` of what it reads and of what it writes: channels
    as the engine stores them (padded to its blocks) for a layer, else elements of all operands and results.
    `layer` is the layer of the model that it runs, None for what is no layer; `channels` are that layer's own (inputs,
    outputs), without padding.
    """

    name: str
    key: str
    width: tuple[int, int]
    layer: str | None = None
    channels: tuple[int, int] | None = None

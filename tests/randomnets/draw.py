"""The one source of choices of the generator: integers, recorded so that a failing net can be shrunk.

Every choice is an integer whose smaller values stand for simpler things, so shrinking is: shorter lists of
smaller numbers (randomnets/shrink.py, or hypothesis where it draws the integers).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import TypeVar

T = TypeVar("T")


class Draw:
    """Choices from a function that returns an integer between two bounds, both included."""

    def __init__(self, source: Callable[[int, int], int]) -> None:
        self._source = source
        self.record: list[int] = []

    @staticmethod
    def seeded(seed: int) -> Draw:
        return Draw(random.Random(seed).randint)

    @staticmethod
    def replayed(choices: Sequence[int]) -> Draw:
        """The recorded choices again; out of range ones are clipped, missing ones are the simplest."""
        left = iter(choices)
        return Draw(lambda low, high: min(max(next(left, low), low), high))

    def integer(self, low: int, high: int) -> int:
        value = self._source(low, high)
        self.record.append(value)
        return value

    def choice(self, options: Sequence[T]) -> T:
        return options[self.integer(0, len(options) - 1)]

    def chance(self, percent: int) -> bool:
        return self.integer(0, 99) >= 100 - percent

    def seed(self) -> int:
        return self.integer(0, 2**20)

    def divisor(self, number: int) -> int:
        return self.choice([d for d in range(1, number + 1) if number % d == 0])

    def sizes(self, total: int, parts: int) -> list[int]:
        """`total` cut into positive sizes."""
        sizes = [1] * parts
        for _ in range(total - parts):
            sizes[self.integer(0, parts - 1)] += 1
        return sizes

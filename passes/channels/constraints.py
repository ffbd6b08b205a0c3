"""Which sets of kept elements can exist as tensors, and the smallest repair where a set cannot.

A repair only ever adds kept elements, so repeated repairs end. Every constraint holds element numbers of
the flow; it reads and answers in terms of a boolean array over all of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from .arrays import Indices, Mask


class Constraint(Protocol):
    def missing(self, kept: Mask) -> Indices:
        """Elements that must be kept too, given the kept ones; empty where the constraint holds."""


@dataclass(frozen=True)
class Rectangle:
    """Kept elements fill a rectangular tensor: every kept row has as many kept entries, at every level.

    Heads of attention and groups of a convolution may keep different members, but equally many.
    """

    elements: Indices

    def missing(self, kept: Mask) -> Indices:
        have = kept[self.elements]
        return self.elements[_fill(have) & ~have]


@dataclass(frozen=True)
class Product:
    """Every kept row keeps the same columns; `elements` is (rows, columns)."""

    elements: Indices

    def missing(self, kept: Mask) -> Indices:
        have = kept[self.elements]
        wanted = np.outer(have.any(axis=1), have.any(axis=0))
        return self.elements[wanted & ~have]


@dataclass(frozen=True)
class SameRows:
    """A row that is kept in one table is kept in all; tables are (rows, members of that table)."""

    tables: tuple[Indices, ...]

    def missing(self, kept: Mask) -> Indices:
        rows = [kept[table].any(axis=1) for table in self.tables]
        wanted = np.logical_or.reduce(rows)
        return np.concatenate([table[wanted & ~row, 0] for table, row in zip(self.tables, rows, strict=True)])


@dataclass(frozen=True)
class NotEmpty:
    """At least one element is kept: the first, where there is no other."""

    elements: Indices

    def missing(self, kept: Mask) -> Indices:
        return self.elements.reshape(-1)[: 0 if kept[self.elements].any() else 1]


def _fill(have: Mask) -> Mask:
    """The smallest rectangular superset, preferring the lowest indices."""
    if have.ndim == 1:
        return have
    counts = have.sum(axis=-1)
    width = int(counts.max(initial=0))
    filled_rows = _fill(counts > 0)
    if (counts[filled_rows] == width).all():
        return have
    full = have.copy()
    for row in np.argwhere(filled_rows):
        entries = full[tuple(row)]
        spare = np.flatnonzero(~entries)[: width - int(entries.sum())]
        entries[spare] = True
    return full

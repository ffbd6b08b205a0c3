"""The best of all combinations of choices, where what counts depends on a few of them at a time.

Variables are maximised out one by one (Bertele and Brioschi 1972, non-serial dynamic programming): exact, and cheap
where few variables meet, as in the graphs of networks: along a chain of layers, around a residual sum.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

from .problem import Values

_LARGEST = 1 << 21  # numbers in a joint table that is built at once; beyond, slice by slice

Scope = tuple[int, ...]


@dataclass(frozen=True)
class _Step:
    """Maximise `variable` out of the tables `members`; what is left depends on `scope`."""

    variable: int
    members: tuple[int, ...]
    scope: Scope


class Elimination:
    """The order in which variables go; made once for tables of the same scopes."""

    def __init__(self, sizes: Sequence[int], scopes: Sequence[Scope]) -> None:
        self._scopes = list(scopes)
        self._steps: list[_Step] = []
        self._variables = len(sizes)
        open_tables, left = set(range(len(scopes))), set(range(len(sizes)))
        while left:
            step = min(
                (self._step(v, open_tables) for v in sorted(left)), key=lambda s: prod(sizes[v] for v in s.scope)
            )
            open_tables = (open_tables - set(step.members)) | {len(self._scopes)}
            self._scopes.append(step.scope)
            self._steps.append(step)
            left.remove(step.variable)

    def _step(self, variable: int, open_tables: set[int]) -> _Step:
        members = tuple(t for t in sorted(open_tables) if variable in self._scopes[t])
        scope = sorted({v for t in members for v in self._scopes[t]} - {variable})
        return _Step(variable, members, tuple(scope))

    def best(self, tables: Sequence[Values]) -> list[int]:
        """The position of every variable that maximises the sum of all tables; of equal ones the lowest."""
        known = list(tables)
        for step in self._steps:
            known.append(self._maximise(step, known))
        positions = [0] * self._variables
        for step in reversed(self._steps):
            column: Values = np.zeros(1)
            for t in step.members:
                place = tuple(slice(None) if v == step.variable else positions[v] for v in self._scopes[t])
                column = column + known[t][place]
            positions[step.variable] = int(np.argmax(column))
        return positions

    def _maximise(self, step: _Step, known: Sequence[Values]) -> Values:
        """The sum of the step's tables, its variable maximised out."""
        tables = sorted((self._aligned(t, known[t], step) for t in step.members), key=lambda table: table.size)
        if not tables:
            return np.zeros(())
        shape = np.broadcast_shapes(*(table.shape for table in tables))
        if prod(shape) <= _LARGEST or len(shape) < 2:
            return _maximum_of_sum(tables)
        rows = [[table[min(i, len(table) - 1)] for table in tables] for i in range(shape[0])]
        return np.stack([_maximum_of_sum(row) for row in rows])

    def _aligned(self, number: int, table: Values, step: _Step) -> Values:
        """With an axis for every variable of the step's scope, and the eliminated one last."""
        wanted = (*step.scope, step.variable)
        scope = self._scopes[number]
        table = table.transpose([scope.index(v) for v in wanted if v in scope])
        return table[tuple(slice(None) if v in scope else None for v in wanted)]


def _maximum_of_sum(tables: Sequence[Values]) -> Values:
    total = tables[0]
    for table in tables[1:]:
        total = total + table
    return np.asarray(total.max(axis=-1))

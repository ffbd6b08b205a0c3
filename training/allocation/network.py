"""From a network and its costs to a budget problem: which widths every layer's cost depends on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from .costs import LayerCosts
from .kinds import Kind
from .layer import Layer
from .problem import BudgetProblem, Counts, Sum, Term, Values, Width, prefix_values

Parts = tuple[tuple[int, int], ...]  # kinds by number, and how many of a layer's channels one of each makes


@dataclass(frozen=True)
class _Side:
    """The inputs or the outputs of a layer: `fixed` channels, and those of some kinds."""

    fixed: int
    parts: Parts


class NetworkCosts:
    """The cost of a network as a function of how many channels of every kind stay.

    `layers` are all of them (see layers_of), `kinds` what may be removed. Of every kind at most `choices` counts are
    considered, evenly spaced. Where kinds are concatenated they share the spacing, so that sums stay few.
    """

    def __init__(self, layers: Sequence[Layer], kinds: Sequence[Kind], costs: LayerCosts, *, choices: int = 64) -> None:
        self.kinds = list(kinds)
        self.costs = costs
        self._layers = [(layer, _side(layer, kinds, read=True), _side(layer, kinds, read=False)) for layer in layers]
        self._steps = self._spacing(choices)

    @property
    def full(self) -> list[int]:
        """How many channels of every kind there are."""
        return [len(kind.members) for kind in self.kinds]

    def cost(self, kept: Sequence[int]) -> float:
        """Of a network that keeps so many channels of every kind."""
        counts = [np.array([k]) for k in kept]
        return self.problem(counts, [np.zeros(1)] * len(kept)).cost([0] * len(kept))

    def by_layer(self, kept: Sequence[int]) -> dict[str, float]:
        """The same for every layer."""
        terms: dict[str, float] = {}
        for layer, given, made in self._layers:
            inputs, outputs = (
                np.array([side.fixed + sum(m * kept[k] for k, m in side.parts)]) for side in (given, made)
            )
            terms[layer.name] = terms.get(layer.name, 0.0) + float(self.costs.cost(layer, inputs, outputs)[0, 0])
        return terms

    def counts(self, kind: int, least: int, most: int) -> Counts:
        """The counts that are considered of a kind from `least` to `most`, both included."""
        step = self._steps[kind]
        between = range(-(-least // step) * step, most + 1, step)
        return np.array(sorted({least, most, *between}))

    def choose(self, importance: Sequence[Values], *, least: int = 1) -> BudgetProblem:
        """Which of the channels of every kind should stay, at least so many: the most important ones, but how many?

        `importance` is that of the channels of each kind, shape (channels,), in any order.
        """
        counts = [self.counts(kind, min(least, n), n) for kind, n in enumerate(self.full)]
        return self.problem(counts, [prefix_values(i, c) for i, c in zip(importance, counts, strict=True)])

    def problem(self, counts: Sequence[Counts], values: Sequence[Values]) -> BudgetProblem:
        """Choose among `counts` of every kind, worth `values`."""
        widths = [Width(kind.name, c, v) for kind, c, v in zip(self.kinds, counts, values, strict=True)]
        sums = _Sums(counts)
        terms, fixed = list[Term](), 0.0
        for layer, given, made in self._layers:
            if layer.is_depthwise:
                given = _Side(0, ())
            (reads, inputs), (writes, outputs) = sums.variable(given), sums.variable(made)
            if layer.is_depthwise:
                table = np.array(
                    [self.costs.cost(layer, outputs[i : i + 1], outputs[i : i + 1])[0, 0] for i in range(len(outputs))]
                )
            else:
                table = self.costs.cost(layer, inputs, outputs)
            term = _term(layer.name, reads, writes, table)
            if term is None:
                fixed += float(table.reshape(-1)[0])
            else:
                terms.append(term)
        return BudgetProblem(widths, terms, sums.found, fixed)

    def _spacing(self, choices: int) -> list[int]:
        largest = self.full
        for _, *sides in self._layers:
            for side in sides:
                if len(side.parts) > 1:
                    total = sum(m * self.full[k] for k, m in side.parts)
                    for k, _ in side.parts:
                        largest[k] = max(largest[k], total)
        return [1 << max(0, (-(-size // choices) - 1).bit_length()) for size in largest]


class _Sums:
    """Variables for the sides of layers: a width, or a sum of several, each made once."""

    def __init__(self, counts: Sequence[Counts]) -> None:
        self.found: list[Sum] = []
        self._counts = list(counts)
        self._known: dict[Parts, tuple[int, Counts]] = {}

    def variable(self, side: _Side) -> tuple[int | None, Counts]:
        """Its number, None where the side is fixed, and the channels of the side at each of its positions."""
        if not side.parts:
            return None, np.array([side.fixed])
        number, channels = self._sum(side.parts)
        return number, channels + side.fixed

    def _sum(self, parts: Parts) -> tuple[int, Counts]:
        *rest, (kind, times) = parts
        own = times * self._counts[kind]
        if not rest:
            return kind, own
        if parts not in self._known:
            left, channels = self._sum(tuple(rest))
            counts, index = np.unique(channels[:, None] + own[None, :], return_inverse=True)
            self.found.append(Sum(left, kind, counts, index.reshape(len(channels), len(own))))
            self._known[parts] = len(self._counts) + len(self.found) - 1, counts
        return self._known[parts]


def _side(layer: Layer, kinds: Sequence[Kind], *, read: bool) -> _Side:
    parts = []
    for number, kind in enumerate(kinds):
        times = dict(kind.readers if read else kind.writers).get(layer.name, 0)
        if times:
            parts.append((number, times))
    removable = sum(times * len(kinds[number].members) for number, times in parts)
    return _Side((layer.inputs if read else layer.outputs) - removable, tuple(parts))


def _term(name: str, reads: int | None, writes: int | None, table: Values) -> Term | None:
    if reads is None and writes is None:
        return None
    if reads is None or writes is None:
        only = writes if reads is None else reads
        assert only is not None
        return Term(name, (only,), table.reshape(-1))
    if reads == writes:
        return Term(name, (reads,), np.diagonal(table).copy())
    return Term(name, (reads, writes), table)


def at_inputs(problem: BudgetProblem, positions: Mapping[int, int] | Sequence[int]) -> BudgetProblem:
    """The problem with what layers read held at `positions` of all variables: separable where nothing is summed."""
    terms = [
        Term(t.name, t.scope[1:], t.table[positions[t.scope[0]]]) if len(t.scope) == 2 else t for t in problem.terms
    ]
    return BudgetProblem(problem.widths, terms, problem.sums, problem.fixed_cost)

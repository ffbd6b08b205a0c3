"""Which channels of a graph are needed, which move together, and which can go: the analysis as a whole.

Forward, constants and liveness (transfer.py); backward, demand; couplings make groups. A group stays when any of
its elements is live and demanded, is required as it stands, or is pinned. Then the kept set is closed: carriers
for removed constants are added, and what a tensor needs to be rectangular. Closing only ever adds, so it ends.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from torch.fx import GraphModule, Node

from ..reference import measure_positional_maps
from .arrays import Indices, Mask
from .carriers import Plan, PositionalMaps, plan_absorption
from .compaction import Compaction
from .rules import OperatorRule
from .trace import GraphTrace
from .transfer import LIVE, POSITIONAL, Apply

NEEDED = "needed: an output depends on it"
REQUIRED = "a product of computed tensors needs it"
RECTANGLE = "kept so that tensors stay rectangular"
CARRIER = "kept to carry the constants of removed channels"
UNFOLDABLE = "its constant varies over positions and cannot be folded"
NOT_EMPTY = "the last channel of its tensor"
WIDTH = "kept because a wider layer is faster"


@dataclass
class ChannelAnalysis:
    """The result: `kept` over all elements of the flow, the plan of every contraction, and reasons."""

    trace: GraphTrace
    group: Indices  # element -> group
    kept: Mask
    plans: dict[Node, Plan]
    reasons: dict[int, str] = field(repr=False)  # group -> why it was kept

    @property
    def compaction(self) -> Compaction:
        return Compaction(self.kept)

    def removed_channels(self) -> int:
        """Output channels of contractions that go."""
        outputs = [c.outputs for c in self.trace.contractions if c.weight is not None]
        return sum(int((~self.compaction.mask(value)).sum()) for value in outputs)

    def reason(self, element: int) -> str | None:
        """Why an element is kept; None where it is removed."""
        return self.reasons.get(int(self.group[element]))


def analyse_channels(
    graph_module: GraphModule,
    rules: Mapping[str, OperatorRule] | None = None,
    least: Mapping[str, int] | None = None,
    restrict: Callable[[GraphTrace], None] | None = None,
    *,
    measure: bool = True,
) -> ChannelAnalysis:
    """Analyse a captured graph; constants are compared through the sparsity patterns on its get_attr nodes.

    `least` has, for layers by name, how many output channels should stay at least, of those they have. `restrict` may
    add pins, couplings and constraints to the traced flow. Without `measure` channels whose constants vary over
    positions stay: nothing then rests on values measured at the captured sizes.
    """
    trace = GraphTrace(graph_module, rules)
    if restrict is not None:
        restrict(trace)
    group = connected_components(trace.flow.size, trace.flow.couplings)
    closure = _Closure(trace, group)
    settled = False
    while not settled:
        for value in reversed(trace.flow.values):
            value.transfer.backward(value)
        closure.keep_needed()
        plans = closure.close(_measured_maps(graph_module, trace, closure.kept) if measure else {})
        settled = not closure.keep_least(least or {}) and not _demand_partial_functions(trace, closure.kept)
    return ChannelAnalysis(trace, group, closure.kept, plans, closure.reasons)


def _demand_partial_functions(trace: GraphTrace, kept: Mask) -> bool:
    """Demand kept but unneeded results of log, division and the like; tells whether there were any.

    An unneeded channel may lose its inputs and hold any finite number. A logarithm of it may not be finite, and
    then no zero weight annihilates it: so where such a function stays, it keeps seeing what it always saw.
    """
    found = False
    for value in trace.flow.values:
        if isinstance(value.transfer, Apply) and not value.transfer.total:
            exposed = Compaction(kept).mask(value) & ~value.demand & (value.state == LIVE)
            value.demand |= exposed
            found |= bool(exposed.any())
    return found


class _Closure:
    """The kept set while it grows."""

    def __init__(self, trace: GraphTrace, group: Indices) -> None:
        self.trace = trace
        self.group = group
        self.kept: Mask = np.zeros(trace.flow.size, dtype=bool)
        self.reasons: dict[int, str] = {}
        self._members = np.argsort(group, kind="stable")
        self._starts = np.searchsorted(group[self._members], np.arange(trace.flow.size + 1))

    def keep(self, elements: Indices, reason: str) -> bool:
        """Keep the groups of some elements; tells whether that was news."""
        groups = np.unique(self.group[elements[~self.kept[elements]]])
        for g in groups.tolist():
            self.reasons.setdefault(g, reason)
            self.kept[self._members[self._starts[g] : self._starts[g + 1]]] = True
        return bool(len(groups))

    def keep_needed(self) -> None:
        for pin in self.trace.flow.pins:
            self.keep(pin.elements, pin.reason)
        for value in self.trace.flow.values:
            self.keep(value.elements[value.demand & (value.state == LIVE)], NEEDED)
            self.keep(value.elements[value.required], REQUIRED)

    def keep_least(self, least: Mapping[str, int]) -> bool:
        """Keep the first channels that could go of layers that would have too few; tells whether there were any."""
        kept = False
        for contraction in self.trace.contractions:
            outputs = contraction.outputs.elements.reshape(-1)
            gone = outputs[~self.kept[outputs]]
            missing = least.get(contraction.layer, 0) - (len(outputs) - len(gone))
            if missing > 0 and len(gone) < len(outputs):
                kept |= self.keep(gone[:missing], WIDTH)
        return kept

    def close(self, measured: Mapping[Node, PositionalMaps]) -> dict[Node, Plan]:
        """Add what is missing until nothing is; the plans of all contractions."""
        growing = True
        while growing:
            plans = {}
            growing = self._repair()
            for contraction in self.trace.contractions:  # in order: later readers see the carriers of earlier ones
                mask = Compaction(self.kept).mask
                inputs, outputs = contraction.inputs, contraction.outputs
                plan = plan_absorption(contraction, mask(inputs), mask(outputs), measured)
                plans[contraction.node] = plan
                positional = inputs.state.reshape(-1)[plan.keep] == POSITIONAL
                reason = UNFOLDABLE if positional.any() and not measured else CARRIER
                growing |= self.keep(inputs.elements.reshape(-1)[plan.keep], reason)
        return plans

    def _repair(self) -> bool:
        """Repair constraints and empty tensors until all hold."""
        grown, growing = False, True
        while growing:
            growing = False
            for constraint in self.trace.flow.constraints:
                growing |= self.keep(constraint.missing(self.kept), RECTANGLE)
            for elements in self.trace.missing_operands(self.kept):
                growing |= self.keep(elements, NOT_EMPTY)
            grown |= growing
        return grown


def _measured_maps(graph_module: GraphModule, trace: GraphTrace, kept: Mask) -> dict[Node, PositionalMaps]:
    """Maps of positional channels that might go, measured on a run; none where sizes are not locked."""
    wanted = [
        c
        for c in trace.contractions
        if ((c.inputs.state == POSITIONAL) & c.inputs.demand & ~Compaction(kept).mask(c.inputs)).any()
    ]
    operands = {c.node: (c.operand, c.axis) for c in wanted}
    return measure_positional_maps(graph_module, operands) if wanted else {}


def connected_components(size: int, couplings: list[tuple[Indices, Indices]]) -> NDArray[np.int64]:
    """The smallest element of each element's component, by hooking and pointer jumping."""
    label = np.arange(size, dtype=np.int64)
    if not couplings:
        return label
    a = np.concatenate([pair[0] for pair in couplings])
    b = np.concatenate([pair[1] for pair in couplings])
    while True:
        low = np.minimum(label[a], label[b])
        np.minimum.at(label, label[a], low)
        np.minimum.at(label, label[b], low)
        while not np.array_equal(label, label[label]):
            label = label[label]
        if np.array_equal(label[a], label[b]):
            return label

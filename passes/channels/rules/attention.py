"""Products of computed tensors: matmul, and attention as one operator."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch.fx import Node

from ...empty_rows import may_leave_rows_empty
from ...graph import is_constant, rebind
from ..arrays import Constants, Mask, States
from ..axes import Axes, Axis, Factor, Size, refine, split_axis, track_alike, untracked
from ..transfer import CONSTANT, LIVE, POSITIONAL, Value
from .call import Call, OperatorRule, Result, Rewrite
from .contraction import matrix_product


@dataclass(frozen=True)
class InnerProduct:
    """Sums over a tracked axis of products: operands (rows, k), result (rows, 1)."""

    a: Value
    b: Value

    def forward(self) -> tuple[States, Constants]:
        zero = self.a.is_zero() | self.b.is_zero()
        state = np.where(zero, np.uint8(CONSTANT), np.maximum(self.a.state, self.b.state))
        terms = np.where(zero, 0.0, np.nan_to_num(self.a.constant) * np.nan_to_num(self.b.constant))
        return state.max(axis=1, keepdims=True), terms.sum(axis=1, keepdims=True)

    def backward(self, value: Value) -> None:
        for one, other in ((self.a, self.b), (self.b, self.a)):
            needed = value.demand & ~other.is_zero() & ~one.is_zero()
            one.demand |= needed
            one.required |= needed  # no bias can stand in for a term that is left out


@dataclass(frozen=True)
class Mixture:
    """Sums over untracked positions of weight times operand: (rows, 1) and (rows, columns)."""

    weights: Value
    operand: Value
    weights_sum_to_one: bool

    def forward(self) -> tuple[States, Constants]:
        state = np.maximum(np.maximum(self.weights.state, self.operand.state), np.uint8(POSITIONAL))
        passes, zero = self._passes(), np.broadcast_to(self.weights.is_zero(), state.shape)
        constant = np.where(passes, self.operand.constant, np.nan)
        state[passes | zero] = CONSTANT
        constant[zero] = 0.0
        return state, constant

    def _passes(self) -> Mask:
        """Where the result is the operand's constant, whatever the weights."""
        return self.operand.state == CONSTANT if self.weights_sum_to_one else self.operand.is_zero()

    def backward(self, value: Value) -> None:
        self.operand.demand |= value.demand & ~self.weights.is_zero()
        needed = (value.demand & ~self._passes()).any(axis=1, keepdims=True)
        self.weights.demand |= needed
        self.weights.required |= needed


@dataclass(frozen=True)
class Attention:
    """softmax(q k') v per head: q and k (heads, dim), v and the result (heads, columns).

    A uniform channel of k shifts all scores of a query alike, so softmax ignores it. Rows of weights sum
    to one, so a uniform channel of v passes unchanged unless a mask may leave a row empty.
    """

    query: Value
    key: Value
    value: Value
    mask: Value | None  # (heads, 1) or (1, 1)
    rows_sum_to_one: bool

    def forward(self) -> tuple[States, Constants]:
        passes = self._passes()
        return np.where(passes, np.uint8(CONSTANT), np.uint8(LIVE)), np.where(passes, self.value.constant, np.nan)

    def _passes(self) -> Mask:
        return self.value.state == CONSTANT if self.rows_sum_to_one else self.value.is_zero()

    def backward(self, value: Value) -> None:
        self.value.demand |= value.demand
        wanted = (value.demand & ~self._passes()).any(axis=1, keepdims=True)
        needed = wanted & ~self.query.is_zero() & (self.key.state != CONSTANT)
        for operand in (self.query, self.key):
            operand.demand |= needed
            operand.required |= needed
        if self.mask is not None:
            per_mask = wanted if self.mask.shape == wanted.shape else wanted.any(keepdims=True)
            self.mask.demand |= per_mask
            self.mask.required |= per_mask


def _tracked_sizes(axis: Axis) -> tuple[int, ...]:
    return tuple(f.size for f in axis if f.tracked)


def _as_matrix(call: Call, value: Value, rows: Sequence[int], columns: int | None) -> Value:
    """The operand as (rows, columns): the tracked indices of some leading axes, and of one axis behind them."""
    rank = len(value.axes)
    wanted = {r % rank for r in rows} | ({columns % rank} if columns is not None else set())
    keep = [j in wanted for j, axis in enumerate(value.axes) for f in axis if f.tracked]
    collapsed = call.flow.collapse(value, keep)
    width = int(np.prod(_tracked_sizes(value.axes[columns]) if columns is not None else (), dtype=np.int64))
    axes: Axes = ((Factor(collapsed.size // width, True),), (Factor(width, True),))
    return call.flow.take(collapsed, axes, np.arange(collapsed.size).reshape(-1, width))


def attention(call: Call) -> Result:
    """Heads keep equally many channels each; q and k the same ones of a head, v its own."""
    if call["dropout_p"] or any(len(call.shape_of(n)) != max(len(call.shape), 3) for n in ("query", "key", "value")):
        return call.opaque("attention with dropout, without a head axis, or of operands of unequal rank")
    flow, (q, k, v) = call.flow, [call.value(name) for name in ("query", "key", "value")]
    mask = call.value("attn_mask") if call["attn_mask"] is not None else None
    per_head = mask is not None and len(mask.axes) > 2 and mask.axes[-3] != ()
    grouped = call.arguments.get("enable_gqa") and call.shape_of("query")[-3] != call.shape_of("key")[-3]
    if grouped and per_head:
        return call.opaque("grouped-query attention with a mask per head")
    kv_heads = call.shape_of("key")[-3]
    q = _join_grouped_queries(call, q, kv_heads) if grouped else _joined_like(call, q, k)
    heads = [x.axes[-3] for x in ([q, k, v, mask] if mask is not None and per_head else [q, k, v])]
    if grouped and k.axes[-3]:
        heads[0] = heads[0][:-1]  # the last factor counts the queries of a key head, which stay together
    rows = [-3] if track_alike(heads) else []
    same_width = track_alike([q.axes[-1], k.axes[-1]])
    qm, km = (_as_matrix(call, x, rows, -1 if same_width else None) for x in (q, k))
    vm = _as_matrix(call, v, rows, -1)
    mm = _as_matrix(call, mask, rows if per_head else [], None) if mask is not None else None
    matrix = flow.add(vm.axes, Attention(qm, km, vm, mm, not may_leave_rows_empty(call["attn_mask"])))
    flow.couple(matrix.elements, vm.elements)
    flow.couple(qm.elements, km.elements)
    flow.require_same_rows(*(x.elements for x in (qm, km, vm)), *([mm.elements] if mm is not None and per_head else []))
    head_axis = v.axes[-3] if rows else untracked(call.shape[-3:-2])[0]
    if grouped and rows:
        head_axis = (*head_axis, Factor(call.shape_of("query")[-3] // call.shape_of("key")[-3]))
    return flow.reinterpret(matrix, (*untracked(call.shape[:-3]), head_axis, *untracked(call.shape[-2:-1]), v.axes[-1]))


def _join_grouped_queries(call: Call, q: Value, kv_heads: Size) -> Value:
    """Query heads that share a key head are joined: the axis becomes (key heads, queries per key head)."""
    q_heads = call.shape_of("query")[-3]
    parts = (Factor(kv_heads), Factor(q_heads // kv_heads))
    return _join_along(call, q, len(q.axes) - 3, parts if kv_heads != 1 else ())


def _join_along(call: Call, x: Value, axis: int, parts: Axis) -> Value:
    """An axis split into two parts, of which only the first is tracked; none where the sizes do not allow it."""
    sizes = refine([x.axes[axis], parts]) if parts else None
    if sizes is None:
        return call.flow.collapse(x, [j != axis for j, other in enumerate(x.axes) for f in other if f.tracked])
    split = call.flow.reinterpret(x, (*x.axes[:axis], split_axis(x.axes[axis], sizes), *x.axes[axis + 1 :]))
    keep = [j != axis or i < 1 for j, other in enumerate(split.axes) for i, f in enumerate(other) if f.tracked]
    return call.flow.collapse(split, keep)


def _is_repeated(axis: Axis) -> bool:
    """Tracked indices, each repeated in place: heads of keys and values that are expanded for their queries."""
    return len(axis) == 2 and axis[0].tracked and not axis[1].tracked


def _joined_like(call: Call, x: Value, y: Value) -> Value:
    """`x` with the indices of its leading axes joined that meet one repeated index of `y`."""
    for back in range(3, min(len(x.axes), len(y.axes)) + 1):
        if _is_repeated(y.axes[-back]) and any(f.tracked for f in x.axes[-back]) and not _is_repeated(x.axes[-back]):
            x = _join_along(call, x, len(x.axes) - back, y.axes[-back])
    return x


def rewrite_attention(rewrite: Rewrite) -> None:
    """The scale stays what it was when fewer channels are left per head."""
    query: Node = rewrite.arguments["query"]
    if rewrite.arguments["scale"] is None and rewrite.kept.changed(rewrite.value_of(query)):
        rebind(rewrite.node, scale=float(query.meta["val"].shape[-1]) ** -0.5)


def product(call: Call) -> Result:
    """`matmul`, `bmm`, `mm`: a contraction where the right operand is a constant matrix."""
    left, right = (n for n in call.operands()) if len(call.operands()) == 2 else (call.operands()[0],) * 2
    names = list(call.arguments)
    if is_constant(right) and right.meta["val"].ndim == 2 and left.meta["val"].ndim >= 2:
        return matrix_product(call, names[0], names[1])
    if min(left.meta["val"].ndim, right.meta["val"].ndim) < 2:
        return call.opaque("a product with a computed vector")
    return _computed_product(call, call.value_of(left), call.value_of(right))


def _computed_product(call: Call, a: Value, b: Value) -> Value:
    a, b = _joined_like(call, a, b), _joined_like(call, b, a)
    flow, batch = call.flow, len(call.shape) - 2
    batch_a, batch_b = (((),) * (batch + 2 - len(x.axes)) + x.axes[:-2] for x in (a, b))
    alike = all(track_alike([x, y]) for x, y in zip(batch_a, batch_b, strict=True))
    rows = [list(range(len(x.axes) - 2)) if alike else [] for x in (a, b)]
    fresh = untracked(call.shape[:-2])
    lead = tuple(x if alike and _tracked_sizes(x) else y for x, y in zip(batch_a, fresh, strict=True))
    if _tracked_sizes(a.axes[-1]) and track_alike([a.axes[-1], b.axes[-2]]):
        am, bm = _as_matrix(call, a, rows[0], -1), _as_matrix(call, b, rows[1], -2)
        flow.couple(am.elements, bm.elements)
        matrix = flow.add(((Factor(am.shape[0], True),), (Factor(1, True),)), InnerProduct(am, bm))
        flow.require_same_rows(matrix.elements, am.elements)
        return flow.reinterpret(matrix, (*lead, *untracked(call.shape[-2:])))
    if _tracked_sizes(b.axes[-1]) or not _tracked_sizes(a.axes[-2]):
        weights, operand = _as_matrix(call, a, rows[0], None), _as_matrix(call, b, rows[1], -1)
        tail: Axes = (*untracked(call.shape[-2:-1]), b.axes[-1])
        sums_to_one = a.sums_to_one
    else:
        weights, operand = _as_matrix(call, b, rows[1], None), _as_matrix(call, a, rows[0], -2)
        tail, sums_to_one = (a.axes[-2], *untracked(call.shape[-1:])), False
    matrix = flow.add(operand.axes, Mixture(weights, operand, sums_to_one))
    flow.couple(matrix.elements, operand.elements)
    flow.require_same_rows(weights.elements, operand.elements)
    return flow.reinterpret(matrix, (*lead, *tail))


RULES: dict[str, OperatorRule] = {
    "aten::scaled_dot_product_attention": OperatorRule(attention, rewrite_attention),
    **{f"aten::{name}": OperatorRule(product) for name in ("matmul", "bmm", "mm")},
}

"""Operators over windows of positions, each channel by itself: pooling and resampling."""

from __future__ import annotations

from collections.abc import Sequence

from torch.fx import Node

from ..arrays import Constants
from ..axes import Axes, untracked
from ..transfer import Effect, Value
from .call import Call, OperatorRule, Result


def positions_respaced(call: Call, operand: Value, dims: int) -> Value:
    """`operand` with its last `dims` axes untracked and of the output's sizes."""
    rank = len(operand.axes)
    keep = [j < rank - dims for j, axis in enumerate(operand.axes) for f in axis if f.tracked]
    collapsed = call.flow.collapse(operand, keep)
    axes: Axes = collapsed.axes[: rank - dims] + untracked(call.shape[rank - dims :])
    return call.flow.reinterpret(collapsed, axes)


def _windowed(dims: int, *, indices: bool = False) -> OperatorRule:
    """A window operator that maps a uniform channel to the same value."""

    def channels(call: Call) -> Result:
        moved = positions_respaced(call, call.value_of(call.operands()[0]), dims)
        value = call.flow.elementwise([moved], call.shape, _first, effect=_effect(call))
        if not indices:
            return value
        return value, call.flow.elementwise([moved], call.shape, None)

    return OperatorRule(channels)


def _effect(call: Call) -> Effect:
    """Average pooling that counts its zero padding, or divides by another number, shows the border."""
    padding = call.arguments.get("padding")
    padded = isinstance(padding, list | tuple) and any(isinstance(p, Node) or p != 0 for p in padding)
    counts_padding = call.arguments.get("count_include_pad") and padded
    divides = call.arguments.get("divisor_override") is not None
    return Effect.BORDER if counts_padding or divides else Effect.NONE


def _first(constants: Sequence[Constants]) -> Constants:
    return constants[0]


_RESAMPLINGS = (
    "nearest1d", "nearest2d", "nearest3d", "linear1d", "bilinear2d", "trilinear3d", "bicubic2d",
    "_nearest_exact1d", "_nearest_exact2d", "_nearest_exact3d",
)  # fmt: skip

RULES: dict[str, OperatorRule] = {
    **{f"aten::max_pool{n}d": _windowed(n) for n in (1, 2, 3)},
    **{f"aten::max_pool{n}d_with_indices": _windowed(n, indices=True) for n in (2, 3)},
    **{f"aten::avg_pool{n}d": _windowed(n) for n in (1, 2, 3)},
    **{f"aten::adaptive_avg_pool{n}d": _windowed(n) for n in (1, 2, 3)},
    **{f"aten::_adaptive_avg_pool{n}d": _windowed(n) for n in (2, 3)},
    **{f"aten::adaptive_max_pool{n}d": _windowed(n, indices=True) for n in (1, 2, 3)},
    **{f"aten::upsample_{kind}": _windowed(int(kind[-2])) for kind in _RESAMPLINGS},
    **{f"aten::_upsample_{kind}2d_aa": _windowed(2) for kind in ("bilinear", "bicubic")},
}

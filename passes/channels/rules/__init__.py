"""The operator table: how each ATen operator treats channels, one row per operator."""

from . import attention, contraction, elementwise, factories, joining, movement, reduction, slicing, spatial
from .call import Call, OperatorRule, Result, Rewrite

OPERATOR_RULES: dict[str, OperatorRule] = {
    **elementwise.RULES,
    **movement.RULES,
    **slicing.RULES,
    **joining.RULES,
    **factories.RULES,
    **spatial.RULES,
    **reduction.RULES,
    **contraction.RULES,
    **attention.RULES,
}
POINTWISE = OperatorRule(elementwise.pointwise)

__all__ = ["OPERATOR_RULES", "POINTWISE", "Call", "OperatorRule", "Result", "Rewrite"]

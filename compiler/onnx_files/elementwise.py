"""ONNX operators that treat every element alike."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from .operator import Operator
from .types import TORCH_TYPES
from .values import Value, alike, as_tensor, is_numbers


def _divide(a: Value, b: Value) -> Value:
    """Integers are divided towards zero."""
    if is_numbers(a) and is_numbers(b):
        return a // b  # sizes are not negative
    whole = all(isinstance(v, Tensor) and not v.is_floating_point() for v in (a, b))
    return torch.div(a, b, rounding_mode="trunc") if whole else operator.truediv(a, b)


_BINARY: dict[str, Callable[[Any, Any], Any]] = {
    "Add": operator.add,
    "Sub": operator.sub,
    "Mul": operator.mul,
    "Div": _divide,
    "Pow": operator.pow,
    "And": operator.and_,
    "Or": operator.or_,
    "Xor": operator.xor,
    "Equal": operator.eq,
    "Greater": operator.gt,
    "GreaterOrEqual": operator.ge,
    "Less": operator.lt,
    "LessOrEqual": operator.le,
    "BitwiseAnd": operator.and_,
    "BitwiseOr": operator.or_,
}
_UNARY: dict[str, Callable[[Tensor], Tensor]] = {
    "Abs": torch.abs,
    "Acos": torch.acos,
    "Asin": torch.asin,
    "Atan": torch.atan,
    "Ceil": torch.ceil,
    "Cos": torch.cos,
    "Erf": torch.erf,
    "Exp": torch.exp,
    "Floor": torch.floor,
    "HardSwish": F.hardswish,
    "IsNaN": torch.isnan,
    "Log": torch.log,
    "Mish": F.mish,
    "Neg": torch.neg,
    "Not": torch.logical_not,
    "Reciprocal": torch.reciprocal,
    "Relu": torch.relu,
    "Round": torch.round,
    "Sigmoid": torch.sigmoid,
    "Sign": torch.sign,
    "Sin": torch.sin,
    "Softplus": F.softplus,
    "Softsign": F.softsign,
    "Sqrt": torch.sqrt,
    "Tan": torch.tan,
    "Tanh": torch.tanh,
}
_ON_NUMBERS: dict[str, Callable[[Any], Any]] = {"Neg": operator.neg, "Not": np.logical_not, "Abs": np.abs}
_VARIADIC: dict[str, Callable[[Any, Any], Any]] = {
    "Max": torch.maximum,
    "Min": torch.minimum,
    "Sum": operator.add,
}


def binary(a: Value, b: Value, *, function: str) -> Value:
    """Arithmetic and comparisons, broadcast."""
    return _BINARY[function](*alike(a, b))


def unary(x: Value, *, function: str) -> Value:
    """One operand."""
    if is_numbers(x) and function in _ON_NUMBERS:
        return _ON_NUMBERS[function](x)
    return _UNARY[function](as_tensor(x))


def variadic(*values: Value, function: str) -> Value:
    """Any number of operands."""
    if all(is_numbers(v) for v in values):
        return functools.reduce({"Max": np.maximum, "Min": np.minimum, "Sum": np.add}[function], values)
    first = next(v for v in values if isinstance(v, Tensor))
    return functools.reduce(_VARIADIC[function], [as_tensor(v, first) for v in values])


def identity(x: Value, *others: Value, **options: Any) -> Value:
    """Identity, and dropout as it is in inference."""
    return x


def modulo(a: Value, b: Value, *, fmod: int = 0) -> Value:
    """The sign is that of the divisor, with fmod that of the dividend."""
    return torch.fmod(*alike(a, b)) if fmod else operator.mod(*alike(a, b))


def cast(x: Value, *, to: int, saturate: int = 1) -> Value:
    """Another type; sizes stay numbers where the type is an integer."""
    if is_numbers(x) and not TORCH_TYPES[to].is_floating_point:
        return x
    return as_tensor(x).to(TORCH_TYPES[to])


def cast_like(x: Value, like: Tensor, *, saturate: int = 1) -> Value:
    return as_tensor(x, like).to(like.dtype)


def where(condition: Value, a: Value, b: Value) -> Value:
    """A choice per element."""
    if all(is_numbers(v) for v in (condition, a, b)):
        return np.where(condition.astype(bool), a, b)
    first = next(v for v in (a, b, condition) if isinstance(v, Tensor))
    return torch.where(
        as_tensor(condition, first), *(v if isinstance(v, float) else as_tensor(v, first) for v in (a, b))
    )


def clip(
    x: Tensor, low: Value = None, high: Value = None, *, min: float | None = None, max: float | None = None
) -> Tensor:
    """Bounds are operands, before opset 11 attributes."""
    low, high = (_bound(b, a) for b, a in ((low, min), (high, max)))
    return torch.clamp(x, low, high)


def _bound(operand: Value, attribute: float | None) -> float | Tensor | None:
    if operand is None:
        return attribute
    return operand.item() if is_numbers(operand) else operand  # type: ignore[no-any-return]


def leaky_relu(x: Tensor, *, alpha: float = 0.01) -> Tensor:
    return F.leaky_relu(x, alpha)


def elu(x: Tensor, *, alpha: float = 1.0) -> Tensor:
    return F.elu(x, alpha)


def celu(x: Tensor, *, alpha: float = 1.0) -> Tensor:
    return F.celu(x, alpha)


def selu(x: Tensor, *, alpha: float = 1.67326319217681884765625, gamma: float = 1.05070102214813232421875) -> Tensor:
    return gamma * torch.where(x > 0, x, alpha * torch.expm1(torch.clamp(x, max=0.0)))


def hard_sigmoid(x: Tensor, *, alpha: float = 0.2, beta: float = 0.5) -> Tensor:
    return torch.clamp(alpha * x + beta, 0.0, 1.0)


def gelu(x: Tensor, *, approximate: str = "none") -> Tensor:
    return F.gelu(x, approximate=approximate)


def prelu(x: Tensor, slope: Tensor) -> Tensor:
    return torch.where(x > 0, x, x * slope)


OPERATORS: dict[str, Operator] = {
    **{name: Operator(binary, {"function": name}) for name in _BINARY},
    **{name: Operator(unary, {"function": name}) for name in _UNARY},
    **{name: Operator(variadic, {"function": name}) for name in _VARIADIC},
    "Identity": Operator(identity),
    "Dropout": Operator(identity),
    "Mod": Operator(modulo),
    "Cast": Operator(cast),
    "CastLike": Operator(cast_like),
    "Where": Operator(where),
    "Clip": Operator(clip),
    "LeakyRelu": Operator(leaky_relu),
    "Elu": Operator(elu),
    "Celu": Operator(celu),
    "Selu": Operator(selu),
    "HardSigmoid": Operator(hard_sigmoid),
    "Gelu": Operator(gelu),
    "PRelu": Operator(prelu),
}

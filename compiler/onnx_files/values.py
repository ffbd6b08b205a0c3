"""What flows between the nodes of an ONNX graph that is run by torch: tensors, and integers known at capture.

ONNX computes sizes with the operators that compute data. Small integer constants and sizes are NumPy arrays of Python
integers (and of torch's symbolic ones) here, so that `reshape` and its like get sizes, not tensors.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

Numbers = np.ndarray[Any, np.dtype[np.object_]]
Value = Any  # Tensor, Numbers, or a float


def numbers(values: Sequence[Any], shape: Sequence[int]) -> Numbers:
    """An array of the given integers."""
    array = np.empty(len(values), dtype=object)
    array[:] = list(values)
    return array.reshape(tuple(shape))


def is_numbers(value: Value) -> bool:
    return isinstance(value, np.ndarray)


def integers(value: Value) -> list[Any]:
    """Sizes, axes or indices as a list; a computed tensor is refused."""
    if isinstance(value, Tensor):
        raise TypeError("sizes, axes and indices must not be computed from data")
    return [value] if isinstance(value, int) else list(np.asarray(value, dtype=object).reshape(-1))


def as_tensor(value: Value, like: Tensor | None = None) -> Tensor:
    """The value as a tensor, on the device of `like`; numbers become int64, a float the type of `like`."""
    if isinstance(value, Tensor):
        return value
    device = None if like is None else like.device
    if isinstance(value, float):
        return torch.tensor(value, dtype=None if like is None else like.dtype, device=device)
    flat = value.reshape(-1).tolist()
    dtype = torch.bool if flat and all(isinstance(v, bool | np.bool_) for v in flat) else torch.int64
    if all(isinstance(v, int | np.integer | np.bool_) for v in flat):
        return torch.tensor(flat, dtype=dtype, device=device).reshape(value.shape)
    return torch.stack([torch.scalar_tensor(v, dtype=dtype, device=device) for v in flat]).reshape(value.shape)


def alike(*values: Value) -> list[Value]:
    """The values as they may be combined: as numbers if none is a tensor, else tensors and floats."""
    first = next((v for v in values if isinstance(v, Tensor)), None)
    if first is None:
        return list(values)
    return [as_tensor(v, first) if is_numbers(v) else v for v in values]

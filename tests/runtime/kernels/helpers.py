"""Random sparse layers, and what they compute in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

Floats = NDArray[np.float32]


def sparse(shape: tuple[int, ...], density: float, seed: int = 0) -> Floats:
    """Normal weights, each kept with probability `density`."""
    random = np.random.default_rng(seed)
    return np.where(random.random(shape) < density, random.standard_normal(shape), 0.0).astype(np.float32)


def normal(*shape: int, seed: int = 1) -> Floats:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def assert_close(found: Floats, exact: NDArray[np.float64], fan_in: int) -> None:
    """Within the rounding of a float32 sum of `fan_in` products of about one."""
    assert found.dtype == np.float32 and found.shape == exact.shape
    bound = 4e-7 * max(1, fan_in) ** 0.5 * max(1.0, float(np.abs(exact).max(initial=0.0)))
    assert float(np.abs(found - exact).max(initial=0.0)) <= bound


def exact_linear(x: Floats, weight: Floats, bias: Floats | None, residual: Floats | None, relu: bool) -> Any:
    y = x.astype(np.float64) @ weight.T.astype(np.float64)
    for more in (bias, residual):
        y = y if more is None else y + more
    return np.maximum(y, 0) if relu else y


def exact_conv2d(x: Floats, weight: Floats, bias: Floats | None, **options: Any) -> Any:
    """By torch, in float64; padding before and after each axis: (top, bottom, left, right)."""
    top, bottom, left, right = options.pop("padding", (0, 0, 0, 0))
    padded = F.pad(torch.from_numpy(x).double(), (left, right, top, bottom))
    own = None if bias is None else torch.from_numpy(bias).double()
    return F.conv2d(padded, torch.from_numpy(weight).double(), own, **options).numpy()

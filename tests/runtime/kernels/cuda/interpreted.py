"""Every Triton kernel through Triton's interpreter, on the CPU, against float64; in a process of its own.

    TRITON_INTERPRET=1 python -m tests.runtime.kernels.cuda.interpreted

Prints, for every case, the largest error in units of what it may be. The interpreter cuts off the digits that bfloat16
does not hold, where a GPU rounds: a whole unit of its last place is allowed.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from sparsefx.passes.operators import compressed_rows
from sparsefx.runtime.kernels.cuda.operators import conv2d, linear

_ROUNDING = {torch.float32: 0.0, torch.float16: 2.0**-11, torch.bfloat16: 2.0**-7}  # of the result
_DENSE = {torch.float32: ("dense",), torch.float16: (), torch.bfloat16: ()}  # torch's own, which rounds in between
_ACTIVATIONS = {"none": lambda y: y, "relu": F.relu, "gelu": F.gelu}

LINEAR = {  # (leading sizes, inputs, outputs, density), activation, bias, residual
    "one sample": (((1,), 37, 19, 0.2), "none", False, False),
    "few samples": (((3,), 70, 40, 0.1), "gelu", True, True),
    "nine samples": (((9,), 150, 9, 0.9), "relu", True, False),
    "tokens": (((2, 35), 33, 65, 0.3), "relu", True, True),
    "no sample": (((0,), 8, 8, 0.5), "none", True, False),
    "no neuron": (((2,), 8, 0, 0.5), "none", False, False),
    "no weight": (((5,), 8, 3, 0.0), "gelu", True, False),
    "one input": (((33,), 1, 5, 0.5), "none", False, True),
    "indices of four bytes": (((2,), 2**15 + 9, 3, 0.002), "none", True, False),
}
CONV2D = {  # (images, channels, height, width), (outputs, kernel), stride, padding, dilation, groups
    "3x3": ((2, 5, 9, 8), (10, 3, 3), (1, 1), (1, 1), (1, 1), 1),
    "1x1": ((3, 7, 5, 5), (33, 1, 1), (1, 1), (0, 0), (1, 1), 1),
    "uneven": ((1, 6, 11, 7), (8, 3, 2), (2, 1), (1, 0), (1, 2), 2),
    "depthwise": ((2, 4, 6, 6), (8, 3, 3), (2, 2), (1, 1), (1, 1), 4),
    "wide padding": ((1, 2, 3, 3), (3, 3, 3), (1, 1), (4, 3), (1, 1), 1),
}


def cases() -> Iterator[tuple[str, Tensor, Tensor, int]]:
    """Name, what was found, what is exact (float64), and the longest sum."""
    for kind, (name, (sizes, activation, bias, residual)) in itertools.product(_ROUNDING, LINEAR.items()):
        for form in ("rows", "columns", *_DENSE[kind]):
            yield f"linear {name} {form} {str(kind)[6:]}", *_linear(kind, sizes, activation, bias, residual, form)
    for kind, (name, sizes), full in itertools.product(_ROUNDING, CONV2D.items(), (False, True)):
        for form in ("columns", *_DENSE[kind]):
            told = "with all" if full else "bare"
            yield f"conv2d {name} {told} {form} {str(kind)[6:]}", *_conv2d(kind, sizes, full, form)


def _linear(
    kind: torch.dtype, sizes: Any, activation: str, bias: bool, residual: bool, form: str
) -> tuple[Tensor, Tensor, int]:
    leading, inputs, outputs, density = sizes
    weight = _sparse(kind, density, outputs, inputs)
    x = _normal(kind, inputs, *reversed(leading)).permute(*reversed(range(1 + len(leading))))  # not contiguous
    own, beside = _normal(kind, outputs) if bias else None, _normal(kind, *leading, outputs) if residual else None
    found = linear(x, *compressed_rows(weight), own, beside, activation, form=form)
    exact = F.linear(x.double(), weight.double(), None if own is None else own.double())
    return found, _ACTIVATIONS[activation](exact if beside is None else exact + beside.double()), inputs


def _conv2d(kind: torch.dtype, sizes: Any, full: bool, form: str) -> tuple[Tensor, Tensor, int]:
    image, (outputs, *kernel), stride, padding, dilation, groups = sizes
    weight = _sparse(kind, 0.4, outputs, image[1] // groups, *kernel)
    x, own = _normal(kind, *image), _normal(kind, outputs) if full else None
    exact = F.conv2d(
        x.double(), weight.double(), None if own is None else own.double(), stride, padding, dilation, groups
    )
    beside = _normal(kind, *exact.shape) if full else None
    exact = F.relu(exact + beside.double()) if beside is not None else exact
    window = (kernel, stride, padding, dilation, groups, "relu" if full else "none")
    found = conv2d(x, *compressed_rows(weight), own, beside, *window, form=form)
    return found, exact, weight[0].numel()


def error(found: Tensor, exact: Tensor, fan_in: int) -> float:
    """The largest error in units of what rounding of a float32 sum, and of the result, may come to."""
    assert found.shape == exact.shape and found.is_contiguous()
    if not exact.numel():
        return 0.0
    allowed = _ROUNDING[found.dtype] * exact.abs() + 4e-7 * fan_in**0.5 * max(1.0, float(exact.abs().max()))
    if found.dtype == torch.float16:
        allowed = allowed + 2.0**-24  # of numbers too small for its exponent
    return float(((found.double() - exact).abs() / allowed).max())


def _normal(kind: torch.dtype, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape))).to(kind)


def _sparse(kind: torch.dtype, density: float, *shape: int) -> Tensor:
    """Normal weights, none in the first row but in that of a single one."""
    keep = torch.rand(shape, generator=torch.Generator().manual_seed(7)) < density
    keep[: len(keep) // 2 and 1] = False
    return _normal(kind, *shape) * keep


def _nan() -> dict[str, Any]:
    """NaN goes through a ReLU, and an infinite input only into the neurons that read it."""
    weight = torch.tensor([[1.0, 0.0, 2.0], [0.0, 3.0, 0.0]])
    found = {}
    for form in ("rows", "columns"):
        for bad in ("nan", "inf"):
            x = torch.tensor([[float(bad), 1.0, 1.0]]).repeat(3, 1)
            found[f"{form} {bad}"] = linear(x, *compressed_rows(weight), None, None, "relu", form=form)[0].tolist()
    return {name: [str(number) for number in numbers] for name, numbers in found.items()}


def main() -> None:
    errors = {name: error(found, exact, fan_in) for name, found, exact, fan_in in cases()}
    _, found, exact, fan_in = next(case for case in cases() if case[0].startswith("linear few samples rows"))
    found = found.clone()
    found.view(-1)[found.abs().argmax()] *= 1 + 1e-4
    print(json.dumps({"errors": errors, "planted": error(found, exact, fan_in), "not finite": _nan()}))


if __name__ == "__main__":
    main()

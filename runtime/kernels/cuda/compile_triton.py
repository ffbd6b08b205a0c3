"""Compile every Triton kernel ahead of time, for GPUs that need not be there."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from ....passes.errors import TargetError
from .ptx import entry_parameters
from .tools import import_triton

ARCHITECTURES = (80, 89, 90)
_BYTES = {"fp32": 4, "fp16": 2, "bf16": 2}
_SCRATCH = ("u64", "u64")  # which Triton puts behind every kernel's own parameters


@dataclass(frozen=True)
class Variant:
    """A kernel for one type of numbers, with its constants."""

    kernel: str
    type: str
    columns: str  # the type of indices
    constants: tuple[tuple[str, Any], ...]

    def __str__(self) -> str:
        told = (f"{k}={v}" for k, v in self.constants if k in ("SAMPLES", "FLAT", "HAS_RESIDUAL", "ACTIVATION"))
        return " ".join((self.kernel, self.type, self.columns, *told))


@dataclass(frozen=True)
class Compiled:
    """PTX and machine code of a variant."""

    variant: Variant
    architecture: int
    ptx: str
    cubin: bytes


def variants(*, everything: bool) -> list[Variant]:
    """All that `launch` can ask for; or each kernel in each type with all that can be fused, and bare in float32."""
    from .launch import MOST_SAMPLES, TRANSPOSE

    bare, full = _fused(False, False, "none"), _fused(True, True, "gelu")
    if everything:
        choices = itertools.product((False, True), (False, True), ("none", "relu", "gelu"))
        samples = [2**power for power in range(MOST_SAMPLES.bit_length())]
        cases = list(itertools.product(_BYTES, ("i16", "i32"), [_fused(*choice) for choice in choices], samples))
    else:
        cases = [("fp32", "i32", bare, 1), *((kind, "i16", full, MOST_SAMPLES) for kind in _BYTES)]
    found = dict.fromkeys(variant for case in cases for variant in _layers(*case))
    return [*found, *(_variant("transpose_kernel", kind, "i32", TRANSPOSE) for kind in _BYTES)]


def _fused(bias: bool, residual: bool, activation: str) -> dict[str, Any]:
    return {"HAS_BIAS": bias, "HAS_RESIDUAL": residual, "ACTIVATION": activation}


def _layers(kind: str, columns: str, fused: dict[str, Any], samples: int) -> list[Variant]:
    """The kernels of layers, with few samples and with many points."""
    from .launch import COLUMNS, LINE, ROWS

    points = {"POINTS": LINE // _BYTES[kind]}
    return [
        _variant("rows_kernel", kind, columns, ROWS | fused | {"SAMPLES": samples}),
        *(
            _variant("columns_kernel", kind, columns, COLUMNS | fused | points | {"FLAT": flat})
            for flat in (True, False)
        ),
    ]


def compile_variant(variant: Variant, architecture: int) -> Compiled:
    """PTX and cubin for the architecture (90 for sm_90). Raises TargetError where its parameters are not the kernel's.

    Triton keeps what it has compiled in its own cache.
    """
    import_triton()
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource, compile

    from . import triton_kernels
    from .launch import WARPS

    function = getattr(triton_kernels, variant.kernel)
    constants = dict(variant.constants)
    signature = {name: _type(name, variant) for name in function.arg_names}
    for name, there in (("bias", "HAS_BIAS"), ("residual", "HAS_RESIDUAL")):
        if constants.get(there) is False:
            signature[name], constants[name] = "constexpr", None
    source = ASTSource(function, signature, constants)
    made = compile(source, target=GPUTarget("cuda", architecture, 32), options={"num_warps": WARPS})
    compiled = Compiled(variant, architecture, made.asm["ptx"], made.asm["cubin"])
    wanted = (*(_parameter(t) for t in signature.values() if t != "constexpr"), *_SCRATCH)
    found = entry_parameters(compiled.ptx).get(variant.kernel)
    if found != wanted:
        raise TargetError(f"Triton compiled {variant} with parameters {found}, expected {wanted}")
    return compiled


def compile_all(architectures: Iterable[int] = ARCHITECTURES, *, everything: bool = False) -> list[Compiled]:
    """All variants for all architectures."""
    return [compile_variant(v, sm) for sm in architectures for v in variants(everything=everything)]


def _variant(kernel: str, kind: str, columns: str, constants: dict[str, Any]) -> Variant:
    return Variant(kernel, kind, columns, tuple(constants.items()))


def _type(name: str, variant: Variant) -> str:
    """What the parameter of this name is."""
    if name in dict(variant.constants):
        return "constexpr"
    if name in ("x", "values", "bias", "residual", "y"):
        return f"*{variant.type}"
    if name == "columns" and variant.kernel != "transpose_kernel":
        return f"*{variant.columns}"
    return "*i32" if name == "starts" else "i32"


def _parameter(kind: str) -> str:
    return "u64" if kind.startswith("*") else "u32"

"""What the server and its protocol call types of tensors."""

from __future__ import annotations

from ...passes.errors import TargetError

PROTOCOL = {  # by NumPy's name: that of the KServe v2 protocol; the configuration's is TYPE_ and the same
    "bool": "BOOL",
    **{f"uint{bits}": f"UINT{bits}" for bits in (8, 16, 32, 64)},
    **{f"int{bits}": f"INT{bits}" for bits in (8, 16, 32, 64)},
    **{f"float{bits}": f"FP{bits}" for bits in (16, 32, 64)},
    "bfloat16": "BF16",
}


def config_type(dtype: str, tensor: str) -> str:
    """The type in a model's configuration. Raises TargetError, naming the tensor, for one that the server lacks."""
    if dtype not in PROTOCOL:
        raise TargetError(
            f"tensor {tensor} has type {dtype}, which the server does not know; it serves {', '.join(PROTOCOL)}"
        )
    return f"TYPE_{PROTOCOL[dtype]}"

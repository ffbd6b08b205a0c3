"""What an engine is: something that runs one model on one target, called like the model it was made from."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..passes.errors import TargetError
from ..passes.signature import Signature, TensorSpec

Array = NDArray[Any]


class Session(Protocol):
    """A backend that runs flat arrays."""

    def run(self, inputs: Sequence[Array]) -> list[Array]:
        """Outputs for inputs, both in the signature's order."""

    def prepare(self, inputs: Sequence[Array]) -> Callable[[], object]:
        """A call that runs once on these inputs, already where the device reads them, and waits for its end."""

    def settings(self) -> dict[str, Any]:
        """What the session runs with: threads, providers, optimisation level."""


class Engine:
    """Runs a compiled model: torch tensors in, torch tensors out; NumPy arrays in, NumPy arrays out.

    Arguments are those of the model's forward; names, shapes and dtypes are checked before anything runs.
    """

    def __init__(self, session: Session, signature: Signature, target: str) -> None:
        self.session = session
        self.signature = signature
        self.target = target

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the model. Raises TargetError, naming the argument, where an input does not fit."""
        tensors = self.signature.flatten(args, kwargs, TargetError)
        outputs: list[Any] = list(self.run_flat(tensors))
        if any(_is_torch(tensor) for tensor in tensors):
            outputs = [sys.modules["torch"].from_numpy(output) for output in outputs]
        return self.signature.result.build(outputs)

    def run_flat(self, tensors: Sequence[Any]) -> list[Array]:
        """Output arrays for input tensors, both in the signature's order."""
        return self.session.run(self.check(tensors))

    def check(self, tensors: Sequence[Any]) -> list[Array]:
        """Inputs as contiguous NumPy arrays of the right types and shapes."""
        return checked_arrays(self.signature, tensors)

    def __repr__(self) -> str:
        inputs, outputs = (", ".join(map(str, specs)) for specs in (self.signature.inputs, self.signature.outputs))
        return f"Engine({self.target}: ({inputs}) -> ({outputs}))"


def checked_arrays(signature: Signature, tensors: Sequence[Any]) -> list[Array]:
    """Tensors for a signature's inputs, in its order, as contiguous NumPy arrays.

    Raises TargetError, naming the input, where one has another type or shape.
    """
    sizes: dict[str, tuple[int, str]] = {}
    return [_checked(spec, tensor, sizes) for spec, tensor in zip(signature.inputs, tensors, strict=True)]


def _is_torch(value: Any) -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def _checked(spec: TensorSpec, value: Any, sizes: dict[str, tuple[int, str]]) -> Array:
    if not isinstance(value, np.ndarray) and not _is_torch(value):
        raise TargetError(f"input {spec.name} must be a NumPy array or a torch tensor, found {type(value).__name__}")
    dtype = str(value.dtype).removeprefix("torch.")
    if dtype != spec.dtype:
        raise TargetError(f"input {spec.name} must have dtype {spec.dtype}, found {dtype}; convert it before the call")
    if len(value.shape) != len(spec.shape):
        raise TargetError(_misshapen(spec, value))
    if _is_torch(value):
        value = value.detach().cpu().contiguous().numpy()
    for axis, (wanted, found) in enumerate(zip(spec.shape, value.shape, strict=True)):
        if isinstance(wanted, int) and wanted != found:
            raise TargetError(_misshapen(spec, value))
        if isinstance(wanted, str):
            known, where = sizes.setdefault(wanted, (found, f"{spec.name} axis {axis}"))
            if known != found:
                raise TargetError(
                    f"size {wanted} is {known} at {where} but {found} at {spec.name} axis {axis}; both must agree"
                )
    return np.ascontiguousarray(value)


def _misshapen(spec: TensorSpec, value: Any) -> str:
    return (
        f"input {spec.name} must have shape [{', '.join(map(str, spec.shape))}], found {list(value.shape)}; sizes that "
        "are numbers are fixed: for others compile with dynamic_shapes"
    )

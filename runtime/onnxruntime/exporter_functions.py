"""The ONNX functions that torch's exporter knows, listed once: it parses the sources of all of them for every export,
which takes longer than the export of a small model. (torch 2.9 to 2.13, `ONNXRegistry.from_torchlib`.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any


@contextmanager
def functions_listed_once() -> Iterator[None]:
    """Exports within share one list. An exporter that is made otherwise works as ever, only slower."""
    from torch.onnx._internal.exporter import _registration

    exporter: Any = _registration
    apis = getattr(exporter, "onnxscript_apis", None)
    if apis is None:
        yield
        return
    exporter.onnxscript_apis = _ListedOnce(apis)
    try:
        yield
    finally:
        exporter.onnxscript_apis = apis


@dataclass(frozen=True)
class _ListedOnce:
    """What the exporter asks of onnxscript, the list of functions from the first time."""

    apis: Any

    def get_torchlib_ops(self) -> list[Any]:
        return _listed(self.apis.get_torchlib_ops)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.apis, name)


@cache
def _listed(list_functions: Callable[[], list[Any]]) -> list[Any]:
    return list_functions()

"""The server's documented schema, model_config.proto, as tritonclient carries it compiled.

The module is loaded by its file: the package around it wants gRPC.
"""

from __future__ import annotations

import importlib.util
from functools import cache
from pathlib import Path
from typing import Any

import pytest

needs_schema = pytest.mark.skipif(
    importlib.util.find_spec("tritonclient") is None, reason="tritonclient is not installed"
)


@cache
def _schema() -> Any:
    package = importlib.util.find_spec("tritonclient")
    assert package is not None and package.submodule_search_locations is not None
    file = Path(package.submodule_search_locations[0]) / "grpc" / "model_config_pb2.py"
    spec = importlib.util.spec_from_file_location("model_config_pb2", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def parse(text: str) -> Any:
    """A ModelConfig out of config.pbtxt; raises where a field, a type or a value is not in the schema."""
    from google.protobuf import text_format

    return text_format.Parse(text, _schema().ModelConfig())


def type_name(number: int) -> str:
    return str(_schema().DataType.Name(number))


def kind_name(number: int) -> str:
    return str(_schema().ModelInstanceGroup.Kind.Name(number))

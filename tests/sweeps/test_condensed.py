"""Torchvision's models at 95% sparsity with every sparse layer condensed, whether it is faster or not: exact engines.

A sample runs by default, everything with `pytest -m long tests/sweeps/test_condensed.py` (half an hour).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

import sparsefx
from tests.runtime.kernels.needs import needs_compiler
from tests.zoo.alive import images
from tests.zoo.case import build
from tests.zoo.models import all_models, find_model

pytestmark = needs_compiler

_MASK = "unstructured 95%"
_SAMPLE = {"squeezenet1_1": [], "resnet18": [pytest.mark.ci]}


def _cases() -> Iterator[Any]:
    for model in all_models():
        yield pytest.param(model.name, marks=_SAMPLE.get(model.name, [pytest.mark.long]))


@pytest.mark.parametrize("name", list(_cases()))
def test_condensed_engines_are_exact(name: str) -> None:
    model = find_model(name)
    module = build(model, _MASK)
    assert module is not None
    example = images(1, model.size, torch.Generator().manual_seed(3))
    compiled = sparsefx.compile(module.float(), (example,), representation="condensed", threads=1)  # verifies
    choice, verification = compiled.report.choice, compiled.report.verification
    assert choice is not None and verification is not None
    assert len(choice.layers) > 5
    assert {layer.representation for layer in choice.layers} == {"condensed"}
    assert all(check["max_error"] <= check["bound"] for check in verification["outputs"])

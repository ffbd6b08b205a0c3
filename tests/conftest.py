"""Options and summaries of the whole test suite."""

from __future__ import annotations

import pytest
import torch

import tests.torchvision_shim  # noqa: F401  before anything imports torchvision
from tests.randomnets.report import pytest_terminal_summary

__all__ = ["pytest_terminal_summary"]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--nets", type=int, default=100, help="random nets; a tenth of them through ONNX Runtime too")


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """Small tensors are faster on one thread, and workers do not get into each other's way."""
    torch.set_num_threads(1)

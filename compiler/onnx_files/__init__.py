"""ONNX files as models: read into a torch.fx graph of torch functions, and compared with ONNX Runtime's own run."""

from __future__ import annotations

from .read import read_onnx

__all__ = ["read_onnx"]

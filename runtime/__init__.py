"""Engines, and what runs inside them."""

from __future__ import annotations

from pathlib import Path


def custom_op_library() -> Path:
    """The shared library of condensed operators for ONNX Runtime 1.17 and newer, compiled if need be.

    To be registered with the session options, from any language; the session's setting "sparsefx.threads" (as text)
    says how many of its threads share a layer. A host without such settings leaves it to the nodes' attributes
    `threads` and `bfloat16`, which serve-export writes. Raises TargetError where there is no C++ compiler.
    """
    from .kernels.build import build_library

    return build_library()

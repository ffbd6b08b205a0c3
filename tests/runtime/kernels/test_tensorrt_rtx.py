"""Files with condensed operators parse and build where nobody knows our kernels: by their functions' bodies."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import sparsefx
from tests.runtime.tensorrt.nets import sparse_net

from .needs import needs_compiler

trt = pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed")
pytestmark = needs_compiler


def test_a_condensed_file_parses_and_builds(tmp_path: Path) -> None:
    example = torch.randn(1, 3, 16, 16)
    compiled = sparsefx.compile(sparse_net(), (example,), representation="condensed", threads=1)
    compiled.save(tmp_path / "net.sfx")

    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, logger)
    parsed = parser.parse_from_file(str(tmp_path / "net.sfx" / "model.onnx"))
    assert parsed, [parser.get_error(i).desc() for i in range(parser.num_errors)]
    config = builder.create_builder_config()
    config.num_compute_capabilities = 1
    config.set_compute_capability(trt.ComputeCapability.SM89, 0)
    profile = builder.create_optimization_profile()
    profile.set_shape(network.get_input(0).name, (1, 3, 16, 16), (1, 3, 16, 16), (8, 3, 16, 16))
    config.add_optimization_profile(profile)
    assert builder.build_serialized_network(network, config) is not None

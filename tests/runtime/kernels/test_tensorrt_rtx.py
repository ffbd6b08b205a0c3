"""Files with condensed operators parse and build where nobody knows our kernels: by their functions' bodies."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import sparsefx

from .needs import needs_compiler

trt = pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed")
pytestmark = needs_compiler


class Net(nn.Module):
    """Every operator, with all that it takes along."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.down = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 16, 3, stride=2, padding=1)
        self.block = nn.Conv2d(16, 16, 1)
        self.up, self.back = nn.Linear(16, 40), nn.Linear(40, 16)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.down(torch.relu(self.stem(x))))
        x = torch.relu(self.block(x) + x)
        tokens = x.flatten(2).transpose(1, 2)
        y: Tensor = self.back(nn.functional.gelu(self.up(tokens))) + tokens
        return y


def test_a_condensed_file_parses_and_builds(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = Net().eval()
    with torch.no_grad():
        for layer in net.children():
            assert isinstance(layer, nn.Conv2d | nn.Linear)
            layer.weight.mul_(torch.rand(layer.weight.shape) < 0.2)
    example = torch.randn(1, 3, 16, 16)
    compiled = sparsefx.compile(net, (example,), representation="condensed", threads=1)
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

"""Lower a model by Torch-TensorRT's decompositions and lowering list, with our pass in front; print what came out.

Run by test_torch_tensorrt.py in a process of its own. Importing Torch-TensorRT asks for a GPU, so one is claimed;
nothing here runs on it, and no engine is built.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import torch
from torch import nn

import tests.torchvision_shim  # noqa: F401  before anything imports torchvision
from sparsefx.compiler.integrations.torch_tensorrt import lowering_pass
from tests.helpers import deviation, error

from .models import images, masked, numbers, small


def claim_a_gpu() -> None:
    torch.cuda.get_device_capability = lambda device=None: (8, 0)
    torch.cuda.current_device = lambda: 0
    if not hasattr(torch._C, "_CudaDeviceProperties"):
        torch._C._CudaDeviceProperties = object


def lower(model: nn.Module, size: int) -> Any:
    from torch_tensorrt.dynamo._settings import CompilationSettings
    from torch_tensorrt.dynamo.lowering import get_decompositions, post_lowering, pre_export_lowering

    settings = CompilationSettings()
    program = torch.export.export(model, (images(2, size),), dynamic_shapes=({0: torch.export.Dim("batch")},))
    program = pre_export_lowering(program, settings).run_decompositions(get_decompositions(False, False))
    return post_lowering(program.module(), settings)


def without_converter(graph_module: Any) -> list[str]:
    from torch_tensorrt.dynamo.conversion._ConverterRegistry import DYNAMO_CONVERTERS

    known = {str(target) for target in DYNAMO_CONVERTERS.keys()}  # noqa: SIM118  no mapping
    used = {str(node.target) for node in graph_module.graph.nodes if node.op == "call_function"}
    return sorted(used - known)


def main(name: str) -> None:
    claim_a_gpu()
    import torch_tensorrt
    from torch_tensorrt.dynamo.lowering.passes import _aten_lowering_pass as lowering

    model, size = (small(), 8) if name == "small" else masked(name)
    before = lower(model, size)
    lowering._aten_lowering_pass(lowering_pass(), index=0)
    lowered = lower(model, size)
    x, many = images(3, size, seed=1), images(6, size, seed=9)
    with torch.no_grad():
        worst = error(lowered(x), model(x), deviation(model(many)).over_inputs)
    result = {
        "version": torch_tensorrt.__version__,
        "passes": [listed.__name__ for listed in lowering.ATEN_POST_LOWERING_PASSES.passes],
        "error": worst,
        "numbers": numbers(lowered),
        "numbers without": numbers(before),
        "without a converter": without_converter(lowered),
        "without a converter before": without_converter(before),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main(sys.argv[1])

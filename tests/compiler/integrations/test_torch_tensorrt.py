"""The lowering pass, in a list of the form that Torch-TensorRT has, and in its own where the package is there.

Torch-TensorRT does not import without CUDA. Where its Python files are installed (pip install --no-deps --target DIR
torch-tensorrt-rtx, DIR in PYTHONPATH), `lowered_by_torch_tensorrt` runs its decompositions and its list in a process
that tells it of a GPU that is not there; engines are not built.
"""

from __future__ import annotations

import importlib.util
import inspect
import json
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.fx import GraphModule
from torch.fx.passes.pass_manager import PassManager

from sparsefx.compiler.integrations.torch_tensorrt import LoweringPass, lowering_pass
from sparsefx.passes.errors import PassError

from .models import assert_same, images, masked, numbers, small

HERE = Path(__file__).parent


class LoweringList(PassManager):
    """What Torch-TensorRT's DynamoPassManager does: every pass in turn, with the compilation's settings."""

    def __call__(self, graph_module: GraphModule, settings: Any) -> GraphModule:  # type: ignore[override]
        self.validate()
        for lowering in self.passes:
            graph_module = lowering(graph_module, settings)
        return graph_module


def drop_detach(graph_module: GraphModule, settings: Any) -> GraphModule:
    """A pass of the others."""
    graph_module.graph.eliminate_dead_code()
    graph_module.recompile()
    return graph_module


def exported(model: nn.Module, size: int = 8) -> GraphModule:
    """As Torch-TensorRT has it: exported with weights as attributes, core ATen operators."""
    dynamic = ({0: torch.export.Dim("batch")},)
    program = torch.export.export(model, (images(2, size),), dynamic_shapes=dynamic)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch's own
        module = program.run_decompositions().module()
    assert isinstance(module, GraphModule)
    return module


def test_it_has_the_form_of_a_lowering_pass() -> None:
    made: LoweringPass = lowering_pass()
    assert made.__name__ == "remove_channels"  # the list names its passes
    assert list(inspect.signature(made).parameters) == ["graph_module", "settings"]


@pytest.mark.parametrize("name", [pytest.param("resnet18", marks=pytest.mark.ci), "squeezenet1_1"])
def test_exact_on_core_operators(name: str) -> None:
    model, size = masked(name)
    graph = exported(model, size)
    lowered = LoweringList([drop_detach, lowering_pass(), drop_detach])(graph, object())
    assert lowered is graph
    assert_same(lowered, model, size, batches=(2,))
    assert numbers(lowered) < 0.9 * numbers(model)


def test_a_graph_without_weights_is_said() -> None:
    class Doubled(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + x

    with pytest.warns(RuntimeWarning, match="no weights of its own.*TorchBackend"):
        lowering_pass()(exported(Doubled()), None)


def test_a_graph_without_shapes_is_refused() -> None:
    with pytest.raises(PassError, match="has no shape; capture the model"):
        lowering_pass()(torch.fx.symbolic_trace(small()), None)


needs_torch_tensorrt = pytest.mark.skipif(
    importlib.util.find_spec("torch_tensorrt") is None, reason="torch_tensorrt is not installed"
)


@needs_torch_tensorrt
@pytest.mark.parametrize("name", ["small", "resnet18", "mobilenet_v2", "vit_b_32"])
def test_in_torch_tensorrts_own_list(name: str) -> None:
    script = [sys.executable, "-W", "ignore", "-m", "tests.compiler.integrations.lowered_by_torch_tensorrt", name]
    done = subprocess.run(script, capture_output=True, text=True, check=False, cwd=HERE.parents[2])
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["error"] <= 1e-9
    assert found["numbers"] < 0.9 * found["numbers without"]
    assert found["passes"][0] == "remove_channels"
    assert found["without a converter"] == found["without a converter before"] == []

"""TensorRT's plugins, as far as they go without TensorRT: nodes in files, signatures, launches; kernels on the host."""

from __future__ import annotations

import ctypes
import inspect
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import sparsefx
from sparsefx.passes.condense import Condense
from sparsefx.passes.errors import TargetError
from sparsefx.runtime.kernels.cuda.compile_nvcc import declared_parameters
from sparsefx.runtime.onnxruntime.lower import lower_to_onnx
from sparsefx.runtime.tensorrt import plugin_nodes
from sparsefx.runtime.tensorrt.plugin import KINDS, register_plugins
from tests.runtime.kernels.needs import needs_compiler

from .emulation import CLayer, CWindow, address
from .needs import needs_nvcc

TRT = SimpleNamespace(DataType=SimpleNamespace(FLOAT="f32", HALF="f16", BF16="b16"))


class Description:
    """Of a tensor: its sizes, here plain numbers, and its type."""

    def __init__(self, shape: tuple[int, ...], dtype: str = "f32") -> None:
        self.shape_expr, self.dtype = list(shape), dtype

    def like(self) -> Description:
        return Description(tuple(self.shape_expr), self.dtype)


class Plugins:
    """Stands for tensorrt.plugin: keeps what is registered, and refuses what TensorRT 11 would."""

    TensorDesc = Description
    KernelLaunchParams = SimpleNamespace

    class AutoTuneCombination:
        def __init__(self, *given: Any) -> None:
            self.given = given

    class SymIntExprs(list[int]):
        def __init__(self, length: int) -> None:
            super().__init__([-1] * length)

    def __init__(self) -> None:
        self.described: dict[str, Callable[..., Any]] = {}
        self.tuned: dict[str, Callable[..., Any]] = {}
        self.launched: dict[str, Callable[..., Any]] = {}

    @staticmethod
    def SymInt32(value: int) -> int:  # noqa: N802 - as it is called there
        return value

    @staticmethod
    def cdiv(first: int, second: int) -> int:
        return -(-first // second)

    def register(self, name: str) -> Callable[..., Any]:
        return lambda function: self.described.setdefault(name, function)

    def autotune(self, name: str) -> Callable[..., Any]:
        return lambda function: self._same(name, function, ["outputs"], self.tuned)

    def aot_impl(self, name: str) -> Callable[..., Any]:
        return lambda function: self._same(name, function, ["outputs", "tactic"], self.launched)

    def _same(self, name: str, function: Callable[..., Any], more: list[str], kept: dict[str, Any]) -> None:
        wanted = [*inspect.signature(self.described[name]).parameters, *more]
        assert list(inspect.signature(function).parameters) == wanted
        kept[name] = function


@pytest.fixture(scope="module")
def plugins() -> Plugins:
    made = Plugins()
    names = register_plugins(TRT, made, 80)
    assert set(names) == set(made.described) == set(made.tuned) == set(made.launched) and len(names) == 4
    return made


class Net(nn.Module):
    """Every plugin: with and without a residual, each activation, groups, a window that is not square."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.block = nn.Conv2d(4, 16, (3, 2), (2, 1), (1, 0), (1, 2), 2), nn.Conv2d(16, 16, 1, bias=False)
        self.up, self.back = nn.Linear(16, 70), nn.Linear(70, 16)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem(x))
        x = torch.relu(self.block(x) + x)
        tokens = x.flatten(2).transpose(1, 2)
        y: Tensor = self.back(nn.functional.gelu(self.up(tokens))) + tokens
        return y


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The file's model, and a torch graph that gives every value in it."""
    import onnx

    torch.manual_seed(0)
    net = Net().eval()
    with torch.no_grad():
        for layer in net.children():
            assert isinstance(layer, nn.Conv2d | nn.Linear)
            layer.weight.mul_(torch.rand(layer.weight.shape) < 0.3)
    compiled = sparsefx.compile(net, (torch.randn(2, 4, 9, 8),), target="torch")
    assert Condense(lambda _: True)(compiled.graph_module).modified
    folder = tmp_path_factory.mktemp("plugin")
    file = lower_to_onnx(compiled.graph_module, compiled.signature, folder, plugin_nodes.complete)
    return SimpleNamespace(onnx=onnx.load(str(file)), graph=compiled.graph_module)


def results(graph: Any, x: Tensor) -> list[tuple[Tensor, Tensor | None, Tensor]]:
    """Of each condensed layer in order: its input, residual and result."""
    found = []

    class Watching(torch.fx.Interpreter):
        def run_node(self, n: Any) -> Any:
            result = super().run_node(n)
            if "condensed" in str(n.target):
                args, _ = self.fetch_args_kwargs_from_env(n)
                found.append((args[0].detach(), None if args[5] is None else args[5].detach(), result.detach()))
            return result

    Watching(graph).run(x, enable_io_processing=False)
    return found


@needs_nvcc
@needs_compiler
@pytest.mark.parametrize("images", [1, 3])
@pytest.mark.parametrize("tactic", [1, 2])
def test_the_kernels_compute_a_file_by_what_the_plugins_launch(
    model: Any, plugins: Plugins, emulated: Any, images: int, tactic: int
) -> None:
    from onnx import numpy_helper

    constants = {t.name: numpy_helper.to_array(t) for t in model.onnx.graph.initializer}
    nodes = [node for node in model.onnx.graph.node if node.domain == "sparsefx"]
    watched = results(model.graph, torch.randn(images, 4, 9, 8, generator=torch.Generator().manual_seed(1)))
    assert len(nodes) == len(watched) == 4
    for node, (x, residual, exact) in zip(nodes, watched, strict=True):
        name = f"sparsefx::{node.op_type}"
        kind = KINDS[node.op_type.partition("_")[0]]
        told = {a.name: a.i for a in node.attribute if a.name not in ("plugin_namespace", "plugin_version")}
        own = min(tactic, len(kind.forms))
        x, beside = x.contiguous().numpy(), None if residual is None else residual.contiguous().numpy()
        parts = [constants[i] for i in node.input[1:5]] + ([] if beside is None else [beside])
        given = [Description(a.shape) for a in (x, *parts)] + [told[a] for a in kind.attributes]
        described = plugins.described[name](*given)
        assert tuple(described.shape_expr) == tuple(exact.shape)
        kernel, ptx, launch, numbers = plugins.launched[name](*given, [described], own)
        pointers = 1 + len(parts)
        assert declared_parameters()[kernel] == ("u64",) * pointers + ("u32",) * len(numbers) + ("u64",)
        assert f".entry {kernel}(" in ptx and launch.block_x == 256
        assert launch.grid_x * launch.grid_y * 256 >= exact.numel() / 8
        sizes = dict(zip(kind.order, numbers, strict=True))
        values, columns, starts, bias = (np.ascontiguousarray(p) for p in parts[:4])
        assert columns.dtype == starts.dtype == np.int32
        arrays = (values, columns, starts, bias, beside)
        layer = CLayer(*map(address, arrays), sizes["outputs"], sizes["activation"])
        y = np.full(exact.shape, np.nan, np.float32)
        run = getattr(emulated, kind.forms[own - 1])
        if "samples" in sizes:
            run(ctypes.byref(layer), address(x), sizes["samples"], sizes["inputs"], address(y))
        else:
            window = CWindow(*(sizes[field] for field, _ in CWindow._fields_))
            run(ctypes.byref(layer), ctypes.byref(window), address(x), sizes["images"], address(y))
        np.testing.assert_allclose(y, exact.numpy(), rtol=1e-5, atol=1e-5)


@needs_nvcc
def test_types_and_tactics(plugins: Plugins) -> None:
    linear, added = "sparsefx::CondensedLinear_plugin", "sparsefx::CondensedLinear_plugin_Add"
    combined = "FP32|FP16|BF16"
    types = ", ".join([combined, combined, "INT32", "INT32", combined, combined])
    assert [c.given for c in plugins.tuned[linear]()] == [(types, "LINEAR", [1, 2])]
    assert [c.given for c in plugins.tuned[added]()] == [(f"{types}, {combined}", "LINEAR", [1, 2])]
    for dtype, kernel in (("f32", "float32"), ("f16", "float16"), ("b16", "bfloat16")):
        given = [Description(shape, dtype) for shape in ((5, 8), (9,), (9,), (4,), (3,))]
        name, _, launch, numbers = plugins.launched[linear](*given, 1, [given[0]], 2)
        assert name == f"sparsefx_linear_many_{kernel}" and numbers == [5, 8, 3, 1]
        assert (launch.grid_x, launch.grid_y) == (1, 1)


def test_the_file_names_the_plugins(model: Any) -> None:
    nodes = [node for node in model.onnx.graph.node if node.domain == "sparsefx"]
    assert [node.op_type for node in nodes] == [
        "CondensedConv2d_plugin",
        "CondensedConv2d_plugin_Add",
        "CondensedLinear_plugin",
        "CondensedLinear_plugin_Add",
    ]
    for node in nodes:
        told = {a.name: a for a in node.attribute}
        assert told["plugin_namespace"].s == b"sparsefx" and told["plugin_version"].s == b"1"
    assert not model.onnx.functions


def test_a_window_that_is_too_large_is_refused(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Conv2d(1, 2, (64, 1))).eval()
    compiled = sparsefx.compile(net, (torch.randn(1, 1, 70, 3),), target="torch")
    Condense(lambda _: True)(compiled.graph_module)
    with pytest.raises(TargetError, match=r"a window of 64 x 1 has no kernel; .* keep it dense"):
        lower_to_onnx(compiled.graph_module, compiled.signature, tmp_path, plugin_nodes.complete)

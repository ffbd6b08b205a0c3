"""Condensed layers in ONNX files: by the kernels, by the functions' bodies, and from files that are not ours."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.fx import GraphModule
from torch.nn import functional as F

import sparsefx
from sparsefx.passes.condense import Condense
from sparsefx.passes.errors import TargetError
from sparsefx.passes.operators import compressed_rows
from sparsefx.runtime import custom_op_library
from sparsefx.runtime.onnxruntime.condensed import to_gaps
from sparsefx.runtime.onnxruntime.lower import lower_to_onnx
from sparsefx.runtime.onnxruntime.session import OnnxRuntimeSession

from .needs import needs_compiler

pytestmark = needs_compiler


class Net(nn.Module):
    """A sparse layer, and what is done with its result."""

    def __init__(self, layer: nn.Module, then: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.layer, self.then = layer, then

    def forward(self, x: Tensor) -> Tensor:
        return self.then(self.layer(x), x)


THEN: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "": lambda y, x: y,
    "Relu": lambda y, x: torch.relu(y),
    "Add": lambda y, x: y + x,
    "AddRelu": lambda y, x: torch.relu(y + x),
}
GELU: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "Gelu": lambda y, x: F.gelu(y),
    "AddGelu": lambda y, x: F.gelu(x + y),
}
LAYERS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "CondensedLinear": (lambda: nn.Linear(40, 40), (7, 40)),
    "CondensedConv2d": (lambda: nn.Conv2d(12, 12, 3, padding=1, groups=2, bias=False), (12, 10, 9)),
}


def condensed_file(net: nn.Module, x: Tensor, folder: Path) -> Path:
    compiled = sparsefx.compile(net.eval(), (x,), target="torch", verify=False)
    graph: GraphModule = compiled.graph_module
    assert Condense()(graph).modified
    return lower_to_onnx(graph, compiled.signature, folder)


def pruned(layer: nn.Module, density: float = 0.2) -> nn.Module:
    torch.manual_seed(0)
    with torch.no_grad():
        layer.weight.mul_(torch.rand(layer.weight.shape) < density)
    return layer


@pytest.mark.parametrize(
    ("layer", "then"), [*itertools.product(LAYERS, THEN), *itertools.product(["CondensedLinear"], GELU)]
)
def test_kernels_and_bodies_compute_the_same(layer: str, then: str, tmp_path: Path) -> None:
    make, shape = LAYERS[layer]
    net = Net(pruned(make()), (THEN | GELU)[then])
    file = condensed_file(net, torch.randn(2, *shape), tmp_path)
    model = onnx.load(str(file))
    onnx.checker.check_model(model, full_check=True)
    assert [node.op_type for node in model.graph.node if node.domain == "sparsefx"] == [layer + then]
    net.double()
    for library in (custom_op_library(), None):
        for threads in (1, 2):
            session = OnnxRuntimeSession(file, threads, library)
            assert session.settings()["custom_operators"] == (library.name if library else None)
            for batch in (1, 3, 9):
                x = torch.randn(batch, *shape)
                with torch.no_grad():
                    exact = net(x.double()).numpy()
                np.testing.assert_allclose(session.run([x.numpy()])[0], exact, rtol=0, atol=2e-6)


class Residuals(nn.Module):
    """Residuals that nobody needs afterwards, that the layer itself reads too, and that are read again."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(pruned(nn.Conv2d(channels, channels, 3, padding=1)) for _ in range(5))

    def forward(self, x: Tensor) -> Tensor:
        first, second, itself, again, last = self.layers
        a = torch.relu(first(x))
        b = torch.relu(second(torch.sigmoid(a)) + a)
        c = itself(b) + b
        d = again(torch.sigmoid(c)) + c
        y: Tensor = last(torch.sigmoid(d)) + d + c
        return y


@pytest.mark.parametrize("channels", [8, 7])  # a kernel takes two of them at a time
@pytest.mark.parametrize("threads", [1, 2])
def test_results_in_place_of_residuals(threads: int, channels: int, tmp_path: Path) -> None:
    net = Residuals(channels).eval()
    file = condensed_file(net, torch.randn(2, channels, 20, 20), tmp_path)
    session = OnnxRuntimeSession(file, threads, custom_op_library())
    net.double()
    for batch in (1, 3):
        x = torch.randn(batch, channels, 20, 20)
        with torch.no_grad():
            exact = net(x.double()).numpy()
        for _ in range(3):
            np.testing.assert_allclose(session.run([x.numpy()])[0], exact, rtol=0, atol=5e-6)


def test_the_library_is_what_runs(tmp_path: Path) -> None:
    """Without its function a node can only be run by the library."""
    file = condensed_file(Net(pruned(nn.Linear(40, 40)), THEN["Relu"]), torch.randn(2, 40), tmp_path)
    model = onnx.load(str(file))
    del model.functions[:]
    onnx.save(model, str(file))
    x = np.ones((2, 40), np.float32)
    assert OnnxRuntimeSession(file, 1, custom_op_library()).run([x])[0].shape == (2, 40)
    with pytest.raises(TargetError, match="CondensedLinearRelu"):
        OnnxRuntimeSession(file, 1)


def test_a_file_is_small_and_its_body_becomes_dense(tmp_path: Path) -> None:
    file = condensed_file(nn.Sequential(pruned(nn.Linear(512, 512), 0.05)), torch.randn(2, 512), tmp_path)
    assert file.stat().st_size < 512 * 512 * 0.05 * 5 + 10_000  # five bytes a non-zero
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    assert [n.op_type for n in onnx.load(str(tmp_path / "optimised.onnx")).graph.node] == ["Gemm"]


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 30), st.integers(1, 700), st.sampled_from([0.0, 0.001, 0.01, 0.3, 1.0]), st.integers(0, 9))
def test_gaps_lead_back_to_the_weight(rows: int, columns: int, density: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(rows, columns, generator=generator) * (
        torch.rand(rows, columns, generator=generator) < density
    )
    kept, places, starts = (t.numpy() for t in compressed_rows(weight))
    values, gaps = to_gaps(kept, places, starts, [rows, columns])
    flat = np.zeros(rows * columns, np.float32)
    flat[np.cumsum(gaps.astype(np.int64)) - 1] = values
    assert np.array_equal(flat.reshape(rows, columns), weight.numpy())
    assert gaps.min() >= 1 and len(values) == len(gaps) <= 1 + weight.count_nonzero() + rows * columns // 255


def tampered(folder: Path, change: Callable[[Any], None]) -> Path:
    """A file whose only condensed node, or its constants, somebody has changed."""
    file = condensed_file(Net(pruned(nn.Conv2d(4, 6, 3)), THEN[""]), torch.randn(2, 4, 6, 6), folder)
    model = onnx.load(str(file))
    del model.functions[:]
    change(model)
    onnx.save(model, str(file))
    return file


def constant(suffix: str, edit: Callable[[Any], Any]) -> Callable[[Any], None]:
    def change(model: Any) -> None:
        tensor = next(t for t in model.graph.initializer if t.name.endswith(suffix))
        tensor.CopyFrom(onnx.numpy_helper.from_array(edit(onnx.numpy_helper.to_array(tensor).copy()), tensor.name))

    return change


def attribute(name: str, value: Any) -> Callable[[Any], None]:
    def change(model: Any) -> None:
        node = next(n for n in model.graph.node if n.domain == "sparsefx")
        kept = [a for a in node.attribute if a.name != name]
        del node.attribute[:]
        node.attribute.extend([*kept, *([] if value is None else [onnx.helper.make_attribute(name, value)])])

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (constant("gaps", lambda gaps: np.full_like(gaps, 255)), "gaps lead out of the weight"),
        (constant("gaps", lambda gaps: gaps * 0), "gaps lead out of the weight"),
        (constant("gaps", lambda gaps: gaps[:-1]), "not as many gaps as values"),
        (constant("bias", lambda bias: bias[:-1]), "the bias does not fit the outputs"),
        (attribute("shape", [6, 4, 3]), "shape has the wrong length"),
        (attribute("shape", [6, 4, 0, 3]), "shape is out of range"),
        (attribute("shape", [6, 2**31 - 1, 2**31 - 1, 3]), "the weight is too large"),
        (attribute("shape", None), "attribute shape: "),
        (attribute("group", 4), "group does not fit"),
        (attribute("strides", [0, 1]), "strides, pads or dilations are out of range"),
        (attribute("pads", [1, 1]), "strides, pads or dilations do not fit"),
    ],
)
def test_a_file_that_makes_no_sense_is_refused(change: Callable[[Any], None], message: str, tmp_path: Path) -> None:
    with pytest.raises(TargetError, match=f"sparsefx: node '.*': .*{message}"):
        OnnxRuntimeSession(tampered(tmp_path, change), 1, custom_op_library())


def test_inputs_that_do_not_fit(tmp_path: Path) -> None:
    def any_input(model: Any) -> None:
        del model.graph.input[0].type.tensor_type.shape.dim[:]
        model.graph.input[0].type.tensor_type.ClearField("shape")
        del model.graph.value_info[:]

    session = OnnxRuntimeSession(tampered(tmp_path, any_input), 1, custom_op_library())
    for shape, message in (
        ((1, 5, 6, 6), "images of 4 channels"),
        ((1, 4, 2, 6), "smaller than the kernel"),
        ((4,), "images"),
    ):
        with pytest.raises(Exception, match=f"sparsefx: node .*{message}"):
            session.run([np.zeros(shape, np.float32)])
    assert session.run([np.zeros((1, 4, 6, 6), np.float32)])[0].shape == (1, 6, 4, 4)


@pytest.mark.parametrize("then", THEN)
def test_a_session_that_stores_bfloat16(then: str, tmp_path: Path) -> None:
    """Linear layers multiply with rounded weights, by lookups (7 vectors) and by tiles (21) alike."""
    net = Net(nn.Sequential(pruned(nn.Linear(40, 40))), THEN[then])
    file = condensed_file(net, torch.randn(2, 7, 40), tmp_path)
    with torch.no_grad():
        net.layer[0].weight.copy_(net.layer[0].weight.bfloat16())
    net.double()
    for threads, batch in itertools.product((1, 2), (1, 3)):
        session = OnnxRuntimeSession(file, threads, custom_op_library(), precision="bfloat16")
        assert session.settings()["precision"] == "bfloat16"
        x = torch.randn(batch, 7, 40)
        with torch.no_grad():
            exact = net(x.double()).numpy()
        np.testing.assert_allclose(session.run([x.numpy()])[0], exact, rtol=0, atol=2e-6)


def test_convolutions_keep_float32(tmp_path: Path) -> None:
    net = Net(pruned(nn.Conv2d(4, 6, 3)), THEN[""])
    file, x = condensed_file(net, torch.randn(2, 4, 6, 6), tmp_path), np.ones((1, 4, 6, 6), np.float32)
    first, second = (
        OnnxRuntimeSession(file, 1, custom_op_library(), precision=precision).run([x])[0]
        for precision in ("float32", "bfloat16")
    )
    assert np.array_equal(first, second)


def test_a_precision_that_cannot_be(tmp_path: Path) -> None:
    file = condensed_file(nn.Sequential(pruned(nn.Linear(40, 40))), torch.randn(2, 40), tmp_path)
    with pytest.raises(TargetError, match="precision 'bfloat16' needs custom_operators"):
        OnnxRuntimeSession(file, 1, precision="bfloat16")
    with pytest.raises(TargetError, match=r"sparsefx\.precision must be float32 or bfloat16, found int4"):
        OnnxRuntimeSession(file, 1, custom_op_library(), precision="int4")


def test_a_setting_that_is_no_number() -> None:
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("sparsefx.threads", "many")
    with pytest.raises(Exception, match=r"sparsefx\.threads must be a positive number, found many"):
        options.register_custom_ops_library(str(custom_op_library()))


def test_nodes_say_what_the_session_does_not(tmp_path: Path) -> None:
    """Attributes `threads` and `bfloat16`, as written for hosts that hand no settings over; settings come first."""
    file = condensed_file(nn.Sequential(pruned(nn.Linear(40, 40))), torch.randn(2, 40), tmp_path)
    model = onnx.load(str(file))
    x = np.random.default_rng(0).standard_normal((2, 40)).astype(np.float32)

    def run(settings: dict[str, str], **attributes: int) -> Any:
        changed = onnx.ModelProto()
        changed.CopyFrom(model)
        for name, value in attributes.items():
            changed.graph.node[0].attribute.append(onnx.helper.make_attribute(name, value))
        onnx.checker.check_model(changed)
        options = onnxruntime.SessionOptions()
        for name, text in settings.items():
            options.add_session_config_entry(f"sparsefx.{name}", text)
        options.register_custom_ops_library(str(custom_op_library()))
        session = onnxruntime.InferenceSession(changed.SerializeToString(), options, providers=["CPUExecutionProvider"])
        return session.run(None, {session.get_inputs()[0].name: x})[0]

    exact, rounded = run({"precision": "float32"}), run({"precision": "bfloat16"})
    assert not np.array_equal(exact, rounded)
    assert np.array_equal(run({}), exact)
    assert np.array_equal(run({}, threads=2), exact)
    assert np.array_equal(run({}, bfloat16=1), rounded)
    assert np.array_equal(run({"precision": "float32"}, bfloat16=1), exact)
    assert np.array_equal(run({"precision": "bfloat16"}, bfloat16=0), rounded)
    with pytest.raises(Exception, match="attribute threads must be a positive number"):
        run({}, threads=0)
    assert np.array_equal(run({"threads": "1"}, threads=0), exact)

"""Graphs go to files and back, and into another precision, and stay what they were."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from sparsefx.compiler.compile import compile
from sparsefx.passes.condense import Condense
from sparsefx.passes.errors import TargetError
from sparsefx.runtime.onnxruntime.lower import flatten_signature
from sparsefx.runtime.pytorch.graph_file import CONSTANTS_FILE, GRAPH_FILE, read_graph, write_graph
from sparsefx.runtime.pytorch.precision import in_precision
from sparsefx.runtime.pytorch.session import TorchSession

CPU = torch.device("cpu")


class Net(nn.Module):
    """Layers, sizes computed from sizes, several outputs of which two are the same, a constant and an input."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.block = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 16, 1)
        self.up, self.norm = nn.Linear(16, 40), nn.LayerNorm(16)
        self.register_buffer("scale", torch.arange(1.0, 5.0))

    def forward(self, x: Tensor, ids: Tensor) -> dict[str, Tensor]:
        y = torch.relu(self.block(torch.relu(self.stem(x))))
        tokens = self.norm(y.flatten(2).transpose(1, 2))
        parts = tokens.split(8, dim=-1)
        up = nn.functional.gelu(self.up(tokens)).reshape(x.shape[0], -1)
        mean = tokens.to(torch.float32).mean(1)
        return {"up": up, "again": up, "part": parts[1] * 2, "mean": mean, "scale": self.scale, "x": x, "ids": ids + 1}


def network() -> nn.Module:
    torch.manual_seed(0)
    net = Net().eval()
    with torch.no_grad():
        for layer in (net.stem, net.block, net.up):
            layer.weight.mul_(torch.rand(layer.weight.shape) < 0.2)
    return net


INPUTS = (torch.linspace(-1, 1, 2 * 3 * 64).reshape(2, 3, 8, 8), torch.tensor([3, 4]))


@pytest.fixture(scope="module")
def captured() -> Any:
    compiled = compile(network(), INPUTS, target="torch")
    graph = compiled.graph_module
    Condense()(graph)
    return graph


def flat_results(graph: Any) -> list[Tensor]:
    with torch.no_grad():
        return list(graph(*INPUTS))


def test_a_graph_comes_back_from_its_files(captured: Any, tmp_path: Path) -> None:
    flat = flatten_signature(captured)
    assert any("condensed" in str(node.target) for node in flat.graph.nodes)
    write_graph(flat, tmp_path)
    again = read_graph(tmp_path, CPU)
    for found, exact in zip(flat_results(again), flat_results(flat), strict=True):
        assert torch.equal(found, exact)
    with torch.no_grad():
        x = torch.randn(5, 3, 8, 8)
        assert again(x, torch.zeros(5, dtype=torch.int64))[0].shape == (5, 64 * 40)


@pytest.mark.parametrize(("precision", "error"), [("fp16", 2e-2), ("bf16", 1e-1), ("fp32", 0.0)])
def test_another_precision(captured: Any, precision: str, error: float, tmp_path: Path) -> None:
    exact = flat_results(flatten_signature(captured))
    converted = flatten_signature(in_precision(captured, precision))
    write_graph(converted, tmp_path)
    constants = {t.dtype for t in read_graph(tmp_path, CPU).buffers() if t.is_floating_point()}
    assert constants == {{"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}[precision]}
    found = flat_results(converted)
    assert [f.dtype for f in found] == [e.dtype for e in exact]
    differences = [float((f.double() - e.double()).abs().max()) for f, e in zip(found, exact, strict=True)]
    assert max(differences) <= error and (error == 0) is (max(differences) == 0)
    assert torch.equal(found[-2], INPUTS[0])  # an input that is handed back
    for ours, before in zip(flat_results(flatten_signature(captured)), exact, strict=True):
        assert torch.equal(ours, before)  # the graph itself is as it was


def test_a_session_on_the_cpu(captured: Any) -> None:
    flat = flatten_signature(captured)
    session = TorchSession(flat, CPU)
    arrays = [tensor.numpy() for tensor in INPUTS]
    for found, exact in zip(session.run(arrays), flat_results(flat), strict=True):
        np.testing.assert_array_equal(found, exact.numpy())
    session.prepare(arrays)()
    assert session.settings() == {"device": "cpu", "threads": None, "cuda_graphs": False}


def change(folder: Path, edit: Callable[[Any], object]) -> None:
    described = json.loads((folder / GRAPH_FILE).read_text())
    edit(described)
    (folder / GRAPH_FILE).write_text(json.dumps(described))


def _call(described: Any, target: str) -> None:
    next(row for row in described["nodes"] if row["op"] == "call_function")["target"] = target


HOSTILE: dict[str, tuple[Callable[[Any], object], str]] = {
    "another library": (lambda d: _call(d, "os::system.default"), r"calls os::system.default; only ATen's operators"),
    "a file": (lambda d: _call(d, "aten::from_file.default"), r"calls aten::from_file.default; only ATen's"),
    "a built-in": (lambda d: _call(d, "eval"), r"calls eval; only ATen's operators and ours are run"),
    "no such operator": (lambda d: _call(d, "aten::nothing.default"), r"cannot be read: AttributeError"),
    "newer": (lambda d: d.update(schema=99), r"cannot be read: ValueError: schema 99, this version reads 1"),
    "a lost constant": (lambda d: d["nodes"].insert(0, {"op": "get_attr", "name": "q", "target": "q"}), "q is missing"),
    "a method": (lambda d: d["nodes"][0].update(op="call_method"), r"unknown kind of node 'call_method'"),
    "a lost node": (lambda d: d["nodes"].pop(0), r"cannot be read: KeyError"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_file_that_is_not_ours(name: str, captured: Any, tmp_path: Path) -> None:
    write_graph(flatten_signature(captured), tmp_path)
    edit, message = HOSTILE[name]
    change(tmp_path, edit)
    with pytest.raises(TargetError, match=message):
        read_graph(tmp_path, CPU)


def test_constants_that_cannot_be_read(captured: Any, tmp_path: Path) -> None:
    write_graph(flatten_signature(captured), tmp_path)
    (tmp_path / CONSTANTS_FILE).write_bytes(b"nothing")
    with pytest.raises(TargetError, match=r"cannot be read: SafetensorError"):
        read_graph(tmp_path, CPU)


def test_what_cannot_be_saved(captured: Any, tmp_path: Path) -> None:
    flat = flatten_signature(captured)
    node = next(node for node in flat.graph.nodes if node.op == "call_function")
    node.target = len
    with pytest.raises(TargetError, match=rf"node {node.name} calls <built-in function len>, which cannot be saved"):
        write_graph(flat, tmp_path)

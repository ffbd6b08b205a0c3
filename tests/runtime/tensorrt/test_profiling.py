"""Latency tables of TensorRT's engines with a stand-in: what it tells is computed from the widths, and read for real.

Building, running and the times are the stand-in's; names, metadata and sizes go through what reads those of TensorRT.
Nothing here shows that TensorRT tells what the stand-in does: that needs a GPU.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import onnx
import pytest
from torch import nn

import sparsefx
from sparsefx.compiler.candidates import find_candidates
from sparsefx.compiler.masked_model import keep_graph
from sparsefx.passes.condense import Condense
from sparsefx.passes.errors import TargetError
from sparsefx.runtime.latency import undisturbed
from sparsefx.runtime.latency.prepared import prepared_with
from sparsefx.runtime.latency.table import LatencyTable
from sparsefx.runtime.nvidia import Gpu
from sparsefx.runtime.tensorrt import profiling as profiling_module
from sparsefx.runtime.tensorrt import session as session_module
from sparsefx.runtime.tensorrt.builder import run_job as run_job_for_real
from sparsefx.runtime.tensorrt.by_table import time_by_table
from sparsefx.runtime.tensorrt.drivers import FAMILIES, Driver, TensorRTRTX
from sparsefx.runtime.tensorrt.engine_layers import EngineLayer, NodeGraph, layer_called, read_layers
from sparsefx.runtime.tensorrt.job import Job, Outcome, Plan
from tests.runtime.latency.helpers import Residual, image

from .nets import sparse_net
from .test_session import RuntimeConfig, fake_torch

GRID = (1.0, 0.6, 0.3)
OVERHEAD = 1e-6  # between two layers
REFORMAT = "Reformatting CopyNode for Input Tensor 0 to node"


def layer_seconds(c_in: int, c_out: int) -> float:
    return 1e-5 + 2e-8 * c_in + 3e-8 * c_out + 1e-9 * c_in * c_out


def condensed_seconds(outputs: int, fan_in: int) -> float:
    return 1e-6 * outputs + 1e-7 * fan_in


class Clock:
    """Time goes by where an engine runs, and nowhere else."""

    now = 0.0

    def __call__(self) -> float:
        self.now += 1e-9
        return self.now


def fused(model: Any) -> list[list[Any]]:
    """The nodes of a model as TensorRT fuses them: what follows a convolution point by point joins it."""
    constants = {tensor.name for tensor in model.graph.initializer}
    groups: list[list[Any]] = []
    tip: dict[str, list[Any]] = {}  # last value of every convolution's group
    for node in model.graph.node:
        before = [tip.pop(name) for name in node.input if name in tip] if node.op_type in ("Relu", "Add") else []
        group = max(before, key=groups.index, default=None)
        if group is None:
            group = []
            groups.append(group)
        group.append(node)
        if node.op_type in ("Conv", "Relu", "Add") and group[0].op_type == "Conv":
            tip[node.output[0]] = group
    return [group for group in groups if not set(group[0].input) <= constants]


def told(model: Any) -> tuple[list[dict[str, Any]], dict[str, float]]:
    """What the inspector tells of an engine's layers, and what each of them takes."""
    known = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    shapes = {v.name: [d.dim_value for d in v.type.tensor_type.shape.dim] for v in (*known.value_info, *known.output)}
    weights = {tensor.name: tensor.dims for tensor in model.graph.initializer}
    layers: list[dict[str, Any]] = [
        {
            "Name": REFORMAT,
            "LayerType": "Reformat",
            "Inputs": [{"Name": "x", "Dimensions": [1, 3, 16, 16], "Format/Datatype": "Row major linear FP32"}],
            "Outputs": [{"Name": "x_", "Dimensions": [1, 3, 16, 16], "Format/Datatype": "Channel major FP32"}],
            "Metadata": "",
        }
    ]
    seconds = {REFORMAT: 2e-6}
    for group in fused(model):
        name = " + ".join(node.name for node in group)
        if group[0].domain:
            layers += in_parts(group[0])
            seconds |= {layer["Name"]: condensed_seconds(*weights[group[0].input[1]]) / 2 for layer in layers[-2:]}
            continue
        main = next((node for node in group if node.op_type in ("Conv", "Gemm", "MatMul")), None)
        metadata = "\x1f".join(f"[ONNX Layer: {node.name}]" for node in group)
        layers.append({"Name": name, "LayerType": "CaskConvolution" if main else "kgen", "Metadata": metadata})
        if main is None:
            seconds[name] = 1e-6 + 1e-9 * math.prod(shapes[group[-1].output[0]])
            continue
        outputs, inputs = weights[main.input[1]][:2]
        seconds[name] = layer_seconds(inputs, outputs)
    return layers, seconds


def in_parts(node: Any) -> list[dict[str, Any]]:
    """A condensed layer in two parts, with metadata as TensorRT-RTX's parser writes it for nodes inside functions."""
    call = f"{node.name} ({node.op_type})"
    return [
        {
            "Name": f"{node.name}-{inner}",
            "LayerType": "kgen",
            "Metadata": f"[ONNX Layer: node_of_{inner} | {call}]\x1f[ONNX Layer: node_of_{inner}_ | {call}]",
        }
        for inner in ("here", "sums")
    ]


class Context:
    """Tells its profiler what the plan says; the outputs stay as they are."""

    profiler: Any = None

    def __init__(self, plan: dict[str, Any], clock: Clock) -> None:
        self.plan, self.clock = plan, clock

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        return list(shape) == self.plan["shapes"][name]

    def set_tensor_address(self, name: str, address: int) -> None:
        assert name in self.plan["shapes"]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return tuple(self.plan["shapes"][name])

    def execute_async_v3(self, stream: int) -> bool:
        for name, seconds in self.plan["seconds"].items():
            self.clock.now += seconds + OVERHEAD
            if self.profiler is not None:
                self.profiler.report_layer_time(name, seconds * 1e3)
        return True


def fake_tensorrt(clock: Clock) -> Any:
    def deserialize(data: bytes) -> Any:
        plan = json.loads(data)
        inspector = SimpleNamespace(get_engine_information=lambda form: json.dumps({"Layers": plan["layers"]}))
        return SimpleNamespace(
            num_io_tensors=len(plan["shapes"]),
            get_tensor_name=lambda i: list(plan["shapes"])[i],
            get_tensor_dtype=lambda name: SimpleNamespace(name="FLOAT"),
            create_engine_inspector=lambda: inspector,
            create_runtime_config=RuntimeConfig,
            create_execution_context=lambda *config: Context(plan, clock),
        )

    return SimpleNamespace(
        __version__="11.4.0",
        Runtime=lambda logger: SimpleNamespace(deserialize_cuda_engine=deserialize),
        Logger=type("Logger", (), {"ERROR": 1, "__init__": lambda self, severity: None}),
        IProfiler=type("IProfiler", (), {}),
        LayerInformationFormat=SimpleNamespace(JSON="JSON"),
    )


@pytest.fixture
def jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Job]:
    """A machine with an L4, on which the builder writes down what the engine will tell; the jobs it got."""
    clock, kept = Clock(), list[Job]()

    def run_job(job: Job) -> Outcome:
        kept.append(job)
        model = onnx.load(job.model)
        values = (*model.graph.input, *model.graph.output)
        shapes = {v.name: [d.dim_value for d in v.type.tensor_type.shape.dim] for v in values}
        known = onnx.shape_inference.infer_shapes(model).graph.output
        shapes |= {v.name: [d.dim_value for d in v.type.tensor_type.shape.dim] for v in known}
        layers, seconds = told(model)
        Path(job.plans[0].file).write_text(json.dumps({"shapes": shapes, "layers": layers, "seconds": seconds}))
        return Outcome("done")

    def driver(backend: str) -> Driver:
        kind = TensorRTRTX if backend == "tensorrt-rtx" else Driver
        return kind(FAMILIES[backend], fake_tensorrt(clock))

    monkeypatch.setattr(profiling_module, "run_job", run_job)
    monkeypatch.setattr(profiling_module, "find_driver", driver)
    monkeypatch.setattr(session_module, "find_driver", driver)
    monkeypatch.setattr(session_module, "find_gpu", lambda: Gpu("NVIDIA L4", "sm89"))
    monkeypatch.setattr(session_module, "_torch_with_cuda", lambda target: fake_torch())
    monkeypatch.setattr(session_module, "cache_folder", lambda: tmp_path / "cache")
    fake_time = SimpleNamespace(perf_counter=clock, thread_time=clock, process_time=clock)
    monkeypatch.setattr(undisturbed, "time", fake_time)
    return kept


@pytest.mark.parametrize("target", [pytest.param("tensorrt:sm89", marks=pytest.mark.ci), "tensorrt-rtx:sm89"])
def test_a_table_foretells_what_the_layers_take(target: str, jobs: list[Job], tmp_path: Path) -> None:
    model = Residual().eval()
    table = sparsefx.profile(model, (image(),), target=target, grid=GRID, path=tmp_path / "table")
    loaded = LatencyTable.load(tmp_path / "table")
    setting = loaded.setting
    name = "TensorRT-RTX" if "rtx" in target else "TensorRT"
    assert (setting.target, setting.device, setting.engine) == (target, "NVIDIA L4", f"{name} 11.4.0")
    assert (setting.threads, setting.precision, setting.weights) == (0, "fp32", "warm")
    assert set(loaded.layers) == {"stem", "first", "second", "depthwise", "point", "head"}
    for layer, c_in, c_out in [("first", 12, 20), ("second", 20, 12), ("point", 12, 20)]:
        assert loaded.cost(layer, c_in, c_out) == pytest.approx(1e3 * layer_seconds(c_in, c_out), rel=0.05)
    assert loaded.cost("depthwise", 12, 12) == pytest.approx(1e3 * layer_seconds(1, 12), rel=0.05)
    assert loaded.overhead == pytest.approx(OVERHEAD, rel=0.05)
    last = table.records[-1]
    assert last.whole == pytest.approx(sum(t.seconds + OVERHEAD for t in last.nodes), rel=1e-3)
    foretold = table.predict_widths(model, {"first": 20, "point": 20})
    exact = 0.0
    for inputs, outputs in [(3, 16), (16, 20), (20, 16), (1, 16), (16, 20), (20, 5)]:
        exact += layer_seconds(inputs, outputs)
    assert foretold == pytest.approx(1e3 * exact, rel=0.2) and foretold > 1e3 * exact  # a mean, a reformat, overhead
    assert all(job.detailed and not job.shapes and job.backend == target.partition(":")[0] for job in jobs)


@pytest.mark.ci
def test_fused_layers_count_for_their_main_operator(jobs: list[Job]) -> None:
    table = sparsefx.profile(Residual().eval(), (image(),), target="tensorrt:sm89", time_limit=0.0, grid=(1.0, 0.5))
    (record,) = table.records
    nodes = {timed.node.layer: timed.node for timed in record.nodes if timed.node.layer is not None}
    assert nodes["second"].channels == (24, 16) and nodes["second"].key.startswith("Conv+Add+Relu, ")
    assert "kernel_shape 3x3" in nodes["second"].key and "1x16x16 to 1x16x16" in nodes["second"].key
    assert "depthwise" in nodes["depthwise"].key and nodes["depthwise"].width == (16, 16)
    assert nodes["head"].width == (32, 5) and nodes["head"].name.startswith("node_")
    (reformat,) = (timed.node for timed in record.nodes if timed.node.name == REFORMAT)
    assert reformat.key == "Reformat, Row major linear FP32 to Channel major FP32" and reformat.width == (768, 768)


def test_a_table_of_another_precision(jobs: list[Job]) -> None:
    table = sparsefx.profile(
        Residual().eval(), (image(),), target="tensorrt:sm89", precision="fp16", time_limit=0.0, grid=(1.0, 0.5)
    )
    assert table.setting.precision == "fp16" and jobs[-1].model.endswith("fp16.onnx")
    assert {node.layer for node in (t.node for t in table.records[0].nodes)} >= {"stem", "first", "head"}


@pytest.mark.ci
def test_condensed_layers_join_a_table_and_are_foretold_by_it(jobs: list[Job]) -> None:
    """What a machine with the GPU measures is what one without it asks for."""
    target, model, x = "tensorrt-rtx:sm89", sparse_net(), image()
    table = sparsefx.profile(model, (x,), target=target, time_limit=0.0, grid=(1.0, 0.5))
    graph = prepared_with(model, (x,))
    candidates = find_candidates(graph, (x,), "condensed")
    assert [c.name for c in candidates] == ["stem", "down", "block", "up", "back"]
    assert [time_by_table(c.name, c.form, table) for c in candidates] == [None] * 5
    condensed = keep_graph(graph)
    Condense(lambda layer: True)(condensed)
    table.predict(condensed, missing="measure")
    for c in candidates:
        found, (outputs, inputs) = time_by_table(c.name, c.form, table), c.form.weight.shape[:2]
        fan_in = int((c.form.weight != 0).reshape(outputs, -1).sum(1).max())
        assert found is not None
        assert found.condensed == pytest.approx(condensed_seconds(outputs, fan_in))
        assert found.dense == pytest.approx(layer_seconds(inputs, outputs), rel=0.05)


def test_weights_are_never_cold_on_a_gpu(jobs: list[Job]) -> None:
    with pytest.raises(TargetError, match="weights are warm in tables of tensorrt:sm89, found 'cold'"):
        sparsefx.profile(Residual(), (image(),), target="tensorrt:sm89", weights="cold")


def test_layers_of_which_names_alone_are_known() -> None:
    layers = read_layers(json.dumps({"Layers": ["conv + relu", "other"]}))
    assert (
        layers["conv + relu"]
        == layer_called("conv + relu")
        == EngineLayer("conv + relu", "layer", ("conv", "relu"), (0, 0), "")
    )
    made = onnx.parser.parse_model(
        """
        <ir_version: 9, opset_import: ["": 20]>
        net (float[1, 3, 8, 8] x) => (float[1, 4, 8, 8] y) <float[4, 3, 1, 1] w = {}> { c = Conv(x, w) y = Relu(c) }
        """.replace("{}", "{" + ",".join(["1"] * 12) + "}")
    )
    made.graph.node[0].name, made.graph.node[1].name = "conv", "relu"
    graph = NodeGraph(made, {"conv": "first"})
    node = graph.describe(layers["conv + relu"])
    assert (node.layer, node.width, node.channels) == ("first", (3, 4), (3, 4))
    assert graph.describe(layers["other"]).key == "layer, "


def test_an_engine_with_details_builds(tmp_path: Path) -> None:
    """The one thing here that is TensorRT-RTX's own."""
    pytest.importorskip("tensorrt_rtx")
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU()).eval()
    built = sparsefx.compile(model, (image(),), target="onnxruntime:cpu", verify=False).build
    plan = Plan(str(tmp_path / "model.engine"), ("sm89",))
    shapes = {"input": ((1, 3, 16, 16),) * 3}
    assert run_job_for_real(Job("tensorrt-rtx", str(built.model), (plan,), shapes, detailed=True)).stage == "done"

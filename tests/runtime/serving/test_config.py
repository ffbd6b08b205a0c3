"""Configurations against the server's documented schema."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from sparsefx.passes.errors import TargetError
from sparsefx.passes.signature import Signature, TensorSpec, Tree
from sparsefx.runtime.serving.config import Backend, Served, config_text, model_config
from sparsefx.runtime.serving.datatypes import PROTOCOL
from sparsefx.runtime.serving.options import ServingOptions
from sparsefx.runtime.serving.pbtxt import Symbol, entries, to_pbtxt

from .schema import kind_name, needs_schema, parse, type_name

CPU, GPU = Backend("onnxruntime"), Backend("tensorrt", on_gpu=True)


def signature(inputs: list[TensorSpec], outputs: list[TensorSpec]) -> Signature:
    arguments = tuple((spec.name, Tree("tensor", index=i)) for i, spec in enumerate(inputs))
    result = Tree("tuple", items=tuple(Tree("tensor", index=i) for i in range(len(outputs))))
    return Signature(tuple(inputs), tuple(outputs), arguments, len(inputs), result)


IMAGES = signature(
    [TensorSpec("x", "float32", ("batch", 3, "height", 224))], [TensorSpec("logits", "float32", ("batch", 10))]
)
SCALED = signature(
    [TensorSpec("x", "float32", ("batch", 4)), TensorSpec("scale", "int64", ("batch",))],
    [TensorSpec("y", "float32", ("batch",))],
)
FIXED = signature([TensorSpec("x", "float32", (2, 4))], [TensorSpec("y", "float32", ())])


def served(of: Signature, backend: Backend = CPU, **more: Any) -> Served:
    return Served("net", of, backend, **more)


def config(model: Served, **options: Any) -> tuple[Any, list[str]]:
    """As the server reads it, and the notes."""
    message, notes = model_config(model, ServingOptions(**options))
    return parse(config_text(message)), notes


@needs_schema
def test_a_batched_model() -> None:
    found, notes = config(
        served(IMAGES, threads=3),
        max_batch_size=16,
        preferred_batch_sizes=(8, 16),
        max_queue_delay_us=500,
        instances=2,
        sizes={"height": 32},
    )
    assert notes == []
    assert (found.name, found.backend, found.max_batch_size) == ("net", "onnxruntime", 16)
    assert [(t.name, type_name(t.data_type), list(t.dims)) for t in found.input] == [("x", "TYPE_FP32", [3, -1, 224])]
    assert [(t.name, type_name(t.data_type), list(t.dims)) for t in found.output] == [("logits", "TYPE_FP32", [10])]
    assert list(found.dynamic_batching.preferred_batch_size) == [8, 16]
    assert found.dynamic_batching.max_queue_delay_microseconds == 500
    assert [(group.count, kind_name(group.kind)) for group in found.instance_group] == [(2, "KIND_CPU")]
    assert {name: value.string_value for name, value in found.parameters.items()} == {
        "execution_mode": "0", "inter_op_thread_count": "1", "intra_op_thread_count": "3",
    }  # fmt: skip
    assert found.version_policy.latest.num_versions == 1
    assert [(w.batch_size, list(w.inputs["x"].dims)) for w in found.model_warmup] == [
        (1, [3, 32, 224]),
        (16, [3, 32, 224]),
    ]
    assert all(w.inputs["x"].WhichOneof("input_data_type") == "random_data" for w in found.model_warmup)


@needs_schema
def test_scalars_of_a_sample_are_reshaped() -> None:
    found, _ = config(served(SCALED))
    assert [list(t.dims) for t in (*found.input, *found.output)] == [[4], [1], [1]]
    assert [t.HasField("reshape") for t in (*found.input, *found.output)] == [False, True, True]
    assert list(found.input[1].reshape.shape) == []
    assert found.model_warmup[0].inputs["scale"].WhichOneof("input_data_type") == "zero_data"  # may be an index


@needs_schema
def test_a_fixed_batch_is_not_batched() -> None:
    found, notes = config(served(FIXED), preferred_batch_sizes=(4,))
    assert found.max_batch_size == 0 and not found.HasField("dynamic_batching")
    assert [list(t.dims) for t in (*found.input, *found.output)] == [[2, 4], [1]]
    assert not found.output[0].HasField("reshape")  # the server's own form of a scalar
    assert [w.batch_size for w in found.model_warmup] == [1]
    assert notes == ["preferred batch sizes [4] are left out: net is not batched by the server"]


@needs_schema
@pytest.mark.parametrize(
    "outputs",
    [
        [TensorSpec("y", "float32", ("batch", "batch"))],
        [TensorSpec("y", "float32", ("2*batch", 3))],
        [TensorSpec("y", "float32", ("batch", "batch + 1"))],
        [TensorSpec("y", "float32", (3,))],
        [TensorSpec("y", "float32", ())],
    ],
)
def test_other_uses_of_the_batch_are_not_batched(outputs: list[TensorSpec]) -> None:
    model = served(signature([TensorSpec("x", "float32", ("batch", 4))], outputs))
    found, _ = config(model, warm_up=False)
    assert found.max_batch_size == 0 and list(found.input[0].dims) == [-1, 4]
    with pytest.raises(TargetError, match=r"net cannot be batched by the server: .*y: float32\["):
        config(model, max_batch_size=4)


@needs_schema
def test_batching_can_be_refused() -> None:
    found, notes = config(served(IMAGES), max_batch_size=0, sizes={"batch": 2, "height": 32})
    assert found.max_batch_size == 0 and list(found.input[0].dims) == [-1, 3, -1, 224]
    assert list(found.model_warmup[0].inputs["x"].dims) == [2, 3, 32, 224] and notes == []


@needs_schema
def test_sizes_that_are_not_known_are_not_warmed_up() -> None:
    found, notes = config(served(IMAGES))
    assert not found.model_warmup
    assert notes == ["net is not warmed up: say what size height has (sizes, as height=224)"]
    assert not config(served(SCALED), warm_up=False)[0].model_warmup


@needs_schema
def test_a_tensorrt_model() -> None:
    plans = {"8.0": "model_sm80.plan", "9.0": "model_sm90.plan"}
    found, _ = config(served(SCALED, GPU, plans=plans, largest_batch=4), gpus=(0, 1), threads=2)
    assert found.backend == "tensorrt" and dict(found.cc_model_filenames) == plans
    assert found.max_batch_size == 4 and not found.parameters
    assert [(kind_name(g.kind), list(g.gpus)) for g in found.instance_group] == [("KIND_GPU", [0, 1])]
    with pytest.raises(TargetError, match=r"net was built for batches of up to 4, asked for is max_batch_size 8"):
        config(served(SCALED, GPU, plans=plans, largest_batch=4), max_batch_size=8)


@needs_schema
def test_libraries_and_accelerators() -> None:
    backend = replace(CPU, on_gpu=True, accelerator="tensorrt")
    found, _ = config(served(SCALED, backend, libraries=['/models/a "b"\\c.so']))
    assert list(found.model_operations.op_library_filename) == ['/models/a "b"\\c.so']
    assert [a.name for a in found.optimization.execution_accelerators.gpu_execution_accelerator] == ["tensorrt"]


@needs_schema
@pytest.mark.parametrize("dtype", PROTOCOL)
def test_every_type(dtype: str) -> None:
    same = signature([TensorSpec("x", dtype, ("batch", 4))], [TensorSpec("y", dtype, ("batch", 4))])
    found, _ = config(served(same))
    assert type_name(found.input[0].data_type) == type_name(found.output[0].data_type) == f"TYPE_{PROTOCOL[dtype]}"


@needs_schema
@pytest.mark.parametrize(
    ("text", "field", "value"),
    [("all", "all", None), ("latest:3", "latest", 3), ("1,4", "specific", [1, 4])],
)
def test_versions_served(text: str, field: str, value: Any) -> None:
    policy = config(served(SCALED), served_versions=text)[0].version_policy
    assert policy.WhichOneof("policy_choice") == field
    if field == "latest":
        assert policy.latest.num_versions == value
    if field == "specific":
        assert list(policy.specific.versions) == value


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (TensorSpec("z", "complex64", ("batch", 2)), "tensor z has type complex64, which the server does not know"),
        (TensorSpec("z", "float32", ("batch", 0)), r"tensor z: float32\[batch, 0\] is empty"),
    ],
)
def test_tensors_that_the_server_lacks(spec: TensorSpec, message: str) -> None:
    with pytest.raises(TargetError, match=message):
        model_config(served(signature([spec], [TensorSpec("y", "float32", ("batch",))])), ServingOptions())


def test_a_model_without_inputs_or_outputs() -> None:
    with pytest.raises(TargetError, match="net has no input"):
        model_config(served(signature([], list(FIXED.outputs))), ServingOptions())
    with pytest.raises(TargetError, match="net has no output"):
        model_config(served(signature(list(FIXED.inputs), [])), ServingOptions())


def test_gpus_of_a_cpu_model() -> None:
    with pytest.raises(TargetError, match=r"gpus \[0\] are given for a model that was built for the CPU"):
        model_config(served(FIXED), ServingOptions(gpus=(0,)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_batch_size": -1}, "max_batch_size must be at least 0, found -1"),
        ({"instances": 0}, "instances must be at least 1"),
        ({"threads": 0}, "threads must be at least 1"),
        ({"version": 0}, "version must be at least 1"),
        ({"max_queue_delay_us": -5}, "max_queue_delay_us must be at least 0"),
        ({"preferred_batch_sizes": (4, 9)}, "preferred batch sizes must lie between 1 and max_batch_size 8, found 9"),
        ({"gpus": (-1,)}, "gpus are numbers of devices"),
        ({"served_versions": "newest"}, "served versions are latest:N, all, or numbers as 1,3; found 'newest'"),
        ({"served_versions": "latest:0"}, "served versions are"),
        ({"served_versions": "1,x"}, "served versions are"),
    ],
)
def test_options_out_of_range(options: dict[str, Any], message: str) -> None:
    with pytest.raises(TargetError, match=message):
        ServingOptions(**options)


def test_text_format() -> None:
    message = {
        "name": 'a"b\\c\n',
        "flag": True,
        "kind": Symbol("KIND_CPU"),
        "dims": [1, -1],
        "nothing": [],
        "empty": {},
        "map": entries({"k": {"v": 1}}),
    }
    assert to_pbtxt(message) == (
        'name: "a\\"b\\\\c\\n"\nflag: true\nkind: KIND_CPU\ndims: [1, -1]\nempty {}\n'
        'map {\n  key: "k"\n  value {\n    v: 1\n  }\n}\n'
    )

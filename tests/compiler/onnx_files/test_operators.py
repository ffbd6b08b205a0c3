"""Every operator of the table against ONNX Runtime, on files of one node."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from sparsefx.compiler.onnx_files.read import OPERATORS, read_onnx
from sparsefx.passes.capture import capture
from sparsefx.passes.errors import CaptureError

Array = np.ndarray[Any, Any]
_RANDOM = np.random.default_rng(0)


def f(*shape: int, low: float = -2.0, high: float = 2.0) -> Array:
    return _RANDOM.uniform(low, high, shape).astype(np.float32)


def ints(*values: int) -> Array:
    return np.array(values, dtype=np.int64)


@dataclass(frozen=True)
class Case:
    """One node: its first operands are inputs of the file, the others constants of it."""

    operator: str
    inputs: Sequence[Array]
    constants: Sequence[Array | None] = ()
    attributes: dict[str, Any] = field(default_factory=dict)
    opset: int = 18
    outputs: int = 1

    def __str__(self) -> str:
        shown = ",".join(f"{k}={v}" for k, v in self.attributes.items() if not isinstance(v, TensorProto))
        shapes = " ".join("x".join(map(str, array.shape)) for array in self.inputs)
        return f"{self.operator}-{self.opset}({shapes};{shown})"


X, IMAGE, MATRIX = f(2, 3, 4), f(2, 4, 7, 6), f(3, 4)
WITHIN = {"low": -0.9, "high": 0.9}
POSITIVE = {"low": 0.2, "high": 3.0}
B = np.array([[True, False, True]])

CASES = [
    *(
        Case(name, [X, f(1, 3, 1)])
        for name in ("Add", "Sub", "Mul", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Equal")
    ),
    *(Case(name, [X], [f(4, **POSITIVE)]) for name in ("Div", "Add")),
    Case("Div", [np.array([[7, -7, 5]])], [ints(2, 2, -3)]),
    Case("Pow", [f(2, 3, **POSITIVE)], [np.array(1.5, np.float32)]),
    *(Case(name, [B, ~B]) for name in ("And", "Or", "Xor")),
    *(Case(name, [np.array([[5, 12]])], [ints(6, 10)]) for name in ("BitwiseAnd", "BitwiseOr")),
    *(
        Case(name, [X])
        for name in (
            "Abs",
            "Atan",
            "Ceil",
            "Cos",
            "Erf",
            "Exp",
            "Floor",
            "HardSwish",
            "IsNaN",
            "Mish",
            "Neg",
            "Relu",
            "Round",
        )
    ),
    *(
        Case(name, [X])
        for name in ("Sigmoid", "Sign", "Sin", "Softplus", "Softsign", "Tan", "Tanh", "Identity", "HardSigmoid")
    ),
    *(Case(name, [f(2, 3, **WITHIN)]) for name in ("Acos", "Asin")),
    *(Case(name, [f(2, 3, **POSITIVE)]) for name in ("Log", "Reciprocal", "Sqrt")),
    Case("Not", [B]),
    *(Case(name, [X, f(2, 3, 4)], [f(4)]) for name in ("Max", "Min", "Sum")),
    Case("Mod", [np.array([[7, -7, 5]])], [ints(3, 3, -3)]),
    Case("Mod", [f(2, 3)], [f(3, **POSITIVE)], {"fmod": 1}),
    Case("Dropout", [X]),
    Case("Cast", [X], [], {"to": TensorProto.INT32}),
    Case("CastLike", [np.array([[1, 2]])], [f(1)]),
    Case("Where", [B, f(2, 3)], [f(1)]),
    Case("Clip", [X], [np.array(-1.0, np.float32), np.array(0.5, np.float32)]),
    Case("Clip", [X], [None, np.array(0.5, np.float32)]),
    Case("Clip", [X], [], {"min": -0.5, "max": 1.0}, opset=9),
    *(Case(name, [X], [], {"alpha": 0.3}) for name in ("LeakyRelu", "Elu", "Celu")),
    Case("Selu", [X]),
    Case("Gelu", [X], [], {"approximate": "tanh"}, opset=20),
    Case("Gelu", [X], [], opset=20),
    Case("PRelu", [IMAGE], [f(4, 1, 1)]),
    Case("Shape", [X]),
    Case("Shape", [X], [], {"start": 1}),
    Case("Size", [X]),
    Case("Reshape", [X], [ints(0, -1)]),
    Case("Flatten", [X]),
    Case("Flatten", [X], [], {"axis": 0}),
    Case("Flatten", [X], [], {"axis": 2}),
    Case("Transpose", [X], [], {"perm": [2, 0, 1]}),
    Case("Transpose", [X]),
    Case("Squeeze", [f(2, 1, 3)], [ints(1)]),
    Case("Squeeze", [f(2, 1, 3)], [], {"axes": [1]}, opset=11),
    Case("Unsqueeze", [X], [ints(0, -1)]),
    Case("Unsqueeze", [X], [], {"axes": [1]}, opset=11),
    Case("Expand", [f(3, 1)], [ints(2, 1, 4)]),
    Case("Tile", [f(2, 3)], [ints(1, 2)]),
    Case("Concat", [X, f(2, 1, 4)], [], {"axis": 1}),
    Case("Split", [X], [ints(1, 3)], {"axis": 2}, outputs=2),
    Case("Split", [X], [], {"axis": 2, "num_outputs": 2}, outputs=2),
    Case("Split", [X], [], {"axis": 2, "split": [1, 3]}, opset=11, outputs=2),
    Case("Slice", [X], [ints(1, -3), ints(3, 2**62), ints(1, 2), ints(1, 2)]),
    Case("Slice", [X], [ints(-1), ints(-(2**62)), ints(2), ints(-1)]),
    Case("Slice", [X], [], {"starts": [1], "ends": [3], "axes": [2]}, opset=9),
    Case("Gather", [X], [ints(0, -1)], {"axis": 1}),
    Case("Gather", [X], [np.array(1)], {"axis": 2}),
    Case("Gather", [f(5, 3), np.array([[0, 4], [2, 2]])]),
    Case("GatherElements", [X, np.zeros((2, 1, 4), np.int64)], [], {"axis": 1}),
    Case("Pad", [IMAGE], [ints(0, 0, 1, 2, 0, 0, 0, 1), np.array(0.5, np.float32)]),
    Case("Pad", [IMAGE], [ints(1, 2, 0, 1), None, ints(2, 3)], {"mode": "reflect"}),
    Case("Pad", [IMAGE], [], {"pads": [0, 0, 1, 1, 0, 0, 1, 1], "value": 2.0}, opset=9),
    Case("DepthToSpace", [IMAGE], [], {"blocksize": 2}),
    Case("DepthToSpace", [IMAGE], [], {"blocksize": 2, "mode": "CRD"}),
    Case("SpaceToDepth", [f(2, 3, 4, 6)], [], {"blocksize": 2}),
    Case("ConstantOfShape", [], [ints(2, 3)], {"value": numpy_helper.from_array(np.array([2.5], np.float32))}),
    Case("Range", [], [np.array(1), np.array(7), np.array(2)]),
    Case("Trilu", [X], [], {"upper": 0}),
    Case("Trilu", [X], [np.array(1)]),
    Case("CumSum", [X], [np.array(1)]),
    Case("CumSum", [X], [np.array(1)], {"reverse": 1, "exclusive": 1}),
    Case("EyeLike", [f(3, 4)], [], {"k": 1}),
    Case("Conv", [IMAGE], [f(6, 2, 3, 3), f(6)], {"group": 2, "pads": [1, 1, 1, 1], "strides": [2, 1]}),
    Case("Conv", [IMAGE], [f(6, 4, 3, 3)], {"pads": [0, 1, 1, 0], "dilations": [2, 1]}),
    Case("Conv", [IMAGE], [f(6, 4, 3, 2)], {"auto_pad": "SAME_UPPER", "strides": [2, 2]}),
    Case("Conv", [IMAGE], [f(6, 4, 2, 2)], {"auto_pad": "SAME_LOWER"}),
    Case("Conv", [f(2, 3, 8)], [f(5, 3, 3), f(5)]),
    Case(
        "ConvTranspose",
        [IMAGE],
        [f(4, 3, 3, 3), f(3)],
        {"strides": [2, 2], "pads": [1, 1, 1, 1], "output_padding": [1, 1]},
    ),
    Case("MaxPool", [IMAGE], [], {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}),
    Case("MaxPool", [IMAGE], [], {"kernel_shape": [2, 2], "strides": [2, 2], "pads": [0, 0, 1, 1]}),
    Case("MaxPool", [IMAGE], [], {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1}),
    Case("AveragePool", [IMAGE], [], {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}),
    Case("AveragePool", [IMAGE], [], {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "count_include_pad": 1}),
    Case("GlobalAveragePool", [IMAGE]),
    Case("GlobalMaxPool", [IMAGE]),
    Case(
        "Resize",
        [IMAGE],
        [None, np.array([1, 1, 2, 2], np.float32)],
        {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"},
    ),
    Case("Resize", [IMAGE], [None, None, ints(2, 4, 14, 12)], {"mode": "linear"}),
    Case(
        "Resize",
        [IMAGE],
        [None, None, ints(2, 4, 9, 9)],
        {"mode": "linear", "coordinate_transformation_mode": "align_corners"},
    ),
    Case("LRN", [IMAGE], [], {"size": 3}),
    Case("InstanceNormalization", [IMAGE], [f(4), f(4)]),
    *(
        Case(name, [X], [ints(1)])
        for name in ("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1", "ReduceL2")
    ),
    *(
        Case(name, [f(2, 3, **POSITIVE)], [ints(-1)], {"keepdims": 0})
        for name in ("ReduceSumSquare", "ReduceLogSum", "ReduceLogSumExp")
    ),
    Case("ReduceMean", [X], [], {"axes": [0, 2]}, opset=13),
    Case("ReduceMean", [X]),
    Case("ReduceProd", [X], [ints(0, 2)], {"keepdims": 0}),
    *(Case(name, [X], [], {"axis": 2}) for name in ("ArgMax", "ArgMin")),
    Case("TopK", [X], [ints(2)], outputs=2),
    Case("Softmax", [X], [], {"axis": 1}),
    Case("Softmax", [X], [], {"axis": 1}, opset=11),
    Case("LogSoftmax", [X]),
    Case("MatMul", [X], [f(4, 5)]),
    Case("MatMul", [f(5, 3)], [f(3, 5)]),
    Case("MatMul", [X, f(2, 4, 3)]),
    Case("Gemm", [MATRIX], [f(5, 4), f(5)], {"transB": 1}),
    Case("Gemm", [MATRIX], [f(4, 5), f(1, 5)], {"alpha": 0.5, "beta": 2.0}),
    Case("Gemm", [MATRIX], [f(3, 5)], {"transA": 1}),
    Case("BatchNormalization", [IMAGE], [f(4), f(4), f(4), f(4, **POSITIVE)]),
    Case("LayerNormalization", [X], [f(4), f(4)]),
    Case("LayerNormalization", [X], [f(3, 4)], {"axis": 1}),
    Case("RMSNormalization", [X], [f(4)], opset=23),
    Case("GroupNormalization", [IMAGE], [f(4), f(4)], {"num_groups": 2}, opset=21),
    Case("LpNormalization", [X]),
    Case("Einsum", [X], [f(4, 5)], {"equation": "bij,jk->bik"}),
]


def test_every_operator_has_a_case() -> None:
    assert {case.operator for case in CASES} == set(OPERATORS)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_operator(case: Case, tmp_path: Path) -> None:
    path = _write(case, tmp_path)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    want = session.run(None, {f"in{i}": array for i, array in enumerate(case.inputs)})
    with torch.no_grad():
        found = read_onnx(path)(*[torch.from_numpy(array) for array in case.inputs])
    have = list(found.values()) if isinstance(found, dict) else [found]
    assert len(have) == len(want) == case.outputs
    for value, array in zip(have, want, strict=True):
        value = value if isinstance(value, torch.Tensor) else torch.from_numpy(np.array(value, dtype=np.int64))
        torch.testing.assert_close(value, torch.from_numpy(np.array(array)), rtol=2e-5, atol=2e-5)


UNEVEN = {"kernel_shape": [2, 2], "pads": [0, 0, 1, 1]}
REFUSED = [
    (Case("MaxPool", [IMAGE], [], {**UNEVEN, "ceil_mode": 1}), "MaxPool with uneven pads and ceil_mode"),
    (Case("AveragePool", [IMAGE], [], UNEVEN), "AveragePool with uneven pads"),
    (Case("AveragePool", [IMAGE], [], {"kernel_shape": [2, 2], "dilations": [2, 2]}, opset=19), "with dilations"),
    (Case("ConvTranspose", [IMAGE], [f(4, 3, 3, 3)], {"auto_pad": "SAME_UPPER"}), "ConvTranspose with auto_pad"),
    (Case("Resize", [IMAGE], [None, f(4, low=2, high=2)]), "a Resize of the batch or of channels"),
    (Case("Resize", [f(2, 3, 4)], [None, None, ints(2, 3, 8)], {"mode": "cubic"}), "of 1 axes with mode cubic"),
    (Case("ArgMin", [X], [], {"select_last_index": 1}), "ArgMin with select_last_index"),
    (Case("Slice", [X], [ints(3), ints(0), ints(2), ints(-2)]), "a Slice with step -2"),
    (Case("BatchNormalization", [IMAGE], [f(4)] * 4, {"training_mode": 1}, outputs=3), "in training mode"),
]  # fmt: skip


@pytest.mark.parametrize(("case", "message"), REFUSED, ids=lambda value: str(value).partition("(")[0])
def test_what_an_operator_does_not_cover_is_refused(case: Case, message: str, tmp_path: Path) -> None:
    module = read_onnx(_write(case, tmp_path))
    with pytest.raises(CaptureError, match=message):
        module(*[torch.from_numpy(array) for array in case.inputs])


_WITH_SIZES = ("Reshape", "Slice", "Gather", "Pad", "Resize", "Split", "Expand", "Clip", "TopK", "Squeeze", "MatMul")


def _captured() -> Iterator[Any]:
    """Those that take sizes or indices by default, the others with `-m long`."""
    for case in CASES:
        if case.inputs and case.operator not in ("Shape", "Size"):
            marks = [] if case.operator in _WITH_SIZES else [pytest.mark.long]
            yield pytest.param(case, marks=marks, id=str(case))


@pytest.mark.parametrize("case", list(_captured()))
def test_operators_can_be_captured(case: Case, tmp_path: Path) -> None:
    """What computes sizes must not read tensors, which torch.export has no values of."""
    module = read_onnx(_write(case, tmp_path))
    inputs = tuple(torch.from_numpy(array) for array in case.inputs)
    with torch.no_grad():
        want, have = module(*inputs), capture(module, inputs, dynamic_batch=False)(*inputs)
    torch.testing.assert_close(have, want)


def _write(case: Case, folder: Path) -> Path:
    inputs = [
        helper.make_tensor_value_info(f"in{i}", helper.np_dtype_to_tensor_dtype(a.dtype), a.shape)
        for i, a in enumerate(case.inputs)
    ]
    constants = [numpy_helper.from_array(a, f"c{i}") for i, a in enumerate(case.constants) if a is not None]
    names = [f"in{i}" for i in range(len(inputs))] + [
        "" if a is None else f"c{i}" for i, a in enumerate(case.constants)
    ]
    results = [f"out{i}" for i in range(case.outputs)]
    node = helper.make_node(case.operator, names, results, name="node", **case.attributes)
    outputs = [onnx.ValueInfoProto(name=name) for name in results]
    graph = helper.make_graph([node], "one", inputs, outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", case.opset)], ir_version=8)
    inferred = onnx.shape_inference.infer_shapes(model)
    for output in inferred.graph.output:
        if not output.type.HasField("tensor_type"):  # an operator that is a function has no inference of its own
            output.CopyFrom(helper.make_tensor_value_info(output.name, TensorProto.FLOAT, case.inputs[0].shape))
    path = folder / "one.onnx"
    onnx.save(inferred, path)
    return path

"""Engines check what they are called with, and take and return torch tensors or NumPy arrays."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import sparsefx
from sparsefx.passes.signature import Signature, TensorSpec, Tree
from sparsefx.runtime.engine import Engine
from sparsefx.runtime.inputs import dynamic_sizes, parse_sizes, random_arrays
from sparsefx.runtime.onnxruntime.session import OnnxRuntimeSession, onnxruntime_engine


class Doubling:
    """A session that doubles every input."""

    def run(self, inputs: list[np.ndarray]) -> list[np.ndarray]:  # type: ignore[type-arg]
        return [2 * array for array in inputs]

    def settings(self) -> dict[str, object]:
        return {}


SPECS = (TensorSpec("image", "float32", ("batch", 3, 4)), TensorSpec("ids", "int64", ("batch",)))
SIGNATURE = Signature(
    SPECS,
    SPECS,
    (("image", Tree("tensor", 0)), ("ids", Tree("tensor", 1))),
    1,
    Tree("dict", keys=("a", "b"), items=(Tree("tensor", 0), Tree("tuple", items=(Tree("tensor", 1), Tree("literal"))))),
)
ENGINE = Engine(Doubling(), SIGNATURE, "test")  # type: ignore[arg-type]
IMAGE, IDS = np.ones((2, 3, 4), np.float32), np.arange(2)


def test_arrays_in_arrays_out_and_tensors_in_tensors_out() -> None:
    arrays = ENGINE(IMAGE, ids=IDS)
    assert isinstance(arrays["a"], np.ndarray)
    assert arrays["b"][0].tolist() == [0, 2]
    assert arrays["b"][1] is None
    tensors = ENGINE(torch.from_numpy(IMAGE), ids=torch.from_numpy(IDS))
    assert isinstance(tensors["a"], torch.Tensor)
    assert tensors["a"].tolist() == arrays["a"].tolist()


def test_inputs_of_any_strides_and_tensors_that_need_gradients() -> None:
    transposed = torch.ones(4, 3, 2, requires_grad=True).permute(2, 1, 0)
    assert ENGINE(transposed, ids=torch.from_numpy(IDS))["a"].shape == (2, 3, 4)
    assert ENGINE(np.ones((4, 3, 2), np.float32).transpose(2, 1, 0), ids=IDS)["a"].flags.c_contiguous


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((IMAGE,), {}, r"expected the arguments \(image, ids\), \['ids'\] missing"),
        ((IMAGE, IDS), {}, "found 2 positional ones where 1 may be"),
        ((IMAGE,), {"ids": IDS, "image": IMAGE}, r"found \['image'\] twice"),
        ((IMAGE,), {"ids": IDS, "mask": IDS}, r"found the unknown \['mask'\]"),
        ((IMAGE.tolist(),), {"ids": IDS}, "image must be a NumPy array or a torch tensor, found list"),
        ((IMAGE.astype(np.float64),), {"ids": IDS}, "image must have dtype float32, found float64"),
        ((IMAGE[0],), {"ids": IDS}, r"image must have shape \[batch, 3, 4\], found \[3, 4\]"),
        ((IMAGE[:, :2],), {"ids": IDS}, r"image must have shape \[batch, 3, 4\], found \[2, 2, 4\]"),
        ((IMAGE,), {"ids": np.arange(3)}, "size batch is 2 at image axis 0 but 3 at ids axis 0"),
    ],
)
def test_what_does_not_fit_is_refused(arguments: tuple[object, ...], options: dict[str, object], message: str) -> None:
    with pytest.raises(sparsefx.TargetError, match=message):
        ENGINE(*arguments, **options)


def test_signatures_survive_json() -> None:
    assert Signature.from_json(SIGNATURE.to_json()) == SIGNATURE


def test_random_inputs_follow_the_signature() -> None:
    assert dynamic_sizes(SIGNATURE) == ["batch"]
    image, ids = random_arrays(SIGNATURE, {"batch": 5})
    assert image.shape == (5, 3, 4) and image.dtype == np.float32
    assert ids.tolist() == [0] * 5
    with pytest.raises(sparsefx.TargetError, match="dynamic size batch: set it, for example batch=1"):
        random_arrays(SIGNATURE, {})


def test_sizes_on_the_command_line() -> None:
    assert parse_sizes("") == {}
    assert parse_sizes("batch=2,height=224") == {"batch": 2, "height": 224}
    with pytest.raises(sparsefx.TargetError, match="sizes must look like batch=8"):
        parse_sizes("batch:2")


def test_a_file_that_is_no_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"not a model")
    with pytest.raises(sparsefx.TargetError, match=r"cannot load model\.onnx"):
        onnxruntime_engine(tmp_path / "model.onnx", SIGNATURE)


def test_every_session_option_is_written_down() -> None:
    compiled = sparsefx.compile(nn.Linear(4, 2).eval(), (torch.randn(1, 4),), threads=1)
    assert compiled.report.engine == {
        "target": "onnxruntime:cpu",
        "threads": 1,
        "inter_op_threads": 1,
        "graph_optimization": "all",
        "providers": ["CPUExecutionProvider"],
        "precision": "float32",
        "custom_operators": None,
    }
    with pytest.raises(sparsefx.TargetError, match="threads must be at least 1, found -1"):
        OnnxRuntimeSession(compiled.build.model, threads=-1)

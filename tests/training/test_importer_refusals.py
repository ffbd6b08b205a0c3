"""What is no readable checkpoint is refused with its reason, and no code from it runs."""

from __future__ import annotations

import io
import os
import pickle
import zipfile
from collections import OrderedDict
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save, save_file
from torch import nn

from sparsefx.passes.errors import MaskError
from sparsefx.training import MaskSet
from sparsefx.training.importers import read_checkpoint

WEIGHTS = {"conv.weight": torch.ones(4, 3, 1, 1), "fc.weight": torch.ones(2, 4)}
MASKS = [torch.rand(4, 3, 1, 1) < 0.5, torch.rand(2, 4) < 0.5]


@dataclass
class Configuration:
    """Stands for the configuration that SRigL pickles beside its tensors."""

    name: str = "srigl"
    model: dict[str, Any] = field(default_factory=dict)


class Malicious:
    """Creates a file when it is unpickled."""

    def __init__(self, created: Path) -> None:
        self.created = created

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.created),)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "checkpoint.pth"


def refusal(path: Path, content: Any) -> str:
    """The error for a torch.save file, without the path in front."""
    torch.save(content, path)
    with pytest.raises(MaskError, match=f"^{path}: ") as error:
        read_checkpoint(path)
    return str(error.value).removeprefix(f"{path}: ")


def test_an_unconverted_srigl_checkpoint_says_how_to_convert_it(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pruner = {"backward_masks": MASKS, "module_names": ["conv", "fc"], "dynamically_ablated_neuron_idx": [[], []]}
    content = {"run_id": "1", "cfg": Configuration(), "model": WEIGHTS, "pruner": pruner, "checkpoint_dir": tmp_path}
    reason, first, second = refusal(path, content).splitlines()
    assert reason.startswith("a checkpoint of SRigL's training code, pickled with its configuration (cfg) and ")
    assert f"{__name__}.Configuration, " in reason and "loading it can run code" in reason
    monkeypatch.chdir(tmp_path)
    exec(f"{first}\n{second}", {})
    assert read_checkpoint("converted.pt").masks == MaskSet(dict(zip(WEIGHTS, MASKS, strict=True)))
    assert read_checkpoint("converted.pt").masks.method == "srigl"


def test_rigl_torch_with_numpy_numbers_says_how_to_convert_it(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = {"state_dict": WEIGHTS, "pruner": {"S": [np.float64(0.5)] * 2, "backward_masks": MASKS}}
    reason, first, second = refusal(path, content).splitlines()
    assert "a checkpoint of rigl-torch that holds more than tensors, numpy._core.multiarray.scalar" in reason
    monkeypatch.chdir(tmp_path)
    exec(f"{first}\n{second}", {})
    assert read_checkpoint("converted.pt").masks == MaskSet(dict(zip(WEIGHTS, MASKS, strict=True)))


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("kind", ["pickle", "zip", "legacy", "srigl"])
@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_nothing_is_executed(path: Path, tmp_path: Path, kind: str, protocol: int) -> None:
    created = tmp_path / "created"
    content: Any = {"state_dict": WEIGHTS, "extra": Malicious(created)}
    if kind == "srigl":
        content = {"cfg": Malicious(created), "model": WEIGHTS, "pruner": {"backward_masks": MASKS}}
    if kind == "pickle":
        path.write_bytes(pickle.dumps(content, protocol))
    else:
        torch.save(content, path, pickle_protocol=protocol, _use_new_zipfile_serialization=kind != "legacy")
    with pytest.raises(MaskError, match=r"posix\.mkdir; loading it can run code from the file"):
        read_checkpoint(path)
    assert not created.exists()


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_group_masks_of_halp_point_to_its_checkpoint(path: Path, protocol: int) -> None:
    path.write_bytes(pickle.dumps({("module.conv1", "module.conv2"): torch.ones(4)}, protocol))
    with pytest.raises(MaskError, match=r"as HALP writes its group masks; .* read that file instead"):
        read_checkpoint(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (nn.Linear(2, 2), r"a whole pickled model, .*torch\.nn\.modules\.linear\.Linear.* Instead, save"),
        ({"a": np.ones(3)}, r"it holds more than tensors, numpy\._core\.multiarray\._reconstruct, numpy\.ndarray"),
        ({"a": torch.optim.SGD}, r"it holds more than tensors, torch\.optim\.sgd\.SGD; "),
        ([1, 2], r"holds no state dict: expected names and tensors, found list"),
        ({"epoch": 3}, r"holds no state dict: expected names and tensors, found 'epoch' with a int"),
        ({0: torch.ones(1)}, r"holds no state dict: expected names and tensors, found 0 with a Tensor"),
        ({"state_dict": {}}, r"holds an empty state dict, no tensors"),
        ({"w": torch.eye(2).to_sparse()}, r"the tensor w is sparse_coo; expected a dense one with values"),
        ({"w": torch.empty(2, 2, device="meta")}, r"the tensor w is on the meta device"),
        (
            {"fc.weight_orig": torch.ones(2, 3), "fc.weight_mask": torch.ones(2, 2)},
            r"fc.weight_orig has shape \(2, 3\), fc.weight_mask \(2, 2\)",
        ),
        (
            {"fc.weight_orig": torch.ones(2), "fc.weight_mask": torch.full((2,), 0.5)},
            r"the mask of fc.weight, float32 of shape \(2,\), contains 0.5; a mask holds only 0 and 1",
        ),
    ],
)
def test_content_without_weights_is_refused_with_what_was_found(path: Path, content: Any, message: str) -> None:
    torch.save(content, path)
    with pytest.raises(MaskError, match=message):
        read_checkpoint(path)


@pytest.mark.parametrize(
    ("pruner", "message"),
    [
        ({"backward_masks": None}, "backward_masks are no list of tensors and None"),
        ({"backward_masks": [None]}, r"1 backward_masks for 2 weights of layers: fc.weight of shape \(2, 4\) has no"),
        (
            {"backward_masks": [None, *MASKS]},
            r"3 backward_masks for 2 .*: fc.weight has shape \(2, 4\), the mask at its position \(4, 3, 1, 1\)",
        ),
        ({"backward_masks": [*MASKS, MASKS[0]]}, r"a mask of shape \(4, 3, 1, 1\) is left"),
        ({"backward_masks": [*MASKS, None]}, "a dense layer is left"),
        ({"backward_masks": MASKS[::-1]}, r"conv.weight has shape \(4, 3, 1, 1\), its mask \(2, 4\)"),
        ({"backward_masks": [None, None], "N": [12, 9]}, r"fc.weight has shape \(2, 4\), the pruner counts 9 weights"),
        ({"backward_masks": [None, torch.eye(4).to_sparse()]}, r"the tensor backward_masks\[1\] is sparse_coo"),
        ({"backward_masks": MASKS, "module_names": "conv"}, "module_names are no list of names"),
        ({"backward_masks": MASKS, "module_names": ["conv"]}, "1 module_names for 2 backward_masks"),
        (
            {"backward_masks": MASKS, "module_names": ["conw", "fc"]},
            r"no module conw with a mask \(did you mean conv\?\)",
        ),
        (
            {"backward_masks": MASKS[:1] * 2, "module_names": ["conv", "conv"]},
            r"a mask is of module conv, but the weight at its position is fc.weight of shape \(2, 4\)",
        ),
        ({"backward_masks": [None] * 3, "module_names": ["conv", "fc", "fc"]}, "3 backward_masks for 2 weights"),
        (
            {"backward_masks": MASKS[::-1], "module_names": ["conv", "fc"]},
            r"conv.weight has shape \(4, 3, 1, 1\), its mask \(2, 4\); masks and weights do not belong together",
        ),
    ],
)
def test_masks_that_do_not_fit_name_the_layer_and_both_shapes(path: Path, pruner: dict[str, Any], message: str) -> None:
    torch.save({"model": WEIGHTS, "pruner": pruner}, path)
    with pytest.raises(MaskError, match=message):
        read_checkpoint(path)


def zipped(*names: str) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name in names:
            archive.writestr(name, "")
    return file.getvalue()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is empty"),
        (b"conv1 conv2", r"cannot be read safely: it starts with b'conv1 conv2', as no checkpoint does"),
        (b"cposix\nmkdir\n(S'x'\ntR.", "cannot be read safely: it starts with"),
        (b"\x93NUMPY\x01\x00v\x00{'descr'", "NumPy arrays, which are no checkpoint of PyTorch; save model.state_dict"),
        (zipped("weight.npy"), "NumPy arrays, which are no checkpoint of PyTorch; save model.state_dict"),
        (zipped("notes.txt"), r"a zip archive without data.pkl, so not from torch.save \(it has notes.txt\)"),
        (
            zipped("net/data.pkl", "net/constants.pkl"),
            "a TorchScript archive, whose code is not loaded; save model.state_dict",
        ),
        (pickle.dumps({"epoch": 3}), "a plain pickle; loading it can run code from the file. Instead, save"),
        (save(WEIGHTS)[:-3], "cannot be read safely as a safetensors file .*truncated or damaged, copy it again"),
        (save(WEIGHTS)[:20], "cannot be read safely as a safetensors file .*truncated or damaged, copy it again"),
    ],
)
def test_files_of_other_kinds_are_told_apart(path: Path, data: bytes, message: str) -> None:
    path.write_bytes(data)
    with pytest.raises(MaskError, match=message):
        read_checkpoint(path)


def test_missing_files_directories_and_mask_files(path: Path, tmp_path: Path) -> None:
    with pytest.raises(MaskError, match=r"there is no weights file .*checkpoint\.pth"):
        read_checkpoint(path)
    with pytest.raises(
        MaskError, match=r"is a directory without model\.safetensors\.index\.json, model\.safetensors; name"
    ):
        read_checkpoint(tmp_path)
    MaskSet({"fc.weight": torch.eye(2)}).save(path)
    with pytest.raises(MaskError, match=r"a file of masks without weights; read it with MaskSet.load, or .* --masks"):
        read_checkpoint(path)


@pytest.mark.parametrize("new", [True, False])
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_damaged_files_are_refused_or_read(path: Path, new: bool, data: st.DataObject) -> None:
    """No other error than MaskError; torch.save files have no checksum, so damage to numbers goes unseen."""
    file = io.BytesIO()
    torch.save(OrderedDict(WEIGHTS), file, _use_new_zipfile_serialization=new)
    content = bytearray(file.getvalue())
    for _ in range(data.draw(st.integers(0, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    with suppress(MaskError):
        read_checkpoint(path)


def test_a_truncated_torch_file_is_refused(path: Path) -> None:
    for new in (True, False):
        torch.save(WEIGHTS, path, _use_new_zipfile_serialization=new)
        path.write_bytes(path.read_bytes()[:-20])
        with pytest.raises(MaskError, match="cannot be read safely"):
            read_checkpoint(path)


def test_types_that_torch_cannot_compute_with_are_refused(path: Path) -> None:
    save_file({"w": torch.zeros(2, 2, dtype=torch.uint8).view(torch.float4_e2m1fn_x2)}, path)
    with pytest.raises(MaskError, match=r"torch cannot compute with its tensors .*; save them as float32"):
        read_checkpoint(path)

"""Checkpoints in several files with an index, as transformers writes them, and their faults."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from sparsefx.passes.errors import MaskError
from sparsefx.training.importers import read_checkpoint

WEIGHTS = {"a.weight": torch.tensor([[1.0, 0.0]]), "a.bias": torch.tensor([1.0]), "b.weight": torch.tensor([[2.0]])}
FILES = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
INDEX = "model.safetensors.index.json"


def write(folder: Path, **changes: Any) -> Path:
    """Two shards and their index, in which `changes` replace entries."""
    save_file({name: WEIGHTS[name] for name in ("a.weight", "a.bias")}, folder / FILES[0])
    save_file({"b.weight": WEIGHTS["b.weight"]}, folder / FILES[1])
    where = {"a.weight": FILES[0], "a.bias": FILES[0], "b.weight": FILES[1], **changes.pop("where", {})}
    index = folder / INDEX
    index.write_text(json.dumps({"metadata": {"total_size": 16}, "weight_map": where, **changes}, indent=2))
    return index


def assert_read(weights: dict[str, Tensor]) -> None:
    assert list(weights) == list(WEIGHTS)
    assert all(torch.equal(weights[name], tensor) for name, tensor in WEIGHTS.items())


@pytest.mark.parametrize("name", [INDEX, ""], ids=["index", "folder"])
def test_shards_are_one_checkpoint_with_its_zeros_as_masks(name: str, tmp_path: Path) -> None:
    write(tmp_path)
    checkpoint = read_checkpoint(tmp_path / name)
    assert_read(checkpoint.weights)
    assert checkpoint.source.endswith("in a sharded checkpoint")
    assert not checkpoint.masks["a.weight"].all()


def test_shards_of_torch_save(tmp_path: Path) -> None:
    torch.save(WEIGHTS, tmp_path / "pytorch_model-00001-of-00001.bin")
    index = {"weight_map": dict.fromkeys(WEIGHTS, "pytorch_model-00001-of-00001.bin")}
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    assert_read(read_checkpoint(tmp_path).weights)


def test_a_folder_with_one_file(tmp_path: Path) -> None:
    save_file(WEIGHTS, tmp_path / "model.safetensors")
    assert set(read_checkpoint(tmp_path).weights) == set(WEIGHTS)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"where": {"b.weight": "model-00003.safetensors"}}, "names model-00003.safetensors, which is not beside it"),
        ({"where": {"b.weight": "../secret.safetensors"}}, "'../secret.safetensors'; files .* lie beside their index"),
        ({"where": {"c.weight": FILES[1]}}, f"{FILES[1]} has no tensor c.weight"),
        ({"where": {f"c{i}": FILES[1] for i in range(5)}}, "has no tensor c0, c1, c2 and 2 more"),
        ({"weight_map": {}}, 'JSON without "weight_map"'),
        ({"weight_map": [1]}, 'JSON without "weight_map"'),
    ],
)
def test_what_does_not_fit_is_named(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(MaskError, match=message):
        read_checkpoint(write(tmp_path, **changes))


def test_damage_is_named(tmp_path: Path) -> None:
    index = write(tmp_path)
    (tmp_path / FILES[1]).write_bytes(b"")
    with pytest.raises(MaskError, match=f"{FILES[1]} is empty"):
        read_checkpoint(index)
    torch.save([1], tmp_path / FILES[1])
    with pytest.raises(MaskError, match=f"{FILES[1]} holds a list"):
        read_checkpoint(index)
    index.write_text("{ not JSON")
    with pytest.raises(MaskError, match="it is not JSON"):
        read_checkpoint(index)

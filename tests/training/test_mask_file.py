from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from sparsefx.passes.errors import MaskError
from sparsefx.training import MaskSet, MaskStructure

Tensors = dict[str, NDArray[Any]]
Header = dict[str, Any]


def example() -> MaskSet:
    generator = torch.Generator().manual_seed(0)
    masks = {
        "layer.conv.weight": torch.rand(6, 5, 3, 3, generator=generator) < 0.2,
        "fc.weight": torch.tensor([[1, 0, 1], [0, 1, 1]]),
        "empty": torch.zeros(0, 4),
    }
    structures = {"fc.weight": MaskStructure("constant_fan_in", fan_in=2)}
    made: dict[str, Any] = {"method": "SRigL", "step": 12, "settings": {"gamma": 0.3, "dense": ["stem"]}}
    return MaskSet(masks, structures=structures, **made)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    example().save(tmp_path / "masks.safetensors")
    return tmp_path / "masks.safetensors"


def test_everything_comes_back(path: Path) -> None:
    loaded, saved = MaskSet.load(path), example()
    assert loaded == saved
    assert list(loaded) == list(saved), "in the same order, which safetensors does not keep"
    for key in ("method", "step", "settings", "versions"):
        assert getattr(loaded, key) == getattr(saved, key)
    for name in saved:
        assert loaded.structure(name) == saved.structure(name)
    assert MaskSet.load(str(path)) == saved


shapes = st.lists(st.integers(0, 5), min_size=0, max_size=4).map(tuple)
names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12).filter(lambda n: n != "__metadata__")


@given(st.dictionaries(names, st.tuples(shapes, st.integers(0, 2**16)), max_size=4), st.none() | st.integers(0, 9))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_mask_set_comes_back(tmp_path: Path, drawn: Any, step: int | None) -> None:
    masks = {
        name: torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < 0.4
        for name, (shape, seed) in drawn.items()
    }
    saved = MaskSet(masks, step=step)
    saved.save(tmp_path / "any")
    loaded = MaskSet.load(tmp_path / "any")
    assert loaded == saved and loaded.step == step
    for name, mask in masks.items():
        assert torch.equal(loaded[name], mask)
        assert loaded.structure(name) == saved.structure(name)


def test_the_format_is_one_bit_per_weight_and_json(path: Path) -> None:
    tensors = load_file(path)
    mask = example()["layer.conv.weight"]
    assert tensors["layer.conv.weight"].dtype == np.uint8
    assert np.array_equal(tensors["layer.conv.weight"], np.packbits(mask.numpy().reshape(-1)))
    with safe_open(path, framework="numpy") as file:
        metadata = file.metadata()
    assert metadata["format"] == "sparsefx.masks" and metadata["schema"] == "1"
    assert json.loads(metadata["masks"])["parameters"][1]["structure"]["fan_in"] == 2


def test_saving_replaces_the_old_file_and_leaves_nothing_else(path: Path) -> None:
    other = MaskSet({"w": torch.ones(2, 2)})
    other.save(path)
    assert MaskSet.load(path) == other
    assert [p.name for p in path.parent.iterdir()] == ["masks.safetensors"]


def test_a_failed_save_leaves_the_old_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(file: int) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(MaskError, match=r"cannot write .*: disk full; nothing was changed"):
        MaskSet({"w": torch.ones(2, 2)}).save(path)
    assert MaskSet.load(path) == example()
    assert [p.name for p in path.parent.iterdir()] == ["masks.safetensors"]


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-3])


def garble(path: Path) -> None:
    path.write_bytes(b"PK\x03\x04 this was torch.save")


def empty(path: Path) -> None:
    path.write_bytes(b"")


def change(edit: Callable[[Tensors, Header, dict[str, str]], object]) -> Callable[[Path], None]:
    """Rewrite the file with something else in it."""

    def apply(path: Path) -> None:
        tensors: Tensors = load_file(path)
        with safe_open(path, framework="numpy") as file:
            metadata: dict[str, str] = file.metadata()
        header: Header = json.loads(metadata["masks"])
        edit(tensors, header, metadata)
        if "masks" in metadata and metadata["masks"] != "broken":
            metadata["masks"] = json.dumps(header)
        save_file(tensors, path, metadata)

    return apply


def set_bit(name: str, index: int, value: int) -> Callable[[Path], None]:
    return change(lambda tensors, header, metadata: tensors[name].__setitem__(index, tensors[name][index] ^ value))


DAMAGED = {
    "truncated": (truncate, "not a readable safetensors file .*truncated, damaged or something else"),
    "garbled": (garble, "not a readable safetensors file"),
    "empty": (empty, "not a readable safetensors file"),
    "foreign": (
        change(lambda t, h, m: m.update(format="pt")),
        r"no mask file \(format 'pt', expected 'sparsefx.masks'\).*MaskSet.from_zeros",
    ),
    "newer": (
        change(lambda t, h, m: m.update(schema="2")),
        "written in schema version 2, this sparsefx reads up to 1; upgrade sparsefx",
    ),
    "no version": (change(lambda t, h, m: m.update(schema="new")), "schema version 'new' is no number"),
    "no json": (change(lambda t, h, m: m.update(masks="broken")), "its metadata is no JSON"),
    "no header": (change(lambda t, h, m: m.pop("masks")), "its metadata is no JSON"),
    "other json": (change(lambda t, h, m: h.pop("settings")), "expected metadata with method, parameters, settings"),
    "wrong type": (change(lambda t, h, m: h.update(step="last")), "step in its metadata is a str"),
    "incomplete entry": (
        change(lambda t, h, m: h["parameters"][0].pop("sha256")),
        r"the parameter entry .*layer.conv.weight.* is incomplete",
    ),
    "negative size": (change(lambda t, h, m: h["parameters"][0].update(shape=[-6, 5])), "is incomplete"),
    "twice": (change(lambda t, h, m: h["parameters"].append(h["parameters"][0])), "names a parameter twice"),
    "mask missing": (change(lambda t, h, m: t.pop("fc.weight")), "names fc.weight, but holds no mask of it"),
    "entry missing": (
        change(lambda t, h, m: h["parameters"].pop(1)),
        "holds a mask of fc.weight that its metadata does not name",
    ),
    "wrong byte count": (
        change(lambda t, h, m: h["parameters"][0].update(shape=[6, 5])),
        r"the mask of layer.conv.weight is uint8 of shape \(34,\); its shape \(6, 5\) takes 4 bytes",
    ),
    "wrong type of bytes": (
        change(lambda t, h, m: t.update({"fc.weight": np.zeros(1, np.float32)})),
        r"the mask of fc.weight is float32",
    ),
    "padding": (set_bit("fc.weight", 0, 1), "the mask of fc.weight has bits set behind its last weight"),
    "flipped bit": (set_bit("layer.conv.weight", 3, 16), "the mask of layer.conv.weight does not match its checksum"),
    "other shape": (
        change(lambda t, h, m: h["parameters"][0].update(shape=[5, 6, 3, 3])),
        "does not match its checksum",
    ),
    "other structure": (
        change(lambda t, h, m: h["parameters"][1]["structure"].update(fan_in=1)),
        r"the mask of fc.weight, shape \(2, 3\), is not constant_fan_in: an active neuron has 2 non-zeros, not 1",
    ),
    "unknown structure": (
        change(lambda t, h, m: h["parameters"][1]["structure"].update(kind="diagonal")),
        "unknown mask structure 'diagonal'",
    ),
    "odd layout": (change(lambda t, h, m: h["parameters"][1]["structure"].update(layout={"groups": 0})), "found 0, 0"),
    "odd structure": (change(lambda t, h, m: h["parameters"][1]["structure"].update(colour=1)), "colour"),
    "no structure": (change(lambda t, h, m: h["parameters"][1].update(structure=None)), "the file is damaged"),
}


@pytest.mark.parametrize("kind", DAMAGED)
def test_a_damaged_file_is_refused_and_named(kind: str, path: Path) -> None:
    damage, message = DAMAGED[kind]
    damage(path)
    with pytest.raises(MaskError, match=message) as caught:
        MaskSet.load(path)
    assert str(caught.value).startswith(f"{path}: ")


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(MaskError, match=r"no such file; expected a mask file as MaskSet.save writes it"):
        MaskSet.load(tmp_path / "nothing")
    with pytest.raises(MaskError, match="is a folder; expected a mask file"):
        MaskSet.load(tmp_path)


@given(st.data())
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_single_changed_byte_of_a_mask_goes_unnoticed(tmp_path: Path, data: st.DataObject) -> None:
    path = tmp_path / "masks"
    example().save(path)
    content = bytearray(path.read_bytes())
    start = int.from_bytes(content[:8], "little") + 8
    index = data.draw(st.integers(start, len(content) - 1))
    content[index] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content)
    with pytest.raises(MaskError):
        MaskSet.load(path)


def test_loading_a_file_is_never_a_pickle(tmp_path: Path) -> None:
    torch.save({"w": torch.ones(2, 2)}, tmp_path / "pickled")
    with pytest.raises(MaskError, match="not a readable safetensors file"):
        MaskSet.load(tmp_path / "pickled")

"""Bundles: whole or not at all, and refused with the reason when they are not what was saved."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import sparsefx
from sparsefx.compiler import bundle as bundle_module
from sparsefx.compiler.bundle import read_manifest, read_report
from sparsefx.compiler.compiled import CompiledModel


@pytest.fixture(scope="module")
def compiled() -> CompiledModel:
    torch.manual_seed(0)
    return sparsefx.compile(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)).eval(), (torch.randn(1, 4),))


@pytest.fixture
def saved(compiled: CompiledModel, tmp_path: Path) -> Path:
    compiled.save(tmp_path / "mlp.sfx")
    return tmp_path / "mlp.sfx"


def _edit(file: Path, change: Callable[[dict[str, object]], object]) -> None:
    data = json.loads(file.read_text())
    change(data)
    file.write_text(json.dumps(data))


def _replace_by_file(bundle: Path) -> None:
    shutil.rmtree(bundle)
    bundle.write_text("x")


def test_a_bundle_loads_and_says_what_it_is(saved: Path, compiled: CompiledModel) -> None:
    assert sorted(p.name for p in saved.iterdir()) == ["manifest.json", "model.onnx", "report.json"]
    x = np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32)
    np.testing.assert_array_equal(sparsefx.load(saved)(x), compiled.engine()(x))
    manifest = read_manifest(saved)
    assert manifest["settings"] == {"target": "onnxruntime:cpu", "precision": "fp32", "threads": None}
    assert manifest["versions"]["torch"] == torch.__version__
    assert read_report(saved)["totals"]["channels_after"] == 10


def test_threads_can_be_chosen_at_load(saved: Path) -> None:
    assert sparsefx.load(saved, threads=1).session.settings()["threads"] == 1
    assert sparsefx.load(saved).session.settings()["threads"] == len(os.sched_getaffinity(0))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda b: (b / "model.onnx").write_bytes(b"short"), r"model.onnx is damaged: 5 bytes where \d+ bytes"),
        (lambda b: _flip(b / "model.onnx"), "model.onnx is damaged: another checksum"),
        (lambda b: (b / "report.json").unlink(), "report.json is missing"),
        (lambda b: (b / "manifest.json").write_text("{"), "manifest.json cannot be read"),
        (lambda b: (b / "manifest.json").unlink(), "is no bundle: it has no manifest.json"),
        (lambda b: (b / "manifest.json").write_text("{}"), "was written by something else"),
        (lambda b: (b / "manifest.json").write_text("[]"), "was written by something else"),
        (lambda b: _edit(b / "manifest.json", lambda m: m.update(schema=99)), "schema 99, .* upgrade sparsefx"),
        (lambda b: _edit(b / "manifest.json", lambda m: m.pop("signature")), r"lacks \['signature'\]"),
        (lambda b: _edit(b / "manifest.json", _outside), "not a plain file of the bundle"),
        (lambda b: _link(b / "model.onnx"), "not a plain file of the bundle"),
        (
            lambda b: _edit(b / "manifest.json", _other_target),
            "built for target tpu:v5; this version loads onnxruntime:cpu",
        ),
        (lambda b: _edit(b / "manifest.json", _without_the_engine), "manifest.json lacks model.onnx"),
        (lambda b: _edit(b / "manifest.json", _unknown_setting), "other settings than this version knows .*colour"),
        (lambda b: shutil.rmtree(b), "is no bundle: expected a folder .* found nothing"),
        (_replace_by_file, "found a file"),
    ],
)
def test_what_is_not_as_it_was_saved_is_refused(saved: Path, damage: Callable[[Path], object], message: str) -> None:
    damage(saved)
    with pytest.raises(sparsefx.BundleError, match=message):
        sparsefx.load(saved)


def _flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(bytes(data))


def _outside(manifest: dict[str, object]) -> None:
    files = manifest["files"]
    assert isinstance(files, dict)
    files["../secret"] = {"bytes": 1, "sha256": "0"}


def _other_target(manifest: dict[str, object]) -> None:
    manifest["settings"] = {"target": "tpu:v5", "precision": "fp16", "threads": None}


def _without_the_engine(manifest: dict[str, object]) -> None:
    files = manifest["files"]
    assert isinstance(files, dict)
    del files["model.onnx"]


def _unknown_setting(manifest: dict[str, object]) -> None:
    settings = manifest["settings"]
    assert isinstance(settings, dict)
    settings["colour"] = "red"


def _link(file: Path) -> None:
    target = file.with_suffix(".real")
    file.rename(target)
    file.symlink_to(target)


def test_saving_again_replaces_the_bundle(saved: Path, compiled: CompiledModel) -> None:
    (saved / "model.onnx").write_bytes(b"old")
    compiled.save(saved)
    sparsefx.load(saved)
    assert [p.name for p in saved.parent.iterdir()] == [saved.name]


def test_saving_over_something_else_is_refused(compiled: CompiledModel, tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "diary.txt").write_text("dear diary")
    (tmp_path / "file").write_text("x")
    for name in ("notes", "file"):
        with pytest.raises(sparsefx.BundleError, match="exists and is no bundle"):
            compiled.save(tmp_path / name)
    assert (tmp_path / "notes" / "diary.txt").read_text() == "dear diary"
    assert (tmp_path / "file").read_text() == "x"


def test_a_failed_save_leaves_the_old_bundle_and_nothing_else(
    saved: Path, compiled: CompiledModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {p.name: p.read_bytes() for p in saved.iterdir()}

    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(bundle_module.shutil, "copyfile", full)
    with pytest.raises(sparsefx.BundleError, match=r"cannot write .*No space left on device.*nothing was changed"):
        compiled.save(saved)
    assert {p.name: p.read_bytes() for p in saved.iterdir()} == before
    assert [p.name for p in saved.parent.iterdir()] == [saved.name]


def test_a_failed_swap_puts_the_old_bundle_back(
    saved: Path, compiled: CompiledModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {p.name: p.read_bytes() for p in saved.iterdir()}
    honest = Path.rename

    def failing(self: Path, target: Path) -> Path:
        if Path(target) == saved and self.parent == saved.parent:
            raise OSError(5, "Input/output error")
        return honest(self, target)

    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises(sparsefx.BundleError, match="Input/output error"):
        compiled.save(saved)
    assert {p.name: p.read_bytes() for p in saved.iterdir()} == before
    assert [p.name for p in saved.parent.iterdir()] == [saved.name]


def test_a_folder_that_cannot_be_written_is_an_error(compiled: CompiledModel, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(sparsefx.BundleError, match="cannot write"):
        compiled.save(tmp_path / "file" / "model.sfx")


def test_nothing_in_a_bundle_is_a_pickle(saved: Path) -> None:
    for file in saved.iterdir():
        assert not file.read_bytes().startswith((b"\x80", b"PK"))

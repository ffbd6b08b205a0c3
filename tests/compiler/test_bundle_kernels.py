"""Condensed layers in bundles: no code comes from a file unless it is trusted, and nothing is lost in silence."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import sparsefx
from sparsefx.compiler import bundle_kernels
from sparsefx.compiler.bundle import read_manifest
from sparsefx.compiler.compiled import CompiledModel
from sparsefx.passes.errors import BundleError, TargetError
from tests.runtime.kernels.needs import needs_compiler

pytestmark = needs_compiler


@pytest.fixture(scope="module")
def model() -> nn.Module:
    torch.manual_seed(0)
    layer = nn.Linear(64, 48)
    with torch.no_grad():
        layer.weight.mul_(torch.rand(48, 64) < 0.1)
    return nn.Sequential(layer, nn.ReLU()).eval()


@pytest.fixture(scope="module")
def compiled(model: nn.Module) -> CompiledModel:
    return sparsefx.compile(model, (torch.randn(1, 64),), representation="condensed", threads=1)


@pytest.fixture
def embedded(compiled: CompiledModel, tmp_path: Path) -> Path:
    compiled.save(tmp_path / "with.sfx", embed_kernels=True)
    return tmp_path / "with.sfx"


@pytest.fixture
def bare(compiled: CompiledModel, tmp_path: Path) -> Path:
    compiled.save(tmp_path / "without.sfx")
    return tmp_path / "without.sfx"


def no_compiler() -> Path:
    raise TargetError("the sparse kernels need a C++17 compiler")


def check(bundle: Path, model: nn.Module, condensed: bool, *, trust: bool = False) -> None:
    engine = sparsefx.load(bundle, trust_kernels=trust)
    assert (engine.session.settings()["custom_operators"] is not None) == condensed
    x = torch.randn(3, 64)
    torch.testing.assert_close(engine(x), model(x).detach(), rtol=1e-5, atol=1e-6)


def test_kernels_are_compiled_here_or_embedded(bare: Path, embedded: Path, model: nn.Module) -> None:
    assert not list(bare.glob("*.so")) and len(list(embedded.glob("*.so"))) == 1
    assert read_manifest(bare)["kernels"]["embedded"] is None
    check(bare, model, condensed=True)
    check(embedded, model, condensed=True)


def test_embedded_kernels_run_only_if_trusted(
    embedded: Path, model: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundle_kernels, "custom_op_library", no_compiler)
    with pytest.warns(RuntimeWarning, match="run as dense ones, which is slower: load with trust_kernels=True"):
        check(embedded, model, condensed=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check(embedded, model, condensed=True, trust=True)


def test_without_kernels_the_layers_are_dense_and_it_is_said(
    bare: Path, model: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundle_kernels, "custom_op_library", no_compiler)
    for trust in (False, True):
        with pytest.warns(
            RuntimeWarning, match=r"run as dense ones, which is slower: the sparse kernels need a C\+\+17"
        ):
            check(bare, model, condensed=False, trust=trust)


def test_kernels_of_another_system_are_not_run(
    embedded: Path, model: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundle_kernels, "custom_op_library", no_compiler)
    monkeypatch.setattr(bundle_kernels, "_system", lambda: "Linux s390x")
    with pytest.warns(RuntimeWarning, match="run as dense ones"):
        check(embedded, model, condensed=False, trust=True)


def test_a_damaged_library_is_refused(embedded: Path) -> None:
    (library,) = embedded.glob("*.so")
    library.write_bytes(library.read_bytes()[:-1] + b"x")
    for trust in (False, True):
        with pytest.raises(BundleError, match="is damaged"):
            sparsefx.load(embedded, trust_kernels=trust)


def test_another_number_of_threads_is_warned_of(bare: Path, model: nn.Module) -> None:
    with pytest.warns(RuntimeWarning, match="chosen for 1 threads, and run on 2; compile with threads=2"):
        engine = sparsefx.load(bare, threads=2)
    x = np.ones((2, 64), np.float32)
    np.testing.assert_allclose(engine(x), model(torch.ones(2, 64)).detach().numpy(), rtol=1e-5, atol=1e-6)


def test_there_may_be_nothing_to_embed(model: nn.Module, tmp_path: Path) -> None:
    dense = sparsefx.compile(model, (torch.randn(1, 64),), representation="dense")
    with pytest.raises(BundleError, match="no kernels to embed: no layer runs by them"):
        dense.save(tmp_path / "dense.sfx", embed_kernels=True)
    assert not (tmp_path / "dense.sfx").exists()

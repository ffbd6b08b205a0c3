from __future__ import annotations

import subprocess
import sys

import pytest

import sparsefx.training


def test_importing_the_floor_loads_no_optional_dependency() -> None:
    code = (
        "import sys, sparsefx.training as t; assert 'torch' not in sys.modules; "
        "[getattr(t, name) for name in t.__all__]; import sparsefx.training.recipes.run, sparsefx.training.importers; "
        "unwanted = {'sklearn', 'torchvision', 'onnxruntime', 'sparsefx.compiler'} & set(sys.modules); "
        "assert not unwanted, unwanted"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_public_names() -> None:
    assert set(dir(sparsefx.training)) >= {"MaskSet", "RigL", "Chase", "Sparsifier"}
    for name in sparsefx.training.__all__:
        assert getattr(sparsefx.training, name).__name__ == name
    with pytest.raises(AttributeError, match=r"module 'sparsefx.training' has no attribute 'SRigl'"):
        sparsefx.training.SRigl  # noqa: B018

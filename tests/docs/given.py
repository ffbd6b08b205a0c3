"""What some pages take for given: files of a command that takes a minute, packages that do not install everywhere."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import sparsefx
from sparsefx.training.recipes.nets import SmallResNet


def quickstart_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """What `sparsefx quickstart` leaves, of a network that has not been trained."""
    torch.manual_seed(0)
    model, example, folder = SmallResNet().eval(), torch.randn(1, 1, 16, 16), Path("quickstart")
    folder.mkdir()
    layers = {n: p for n, p in model.named_parameters() if p.ndim > 1 and n != "head.weight"}
    masks = sparsefx.MaskSet({n: torch.rand(p.shape) < 0.1 for n, p in layers.items()}, method="SRigL")
    save_file(model.state_dict(), folder / "weights.safetensors")
    masks.save(folder / "masks.safetensors")
    for name, chosen in (("dense", None), ("srigl", masks)):
        how = {"masks": chosen, "representation": "dense", "threads": 1, "verify": False}
        sparsefx.compile(model, (example,), **how).save(folder / f"{name}.sfx")


def torch_tensorrt_list(monkeypatch: pytest.MonkeyPatch) -> None:
    """The part of Torch-TensorRT's registry that the page uses; the real one is in test_torch_tensorrt.py."""
    path = "torch_tensorrt.dynamo.lowering.passes._aten_lowering_pass"
    parts = path.split(".")
    for i in range(1, len(parts) + 1):
        monkeypatch.setitem(sys.modules, ".".join(parts[:i]), ModuleType(".".join(parts[:i])))
    registry = sys.modules[path]

    def add(lowering: Any, index: int) -> None:
        registry.listed.insert(index, lowering)

    registry.listed, registry._aten_lowering_pass = [], add  # type: ignore[attr-defined]
    sys.modules[path.rpartition(".")[0]]._aten_lowering_pass = registry  # type: ignore[attr-defined]


GIVEN: Mapping[str, Callable[[pytest.MonkeyPatch], None]] = {
    "README.md": quickstart_files,
    "docs/guide/command-line.md": quickstart_files,
    "docs/guide/pipelines.md": torch_tensorrt_list,
}

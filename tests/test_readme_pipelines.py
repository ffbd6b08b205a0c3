"""The blocks of README's sections on serving and on pipelines of one's own, executed as they stand."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import sparsefx
from sparsefx.__main__ import main
from tests.runtime.kernels.needs import needs_compiler
from tests.runtime.serving.schema import needs_schema
from tests.runtime.serving.server import serving

README = (Path(__file__).parents[1] / "README.md").read_text()


def blocks(section: str) -> list[tuple[str, str]]:
    """Language and text of every block of a section."""
    text = README.split(f"\n## {section}\n")[1].split("\n## ")[0]
    return re.findall(r"```(\w+)\n(.*?)```", text, re.DOTALL)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 12, 3), nn.Linear(12 * 36, 4)
        with torch.no_grad():
            self.conv.weight[::2] = 0

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.conv(x).relu().flatten(1))


@pytest.fixture
def names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """What the blocks take for given."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    yield {"torch": torch, "sparsefx": sparsefx, "model": Net().eval(), "example": torch.randn(1, 3, 8, 8)}
    torch._dynamo.reset()


@needs_schema
def test_serving(names: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    (shell, commands), (language, program) = blocks("Serving")
    assert (shell, language) == ("bash", "python")
    model, images = names["model"], torch.randn(5, 3, 8, 8)
    sparsefx.compile(model, (names["example"],), threads=1).save("model.sfx")
    export, serve = commands.strip().splitlines()
    assert main(shlex.split(export)[1:]) == 0
    assert serve == "tritonserver --model-repository models" and serve in capsys.readouterr().out
    with serving(Path("models")) as address:
        exec(program.replace("localhost:8000", address), names | {"images": images}, names)
    torch.testing.assert_close(torch.from_numpy(names["outputs"]["output"]), model(images).detach(), rtol=0, atol=1e-4)


@needs_compiler
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # torch's own
def test_pipelines(names: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    listed = _lowering_list(monkeypatch)
    names["x"] = torch.randn(3, 3, 8, 8)
    for language, program in blocks("In your own pipeline"):
        assert language == "python"
        exec(program, names)
    model, x = names["model"], names["x"]
    assert names["slim"].conv.weight.shape[0] == 6
    for y in (names["slim"](x), names["y"]):
        torch.testing.assert_close(y, model(x), rtol=0, atol=1e-5)
    graph = torch.export.export(model, (x,)).module()
    assert listed[0](graph, None).conv.weight.shape[0] == 6


def _lowering_list(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Torch-TensorRT's registry, which does not import here; the real one is in test_torch_tensorrt.py."""
    listed: list[Any] = []
    path = "torch_tensorrt.dynamo.lowering.passes._aten_lowering_pass"
    parts = path.split(".")
    for i in range(1, len(parts) + 1):
        monkeypatch.setitem(sys.modules, ".".join(parts[:i]), ModuleType(".".join(parts[:i])))
    registry = sys.modules[path]
    registry._aten_lowering_pass = lambda lowering, index: listed.insert(index, lowering)  # type: ignore[attr-defined]
    sys.modules[path.rpartition(".")[0]]._aten_lowering_pass = registry  # type: ignore[attr-defined]
    return listed

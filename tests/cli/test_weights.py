"""`--weights` in the forms that other tools write."""

from __future__ import annotations

import json
from argparse import Namespace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from sparsefx.cli.model_arguments import load_model
from sparsefx.passes.errors import MaskError

_FACTORY = """
from torch import nn

class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.head = nn.Embedding(6, 4), nn.Linear(4, 6, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, ids):
        return self.head(self.embed(ids))
"""
WEIGHT = torch.arange(24.0).reshape(6, 4)


@pytest.fixture(autouse=True)
def _workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tied_factory.py").write_text(_FACTORY)
    monkeypatch.chdir(tmp_path)


def load(weights: str) -> torch.nn.Module:
    model, _ = load_model(Namespace(model="tied_factory:Tied", weights=weights, masks=None))
    assert isinstance(model, torch.nn.Module)
    return model


def test_the_second_name_of_a_tied_weight_need_not_be_there(tmp_path: Path) -> None:
    """transformers leaves it out, since safetensors refuses shared memory."""
    save_file({"embed.weight": WEIGHT}, tmp_path / "model.safetensors")
    model = load("model.safetensors")
    assert torch.equal(model.get_parameter("head.weight"), WEIGHT)
    assert model.get_parameter("head.weight") is model.get_parameter("embed.weight")


def test_a_folder_with_shards(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    save_file({"embed.weight": WEIGHT}, folder / "model-00001-of-00001.safetensors")
    index = {"weight_map": {"embed.weight": "model-00001-of-00001.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert torch.equal(load("checkpoint").get_parameter("head.weight"), WEIGHT)


def test_what_is_really_missing_is_still_named(tmp_path: Path) -> None:
    save_file({"other.weight": WEIGHT}, tmp_path / "model.safetensors")
    with pytest.raises(MaskError, match=r"(?s)does not fit Tied: .*embed\.weight"):
        load("model.safetensors")

"""A slim module as safetensors and JSON, and back; and as whatever else modules are stored."""

from __future__ import annotations

import copy
import io
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import sparsefx
from tests.compiler.slimming.nets import Block, Depthwise, ablate, lively


class Grouped(nn.Module):
    """Groups that keep different inputs, a table of constants that is not saved, and a layer that gets a bias."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 12, 1)
        self.second = nn.Conv2d(12, 8, 3, padding=1, groups=2)
        self.register_buffer("scale", torch.linspace(0.5, 1.5, 8).reshape(8, 1, 1), persistent=False)
        self.third, self.head = nn.Conv2d(8, 6, 1, bias=False), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.sigmoid(self.second(torch.relu(self.first(x)))) * self.scale
        out: Tensor = self.head(self.third(x).sigmoid().mean((2, 3)))
        return out


def grouped() -> tuple[Any, Any]:
    model, make_inputs = lively(Grouped())
    with torch.no_grad():
        model.first.weight[[0, 1, 7, 8]] = 0
        model.first.bias[[0, 1, 7, 8]] = 0
        model.second.weight[[1, 6]] = 0
    return model, make_inputs


@pytest.mark.parametrize("build", [Grouped, Depthwise], ids=lambda c: c.__name__)
def test_weights_and_configuration_make_the_module_again(build: type[nn.Module], tmp_path: Path) -> None:
    if build is Grouped:
        model, make_inputs = grouped()
    else:
        model, make_inputs = lively(Depthwise())
        ablate(model, "stem", "expand", "project")
    small, _ = sparsefx.slim(model, make_inputs(2))
    save_file(small.state_dict(), tmp_path / "slim.safetensors")
    (tmp_path / "slim.json").write_text(json.dumps(small.config))
    again = sparsefx.rebuild_slim(build().double(), json.loads((tmp_path / "slim.json").read_text())).eval()
    again.load_state_dict(load_file(tmp_path / "slim.safetensors"))
    x = make_inputs(2)
    with torch.no_grad():
        assert torch.equal(again(*x), small(*x))
    assert again.config == small.config and repr(again) == repr(small)
    assert (
        sum(p.numel() for p in again.parameters())
        == small.config["parameters_after"]
        < sum(p.numel() for p in model.parameters())
    )


def test_a_module_that_was_slimmed_twice_is_made_from_the_full_size_one() -> None:
    model, make_inputs = lively(Depthwise())
    ablate(model, "stem", "expand")
    once, _ = sparsefx.slim(model, make_inputs(2))
    ablate(once, "expand")
    twice, _ = sparsefx.slim(once, make_inputs(2))
    assert (
        twice.config["parameters_after"] < once.config["parameters_after"] < sum(p.numel() for p in model.parameters())
    )
    again = sparsefx.rebuild_slim(Depthwise().double(), json.loads(json.dumps(twice.config))).eval()
    again.load_state_dict(twice.state_dict())
    x = make_inputs(2)
    with torch.no_grad():
        assert torch.equal(again(*x), twice(*x))


def test_the_configuration_has_the_kept_channels() -> None:
    model, make_inputs = grouped()
    small, _ = sparsefx.slim(model, make_inputs(2))
    tensors = small.config["tensors"]
    assert tensors["first.weight"] == {
        "shape": [8, 3, 1, 1], "was": [12, 3, 1, 1], "kept": [[2, 3, 4, 5, 6, 9, 10, 11], None, None, None],
    }  # fmt: skip
    assert tensors["first.bias"]["kept"] == [[2, 3, 4, 5, 6, 9, 10, 11]]
    assert tensors["second.weight"]["kept"][:2] == [[0, 2, 3, 4, 5, 7], [2, 3, 4, 5, 6, 9, 10, 11]]
    assert tensors["scale"]["kept"] == [[0, 2, 3, 4, 5, 7], None, None]
    assert small.config["layers"]["second"] == {"in_channels": 8, "out_channels": 6}
    assert small.config["biases"] == {"third.bias": 6}


def test_modules_are_copied_and_stored_as_ever() -> None:
    model, make_inputs = grouped()
    small, _ = sparsefx.slim(model, make_inputs(2))
    stored = io.BytesIO()
    torch.save(small, stored)
    stored.seek(0)
    x = make_inputs(2)
    for other in (copy.deepcopy(small), torch.load(stored, weights_only=False)):
        assert other.config == small.config
        assert torch.equal(other(*x), small(*x))
    assert set(small.state_dict()) == {*model.state_dict(), "third.bias"}


class Configured(Block):
    """A class whose `config` is its own, as those of transformers."""

    def __init__(self) -> None:
        super().__init__(nn.Conv2d(3, 12, 3), 12)
        self.config = {"width": 12}


def test_a_class_with_a_config_of_its_own_keeps_it() -> None:
    model, make_inputs = lively(Configured())
    ablate(model, "first")
    small, _ = sparsefx.slim(model, make_inputs(2))
    assert small.config == {"width": 12}
    again = sparsefx.rebuild_slim(Configured(), small.slim_config)
    assert again.config == {"width": 12} and again.slim_config == small.slim_config


def damaged(config: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {key: value for key, value in {**config, **changes}.items() if value is not None}


def test_other_configurations_are_refused() -> None:
    model, make_inputs = grouped()
    config = sparsefx.slim(model, make_inputs(2))[0].config
    with pytest.raises(sparsefx.BundleError, match=r"expected the config of a module that sparsefx\.slim returned"):
        sparsefx.rebuild_slim(Grouped(), {"width": 12})
    with pytest.raises(sparsefx.BundleError, match="has version 2, known is 1"):
        sparsefx.rebuild_slim(Grouped(), damaged(config, version=2))
    with pytest.raises(sparsefx.BundleError, match="lacks 'tensors'; it is damaged"):
        sparsefx.rebuild_slim(Grouped(), damaged(config, tensors=None))
    odd_channel, odd_layer = copy.deepcopy(config), copy.deepcopy(config)
    odd_channel["tensors"]["first.weight"]["kept"][0][0] = 99
    odd_layer["layers"]["first"]["forward"] = 3
    with pytest.raises(sparsefx.BundleError, match=r"tensor first\.weight is damaged"):
        sparsefx.rebuild_slim(Grouped(), odd_channel)
    with pytest.raises(sparsefx.BundleError, match="layer first is damaged"):
        sparsefx.rebuild_slim(Grouped(), odd_layer)
    with pytest.raises(sparsefx.BundleError, match=r"wants \S+ of shape .* in this Linear it is not there"):
        sparsefx.rebuild_slim(nn.Linear(3, 4), config)
    small = sparsefx.rebuild_slim(Grouped(), config)
    with pytest.raises(sparsefx.BundleError, match=r"it has shape .*; build the full-size model"):
        sparsefx.rebuild_slim(small, config)

"""Checkpoints of every layout, written as the training codes write them, come back as weights and masks."""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.utils import prune

from sparsefx.__main__ import main
from sparsefx.cli.model_arguments import load_model
from sparsefx.passes.errors import MaskError
from sparsefx.training import MaskSet
from sparsefx.training.importers import Checkpoint, read_checkpoint
from tests.compiler.models import half_of_conv1, residual
from tests.training.helpers import Plain, Residual, seeded

State = dict[str, Tensor]
ZEROS = "zeros in the weights of a state dict"
NESTED_ZEROS = "zeros in the weights of a training checkpoint"


def layers_of(model: nn.Module) -> dict[str, nn.Module]:
    return {name: module for name, module in model.named_modules() if isinstance(module, nn.Conv2d | nn.Linear)}


def masks_of(model: nn.Module, dense: int = 0) -> list[Tensor | None]:
    """A mask for every layer in order of definition; None for one of them."""
    generator = torch.Generator().manual_seed(0)
    masks: list[Tensor | None] = [
        torch.rand(m.weight.shape, generator=generator) < 0.4 for m in layers_of(model).values()
    ]
    masks[dense] = None
    return masks


def named(model: nn.Module, masks: list[Tensor | None]) -> MaskSet:
    names = [f"{name}.weight" for name in layers_of(model)]
    return MaskSet({name: mask for name, mask in zip(names, masks, strict=True) if mask is not None})


def zeroed(model: nn.Module) -> State:
    """The state dict of a model with some weights of every layer at zero."""
    named(model, masks_of(model)).apply(model)
    return model.state_dict()


def rigl_torch(model: nn.Module, masks: list[Tensor | None], **changes: Any) -> dict[str, Any]:
    sizes = [module.weight.numel() for module in layers_of(model).values()]
    pruner = {"S": [0.0] + [0.6] * (len(masks) - 1), "N": sizes, "backward_masks": masks, "step": 70, **changes}
    return {"epoch": 3, "model": model.state_dict(), "optimizer": {"state": {}}, "pruner": pruner}


def assert_read(checkpoint: Checkpoint, weights: State, masks: MaskSet, source: str) -> None:
    assert list(checkpoint.weights) == list(weights)
    for name, weight in weights.items():
        assert torch.equal(checkpoint.weights[name], weight), name
    assert checkpoint.masks == masks
    assert checkpoint.source == source


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file whose name says nothing, or something wrong."""
    return tmp_path / "checkpoint.txt"


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."])
@pytest.mark.parametrize("keys", [(), ("state_dict",), ("model_state_dict",), ("model",), ("model", "state_dict")])
def test_zeros_are_masks_under_every_key_and_prefix(path: Path, prefix: str, keys: tuple[str, ...]) -> None:
    state = zeroed(seeded(Plain))
    content: Any = {prefix + name: weight for name, weight in state.items()}
    for key in reversed(keys):
        content = {"epoch": 3, key: content, "optimizer": {"state": {}, "param_groups": []}}
    torch.save(content, path)
    checkpoint = read_checkpoint(path)
    source = NESTED_ZEROS if keys else ZEROS
    assert_read(checkpoint, state, named(seeded(Plain), masks_of(Plain())), f"{source}, in a torch.save file")
    assert checkpoint.masks.method == "zeros" and not checkpoint.carries_masks


def test_a_prefix_that_some_names_lack_stays(path: Path) -> None:
    torch.save({"module.fc.weight": torch.eye(2), "scale": torch.ones(2)}, path)
    assert list(read_checkpoint(path).weights) == ["module.fc.weight", "scale"]


def test_content_decides_and_not_the_name_of_the_file(tmp_path: Path) -> None:
    state = zeroed(seeded(Plain))
    masks = named(Plain(), masks_of(Plain()))
    save_file(state, tmp_path / "really_safetensors.pth")
    torch.save(state, tmp_path / "really_torch.safetensors")
    torch.save(state, tmp_path / "old", _use_new_zipfile_serialization=False)
    in_safetensors = read_checkpoint(str(tmp_path / "really_safetensors.pth"))
    assert in_safetensors.source == f"{ZEROS}, in a safetensors file" and in_safetensors.masks == masks
    for name in ("really_torch.safetensors", "old"):
        assert_read(read_checkpoint(tmp_path / name), state, masks, f"{ZEROS}, in a torch.save file")


def test_a_checkpoint_without_a_zero_has_no_masks(path: Path) -> None:
    torch.save({"state_dict": {"fc.weight": nn.Parameter(torch.ones(3, 2)), "fc.bias": torch.zeros(3)}}, path)
    checkpoint = read_checkpoint(path)
    assert len(checkpoint.masks) == 0
    assert not checkpoint.weights["fc.weight"].requires_grad


@pytest.mark.parametrize("key", ["model", "state_dict"])
def test_rigl_torch_masks_layers_in_order_of_definition(path: Path, key: str) -> None:
    model = seeded(Plain)
    masks = masks_of(model, dense=2)
    content = rigl_torch(model, masks)
    content[key] = {f"module.{name}": weight for name, weight in content.pop("model").items()}
    torch.save(content, path)
    checkpoint = read_checkpoint(path)
    source = "rigl-torch: backward_masks in order of definition, in a torch.save file"
    assert_read(checkpoint, model.state_dict(), named(model, masks), source)
    assert (checkpoint.masks.method, checkpoint.masks.step, checkpoint.carries_masks) == ("rigl-torch", 70, True)
    assert checkpoint.weights["fc.weight"].all(), "weights are as they were saved, whatever the masks say"


def test_rigl_torch_counts_one_dimensional_weights_but_no_batch_norm(path: Path) -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2), nn.Flatten(), nn.LayerNorm(2), nn.Linear(2, 2))
    masks = [None, torch.tensor([True, False]), torch.eye(2).bool()]
    torch.save({"model": model.state_dict(), "pruner": {"backward_masks": masks}}, path)
    assert read_checkpoint(path).masks == MaskSet({"3.weight": masks[1], "4.weight": masks[2]})


def test_a_dense_run_of_rigl_torch_has_no_pruner(path: Path) -> None:
    torch.save({"state_dict": zeroed(Plain()), "pruner": None}, path)
    assert read_checkpoint(path).source.startswith(NESTED_ZEROS)


@pytest.mark.parametrize("full_names", [False, True])
def test_converted_srigl_names_modules_alone_or_with_their_parents(path: Path, full_names: bool) -> None:
    model = seeded(Residual)
    masks = masks_of(model)
    modules = [name if full_names else name.rpartition(".")[2] for name in layers_of(model)]
    order = list(reversed(range(len(modules)))) if full_names else list(range(len(modules)))
    pruner = {"backward_masks": [masks[i] for i in order], "module_names": [modules[i] for i in order]}
    torch.save({"model": model.state_dict(), "pruner": pruner}, path)
    checkpoint = read_checkpoint(path)
    source = "SRigL: backward_masks with module_names, in a torch.save file"
    assert_read(checkpoint, model.state_dict(), named(model, masks), source)
    assert checkpoint.masks.method == "srigl" and checkpoint.carries_masks


def test_srigl_also_masks_the_input_projection_of_attention(path: Path) -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4), nn.MultiheadAttention(4, 2))
    state = model.state_dict()
    names = ["0.weight", "2.in_proj_weight", "2.out_proj.weight"]
    masks = [torch.rand(state[name].shape) < 0.5 for name in names]
    pruner = {"backward_masks": masks, "module_names": ["0", "2", "out_proj"]}
    torch.save({"model": {f"module.{name}": w for name, w in state.items()}, "pruner": pruner}, path)
    assert read_checkpoint(path).masks == MaskSet(dict(zip(names, masks, strict=True)))


def test_an_early_srigl_checkpoint_has_no_names(path: Path) -> None:
    model = seeded(Plain)
    masks = masks_of(model)
    torch.save(rigl_torch(model, masks, dynamically_ablated_neuron_idx=[[], [1], [], []]), path)
    checkpoint = read_checkpoint(path)
    assert checkpoint.masks == named(model, masks) and checkpoint.masks.method == "srigl"


@pytest.mark.parametrize("nested", [False, True])
def test_torch_prune_gives_products_and_masks(path: Path, nested: bool) -> None:
    model = seeded(Plain)
    prune.random_unstructured(model.conv1, "weight", amount=0.5)
    prune.random_unstructured(model.conv1, "bias", amount=2)
    prune.ln_structured(model.fc, "weight", amount=2, n=2, dim=0)
    state = model.state_dict()
    torch.save({"state_dict": {f"module.{k}": v for k, v in state.items()}} if nested else state, path)
    checkpoint = read_checkpoint(path)
    assert checkpoint.masks == MaskSet.from_pruning(model)
    assert checkpoint.source == "torch.nn.utils.prune: weight_orig with weight_mask, in a torch.save file"
    assert checkpoint.weights.keys() == Plain().state_dict().keys()
    assert torch.equal(checkpoint.weights["conv1.weight"], state["conv1.weight_orig"] * state["conv1.weight_mask"])
    assert torch.equal(checkpoint.weights["conv3.weight"], state["conv3.weight"])


FACTORY = """
from torch.nn.utils import prune
from tests.compiler.models import residual
def pruned():
    model = residual()
    prune.random_unstructured(model.conv1, "weight", amount=0.5)
    return model
"""


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "importer_factory.py").write_text(FACTORY)
    yield tmp_path
    sys.modules.pop("importer_factory", None)


def test_the_command_line_compiles_with_the_masks_of_the_checkpoint(
    workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = residual(seed=1)
    half = half_of_conv1(model)
    masks = [None, half["conv1.weight"], None, None]
    torch.save({"model": model.state_dict(), "pruner": {"backward_masks": masks, "S": [], "N": []}}, "rigl.pth")
    MaskSet({"conv1.weight": torch.ones_like(half["conv1.weight"])}).save("all.safetensors")
    arguments = ["importer_factory:residual", "--weights", "rigl.pth", "--input", "1x3x8x8"]
    after = {}
    for name, more in {"own": [], "given": ["--masks", "all.safetensors"]}.items():
        assert main(["compile", *arguments, *more, "-o", f"{name}.sfx", "--quiet", "--json"]) == 0
        after[name] = json.loads(capsys.readouterr().out)["totals"]["channels_after"]
    assert after["given"] - after["own"] == 8, "half of conv1's 16 channels, unless masks are given"
    assert main(["verify", "own.sfx", *arguments, "--quiet"]) == 0
    assert main(["verify", "own.sfx", *arguments, "--masks", "all.safetensors", "--quiet"]) == 1


def test_the_command_line_loads_pruned_weights_into_pruned_and_plain_models(workplace: Path) -> None:
    trained = residual(seed=1)
    prune.random_unstructured(trained.conv1, "weight", amount=0.3)
    torch.save(trained.state_dict(), "pruned.pth")
    x = torch.randn(2, 3, 8, 8)
    for factory in ("pruned", "residual"):
        loaded = Namespace(model=f"importer_factory:{factory}", weights="pruned.pth", masks=None)
        model, masks = load_model(loaded)
        assert masks == MaskSet.from_pruning(trained)
        with torch.no_grad():
            assert torch.equal(model(x), trained(x))


def test_weights_of_another_model_name_the_file(workplace: Path) -> None:
    torch.save({"fc.weight": torch.eye(2)}, "other.pth")
    with pytest.raises(MaskError, match=r"other\.pth does not fit Residual"):
        load_model(Namespace(model="importer_factory:residual", weights="other.pth", masks=None))

"""Both passes that thin layers, on random nets and whole networks: the masked model's function, to 1e-9 in float64."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torchvision
from torch import nn

from sparsefx.compiler.pipeline import run_pipeline
from sparsefx.passes.capture import capture
from sparsefx.passes.fold_batch_norm import FoldBatchNorm
from sparsefx.passes.gather_inputs import GatherInputs
from sparsefx.passes.remove_channels import RemoveChannels
from sparsefx.passes.scatter_outputs import ScatterOutputs
from tests.helpers import TOLERANCE, copied, deviation, inputs_like, randomise, run, worst_error
from tests.randomnets.check import drawn_masks, unmasked, varies
from tests.randomnets.draw import Draw
from tests.randomnets.net import build
from tests.zoo.alive import revive_zero_layers

_NETS = 6
_MASKS = 3


def thin(graph: torch.fx.GraphModule) -> tuple[bool, bool]:
    fired = GatherInputs()(graph).modified, ScatterOutputs()(graph).modified
    FoldBatchNorm()(graph)
    assert not GatherInputs()(graph).modified and not ScatterOutputs()(graph).modified
    return fired


@pytest.mark.ci
def test_random_nets() -> None:
    fired = []
    for seed in range(_NETS):
        draw = Draw.seeded(seed)
        built = build(draw)
        captured = capture(built.net, built.make_inputs(2))
        for _, _ in zip(range(_MASKS), drawn_masks(draw, built, unmasked(built)), strict=False):
            if not varies(built):
                continue
            graph = copied(captured)
            if draw.chance(50):
                run_pipeline(graph)
            fired.append(thin(graph))
            assert worst_error(graph, built.net, built.make_inputs) <= TOLERANCE, f"seed {seed}"
            RemoveChannels()(graph)  # what was thinned is understood by the channel analysis
            assert worst_error(graph, built.net, built.make_inputs) <= TOLERANCE, f"seed {seed}, channels removed after"
    assert len(fired) >= _NETS and all(sum(f) >= 3 for f in zip(*fired, strict=True))


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "resnet18": torchvision.models.resnet18,
    "regnet": torchvision.models.regnet_y_400mf,  # grouped convolutions, squeeze-excite
    "transformer": lambda: torchvision.models.VisionTransformer(
        image_size=32, patch_size=16, num_layers=3, num_heads=2, hidden_dim=32, mlp_dim=64
    ),
}


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.ci] if n == "regnet" else []) for n in NETWORKS])
def test_networks(name: str) -> None:
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    model = NETWORKS[name]().double().eval()
    revive_zero_layers(model)
    make_inputs = inputs_like((3, 32, 32))
    with torch.no_grad():
        for layer in model.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear) and layer.weight.shape[1] > 3:
                layer.weight[torch.rand(len(layer.weight), generator=generator) < 0.3] = 0
                layer.weight[:, torch.rand(layer.weight.shape[1], generator=generator) < 0.3] = 0
    randomise(model, lambda: model(*make_inputs(4)), generator)
    graph = capture(model, make_inputs(2))
    run_pipeline(graph)
    assert thin(graph) == (True, True)
    assert all(deviation(o).varies for o in run(model, make_inputs(8)))
    assert worst_error(graph, model, make_inputs) <= TOLERANCE

"""Chase, Table 15 (in its appendix): ResNet-50 masked by that table comes out with its dimensions."""

from __future__ import annotations

import functools

import pytest
import torch
from torch import Tensor, nn

import sparsefx
from sparsefx.compiler.report import Report
from tests.training.test_chase_table_15 import KEPT
from tests.zoo.alive import bring_to_life, images

pytestmark = pytest.mark.ci

FLOPS = 0.678
_INPUT = {"layer1.0": 64, "layer1": 256, "layer2.0": 256, "layer2": 512, "layer3.0": 512, "layer3": 1024}
_INPUT |= {"layer4.0": 1024, "layer4": 2048}
_OUTPUT = {"layer1": 256, "layer2": 512, "layer3": 1024, "layer4": 2048}


def printed() -> dict[str, tuple[int, ...]]:
    """Weight dimensions after Chase, as the table prints them for all 54 layers."""
    table: dict[str, tuple[int, ...]] = {"conv1": (64, 3, 7, 7), "fc": (1000, 2048)}
    for stage, blocks in KEPT.items():
        for i, (first, second) in enumerate(blocks):
            block = f"{stage}.{i}"
            inputs = _INPUT.get(block, _INPUT[stage])
            table[f"{block}.conv1"] = (first, inputs, 1, 1)
            table[f"{block}.conv2"] = (second, first, 3, 3)
            table[f"{block}.conv3"] = (_OUTPUT[stage], second, 1, 1)
        table[f"{stage}.0.downsample.0"] = (_OUTPUT[stage], _INPUT[f"{stage}.0"], 1, 1)
    return table


@functools.cache
def masked_resnet50(columns: bool) -> nn.Module:
    """Filters beyond the table's widths zero; with `columns` also the input columns that would read them."""
    import torchvision

    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    model: nn.Module = torchvision.models.resnet50(weights=None).eval()
    bring_to_life(model, images(4, 64, generator), generator)
    with torch.no_grad():
        for name, (outputs, inputs, *_kernel) in printed().items():
            weight: Tensor = model.get_submodule(name).weight
            weight[_dropped(name, weight.shape[0], outputs)] = 0.0
            if columns and name.endswith(("conv2", "conv3")):
                producer = name[:-1] + str(int(name[-1]) - 1)
                weight[:, _dropped(producer, weight.shape[1], inputs)] = 0.0
    return model


def _dropped(layer: str, width: int, kept: int) -> Tensor:
    generator = torch.Generator().manual_seed(sum(map(ord, layer)))
    return torch.randperm(width, generator=generator)[kept:]


def _dimensions(report: Report) -> dict[str, tuple[int, ...] | None]:
    return {layer.name: layer.shape_after for layer in report.layers}


def test_filters_and_columns_leave_exactly_the_printed_dimensions() -> None:
    model = masked_resnet50(columns=True).double()
    compiled = sparsefx.compile(model, (images(2, 64, torch.Generator()).double(),), target="torch", tolerance=1e-9)
    assert _dimensions(compiled.report) == printed()
    assert sum(w for blocks in KEPT.values() for widths in blocks for w in widths) == 4531  # of 7552: 40.0% are gone


def test_flops_are_the_printed_share() -> None:
    model = masked_resnet50(columns=True).float()
    totals = sparsefx.compile(model, (torch.randn(1, 3, 224, 224),), target="torch", verify=False).report.totals
    assert f"{totals.macs_after / totals.macs_before:.3f}" == str(FLOPS)


def test_filters_alone_cost_at_most_one_carrier_a_layer() -> None:
    """Only a padded consumer of a constant needs one: the 3x3 convolutions, which read a block's first convolution."""
    model = masked_resnet50(columns=False).double()
    compiled = sparsefx.compile(model, (images(2, 64, torch.Generator()).double(),), target="torch", tolerance=1e-9)
    carriers = 0
    for name, shape in _dimensions(compiled.report).items():
        assert shape is not None
        more = shape[0] - printed()[name][0]
        assert more in ((0, 1) if name.endswith("conv1") and name != "conv1" else (0,)), name
        carriers += more
    assert carriers == sum(_leaves_a_constant(model, name) for name in printed() if name.endswith("conv1"))
    assert carriers >= 13


def _leaves_a_constant(model: nn.Module, name: str) -> bool:
    """Whether some dropped filter of a block's first convolution is more than zero behind its BatchNorm and ReLU."""
    norm = model.get_submodule(name.replace("conv1", "bn1"))
    constant = norm.bias - norm.running_mean * norm.weight / (norm.running_var + norm.eps).sqrt()
    dropped = _dropped(name, len(constant), printed()[name][0])
    return name != "conv1" and bool((constant[dropped] > 0).any())

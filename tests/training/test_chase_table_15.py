"""Chase's Table 15: ResNet-50 at 40% channel sparsity, which channels exist and what removing them leaves."""

from __future__ import annotations

import pytest
import torch

from sparsefx.passes.capture import capture
from sparsefx.passes.channels.groups import channel_groups
from sparsefx.training.channels import CoupledChannels
from sparsefx.training.flops import dense_hardware_flops, layer_macs
from sparsefx.training.layers import LayerPatterns, choose_layers

from .helpers import resnet50, sgd

# Kept channels of conv1 and conv2 of every block.
KEPT = {
    "layer1": [(64, 64), (63, 62), (63, 64)],
    "layer2": [(128, 127), (111, 117), (106, 108), (122, 96)],
    "layer3": [(255, 241), (151, 143), (151, 108), (91, 74), (76, 41), (105, 44)],
    "layer4": [(499, 241), (146, 89), (489, 292)],
}
# Weight dimensions as printed, a sample of each kind of layer.
PRINTED = {
    "conv1.weight": (64, 3, 7, 7),
    "layer1.1.conv1.weight": (63, 256, 1, 1),
    "layer1.1.conv2.weight": (62, 63, 3, 3),
    "layer1.1.conv3.weight": (256, 62, 1, 1),
    "layer2.0.downsample.0.weight": (512, 256, 1, 1),
    "layer3.4.conv2.weight": (41, 76, 3, 3),
    "layer3.5.conv3.weight": (1024, 44, 1, 1),
    "layer4.0.conv1.weight": (499, 1024, 1, 1),
    "layer4.2.conv2.weight": (292, 489, 3, 3),
    "layer4.2.conv3.weight": (2048, 292, 1, 1),
}


def kept_widths() -> dict[str, int]:
    return {
        f"{stage}.{block}.conv{i + 1}.weight": width
        for stage, blocks in KEPT.items()
        for block, widths in enumerate(blocks)
        for i, width in enumerate(widths)
    }


@pytest.fixture(scope="module")
def channels() -> CoupledChannels:
    model = resnet50()
    choice = choose_layers(model, sgd(model), LayerPatterns())
    groups = channel_groups(capture(model, (torch.zeros(2, 3, 64, 64),)))
    return CoupledChannels(groups, choice.layers, choice.aliases, prune_skip=False, prune_first=False)


def test_the_candidates_are_the_papers_internal_channels(channels: CoupledChannels) -> None:
    assert len(channels.candidates) == 7552
    assert channels.widths().keys() == kept_widths().keys()
    assert channels.kept["the first layer"] == 64


def test_removing_them_leaves_the_printed_dimensions_and_flops(channels: CoupledChannels) -> None:
    kept = kept_widths()
    assert sum(kept.values()) == 4531
    assert f"{1 - 4531 / len(channels.candidates):.3f}" == "0.400"

    removed = torch.zeros(7552, dtype=torch.bool)
    missing = {name: channels.full_width(name) - width for name, width in kept.items()}
    for index, group in enumerate(channels.candidates):
        name = group.producers[0].parameter
        removed[index] = missing[name] > 0
        missing[name] -= 1
    channels.restore(removed)
    assert channels.widths() == kept

    masks = channels.allowed()
    for name, shape in PRINTED.items():
        live = masks[name].flatten(1).any(1).sum(), masks[name].transpose(0, 1).flatten(1).any(1).sum()
        assert (*map(int, live), *masks[name].shape[2:]) == shape, name
    macs = layer_macs(resnet50(), (torch.zeros(1, 3, 224, 224),))
    assert f"{dense_hardware_flops(macs, masks) / dense_hardware_flops(macs, {}):.3f}" == "0.678"

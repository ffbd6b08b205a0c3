"""Groups of layers in a report: who writes the same channels, who reads them, and what pins them."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

import sparsefx
from sparsefx.compiler.report import GroupReport, Report
from tests.compiler.models import half_of_conv1, residual

X = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def report_of(model: nn.Module, masks: sparsefx.MaskSet | None = None) -> Report:
    return sparsefx.compile(model.eval(), (X,), masks=masks, target="torch").report


def test_a_residual_sum_ties_its_writers() -> None:
    model = residual()
    found = report_of(model, half_of_conv1(model))
    left = len(next(layer for layer in found.layers if layer.name == "conv1").kept_outputs)
    assert found.groups == (
        GroupReport(("stem", "conv2"), ("conv1", "head"), 8, ()),
        GroupReport(("conv1",), ("conv2",), left, ()),
        GroupReport(("head",), (), 5, ("an output of the model",)),
    )


class Joined(nn.Module):
    """A depthwise layer, whose channels are those it reads, and a concatenation, which keeps its parts apart."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 6, 1)
        self.depthwise = nn.Conv2d(4, 4, 3, groups=4)
        self.last = nn.Conv2d(10, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.last(torch.cat([self.depthwise(self.left(x)), self.right(x)[..., 1:-1, 1:-1]], 1))
        return out


def test_depthwise_layers_hand_channels_on_and_concatenations_keep_them_apart() -> None:
    torch.manual_seed(0)
    groups = {group.producers: group for group in report_of(Joined()).groups}
    assert set(groups) == {("left", "depthwise"), ("right",), ("last",)}
    assert groups["left", "depthwise"].consumers == ("depthwise", "last") and groups["right",].consumers == ("last",)
    assert (groups["left", "depthwise"].channels, groups["right",].channels) == (4, 6)


def test_nonzeros_are_those_of_the_masked_and_of_the_slim_weights() -> None:
    model = residual()
    masks = half_of_conv1(model)
    found = {layer.name: layer for layer in report_of(model, masks).layers}
    conv1 = found["conv1"]
    assert conv1.outputs_before == 16 and conv1.nonzeros_before == int(masks["conv1.weight"].sum())
    assert conv1.nonzeros_after <= math.prod(conv1.shape_after or ())
    assert found["head"].nonzeros_before == found["head"].nonzeros_after == 40


def test_outputs_of_a_transposed_convolution_are_counted() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.ConvTranspose2d(3, 6, 2, groups=3), nn.Conv2d(6, 2, 1))
    layers = report_of(model).layers
    assert [layer.outputs_before for layer in layers] == [6, 2]
    assert [len(layer.kept_outputs) for layer in layers] == [6, 2]


def test_how_the_masks_were_made_is_in_the_report() -> None:
    model = residual()
    mask = half_of_conv1(model)["conv1.weight"]
    masks = sparsefx.MaskSet({"conv1.weight": mask}, method="SRigL", step=7, settings={"sparsity": 0.5})
    made = report_of(model, masks).masks
    assert made is not None
    assert {key: made[key] for key in ("method", "step", "settings", "parameters", "density")} == {
        "method": "SRigL", "step": 7, "settings": {"sparsity": 0.5}, "parameters": 1, "density": 0.5,
    }  # fmt: skip
    assert report_of(model).masks is None

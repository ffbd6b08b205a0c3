"""The models of the sweep: every torchvision classifier, its segmentation models, detection backbones, a U-Net."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

DEFAULT_SIZE = 96  # a stride of 32 leaves 3x3 positions to the last padded convolution


@dataclass(frozen=True)
class ZooModel:
    """A model by name; `build` makes it with random weights, `size` is the side of its square input."""

    name: str
    build: Callable[[], nn.Module]
    size: int = DEFAULT_SIZE


_SIZES = {"inception_v3": 160, "maxvit_t": 224, "vit_h_14": 98, "ssd300_vgg16": 300}
_OPTIONS: dict[str, dict[str, Any]] = {
    "googlenet": {"init_weights": False},
    "inception_v3": {"init_weights": False},
    "vit_h_14": {"image_size": 98},
    **{name: {"image_size": 96} for name in ("vit_b_16", "vit_b_32", "vit_l_16", "vit_l_32")},
}
RESIDUAL_BLOCKS = (
    "BasicBlock", "Bottleneck", "InvertedResidual", "_InvertedResidual", "MBConv", "FusedMBConv", "ResBottleneckBlock",
    "CNBlock", "EncoderBlock", "SwinTransformerBlock", "SwinTransformerBlockV2", "PartitionAttentionLayer",
)  # fmt: skip


def classifiers() -> list[ZooModel]:
    """Every classification builder of torchvision."""
    import torchvision

    names = torchvision.models.list_models(module=torchvision.models)
    return [ZooModel(name, _torchvision(name), _SIZES.get(name, DEFAULT_SIZE)) for name in names]


def segmentation() -> list[ZooModel]:
    import torchvision

    names = torchvision.models.list_models(module=torchvision.models.segmentation)
    return [ZooModel(name, _torchvision(name, weights_backbone=None)) for name in names]


def backbones() -> list[ZooModel]:
    """The feature extractors of torchvision's detection models, pyramids included."""
    import torchvision

    names = torchvision.models.list_models(module=torchvision.models.detection)
    return [ZooModel(f"{name}.backbone", _backbone(name), _SIZES.get(name, DEFAULT_SIZE)) for name in names]


def others() -> list[ZooModel]:
    return [ZooModel("unet", UNet)]


def all_models() -> list[ZooModel]:
    return classifiers() + segmentation() + backbones() + others()


def find_model(name: str) -> ZooModel:
    return next(model for model in all_models() if model.name == name)


def _torchvision(name: str, **options: Any) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        import torchvision

        model: nn.Module = torchvision.models.get_model(name, weights=None, **_OPTIONS.get(name, {}), **options)
        return model

    return build


def _backbone(name: str) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        import torchvision

        detector = torchvision.models.get_model(name, weights=None, weights_backbone=None)
        backbone: nn.Module = detector.backbone
        return backbone

    return build


class _Double(nn.Sequential):
    def __init__(self, inputs: int, outputs: int) -> None:
        layers: list[nn.Module] = []
        for width in (inputs, outputs):
            layers += [nn.Conv2d(width, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU()]
        super().__init__(*layers)


class UNet(nn.Module):
    """Encoder and decoder with concatenated skips, max pooling, transposed and nearest-neighbour upsampling."""

    def __init__(self, width: int = 32, classes: int = 8) -> None:
        super().__init__()
        w = width
        self.down1, self.down2, self.down3 = _Double(3, w), _Double(w, 2 * w), _Double(2 * w, 4 * w)
        self.bottom = _Double(4 * w, 8 * w)
        self.up3, self.up2 = (
            nn.ConvTranspose2d(8 * w, 4 * w, 2, stride=2),
            nn.ConvTranspose2d(4 * w, 2 * w, 2, stride=2),
        )
        self.join3, self.join2, self.join1 = _Double(8 * w, 4 * w), _Double(4 * w, 2 * w), _Double(3 * w, w)
        self.head = nn.Conv2d(w, classes, 1)
        self.pool = nn.MaxPool2d(2)

    def forward(self, x: Tensor) -> Tensor:
        first = self.down1(x)
        second = self.down2(self.pool(first))
        third = self.down3(self.pool(second))
        x = self.bottom(self.pool(third))
        x = self.join3(torch.cat([self.up3(x), third], 1))
        x = self.join2(torch.cat([self.up2(x), second], 1))
        x = nn.functional.interpolate(x, scale_factor=2.0)
        out: Tensor = self.head(self.join1(torch.cat([x, first], 1)))
        return out

"""Networks of the recipes. Those for CIFAR are torchvision's or the papers' with a stem for small images."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...passes.errors import SparsefxError
from ...passes.near_names import closest
from .user_modules import importing_from_here


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions around a shortcut, which is a 1x1 convolution where the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


class SmallResNet(nn.Module):
    """A residual network of three stages, two of them strided; (n, channels, height, width) -> logits (n, classes)."""

    def __init__(
        self, channels: int = 1, classes: int = 10, stem: int = 16, widths: tuple[int, int, int] = (32, 64, 64)
    ) -> None:
        super().__init__()
        first, second, third = widths
        self.stem = nn.Sequential(nn.Conv2d(channels, stem, 3, padding=1, bias=False), nn.BatchNorm2d(stem), nn.ReLU())
        self.stage1 = nn.Sequential(ResidualBlock(stem, first), ResidualBlock(first, first))
        self.stage2 = nn.Sequential(ResidualBlock(first, second, stride=2), ResidualBlock(second, second))
        self.stage3 = nn.Sequential(ResidualBlock(second, third, stride=2), ResidualBlock(third, third))
        self.head = nn.Linear(third, classes)

    def forward(self, x: Tensor) -> Tensor:
        y = self.stage3(self.stage2(self.stage1(self.stem(x))))
        logits: Tensor = self.head(y.mean((2, 3)))
        return logits


class _WideBlock(nn.Module):
    """BatchNorm and ReLU before each of two convolutions (Zagoruyko and Komodakis 2016)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        same = stride == 1 and inputs == outputs
        self.shortcut = None if same else nn.Conv2d(inputs, outputs, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(x))
        shortcut = x if self.shortcut is None else self.shortcut(y)
        residual: Tensor = self.conv2(F.relu(self.bn2(self.conv1(y))))
        return residual + shortcut


class WideResNet(nn.Module):
    """A wide residual network for small images; 22 layers and width 2 in RigL, SRigL and IEE. Logits (n, classes)."""

    def __init__(self, channels: int, classes: int, depth: int = 22, width: int = 2) -> None:
        super().__init__()
        blocks = (depth - 4) // 6
        sizes = (16, 16 * width, 32 * width, 64 * width)
        self.stem = nn.Conv2d(channels, sizes[0], 3, padding=1, bias=False)
        self.stages = nn.Sequential(
            *(
                _WideBlock(sizes[stage] if block == 0 else sizes[stage + 1], sizes[stage + 1], 1 + (block == 0 < stage))
                for stage in range(3)
                for block in range(blocks)
            )
        )
        self.norm = nn.BatchNorm2d(sizes[-1])
        self.head = nn.Linear(sizes[-1], classes)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.norm(self.stages(self.stem(x))))
        logits: Tensor = self.head(y.mean((2, 3)))
        return logits


def _small_torchvision_resnet(name: str) -> Callable[[int, int], nn.Module]:
    def build(channels: int, classes: int) -> nn.Module:
        model: Any = getattr(_torchvision_models(), name)(num_classes=classes)
        model.conv1 = nn.Conv2d(channels, 64, 3, padding=1, bias=False)
        model.maxpool = nn.Identity()
        built: nn.Module = model
        return built

    return build


def _vgg19(channels: int, classes: int) -> nn.Module:
    """VGG-19 with BatchNorm and one linear layer, as GraSP, GraNet and Chase use it for CIFAR."""
    features: Any = _torchvision_models().vgg19_bn(num_classes=classes).features
    features[0] = nn.Conv2d(channels, 64, 3, padding=1)
    return nn.Sequential(features[:-1], nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, classes))


def _torchvision_models() -> Any:
    try:
        return importlib.import_module("torchvision.models")
    except (ImportError, RuntimeError) as error:
        raise SparsefxError(
            f"this network comes with torchvision, which cannot be imported: {error}; install the torchvision that "
            f"belongs to torch {torch.__version__}, from the same index"
        ) from error


NETS: dict[str, Callable[[int, int], nn.Module]] = {
    "small_resnet": SmallResNet,
    "wide_resnet22_2": WideResNet,
    "resnet18_small_images": _small_torchvision_resnet("resnet18"),
    "resnet50_small_images": _small_torchvision_resnet("resnet50"),
    "vgg19_small_images": _vgg19,
}


def build_net(name: str, image_shape: tuple[int, ...], classes: int) -> nn.Module:
    """A network of the table above, one of torchvision.models, or what a factory `module:function` returns.

    The factory is called with the number of classes. Raises SparsefxError for a name that is none of these.
    """
    if name in NETS:
        return NETS[name](image_shape[0], classes)
    if ":" in name:
        return _from_factory(name, classes)
    models = _torchvision_models()
    if name not in models.list_models(module=models):
        near = closest(name, [*NETS, *models.list_models(module=models)])
        known = f"{', '.join(NETS)}, torchvision's classifiers, and module:function"
        raise SparsefxError(f"unknown network {name!r}{near}; known are {known}")
    model: nn.Module = models.get_model(name, num_classes=classes)
    return model


def _from_factory(name: str, classes: int) -> nn.Module:
    module_name, _, function = name.partition(":")
    try:
        with importing_from_here():
            model = getattr(importlib.import_module(module_name), function)(classes)
    except (ImportError, AttributeError, TypeError) as error:
        raise SparsefxError(f"cannot build {name} for {classes} classes: {error}") from error
    if not isinstance(model, nn.Module):
        raise SparsefxError(f"{name} must return a torch.nn.Module, found {type(model).__name__}")
    return model

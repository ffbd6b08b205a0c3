"""Models with channels to remove, whose output varies."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from tests.helpers import TOLERANCE, deviation, error
from tests.zoo.alive import images as zoo_images
from tests.zoo.case import build
from tests.zoo.models import ZooModel, classifiers

_SIZES = {"vit_b_32": 96, "swin_t": 96}
_MASK = "filters 30%"


def masked(name: str) -> tuple[nn.Module, int]:
    """A torchvision model in float64, 30% of all filters zeroed, and the side of its images."""
    factory = next(model.build for model in classifiers() if model.name == name)
    size = _SIZES.get(name, 64)
    module = build(ZooModel(name, factory, size), _MASK)
    assert module is not None
    return module.double(), size


def small(seed: int = 0) -> nn.Module:
    """A convolutional network of a few layers in float64, a third of every layer's filters zeroed."""
    torch.manual_seed(seed)
    model = nn.Sequential(
        nn.Conv2d(3, 12, 3, padding=1), nn.BatchNorm2d(12), nn.ReLU(), nn.Dropout(0.5),
        nn.Conv2d(12, 18, 3, stride=2), nn.Hardswish(), nn.Flatten(), nn.Linear(18 * 9, 5),
    )  # fmt: skip
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.Conv2d):
                module.weight[::3] = 0
            if (
                isinstance(module, nn.BatchNorm2d)
                and module.running_mean is not None
                and module.running_var is not None
            ):
                module.running_mean.normal_()
                module.running_var.uniform_(0.5, 2)
    return model.double().eval()


def images(batch: int, size: int = 8, seed: int = 0) -> Tensor:
    return zoo_images(batch, size, torch.Generator().manual_seed(seed)).double()


def assert_same(
    have: Callable[[Tensor], Tensor], want: nn.Module, size: int = 8, batches: tuple[int, ...] = (2, 3, 5)
) -> None:
    """The same function, in units of the output's deviation over inputs, for fresh inputs."""
    with torch.no_grad():
        scale = deviation(want(images(6, size, seed=9)))
        assert scale.varies
        for batch in batches:
            x = images(batch, size, seed=batch)
            assert error(have(x), want(x), scale.over_inputs) <= TOLERANCE, f"batch {batch}"


def numbers(module: nn.Module) -> int:
    return sum(tensor.numel() for tensor in module.state_dict().values())

"""The task that every program of this folder solves: a ResNet-18, and a mask for 30% of the filters of every layer.

Wanted is a smaller ONNX file that computes the masked model. The weights are random, the statistics of the BatchNorms
calibrated on random images and then moved a little, so that a filter without weights is no channel of zeros.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torchvision.models import resnet18

EXAMPLE = torch.zeros(1, 3, 96, 96)


def model_and_masks() -> tuple[nn.Module, dict[str, Tensor]]:
    """The model in evaluation mode, and a mask of the shape of every convolution's weight by its name."""
    torch.manual_seed(0)
    model = resnet18()
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        nn.init.normal_(norm.bias, std=0.4)
        nn.init.normal_(norm.weight, 1.0, 0.4)
        norm.momentum = 1.0
    with torch.no_grad():
        model(torch.randn(16, *EXAMPLE.shape[1:]))
        for norm in norms:
            norm.running_mean += 0.3 * norm.running_var.sqrt() * torch.randn_like(norm.running_mean)
    masks = {}
    for name, weight in model.named_parameters():
        if weight.ndim == 4:
            filters = torch.randperm(len(weight)) >= int(0.3 * len(weight))
            masks[name] = filters.view(-1, 1, 1, 1).expand_as(weight).clone()
    return model.eval(), masks


def masked(model: nn.Module, masks: dict[str, Tensor]) -> nn.Module:
    """A copy with every weight multiplied by its mask."""
    model = copy.deepcopy(model)
    with torch.no_grad():
        for name, mask in masks.items():
            model.get_parameter(name).mul_(mask)
    return model

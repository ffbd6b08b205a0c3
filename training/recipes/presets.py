"""Published hyper-parameters by name. `sparsefx train --list-presets` prints them with their source."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ...passes.errors import SparsefxError
from ...passes.near_names import closest
from .config import TrainConfig


@dataclass(frozen=True)
class Preset:
    """Settings of a TrainConfig, and where they are from."""

    source: str
    settings: Mapping[str, Any]


# 250 epochs, the learning rate divided by five every 77: RigL's CIFAR-10 recipe, which SRigL and IEE follow.
_RIGL_CIFAR = {
    "data": "cifar10", "epochs": 250, "batch_size": 128, "learning_rate": 0.1, "weight_decay": 5e-4,
    "schedule": "steps", "milestones": [77, 154, 231], "decay": 5.0, "nesterov": False,
}  # fmt: skip
# GraNet's Table 7, Chase's Table 9: 160 epochs, the learning rate divided by ten at 80 and 120.
_GRANET_CIFAR = {
    "epochs": 160, "batch_size": 128, "learning_rate": 0.1, "weight_decay": 5e-4,
    "schedule": "steps", "milestones": [80, 120], "decay": 10.0, "nesterov": False,
}  # fmt: skip
_IMAGENET = {"data": "folders", "net": "resnet50", "weight_decay": 1e-4, "nesterov": False}
_GRANET_IMAGENET = {
    **_IMAGENET, "epochs": 100, "batch_size": 64, "learning_rate": 0.1,
    "schedule": "steps", "milestones": [30, 60, 90], "decay": 10.0,
}  # fmt: skip
_CHASE_IMAGENET = {
    **_IMAGENET, "epochs": 100, "batch_size": 512, "learning_rate": 0.512, "schedule": "cosine",
}  # fmt: skip
_CAMPFIRE_IMAGENET = {
    **_IMAGENET, "epochs": 100, "batch_size": 64, "learning_rate": 0.05,
    "schedule": "steps", "milestones": [30, 60, 90], "decay": 10.0,
}  # fmt: skip

_SMALL = {"epochs": 10, "batch_size": 64, "learning_rate": 0.1, "schedule": "one_cycle"}

PRESETS: dict[str, Preset] = {
    "digits-srigl": Preset(
        "ours: a high gamma, so that a fifth of the neurons go",
        {**_SMALL, "data": "digits", "method": "SRigL", "options": {"gamma": 0.9}},
    ),
    "digits-chase": Preset(
        "ours: half the channels removed, residual sums included",
        {
            **_SMALL, "data": "digits", "method": "Chase",
            "options": {"channel_sparsity": 0.5, "minimum_width": 0.5, "prune_skip": True},
        },
    ),
    "textures-srigl": Preset("ours: minutes on a CPU", {**_SMALL, "data": "textures", "method": "SRigL", "epochs": 15}),
    "srigl-cifar10-resnet18": Preset(
        "SRigL, section 4.1 and Table 2",
        {**_RIGL_CIFAR, "net": "resnet18_small_images", "method": "SRigL", "options": {"sparsity": 0.9}},
    ),
    "rigl-cifar10-resnet18": Preset(
        "SRigL, Table 2 (RigL)",
        {**_RIGL_CIFAR, "net": "resnet18_small_images", "method": "RigL", "options": {"sparsity": 0.9}},
    ),
    "iee-cifar10-wide-resnet": Preset(
        "IEE, appendix 5.3",
        {
            **_RIGL_CIFAR, "net": "wide_resnet22_2", "method": "IEE",
            "options": {"sparsity": 0.9, "stages": [150, 150, 150]},
        },
    ),
    "granet-cifar100-resnet50": Preset(
        "GraNet, Table 7, sparse to sparse",
        {
            **_GRANET_CIFAR, "data": "cifar100", "net": "resnet50_small_images", "method": "GraNet",
            "options": {"sparsity": 0.9, "initial_sparsity": 0.5, "update_interval": 1000},
        },
    ),
    "granet-cifar10-vgg19-dense": Preset(
        "GraNet, Table 7, dense to sparse",
        {
            **_GRANET_CIFAR, "data": "cifar10", "net": "vgg19_small_images", "method": "GraNet",
            "options": {"sparsity": 0.9, "initial_sparsity": 0.0, "update_interval": 1000},
        },
    ),
    "chase-cifar100-vgg19": Preset(
        "Chase, Table 9",
        {
            **_GRANET_CIFAR, "data": "cifar100", "net": "vgg19_small_images", "method": "Chase",
            "options": {
                "sparsity": 0.9, "channel_sparsity": 0.5, "minimum_width": 0.2, "update_interval": 1000,
                "channel_interval": 8000, "channel_stop": 0.8125,
            },
        },
    ),
    "chase-cifar100-resnet50": Preset(
        "Chase, Table 9",
        {
            **_GRANET_CIFAR, "data": "cifar100", "net": "resnet50_small_images", "method": "Chase",
            "options": {
                "sparsity": 0.9, "channel_sparsity": 0.5, "minimum_width": 0.5, "update_interval": 1000,
                "channel_interval": 1000, "channel_stop": 0.8125,
            },
        },
    ),
    "chase-imagenet-resnet50": Preset(
        "Chase, Table 10",
        {
            **_CHASE_IMAGENET, "method": "Chase",
            "options": {
                "sparsity": 0.8, "channel_sparsity": 0.4, "update_interval": 1000, "channel_interval": 1000,
            },
        },
    ),
    "granet-imagenet-resnet50": Preset(
        "GraNet, Table 7, sparse to sparse",
        {
            **_GRANET_IMAGENET, "method": "GraNet",
            "options": {"sparsity": 0.9, "initial_sparsity": 0.5, "stop": 0.3, "update_interval": 4000},
        },
    ),
    "campfire-imagenet-resnet50": Preset(
        "Campfire, appendix B.3, Combined, start 40",
        {
            **_CAMPFIRE_IMAGENET, "method": "Campfire",
            "options": {"sparsity": 0.7, "pattern": "combined", "start": 0.4, "stop": 0.6},
        },
    ),
}  # fmt: skip


def preset_config(name: str, changes: Mapping[str, Any]) -> TrainConfig:
    """A preset with some settings changed; `options` of the method are merged. SparsefxError for an unknown name."""
    if name not in PRESETS:
        raise SparsefxError(f"unknown preset {name!r}{closest(name, PRESETS)}; known are {', '.join(PRESETS)}")
    settings = PRESETS[name].settings
    same_method = changes.get("method", settings["method"]) == settings["method"]
    options = {**(settings.get("options", {}) if same_method else {}), **changes.get("options", {})}
    return TrainConfig.from_dict({**settings, **changes, "options": options})

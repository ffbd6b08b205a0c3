"""Families that pick from the others: steps that work for images of any size."""

from ..values import Factory
from .channels import gated_halves, shuffle, split_transform
from .convolutions import block, convolution, depthwise
from .gates import feature_wise, layer_scale, spatial_gate, squeeze_excite
from .windows import activate, average_pool, max_pool, norm_then_activation, upsample

FULLY_CONVOLUTIONAL: tuple[Factory, ...] = (
    block, convolution, depthwise, squeeze_excite, spatial_gate, feature_wise, layer_scale, shuffle, split_transform,
    gated_halves, max_pool, average_pool, upsample, activate, norm_then_activation,
)  # fmt: skip

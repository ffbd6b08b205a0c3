"""Columns of convolutions as condensed.cu reads them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ....passes.errors import TargetError

_CHANNELS, _SIZE = 2**19, 2**6  # fewer than these: of the input, and of the window in each direction


def packed_columns(columns: NDArray[Any], starts: NDArray[Any], shape: Sequence[int], groups: int) -> NDArray[np.int32]:
    """Channel of the whole input, row and column of the window in one number, from columns of the flattened weight.

    shape  (outputs, channels of a group, height, width) of the weight. Raises TargetError where it is too large.
    """
    outputs, channels, height, width = shape
    if channels * groups >= _CHANNELS or max(height, width) >= _SIZE:
        raise TargetError(
            f"a condensed convolution with {channels * groups} channels and a window of {height} x {width} has no "
            f"kernel; it holds fewer than {_CHANNELS} channels and {_SIZE} x {_SIZE} windows: keep it dense"
        )
    group = np.repeat(np.arange(outputs) // max(1, outputs // groups), np.diff(starts))
    channel, down, right = np.unravel_index(columns.astype(np.int64), (channels, height, width))
    return ((channel + group * channels) << 12 | down << 6 | right).astype(np.int32)

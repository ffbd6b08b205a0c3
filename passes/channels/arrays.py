"""The NumPy array types of the channel analysis."""

import numpy as np
from numpy.typing import NDArray

States = NDArray[np.uint8]
Constants = NDArray[np.float64]
Mask = NDArray[np.bool_]
Indices = NDArray[np.int64]

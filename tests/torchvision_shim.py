"""Make torchvision importable where its own C++ operators do not load (a CPU-only torch build).

torchvision refuses to import when `torchvision::nms` is not defined; its models do not need it. Import this module
before torchvision; the tests do so in conftest.py, the benchmarks at their top.
"""

import sys

import torch

_SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
library: torch.library.Library | None = None  # kept alive: its definitions go with it

try:
    import torchvision
except RuntimeError:
    for name in [m for m in sys.modules if m.split(".")[0] == "torchvision"]:
        del sys.modules[name]
    library = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        library.define(f"{name}{_SCHEMA}")
    import torchvision

__all__ = ["torchvision"]

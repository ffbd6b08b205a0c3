"""What has to be installed, and what to say where it is not."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

from ....passes.errors import TargetError

_EXTRA = "pip install 'sparsefx[cuda]'"


def find_nvcc() -> str:
    """CUDA's compiler: $CUDACXX, the path's nvcc, or that of /usr/local/cuda. Raises TargetError without one."""
    asked = os.environ.get("CUDACXX")
    usual = Path("/usr/local/cuda/bin/nvcc")
    found = shutil.which(asked) if asked else shutil.which("nvcc") or (str(usual) if usual.exists() else None)
    if found is None:
        looked = f"$CUDACXX is {asked!r}" if asked else f"there is no nvcc on the path and no {usual}"
        raise TargetError(f"the plugin's kernels need CUDA's compiler, and {looked}; install the CUDA toolkit")
    return found


def import_triton() -> Any:
    """The module `triton`. Raises TargetError where it is not installed."""
    try:
        import triton
    except ImportError as error:
        raise TargetError(f"condensed layers on a GPU need Triton: {_EXTRA} ({error})") from error
    return triton


def find_gpu() -> Any:
    """The current CUDA device. Raises TargetError where torch has no CUDA, and where there is no driver or no GPU."""
    import torch

    if torch.version.cuda is None:
        raise TargetError(
            f"PyTorch {torch.__version__} is built without CUDA; install a build that has it, "
            "see https://pytorch.org/get-started/locally"
        )
    if not torch.cuda.is_available():
        raise TargetError(
            f"PyTorch {torch.__version__} (CUDA {torch.version.cuda}) finds no GPU; check with nvidia-smi that there "
            "is one, that its driver is as new as that CUDA, and CUDA_VISIBLE_DEVICES"
        )
    return torch.device("cuda", torch.cuda.current_device())


def gpu_description() -> dict[str, Any]:
    """The GPU and the versions that measurements on it depend on. Raises TargetError where there is none."""
    import torch

    properties = torch.cuda.get_device_properties(find_gpu())
    return {
        "name": properties.name,
        "compute_capability": f"{properties.major}.{properties.minor}",
        "multiprocessors": properties.multi_processor_count,
        "memory_bytes": properties.total_memory,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),  # type: ignore[no-untyped-call]
        "tf32": {"matmul": torch.backends.cuda.matmul.allow_tf32, "cudnn": torch.backends.cudnn.allow_tf32},
    }

"""Whether an NVIDIA driver and a GPU are here, asked of the driver itself: no CUDA toolkit, no torch."""

from __future__ import annotations

import ctypes
import sys
from dataclasses import dataclass

from ..passes.errors import TargetError

_LIBRARY = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
_MAJOR, _MINOR = 75, 76  # CUdevice_attribute: compute capability


@dataclass(frozen=True)
class Gpu:
    """The first GPU: its name, and its processor as targets call it, sm89."""

    name: str
    processor: str


def find_gpu() -> Gpu:
    """The first GPU. Raises TargetError where the driver or the GPU is missing, saying what to install."""
    try:
        cuda = ctypes.CDLL(_LIBRARY)
    except OSError as error:
        raise TargetError(
            f"there is no NVIDIA driver on this machine ({_LIBRARY} is not found); "
            "install the driver, and in a container start it with the GPU (docker run --gpus all)"
        ) from error
    code, count = cuda.cuInit(0), ctypes.c_int()
    if code == 0:
        code = cuda.cuDeviceGetCount(ctypes.byref(count))
    if code or not count.value:
        raise TargetError(f"the NVIDIA driver finds no GPU (code {code}); check nvidia-smi and CUDA_VISIBLE_DEVICES")
    name, numbers = ctypes.create_string_buffer(256), [ctypes.c_int(), ctypes.c_int()]
    cuda.cuDeviceGetName(name, len(name), 0)
    for number, attribute in zip(numbers, (_MAJOR, _MINOR), strict=True):
        cuda.cuDeviceGetAttribute(ctypes.byref(number), attribute, 0)
    return Gpu(name.value.decode(errors="replace"), f"sm{numbers[0].value}{numbers[1].value}")

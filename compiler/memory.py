"""Peak memory of a bundle's engine, measured in a process of its own.

Run as a module it is that process: it prints its peak resident memory in bytes.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from ..passes.errors import TargetError

_RUNS = 3


def peak_memory(bundle: Path, threads: int, sizes: Mapping[str, int], trust_kernels: bool = False) -> int:
    """Bytes that loading and running a bundle takes at its peak, over those of Python and its libraries alone.

    `sizes` sets dynamic sizes. Raises TargetError where the process fails.
    """
    text = ",".join(f"{name}={size}" for name, size in sizes.items())
    return max(_in_child(str(bundle), str(threads), text, *(["trust"] if trust_kernels else [])) - _in_child(), 0)


def _in_child(*arguments: str) -> int:
    command = [sys.executable, "-m", __spec__.name if __spec__ else __name__, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:] or ["no message"]
        raise TargetError(f"the engine failed in a process of its own: {last[0]}")
    return int(done.stdout)


def _peak_resident() -> int:
    """The high-water mark of this process's own memory map (getrusage would count the parent's)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise TargetError("peak memory is read from /proc, which this system does not have")


def _run(bundle: str, threads: str, sizes: str, trust: str = "") -> None:
    from ..runtime.inputs import parse_sizes, random_arrays
    from .bundle import load

    engine = load(bundle, int(threads), trust_kernels=bool(trust))
    arrays = random_arrays(engine.signature, parse_sizes(sizes))
    for _ in range(_RUNS):
        engine.run_flat(arrays)


if __name__ == "__main__":
    import onnxruntime  # noqa: F401 - the libraries count on both sides

    if sys.argv[1:]:
        _run(*sys.argv[1:])
    print(_peak_resident())

"""Tables in the layout of HALP (Shen et al. 2022): a latency by "batch_cin_cout_map_kernel_stride_groups".

HALP's own files are pickles, which are not read; its dictionary is handed over as it is or from JSON. Its figures are
of isolated square convolutions; of what surrounds them it knows nothing, and keys that are missing are an error there.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ...passes.errors import TableError
from .surface import Floats, Surface


@dataclass(frozen=True, order=True)
class HalpKind:
    """A convolution but for its channels: sizes are those of square maps and kernels, the map is the input's."""

    batch: int
    map_size: int
    kernel: int
    stride: int
    depthwise: bool


class HalpTable:
    """Times of convolutions by kind and channels. `unit` is that of the figures in seconds: HALP's are milliseconds."""

    def __init__(self, latencies: Mapping[str, float], unit: float = 1e-3) -> None:
        points: dict[HalpKind, list[tuple[int, int]]] = defaultdict(list)
        seconds: dict[HalpKind, list[float]] = defaultdict(list)
        for key, latency in latencies.items():
            kind, widths = _parse(key)
            if not (isinstance(latency, int | float) and latency > 0):
                raise TableError(f"HALP's table has {latency!r} for {key!r}, expected a time above 0")
            points[kind].append(widths)
            seconds[kind].append(latency * unit)
        self.surfaces = {
            kind: Surface(np.array(points[kind], np.float64), np.array(seconds[kind]), products=True)
            for kind in sorted(points)
        }

    @classmethod
    def load(cls, path: str | Path, unit: float = 1e-3) -> HalpTable:
        """Read a JSON object of keys and latencies. Raises TableError; pickles are refused."""
        try:
            data: Any = json.loads(Path(path).read_bytes())
        except OSError as error:
            raise TableError(f"{path} cannot be read: {error.strerror}") from error
        except ValueError as error:
            raise TableError(
                f"{path} is no JSON; HALP's tables are pickles, which may run any code and are not read: load it where "
                "you trust it, and write json.dumps of it"
            ) from error
        if not isinstance(data, dict):
            raise TableError(f"{path} must be an object of keys and latencies, found a {type(data).__name__}")
        return cls(data, unit)

    def cost(self, kind: HalpKind, c_in: ArrayLike, c_out: ArrayLike) -> Floats:
        """Milliseconds at input and output channels, which broadcast. TableError for what is not in the table."""
        surface = self.surfaces.get(kind)
        if surface is None:
            raise TableError(f"{kind} is not in HALP's table; it has {len(self.surfaces)} kinds of convolutions")
        inputs, outputs = np.broadcast_arrays(np.asarray(c_in), np.asarray(c_out))
        points = np.stack([inputs.reshape(-1), outputs.reshape(-1)], axis=1).astype(np.float64)
        if not surface.covers(points).all():
            low, high = surface.widths.min(0).astype(int).tolist(), surface.widths.max(0).astype(int).tolist()
            raise TableError(f"{kind} was measured from {low} to {high} (inputs, outputs), asked for more")
        return 1e3 * surface(points).reshape(inputs.shape)


def _parse(key: str) -> tuple[HalpKind, tuple[int, int]]:
    parts = str(key).split("_")
    if len(parts) != 7 or not all(part.isdigit() for part in parts):
        raise TableError(f"HALP's keys are batch_cin_cout_map_kernel_stride_groups, found {key!r}")
    batch, c_in, c_out, size, kernel, stride, groups = map(int, parts)
    if groups not in (1, c_in):
        raise TableError(f"HALP knows plain and depthwise convolutions, found {groups} groups in {key!r}")
    return HalpKind(batch, size, kernel, stride, groups > 1), (c_in, c_out)

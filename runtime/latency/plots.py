"""Pictures of staircases: a layer's time over its output channels; matplotlib draws them."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ...passes.errors import SparsefxError, TableError
from ..files import write_whole
from .table import LatencyTable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SUFFIXES = (".png", ".svg")
_COLOURS = ("#0072B2", "#D55E00")
_INK, _FAINT = "#333333", "#BBBBBB"


def plot_staircase(table: LatencyTable, layer: str, path: str | os.PathLike[str]) -> None:
    """Draw a layer's milliseconds over its output channels at the most inputs, and its envelope, as PNG or SVG.

    Raises TableError for an unknown layer, SparsefxError for another suffix and where matplotlib is not installed.
    """
    target = Path(path)
    if target.suffix.lower() not in SUFFIXES:
        raise SparsefxError(f"{target}: pictures are written as {' or '.join(SUFFIXES)}")
    if layer not in table.layers:
        raise TableError(f"layer {layer!r} is not in the latency table; it has {', '.join(table.layers)}")
    picture = io.BytesIO()
    _draw(table, layer).savefig(picture, format=target.suffix[1:].lower(), dpi=150)
    write_whole(target, picture.getvalue())


def _draw(table: LatencyTable, layer: str) -> Figure:
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise SparsefxError("plots need matplotlib, which is not installed: pip install 'sparsefx[plots]'") from error
    (_, c_in), (low, high) = table.channel_range(layer)
    outputs = np.arange(low, high + 1)
    figure = Figure(figsize=(7, 4), facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.step(outputs, table.cost(layer, c_in, outputs), where="mid", color=_COLOURS[0], label="as asked for")
    axes.step(
        outputs,
        table.cost(layer, c_in, outputs, envelope=True),
        where="mid",
        color=_COLOURS[1],
        linestyle="--",
        label="or wider",
    )
    axes.set_title(f"{layer}, {c_in} input channels", loc="left", fontsize=10, color=_INK)
    axes.set_xlabel("output channels", fontsize=9, color=_INK)
    axes.set_ylabel("milliseconds", fontsize=9, color=_INK)
    axes.set_ylim(bottom=0)
    axes.grid(axis="y", color=_FAINT, linewidth=0.5, alpha=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8)
    return figure

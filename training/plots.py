"""Pictures of how masks were explored; matplotlib draws them."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import nan
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..passes.errors import SparsefxError
from ..runtime.files import write_whole
from .history import MaskUpdate

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SUFFIXES = (".png", ".svg")
_COLOURS = ("#0072B2", "#D55E00")  # blue and vermilion: told apart by everybody, on grey paper too
_DASHES = ("-", "--")
_MARKED = 30  # more points than that are a line
_INK, _FAINT = "#333333", "#BBBBBB"


@dataclass(frozen=True)
class Line:
    """One figure of the history; `label` tells lines of one panel apart."""

    value: Callable[[MaskUpdate], float | None]
    label: str = ""


@dataclass(frozen=True)
class Panel:
    """A small chart. Shares are in percent; `whole` ones show the axis from 0 to 100."""

    title: str
    axis: str
    lines: tuple[Line, ...]
    is_share: bool = True
    whole: bool = False
    empty: str = ""


PANELS = (
    Panel("Overlap with the mask before", "intersection over union", (Line(lambda u: u.iou),)),
    Panel(
        "Growth that survives",
        "share still active after an update",
        (Line(lambda u: u.survived),),
        whole=True,
        empty="nothing has grown yet",
    ),
    Panel(
        "Exchange",
        "share of active weights",
        (Line(lambda u: u.drop_fraction, "up for exchange"), Line(lambda u: u.grown / max(u.nonzeros, 1), "grown")),
    ),
    Panel(
        "Amenable channels",
        "share of channels",
        (Line(lambda u: u.amenable, "smaller (UMM)"), Line(lambda u: u.sparser, "sparser (WS)")),
    ),
    Panel(
        "Channels",
        "output channels",
        (Line(lambda u: u.active_channels, "active"), Line(lambda u: u.removed_channels, "removed for good")),
        is_share=False,
    ),
)


def plot_history(
    history: Sequence[MaskUpdate],
    path: str | os.PathLike[str],
    *,
    size: int | None = None,
    title: str | None = None,
) -> None:
    """Draw what every mask update did (`sparsifier.history`), over steps, as a PNG or SVG file.

    `size` is the number of weights of all sparsified layers (`sparsifier.size`): with it the first panel shows their
    sparsity, without it the non-zeros. The file appears whole or not at all. Raises SparsefxError for an empty history,
    another suffix or a size too small, and where matplotlib is not installed.
    """
    target = Path(path)
    suffix = target.suffix.lower()
    if suffix not in SUFFIXES:
        found = f"as {suffix!r}" if suffix else "without a suffix"
        raise SparsefxError(f"{target}: pictures are written as {' or '.join(SUFFIXES)}, not {found}")
    if not history:
        raise SparsefxError("there is nothing to plot: the history has no mask update yet")
    most = max(update.nonzeros for update in history)
    if size is not None and size < most:
        raise SparsefxError(f"size must be the number of all sparsified weights, found {size} for {most} non-zeros")
    figure = _draw(history, (_density_panel(size), *PANELS), title)
    picture = io.BytesIO()
    figure.savefig(picture, format=suffix[1:], dpi=150, metadata={"Date": None} if suffix == ".svg" else None)
    write_whole(target, picture.getvalue())


def _density_panel(size: int | None) -> Panel:
    if size is None:
        return Panel("Non-zeros", "weights in the mask", (Line(lambda u: u.nonzeros),), is_share=False)
    return Panel("Sparsity", "zeros among weights", (Line(lambda u: 1 - u.nonzeros / size),))


def _draw(history: Sequence[MaskUpdate], panels: Sequence[Panel], title: str | None) -> Figure:
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise SparsefxError("plots need matplotlib, which is not installed: pip install 'sparsefx[plots]'") from error
    figure = Figure(figsize=(10, 6), facecolor="white")
    figure.set_layout_engine("constrained", w_pad=0.1, h_pad=0.1)
    FigureCanvasAgg(figure)
    axes = figure.subplots(2, 3, sharex=True).flatten()
    for place, panel in zip(axes, panels, strict=True):
        _draw_panel(place, panel, history)
    for place in axes[3:]:
        place.set_xlabel("step", fontsize=9, color=_INK)
    if title is not None:
        figure.suptitle(title, fontsize=12, color=_INK, parse_math=False)
    return figure


def _draw_panel(axes: Axes, panel: Panel, history: Sequence[MaskUpdate]) -> None:
    steps = [update.step for update in history]
    marker = "o" if len(history) <= _MARKED else ""
    drawn: list[float] = []
    for line, colour, dash in zip(panel.lines, _COLOURS, _DASHES, strict=False):
        values = [nan if (value := line.value(update)) is None else value for update in history]
        axes.plot(steps, values, dash, color=colour, marker=marker, markersize=3, linewidth=1.5, label=line.label)
        drawn += [value for value in values if value == value]
    _label(axes, panel)
    axes.set_xlim(0, 1.03 * steps[-1])
    if drawn:
        _scale(axes, panel, min(drawn), max(drawn))
    else:
        axes.set_yticks([])
        axes.text(0.5, 0.5, panel.empty, transform=axes.transAxes, ha="center", color=_INK, fontsize=9)


def _scale(axes: Axes, panel: Panel, low: float, high: float) -> None:
    """Limits that make no hill of a constant and stay near what is possible."""
    if panel.whole:
        low, high = 0.0, 1.0
    room = max(0.06 * (high - low), 0.02 if panel.is_share else 0.5)
    bottom, top = low - room, high + room
    if panel.is_share:
        top = min(top, 1 + 0.06 * (1 - bottom))
    axes.set_ylim(max(bottom, -0.05 * top), top)


def _label(axes: Axes, panel: Panel) -> None:
    from matplotlib.ticker import EngFormatter, FuncFormatter, MaxNLocator

    axes.set_title(panel.title, loc="left", fontsize=10, color=_INK, pad=20 if len(panel.lines) > 1 else 8)
    axes.set_ylabel(panel.axis, fontsize=9, color=_INK)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True, steps=[1, 2, 5, 10]))
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.yaxis.set_major_locator(MaxNLocator(6, integer=not panel.is_share, steps=[1, 2, 2.5, 5, 10]))
    percent = FuncFormatter(lambda value, _: f"{100 * value:.6g}%")
    axes.yaxis.set_major_formatter(percent if panel.is_share else EngFormatter(sep=""))
    axes.tick_params(labelsize=8, colors=_INK)
    axes.grid(axis="y", color=_FAINT, linewidth=0.5, alpha=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(_FAINT)
    if len(panel.lines) > 1:
        above = (-0.02, 0.99)
        style: dict[str, Any] = {"frameon": False, "fontsize": 8, "labelcolor": _INK, "handlelength": 2.2}
        axes.legend(loc="lower left", bbox_to_anchor=above, borderaxespad=0.0, ncols=2, **style)

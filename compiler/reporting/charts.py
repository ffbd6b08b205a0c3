"""Line charts as SVG: small ones, that stand side by side and need no script."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from .markup import Html, element, join, void
from .tables import Column, table

_WIDTH, _HEIGHT = 340, 190
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 10, 10, 24
_MOST_ROWS = 24  # of the table that says the same
_MARKED = 20  # points; more are a line only


@dataclass(frozen=True)
class Line:
    """Points of one line; None and NaN are gaps."""

    label: str
    x: Sequence[float]
    y: Sequence[float | None]

    @property
    def points(self) -> list[tuple[float, float]]:
        return [(x, y) for x, y in zip(self.x, self.y, strict=True) if y is not None and math.isfinite(y)]


@dataclass(frozen=True)
class Mark:
    """A vertical line at `x`, with its name."""

    label: str
    x: float


@dataclass(frozen=True)
class Chart:
    """One small chart. `percent`: shares from 0 to 1; `steps`: a value holds until the next; `zero`: the axis too."""

    title: str
    x_label: str
    y_label: str
    lines: tuple[Line, ...]
    marks: tuple[Mark, ...] = ()
    percent: bool = False
    steps: bool = False
    zero: bool = False


@dataclass(frozen=True)
class _Scale:
    """From values to places on paper."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        return round(self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start), 1)


def chart_figure(chart: Chart, key: str) -> Html:
    """The chart with its title, legend and the same figures as a table; `key` is unique on the page."""
    if not any(line.points for line in chart.lines):
        return element("figure", element("figcaption", chart.title), element("p", "Nothing happened yet.", class_="no"))
    return element(
        "figure",
        element("figcaption", chart.title),
        element("p", f"{chart.y_label}, by {chart.x_label}", class_="axes"),
        _legend(chart),
        _svg(chart, key),
        element("details", element("summary", "Figures"), _as_table(chart)),
        class_="chart",
    )


def ticks(low: float, high: float, most: int = 5, *, whole: bool = False) -> list[float]:
    """Round numbers within [low, high], at most `most` of them; with `whole` no fractions."""
    if not high > low:
        return [low]
    step = 10 ** math.floor(math.log10((high - low) / most))
    steps = (step * f for f in (1, 2, 2.5, 5, 10, 20, 50, 100))
    step = next(s for s in steps if (high - low) / s <= most - 1 and (not whole or (s >= 1 and s == int(s))))
    first = math.ceil(low / step - 1e-9)
    return [round(i * step, 12) for i in range(first, math.floor(high / step + 1e-9) + 1)]


def _legend(chart: Chart) -> Html | None:
    entries = [(f"line-{i}", line.label) for i, line in enumerate(chart.lines) if line.label]
    if len(entries) < 2 and not chart.marks:
        return None
    items = [element("li", element("span", class_=f"key {style}"), label) for style, label in entries]
    items += [element("li", element("span", class_=f"key mark-{i}"), mark.label) for i, mark in enumerate(chart.marks)]
    return element("ul", *items, class_="legend")


def _svg(chart: Chart, key: str) -> Html:
    x, y = _scales(chart)
    parts = [
        element("title", chart.title, id=f"{key}-title"),
        element("desc", _summary(chart), id=f"{key}-desc"),
        *_axes(chart, x, y),
    ]
    for i, mark in enumerate(chart.marks):
        if x.low <= mark.x <= x.high:
            at = x(mark.x)
            parts.append(void("line", x1=at, x2=at, y1=_TOP, y2=_HEIGHT - _BOTTOM, class_=f"mark mark-{i}"))
    for i, line in enumerate(chart.lines):
        parts.append(void("path", d=_path(line, x, y, chart.steps), class_=f"line line-{i}"))
        if len(line.points) <= _MARKED and not chart.steps:
            parts += [void("circle", cx=x(a), cy=y(b), r=2.5, class_=f"dot line-{i}") for a, b in line.points]
    return element(
        "svg",
        *parts,
        viewBox=f"0 0 {_WIDTH} {_HEIGHT}",
        role="img",
        aria_labelledby=f"{key}-title {key}-desc",
    )


def _scales(chart: Chart) -> tuple[_Scale, _Scale]:
    points = [point for line in chart.lines for point in line.points]
    xs = [x for x, _ in points] + [mark.x for mark in chart.marks]
    ys = [y for _, y in points] + ([0.0] if chart.zero else [])
    left, right = min(xs), max(xs)
    if left == right:
        left, right = left - 1, right + 1
    low, high = min(ys), max(ys)
    room = max(0.06 * (high - low), 0.01 if chart.percent else 1e-9 + 0.02 * abs(high))
    bottom = 0.0 if low >= 0 and low - room < 0 else low - room
    top = min(high + room, max(high, 1.0)) if chart.percent else high + room
    top = top if top > bottom else bottom + room
    return _Scale(left, right, _LEFT, _WIDTH - _RIGHT), _Scale(bottom, top, _HEIGHT - _BOTTOM, _TOP)


def _axes(chart: Chart, x: _Scale, y: _Scale) -> list[Html]:
    base = _HEIGHT - _BOTTOM
    parts = []
    for value in ticks(y.low, y.high):
        at = y(value)
        parts.append(void("line", x1=_LEFT, x2=_WIDTH - _RIGHT, y1=at, y2=at, class_="grid"))
        text = f"{100 * value:.6g}%" if chart.percent else _short(value)
        parts.append(element("text", text, x=_LEFT - 5, y=at + 3.5, text_anchor="end"))
    counted = all(float(a).is_integer() for line in chart.lines for a in line.x)
    for value in ticks(x.low, x.high, whole=counted):
        anchor = "end" if x(value) > _WIDTH - _RIGHT - 12 else "middle"
        parts.append(element("text", _short(value), x=x(value), y=base + 14, text_anchor=anchor))
    parts.append(void("line", x1=_LEFT, x2=_WIDTH - _RIGHT, y1=base, y2=base, class_="axis"))
    return parts


def _path(line: Line, x: _Scale, y: _Scale, steps: bool) -> str:
    parts, pen = [], "M"
    for a, b in zip(line.x, line.y, strict=True):
        if b is None or not math.isfinite(b):
            pen = "M"
            continue
        if pen == "L" and steps:
            parts.append(f"H{x(a):g}V{y(b):g}")
        else:
            parts.append(f"{pen}{x(a):g} {y(b):g}")
        pen = "L"
    return "".join(parts)


def _summary(chart: Chart) -> str:
    """What a reader who does not see the chart is told."""
    texts = []
    for line in chart.lines:
        if points := line.points:
            (x0, y0), (x1, y1) = points[0], points[-1]
            name = f"{line.label}: " if line.label else ""
            texts.append(f"{name}{_value(chart, y0)} at {_short(x0)}, {_value(chart, y1)} at {_short(x1)}")
    return f"{chart.y_label} over {chart.x_label}. " + "; ".join(texts)


def _as_table(chart: Chart) -> Html:
    xs = sorted({x for line in chart.lines for x, _ in line.points})
    every = math.ceil(len(xs) / _MOST_ROWS)
    chosen = xs[::every] if (len(xs) - 1) % every == 0 else [*xs[::every], xs[-1]]
    known = [dict(line.points) for line in chart.lines]
    rows = [[_short(x), *(_value(chart, y[x]) if x in y else "" for y in known)] for x in chosen]
    columns = [Column(chart.x_label), *(Column(line.label or chart.y_label, number=True) for line in chart.lines)]
    return join(table(f"{chart.title}: {chart.y_label}", columns, rows))


def _value(chart: Chart, value: float) -> str:
    return f"{100 * value:.4g}%" if chart.percent else f"{value:.4g}"


def _short(value: float) -> str:
    """As an axis has room for."""
    for unit, size in (("M", 1e6), ("k", 1e3)):
        if abs(value) >= 10 * size:
            return f"{value / size:.6g}{unit}"
    return f"{value:.6g}"

"""What was decided by measurement: representations, wider layers, thinner layers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...report_text import threads_text
from ..bars import pair_bar
from ..data import PageData
from ..markup import Html, element
from ..numbers import many, milliseconds, percent
from ..tables import Column, folded, table
from .section import missing, paragraph, section

_SPARSE = (
    Column("Sparse layer"),
    Column("Dense and condensed", wide=True),
    Column("Non-zeros", number=True),
    Column("Dense", number=True),
    Column("Condensed", number=True),
    Column("Runs"),
)
_WIDER = (
    Column("Layers"),
    Column("Channels needed", number=True),
    Column("Kept", number=True),
    Column("Time", number=True),
    Column("Time as kept", number=True),
)
_THINNER = (
    Column("Layer"),
    Column("Side"),
    Column("Channels", number=True),
    Column("Needed", number=True),
    Column("Time", number=True),
    Column("Thin", number=True),
    Column("Of it moving", number=True),
    Column("Taken"),
)


def decisions(data: PageData) -> Html:
    report = data.report
    return section(
        "decisions", "Decided by measurement",
        element("h3", "How sparse layers run"), *_choice(report.get("choice")),
        element("h3", "Wider for speed"), *_wider(report.get("widths")),
        element("h3", "Thinner for speed"), *_thinner(report.get("thinner")),
    )  # fmt: skip


def _choice(choice: Mapping[str, Any] | None) -> list[Html]:
    if choice is None or not choice["layers"]:
        asked = "" if choice is None else f" (representation {choice['asked']!r})"
        return [missing(f"No layer was sparse enough to be measured: all run as dense ones{asked}.")]
    times = [t for x in choice["layers"] for t in (x["dense_us"], x["condensed_us"]) if t is not None]
    rows = [
        [
            layer["layer"],
            pair_bar(layer["dense_us"], layer["condensed_us"], max(times, default=0)),
            percent(layer["density"]),
            _microseconds(layer["dense_us"]),
            _microseconds(layer["condensed_us"]),
            layer["representation"],
        ]
        for layer in choice["layers"]
    ]
    content = [
        folded(
            many(len(rows), "sparse layer"), table("Sparse layers, dense and condensed", _SPARSE, rows), rows=len(rows)
        )
    ]
    if choice["dense_ms"] is not None:
        dense, chosen = choice["dense_ms"], choice["chosen_ms"]
        content.insert(0, paragraph(
            f"The engine as a whole takes {milliseconds(chosen)}, with all layers dense {milliseconds(dense)} "
            f"({dense / chosen:.2f} times as fast): {threads_text(choice['threads'])}, {choice['processor']}."
        ))  # fmt: skip
    return content + [element("ul", *(element("li", note) for note in choice["notes"]))] * bool(choice["notes"])


def _wider(widths: Mapping[str, Any] | None) -> list[Html]:
    if widths is None:
        return [missing("Not measured: widths are exact.", 'sparsefx.compile(..., widths="measured")')]
    if not widths["groups"]:
        return [paragraph("No layer would be faster wider.")]
    rows = [
        [
            ", ".join(group["layers"]),
            group["exact"],
            group["kept"],
            milliseconds(group["exact_ms"]),
            milliseconds(group["kept_ms"]),
        ]
        for group in widths["groups"]
    ]
    taken = "taken" if widths["taken"] else "not taken"
    text = (
        f"The fastest plan is {taken}: the engine as a whole takes {milliseconds(widths['kept_ms'])} with it, "
        f"{milliseconds(widths['exact_ms'])} without."
    )
    found = table("Removable channels that stay", _WIDER, rows)
    return [paragraph(text), folded(many(len(rows), "group"), found, rows=len(rows))]


def _thinner(thinner: Mapping[str, Any] | None) -> list[Html]:
    if thinner is None:
        return [missing("Not measured: that takes a latency table.", "sparsefx.compile(..., latency_table=...)")]
    if not thinner["layers"]:
        return [paragraph("No layer would be faster with fewer channels, by the latency table.")]
    rows = [
        [
            layer["layer"],
            layer["side"],
            layer["full"],
            layer["kept"],
            *(milliseconds(layer[key]) for key in ("full_ms", "thin_ms", "moving_ms")),
            "yes" if layer["taken"] else "no",
        ]
        for layer in thinner["layers"]
    ]
    text = "None of these layers is faster thin, once its channels are gathered or put back."
    if thinner["full_ms"] is not None:
        taken = "taken" if thinner["taken"] else "not taken"
        text = (
            f"The plan is {taken}: the engine as a whole takes {milliseconds(thinner['thin_ms'])} with it, "
            f"{milliseconds(thinner['full_ms'])} without."
        )
    found = table("Layers that need fewer channels", _THINNER, rows)
    return [paragraph(text), folded(many(len(rows), "layer"), found, rows=len(rows))]


def _microseconds(figure: float | None) -> str:
    return milliseconds(None if figure is None else figure / 1e3)

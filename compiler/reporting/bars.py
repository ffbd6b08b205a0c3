"""Bars of before and after: in a table's cell, and a whole network side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .markup import Html, element, void

_HEIGHT = 100
_MOST_PIXELS = 44  # across of one layer, in a small network


@dataclass(frozen=True)
class Pair:
    """A quantity of one layer before and after; None is not known."""

    name: str
    before: float | None
    after: float | None
    text: str


def pair_bar(before: float | None, after: float | None, most: float, *, centred: bool = False) -> Html:
    """Two bars, of lengths relative to `most`: before behind (or above) after. They say nothing that figures do not."""
    style = "pair centred" if centred else "pair"
    bars = [
        element("span", class_=kind, style=f"width:{100 * value / most:.2f}%")
        for kind, value in (("before", before), ("after", after))
        if value and most
    ]
    return element("span", *bars, class_=style, aria_hidden="true")


def share_bar(share: float) -> Html:
    """One bar for a share from 0 to 1."""
    bar = element("span", class_="after", style=f"width:{100 * share:.2f}%") if share else None
    return element("span", bar, class_="pair one", aria_hidden="true")


def network_strip(key: str, title: str, explanation: str, pairs: Sequence[Pair], *, centred: bool = False) -> Html:
    """All layers side by side, in the order in which they run; a pointer over one shows its name and figures."""
    most = max((v for p in pairs for v in (p.before, p.after) if v is not None), default=0) or 1
    bars = [_strip_bar(place, pair, most, centred) for place, pair in enumerate(pairs)]
    drawing = element(
        "svg",
        element("title", title, id=f"{key}-title"),
        element("desc", f"{explanation} The table below has the figures.", id=f"{key}-desc"),
        *bars,
        viewBox=f"0 0 {10 * len(pairs)} {_HEIGHT}",
        preserveAspectRatio="none",
        role="img",
        aria_labelledby=f"{key}-title {key}-desc",
        class_="strip",
        style=f"max-width:{_MOST_PIXELS * len(pairs)}px",
    )
    key_of = (("before", "before"), ("after", "after"))
    legend = element("ul", *(element("li", element("span", class_=f"box {k}"), t) for k, t in key_of), class_="legend")
    return element("figure", drawing, legend, element("figcaption", explanation), class_="network")


def _strip_bar(place: int, pair: Pair, most: float, centred: bool) -> Html:
    """Centred bars stand behind each other, others side by side."""
    parts = [element("title", f"{pair.name}: {pair.text}")]
    parts.append(void("rect", x=10 * place, y=0, width=10, height=_HEIGHT, class_="hit"))
    for kind, value, side in (("before", pair.before, 0), ("after", pair.after, 1)):
        if value:
            height = max(_HEIGHT * value / most, 0.7)
            left, width, top = (1, 8, (_HEIGHT - height) / 2) if centred else (1 + 4 * side, 4, _HEIGHT - height)
            x, y = 10 * place + left, f"{top:.2f}"
            parts.append(void("rect", x=x, y=y, width=width, height=f"{height:.2f}", class_=kind))
    return element("g", *parts)

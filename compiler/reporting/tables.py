"""Tables that turn into cards where there is no room; bars stand beside their figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .markup import Html, element


@dataclass(frozen=True)
class Column:
    """A column's heading. `number`: figures, to the right; `wide`: takes what room there is, for bars; `names`: what
    stands there is of the user's, and broken anywhere.
    """

    name: str
    number: bool = False
    wide: bool = False
    names: bool = False

    @property
    def style(self) -> str | None:
        return next((style for style in ("number", "wide", "names") if getattr(self, style)), None)


Row = Sequence[str | int | float | None]


def table(caption: str, columns: Sequence[Column], rows: Sequence[Row], ids: Sequence[str] = ()) -> Html:
    """The first cell of every row is its heading. `ids` makes rows places to link to.

    Roles are spelled out: where rows are drawn as cards, browsers forget that this is a table.
    """
    head = [element("th", c.name, scope="col", role="columnheader", class_=c.style) for c in columns]
    body = [_row(columns, row, ids[i] if ids else None) for i, row in enumerate(rows)]
    return element(
        "table",
        element("caption", caption),
        element("thead", element("tr", *head, role="row"), role="rowgroup"),
        element("tbody", *body, role="rowgroup"),
        role="table",
        class_="full" if any(c.wide for c in columns) else None,
    )


def _row(columns: Sequence[Column], row: Row, key: str | None) -> Html:
    first, *others = row
    cells = [element("th", first, scope="row", role="rowheader", class_=columns[0].style)]
    for column, cell in zip(columns[1:], others, strict=True):
        cells.append(element("td", cell, role="cell", class_=column.style, data_label=column.name))
    return element("tr", *cells, role="row", id=key)


def folded(title: str, content: Html, *, rows: int, most: int = 40) -> Html:
    """A long table behind its title; one of up to `most` rows stands open."""
    return element("details", element("summary", title), content, open=rows <= most)

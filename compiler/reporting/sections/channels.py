"""Which channels go together, which stay although the masks made them useless, and why."""

from __future__ import annotations

from collections import Counter

from ..data import PageData
from ..markup import Html, element
from ..numbers import many
from ..tables import Column, Row, folded, table
from .section import missing, paragraph, section

_STAYS = (Column("Why"), Column("Channels", number=True), Column("Layers", names=True))
_GROUPS = (
    Column("Written by"),
    Column("Read by", names=True),
    Column("Channels left", number=True),
    Column("Can never go because of", names=True),
)
_UNKNOWN = (Column("Operator"), Column("Calls", number=True), Column("Nodes", names=True))
_NAMES = 6


def channels(data: PageData) -> Html:
    return section(
        "channels", "Channels", element("h3", "What stayed, and why"), *_stays(data), *_unknown(data),
        element("h3", "What goes together"), *_groups(data),
    )  # fmt: skip


def _stays(data: PageData) -> list[Html]:
    counts, layers = Counter[str](), dict[str, list[str]]()
    for layer in data.report["layers"]:
        for reason, number in layer["stays"].items():
            counts[reason] += number
            layers.setdefault(reason, []).append(layer["name"])
    if not counts:
        return [paragraph("Every channel that the masks made useless has gone.")]
    rows: list[Row] = [[reason, number, _some(layers[reason])] for reason, number in counts.most_common()]
    return [table("Channels that the masks made useless and that stay", _STAYS, rows)]


def _unknown(data: PageData) -> list[Html]:
    unknown = data.report["unknown_operators"]
    if not unknown:
        return [paragraph("Every operator of the model is known.")]
    rows: list[Row] = [[operator, len(nodes), _some(nodes)] for operator, nodes in unknown.items()]
    return [table("Operators without a rule: all channels that they touch were kept", _UNKNOWN, rows)]


def _groups(data: PageData) -> list[Html]:
    groups = data.report["groups"]
    shared = [group for group in groups if len(group["producers"]) > 1]
    alone = len(groups) - len(shared)
    said = f"{many(alone, 'layer')} with output channels of their own alone." if alone else None
    if not shared:
        return [paragraph(said) if said else missing("No layer writes channels.")]
    rows = [
        [
            _some(group["producers"]),
            _some(group["consumers"]) or "nothing",
            group["channels"],
            "; ".join(group["pinned"]) or "—",
        ]
        for group in shared
    ]
    groups_table = table("Layers that write the same channels, which stay or go in all of them", _GROUPS, rows)
    return [
        folded(f"{many(len(shared), 'group')} of layers", groups_table, rows=len(rows)),
        *([paragraph(said)] if said else []),
    ]


def _some(names: list[str]) -> Html | str:
    """The first names; the others behind their number."""
    if len(names) <= _NAMES:
        return ", ".join(names)
    more = element("details", element("summary", f"and {len(names) - _NAMES} more"), ", ".join(names[_NAMES:]))
    return element("span", ", ".join(names[:_NAMES]), more)

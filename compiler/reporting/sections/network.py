"""The network as it was and as it is: the output channels and the work of every layer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..bars import Pair, network_strip, pair_bar
from ..data import PageData
from ..markup import Html
from ..numbers import count, many, shape
from ..tables import Column, folded, table
from .section import missing, section

_WIDTHS = (
    Column("Layer"),
    Column("Output channels", wide=True),
    Column("Before", number=True),
    Column("After", number=True),
    Column("Weight before", number=True),
    Column("Weight after", number=True),
    Column("MACs before", number=True),
    Column("MACs after", number=True),
    Column("Operator"),
)


def network(data: PageData) -> Html:
    layers = data.layers
    if not layers:
        return section("network", "Network", missing("The model has no layer with a weight."))
    totals = data.report["totals"]
    explanation = (
        f"Output channels of {many(len(layers), 'layer')} in the order in which they run. Of "
        f"{count(totals['channels_before'])} channels {count(totals['channels_after'])} are left."
    )
    pairs = [Pair(x["name"], _outputs(x), len(x["kept_outputs"]), _change(x)) for x in layers]
    most = max(_outputs(layer) for layer in layers)
    rows = [_width_row(layer, most) for layer in layers]
    return section(
        "network",
        "Network",
        network_strip("widths", "Widths of the network", explanation, pairs, centred=True),
        folded(many(len(layers), "layer"), table("Layers before and after", _WIDTHS, rows), rows=len(rows)),
    )


def _width_row(layer: Mapping[str, Any], most: int) -> list[Any]:
    before, after = _outputs(layer), len(layer["kept_outputs"])
    gone = layer["shape_after"] is None
    return [
        layer["name"],
        pair_bar(before, after, most, centred=True),
        before,
        "gone" if gone else after,
        shape(layer["shape_before"]),
        "gone" if gone else shape(layer["shape_after"]),
        count(layer["macs_before"]),
        count(layer["macs_after"]),
        layer["operator"],
    ]


def _outputs(layer: Mapping[str, Any]) -> int:
    return int(layer["outputs_before"])


def _change(layer: Mapping[str, Any]) -> str:
    return f"{_outputs(layer)} → {len(layer['kept_outputs'])} output channels"

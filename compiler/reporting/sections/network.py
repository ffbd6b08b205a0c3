"""The network as it was and as it is: the output channels, the work and the density of every layer."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from ..bars import Pair, network_strip, pair_bar, share_bar
from ..data import PageData
from ..markup import Html
from ..numbers import count, many, percent, shape
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
_DENSITIES = (
    Column("Layer"),
    Column("Non-zeros in what stays", wide=True),
    Column("Masked", number=True),
    Column("Compiled", number=True),
    Column("Non-zeros", number=True),
)


def network(data: PageData) -> Html:
    """Widths, drawn."""
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


def density(data: PageData) -> Html:
    """Zeros that are left inside layers."""
    layers = data.layers
    if not layers:
        return section("density", "Density", missing("The model has no layer with a weight."))
    explanation = (
        "Share of weights that are not zero: before, of the masked weight; after, of what is left of it once channels "
        "have gone. What is zero there still is what condensed layers skip."
    )
    pairs = [Pair(x["name"], *_densities(x), _density_text(x)) for x in layers]
    rows = [_density_row(layer) for layer in layers]
    return section(
        "density",
        "Density",
        network_strip("densities", "Density of every layer", explanation, pairs),
        folded(
            f"Density of {many(len(layers), 'layer')}", table("Non-zeros in layers", _DENSITIES, rows), rows=len(rows)
        ),
    )


def _density_row(layer: Mapping[str, Any]) -> list[Any]:
    before, after = _densities(layer)
    return [
        layer["name"],
        share_bar(after or 0.0),
        percent(before),
        "gone" if after is None else percent(after),
        f"{count(layer['nonzeros_before'])} → {count(layer['nonzeros_after'])}",
    ]


def _densities(layer: Mapping[str, Any]) -> tuple[float, float | None]:
    before = layer["nonzeros_before"] / max(math.prod(layer["shape_before"]), 1)
    if layer["shape_after"] is None:
        return before, None
    return before, layer["nonzeros_after"] / max(math.prod(layer["shape_after"]), 1)


def _density_text(layer: Mapping[str, Any]) -> str:
    before, after = _densities(layer)
    return f"{percent(before)} → {'gone' if after is None else percent(after)}"

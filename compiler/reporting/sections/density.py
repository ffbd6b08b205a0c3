"""How much of every layer is not zero: of the masked weights, and of what is left of them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from ..bars import Pair, network_strip, share_bar
from ..data import PageData
from ..markup import Html
from ..numbers import count, many, percent
from ..tables import Column, folded, table
from .section import missing, section

_DENSITIES = (
    Column("Layer"),
    Column("Non-zeros in what stays", wide=True),
    Column("Masked", number=True),
    Column("Compiled", number=True),
    Column("Non-zeros", number=True),
)


def density(data: PageData) -> Html:
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

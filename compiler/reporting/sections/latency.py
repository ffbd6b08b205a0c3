"""What the engine takes beside the dense one: as a whole, and layer by layer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..bars import Pair, network_strip, pair_bar
from ..data import PageData
from ..markup import Html, element
from ..numbers import TIMES, many, milliseconds, size
from ..tables import Column, folded, table
from .section import missing, paragraph, section

_ENGINES = (
    Column("Engine"),
    Column("Time", wide=True),
    Column("Median", number=True),
    Column("99th percentile", number=True),
    Column("Middle half", number=True),
    Column("Time to dense", number=True),
    Column("File", number=True),
    Column("Runs", number=True),
)
_LAYERS = (
    Column("Layer"),
    Column("Time", wide=True),
    Column("Dense", number=True),
    Column("Compiled", number=True),
    Column("Runs as"),
)


def latency(data: PageData) -> Html:
    found = data.report.get("latency")
    if found is None:
        text = "Not measured beside a dense engine. Compile with compare=True, or give the dense model's bundle:"
        return section(
            "latency", "Latency", missing(text, "sparsefx report model.sfx --dense dense.sfx -o report.html")
        )
    notes = [element("li", note) for note in found["notes"]]
    ends = [element("ul", *notes)] if notes else []
    if not found["engines"]:
        return section("latency", "Latency", missing("Not measured."), *ends)
    sizes = ", ".join(f"{name} {size}" for name, size in found["sizes"].items())
    text = (
        f"Both engines in turn in one process, so that drift hits both alike: {found['device']}, "
        f"{many(found['threads'], 'thread')}{', ' + sizes if sizes else ''}."
    )
    return section("latency", "Latency", paragraph(text), _engines(found), *_layers(data, found), *ends)


def _engines(found: Mapping[str, Any]) -> Html:
    most = max(engine["median_ms"] for engine in found["engines"])
    rows = []
    for engine in found["engines"]:
        dense = engine["name"] == "dense"
        bar = pair_bar(engine["median_ms"] if dense else None, None if dense else engine["median_ms"], most)
        rows.append(
            [
                engine["name"],
                bar,
                milliseconds(engine["median_ms"]),
                milliseconds(engine["p99_ms"]),
                milliseconds(engine["spread_ms"]),
                f"{engine['ratio']:.3f}{TIMES}",
                size(engine["file_bytes"]),
                engine["runs"],
            ]
        )
    return table("The engines as a whole", _ENGINES, rows)


def _layers(data: PageData, found: Mapping[str, Any]) -> list[Html]:
    layers = found["layers"]
    if not layers:
        return [missing("Single layers were not measured.")]
    shown = [*layers, *([found["rest"]] if found["rest"] else [])]
    forms, most = representations(data), max(t for layer in shown for t in _times(layer) if t is not None)
    pairs = [Pair(x["name"], *_times(x), f"{milliseconds(x['dense_ms'])} → {_after(x)}") for x in layers]
    rows = [
        [
            layer["name"],
            pair_bar(*_times(layer), most),
            milliseconds(layer["dense_ms"]),
            _after(layer),
            _form(forms, layer) if layer is not found["rest"] else "",
        ]
        for layer in shown
    ]
    explanation = (
        "Milliseconds of every layer, in the dense engine and in the compiled one, by ONNX Runtime's profile. "
        "What is fused into a layer counts to it. A profile takes time itself: these need not sum up to the whole."
    )
    return [
        element("h3", "Layer by layer"),
        network_strip("layer-times", "Time of every layer", explanation, pairs),
        folded(f"Times of {many(len(layers), 'layer')}", table("Times of layers", _LAYERS, rows), rows=len(rows)),
    ]


def _form(forms: Mapping[str, str], layer: Mapping[str, Any]) -> str:
    return "" if layer["compiled_ms"] is None else forms.get(layer["name"].partition("#")[0], "dense")


def _times(layer: Mapping[str, Any]) -> tuple[float | None, float | None]:
    return layer["dense_ms"], layer["compiled_ms"]


def _after(layer: Mapping[str, Any]) -> str:
    return "gone" if layer["compiled_ms"] is None else milliseconds(layer["compiled_ms"])


def representations(data: PageData) -> dict[str, str]:
    """How layers are executed that are not simply dense, by name."""
    choice, thinner = data.report.get("choice") or {}, data.report.get("thinner") or {}
    forms = {layer["layer"]: layer["representation"] for layer in choice.get("layers", ())}
    for layer in thinner.get("layers", ()) if thinner.get("taken") else ():
        if layer["taken"]:
            name = layer["layer"]
            forms[name] = f"{forms.get(name, 'dense')}, {layer['kept']} of {layer['full']} {layer['side']}"
    return forms
